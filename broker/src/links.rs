//! The control links of this broker, and how each is reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rc_proto::wire::message::{CertificateRef, Message};
use rc_transport::ControlPeer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::registry::LinkId;
use crate::node::lock;

/// Messages that wait for one link's writer; a link that is further behind is closed.
const QUEUE_MAX: usize = 64;

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

/// All control links.
#[derive(Debug, Default)]
pub(crate) struct ControlLinks {
    next: AtomicU64,
    links: Mutex<BTreeMap<LinkId, ControlEntry>>,
}

impl ControlLinks {
    /// Takes a link on, unless there are `limit` already.
    pub(crate) fn add(
        &self,
        peer: ControlPeer,
        remote: std::net::SocketAddr,
        certificate: CertificateRef,
        limit: usize,
    ) -> Option<Outbox> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let close = CancellationToken::new();
        let handle = ControlHandle { queue: sender, close: close.clone() };
        let link_id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut links = lock(&self.links);
        if links.len() >= limit {
            return None;
        }
        links.insert(
            link_id,
            ControlEntry { peer, remote, certificate: Arc::new(certificate), handle: handle.clone() },
        );
        Some(Outbox { link_id, handle, queue, close })
    }

    /// The link is gone.
    pub(crate) fn remove(&self, link_id: LinkId) {
        lock(&self.links).remove(&link_id);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.links).len()
    }

    /// A copy of all.
    pub(crate) fn all(&self) -> Vec<(LinkId, ControlEntry)> {
        lock(&self.links).iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Closes the links of every peer that `chosen` names; returns how many.
    pub(crate) fn close_where(&self, chosen: impl Fn(&ControlPeer) -> bool) -> usize {
        let links = lock(&self.links);
        let closed = links.values().filter(|entry| chosen(&entry.peer));
        closed.map(|entry| entry.handle.close.cancel()).count()
    }

    /// Every link of one endpoint.
    pub(crate) fn of(&self, peer: &ControlPeer) -> Vec<ControlHandle> {
        lock(&self.links)
            .values()
            .filter(|entry| entry.peer == *peer)
            .map(|entry| entry.handle.clone())
            .collect()
    }
}

/// The broker that a task belongs to.
pub(crate) type SharedNode = Arc<crate::node::Node>;
