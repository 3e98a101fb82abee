//! The control links of this broker, and how each is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rc_proto::wire::message::{CertificateRef, Message};
use rc_transport::ControlPeer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::limits::CONTROL_LINKS_PER_IDENTITY_MAX;
use crate::core::registry::LinkId;
use crate::node::lock;

/// Messages that wait for one link's writer; a link that is further behind is closed.
const QUEUE_MAX: usize = 256;

/// Reaches one control link.
#[derive(Debug, Clone)]
pub(crate) struct ControlHandle {
    queue: mpsc::Sender<Message>,
    close: CancellationToken,
}

impl ControlHandle {
    /// Closes the link.
    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    /// Queues a message. `false` when the link is gone or so far behind that it is closed now.
    pub(crate) fn send(&self, message: impl Into<Message>) -> bool {
        match self.queue.try_send(message.into()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.close.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// A link's own end of its queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) link_id: LinkId,
    pub(crate) handle: ControlHandle,
    pub(crate) queue: mpsc::Receiver<Message>,
    pub(crate) close: CancellationToken,
}

/// One link as `rc-broker links` shows it.
#[derive(Debug, Clone)]
pub(crate) struct ControlEntry {
    pub(crate) peer: ControlPeer,
    pub(crate) remote: std::net::SocketAddr,
    pub(crate) certificate: Arc<CertificateRef>,
    pub(crate) handle: ControlHandle,
}

/// Why a link is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkLimit {
    /// The broker has as many as it may.
    #[error("the broker holds as many control links as it may")]
    Broker,
    /// The identity has as many as it may.
    #[error("the identity holds as many control links here as it may")]
    Identity,
}

/// All control links.
#[derive(Debug, Default)]
pub(crate) struct ControlLinks {
    next: AtomicU64,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    by_id: BTreeMap<LinkId, ControlEntry>,
    by_peer: BTreeMap<ControlPeer, BTreeSet<LinkId>>,
}

impl ControlLinks {
    /// Takes a link on, unless there are `limit` already, or the peer has as many as it may.
    pub(crate) fn add(
        &self,
        peer: ControlPeer,
        remote: std::net::SocketAddr,
        certificate: CertificateRef,
        limit: usize,
    ) -> Result<Outbox, LinkLimit> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let close = CancellationToken::new();
        let handle = ControlHandle { queue: sender, close: close.clone() };
        let link_id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut links = lock(&self.links);
        if links.by_id.len() >= limit {
            return Err(LinkLimit::Broker);
        }
        if links.by_peer.get(&peer).is_some_and(|own| own.len() >= CONTROL_LINKS_PER_IDENTITY_MAX) {
            return Err(LinkLimit::Identity);
        }
        links.by_peer.entry(peer.clone()).or_default().insert(link_id);
        let entry = ControlEntry { peer, remote, certificate: Arc::new(certificate), handle: handle.clone() };
        links.by_id.insert(link_id, entry);
        Ok(Outbox { link_id, handle, queue, close })
    }

    /// The link is gone.
    pub(crate) fn remove(&self, link_id: LinkId) {
        let mut links = lock(&self.links);
        let Some(entry) = links.by_id.remove(&link_id) else { return };
        if let Some(own) = links.by_peer.get_mut(&entry.peer) {
            own.remove(&link_id);
            if own.is_empty() {
                links.by_peer.remove(&entry.peer);
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.links).by_id.len()
    }

    /// A copy of all.
    pub(crate) fn all(&self) -> Vec<(LinkId, ControlEntry)> {
        lock(&self.links).by_id.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Closes the links of every peer that `chosen` names; returns how many.
    pub(crate) fn close_where(&self, chosen: impl Fn(&ControlPeer) -> bool) -> usize {
        let links = lock(&self.links);
        let closed = links.by_id.values().filter(|entry| chosen(&entry.peer));
        closed.map(|entry| entry.handle.close.cancel()).count()
    }

    /// Every link of one endpoint.
    pub(crate) fn of(&self, peer: &ControlPeer) -> Vec<ControlHandle> {
        let links = lock(&self.links);
        let own = links.by_peer.get(peer).into_iter().flatten();
        own.filter_map(|id| links.by_id.get(id)).map(|entry| entry.handle.clone()).collect()
    }
}

/// The broker that a task belongs to.
pub(crate) type SharedNode = Arc<crate::node::Node>;

#[cfg(test)]
mod tests {
    use super::*;

    fn add(links: &ControlLinks, name: &str, limit: usize) -> Result<Outbox, LinkLimit> {
        let certificate = CertificateRef {
            issuer_sha256: [0; 32],
            serial: Vec::new(),
            key_sha256: [0; 32],
            not_after_ms: 0,
            key_thumbprint: [0; 32],
        };
        let remote = "127.0.0.1:1".parse().unwrap();
        links.add(ControlPeer::Target(name.parse().unwrap()), remote, certificate, limit)
    }

    #[test]
    fn an_identity_holds_eight_links_and_a_closed_one_makes_room() {
        let links = ControlLinks::default();
        let first = add(&links, "pc-1", 100).unwrap();
        for number in 1..CONTROL_LINKS_PER_IDENTITY_MAX {
            assert!(add(&links, "pc-1", 100).is_ok(), "{number}");
        }
        assert_eq!(add(&links, "pc-1", 100).unwrap_err(), LinkLimit::Identity);
        assert!(add(&links, "pc-2", 100).is_ok());
        assert_eq!(links.of(&ControlPeer::Target("pc-1".parse().unwrap())).len(), 8);
        assert_eq!(links.of(&ControlPeer::Controller("pc-1".parse().unwrap())).len(), 0);
        links.remove(first.link_id);
        assert!(add(&links, "pc-1", 100).is_ok());
    }

    #[test]
    fn the_broker_has_a_limit_and_nothing_is_left_of_closed_links() {
        let links = ControlLinks::default();
        let only = add(&links, "pc-1", 1).unwrap();
        assert_eq!(add(&links, "pc-2", 1).unwrap_err(), LinkLimit::Broker);
        links.remove(only.link_id);
        assert!(lock(&links.links).by_peer.is_empty());
        assert_eq!(links.count(), 0);
    }
}
