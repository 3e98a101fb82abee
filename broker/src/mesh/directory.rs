//! The directory of a large mesh: consulting those that keep a Target's entry, and telling them.

use rc_proto::wire::message::{Here, Locate, Message, NotHere, Place};
use rc_proto::wire::{BrokerId, EndpointId, Ext};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::locate::Answer;
use super::{Mesh, News, announcement};
use crate::core::directory::{Consultation, Wanted, gained, is_used, places, replicas};
use crate::core::search::Candidate;
use crate::core::standing::Claim;
use crate::links::SharedNode;
use crate::node::{Node, lock};

/// Registrations that are looked at before others get their turn.
const AT_ONCE: usize = 64;

impl Mesh {
    /// The peers that take what is routed to them: those that the directory is spread over.
    pub(super) fn spread_over(&self) -> Vec<BrokerId> {
        lock(&self.state).members.linked().map(|(broker, _)| broker.clone()).collect()
    }

    /// Whether the mesh is so large that it has a directory.
    pub(crate) fn has_directory(&self) -> bool {
        is_used(&self.spread_over())
    }

    /// Asks those that keep the entry of `target` where it is: hints.
    pub(crate) async fn consult(&self, node: &Node, target: &EndpointId, wanted: Wanted) -> Vec<Place> {
        let asked = replicas(&self.own, &self.spread_over(), target);
        let mut links = self.links();
        links.retain(|(broker, _)| asked.contains(broker));
        let (query, mut answers) = self.queries.open();
        let round_trips = links.iter().map(|(broker, link)| (broker.clone(), link.round_trip()));
        let mut consultation = Consultation::new(wanted, round_trips, node.now());
        let message = Locate {
            query: query.number,
            target: target.clone(),
            instance: None,
            watch_ms: 0,
            ext: Ext::none(),
        };
        links.iter().for_each(|(_, link)| link.send(message.clone().of_directory()));
        while let Some(until) = consultation.wait_until(node.now()) {
            match timeout(until.since(node.now()), answers.recv()).await {
                Ok(Some((peer, Answer::Here(here)))) => {
                    consultation.handle_answer(&peer, here.places());
                }
                Ok(Some((peer, Answer::NotHere))) => consultation.handle_answer(&peer, Vec::new()),
                Ok(Some((peer, Answer::LinkLost))) => consultation.handle_lost(&peer),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        consultation.into_places()
    }

    /// What a directory named, as candidates of a search: only where there is a link.
    pub(crate) fn candidates_at(&self, places: &[Place]) -> Vec<Candidate> {
        let state = lock(&self.state);
        let candidate = |place: &Place| {
            let link = state.links.get(&place.broker)?;
            let cost_us = link.round_trip_us().saturating_add(place.cost_us);
            let is_of_this_run = link.incarnation == place.incarnation;
            is_of_this_run.then(|| Candidate { broker: place.broker.clone(), role: place.role, cost_us })
        };
        places.iter().filter_map(candidate).collect()
    }

    /// In a large mesh, tells whoever holds another registration of the Target that there is one here.
    pub(crate) fn tell_holders(&self, node: &SharedNode, target: &EndpointId, claim: &Claim, cost_us: u32) {
        if !self.has_directory() {
            return;
        }
        let (node, target, claim) = (SharedNode::clone(node), target.clone(), claim.clone());
        let tasks = node.lifetime.tasks.clone();
        drop(tasks.spawn(async move {
            let mesh = &node.mesh;
            let found = tokio::select! {
                biased;
                () = node.lifetime.stop.cancelled() => return,
                found = mesh.consult(&node, &target, Wanted::Everything) => found,
            };
            let told = announcement(node.own.incarnation, &target, &claim, News::Here { cost_us });
            for place in found.iter().filter(|place| place.broker != node.own.id) {
                mesh.send_to(&place.broker, told.clone());
            }
        }));
    }

    /// A peer is gone, and with it the entries that it kept: others keep them from now on.
    pub(super) fn tell_heirs(&self, node: &SharedNode, gone: &BrokerId) {
        let after = self.spread_over();
        let mut before = after.clone();
        before.push(gone.clone());
        if !is_used(&before) {
            return;
        }
        let node = SharedNode::clone(node);
        let tasks = node.lifetime.tasks.clone();
        drop(tasks.spawn(async move {
            for (index, (target, found)) in node.presence.registrations().into_iter().enumerate() {
                if index % AT_ONCE == 0 {
                    yield_now().await;
                }
                if node.lifetime.stop.is_cancelled() {
                    return;
                }
                let news = News::Here { cost_us: found.cost_us };
                let told = announcement(node.own.incarnation, &target, &found.claim, news);
                for heir in gained(&node.own.id, &before, &after, &target) {
                    node.mesh.send_to(&heir, told.clone());
                }
            }
        }));
    }
}

/// The answer of this broker as one that keeps the Target's entry.
pub(super) fn answer(node: &Node, locate: &Locate) -> Message {
    let (here, hints) = node.presence.everything(&locate.target);
    let known = places((&node.own.id, node.own.incarnation), here, hints);
    match Here::of_directory(locate.query, &known) {
        Some(here) => here.into(),
        None => NotHere { query: locate.query, ext: Ext::none() }.into(),
    }
}
