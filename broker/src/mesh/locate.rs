//! Asks every linked peer where a Target is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rc_proto::mesh::{LocateEvent, LocateKind, LocateQuery, Question};
use rc_proto::wire::codes::Purpose;
use rc_proto::wire::message::{Here, Locate};
use rc_proto::wire::{BrokerId, EndpointId, Ext, InstanceId};
use tokio::sync::mpsc;

use super::{Mesh, PeerLink, candidate_of};
use crate::core::search::Candidate;
use crate::node::{Node, lock};

/// Answers that wait for the asker; each peer gives one, and its link's end another.
const ANSWERS_MAX: usize = 1024;

/// What one peer said.
#[derive(Debug)]
pub(super) enum Answer {
    Here(Box<Here>),
    NotHere,
    LinkLost,
}

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Queries {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, mpsc::Sender<(BrokerId, Answer)>>>,
}

impl Queries {
    /// Opens a question; it is over when the first of the two is dropped.
    pub(super) fn open(&self) -> (OpenQuery<'_>, mpsc::Receiver<(BrokerId, Answer)>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        lock(&self.open).insert(number, sender);
        (OpenQuery { queries: self, number }, answers)
    }

    /// A peer answered. An answer to a question that is over is dropped.
    pub(super) fn answer(&self, query: u64, peer: &BrokerId, answer: Answer) {
        let sender = lock(&self.open).get(&query).cloned();
        if let Some(sender) = sender {
            // A peer that answers more often than once loses the surplus.
            sender.try_send((peer.clone(), answer)).unwrap_or_default();
        }
    }

    /// A peer's link ended: what it holds is unknown to every open question.
    pub(super) fn link_lost(&self, peer: &BrokerId) {
        let senders: Vec<_> = lock(&self.open).values().cloned().collect();
        for sender in senders {
            sender.try_send((peer.clone(), Answer::LinkLost)).unwrap_or_default();
        }
    }
}

/// Takes the question back, however its asker ends.
pub(super) struct OpenQuery<'m> {
    queries: &'m Queries,
    pub(super) number: u64,
}

impl Drop for OpenQuery<'_> {
    fn drop(&mut self) {
        lock(&self.queries.open).remove(&self.number);
    }
}

/// What the peers said.
#[derive(Debug, Default)]
pub(crate) struct Located {
    /// Where the Target is, best first.
    pub(crate) found: Vec<Candidate>,
    /// The peers that did not answer in time, when nobody has it.
    pub(crate) unknown: Vec<BrokerId>,
}

impl Mesh {
    /// Asks every linked peer.
    pub(crate) async fn locate(
        &self,
        node: &Node,
        target: &EndpointId,
        instance: Option<InstanceId>,
        purpose: Purpose,
    ) -> Located {
        let links = self.links();
        let peers: Vec<_> = links.iter().map(|(id, link)| (id.clone(), link.round_trip())).collect();
        let (open, mut answers) = self.queries.open();
        let number = open.number;
        let kind = if purpose == Purpose::RESUME { LocateKind::Resume } else { LocateKind::New };
        let question =
            Question { query: number, target: target.clone(), instance, kind, watch: Duration::ZERO };
        let mut query = LocateQuery::new(question, &peers, node.now());
        let message =
            Locate { query: number, target: target.clone(), instance, watch_ms: 0, ext: Ext::none() };
        links.iter().for_each(|(_, link): &(BrokerId, PeerLink)| link.send(message.clone()));
        loop {
            match query.poll_event() {
                Some(LocateEvent::Found(best)) => {
                    let others = std::iter::from_fn(|| query.next_positive());
                    let found = std::iter::once(best).chain(others).map(candidate_of).collect();
                    return Located { found, unknown: Vec::new() };
                }
                Some(LocateEvent::NotFound { .. } | LocateEvent::Partial { .. } | LocateEvent::Ended) => {
                    return Located { found: Vec::new(), unknown: query.unknown().cloned().collect() };
                }
                None => {}
            }
            let wait = query.poll_timeout().map_or(Duration::from_secs(1), |at| at.since(node.now()));
            match tokio::time::timeout(wait, answers.recv()).await {
                Ok(Some((peer, Answer::Here(here)))) => {
                    query.handle_here(&peer, here.instance, here.role, here.cost_us, node.now());
                }
                Ok(Some((peer, Answer::NotHere))) => query.handle_not_here(&peer, node.now()),
                Ok(Some((peer, Answer::LinkLost))) => query.handle_link_lost(&peer, node.now()),
                Ok(None) | Err(_) => query.handle_timeout(node.now()),
            }
        }
    }
}
