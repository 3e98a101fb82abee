//! Legs whose first frame is still to come: each is a connection that somebody may hold for nothing, so they are
//! counted, all together and by identity.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rc_transport::PathPeer;

use crate::core::limits::{WAITING_LEGS_PER_BROKER_MAX, WAITING_LEGS_PER_ENDPOINT_MAX};
use crate::node::lock;

/// Why a leg may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WaitingLimit {
    /// As many wait here as may.
    #[error("as many connections wait for their first message here as may")]
    Broker,
    /// As many of this peer wait as may.
    #[error("as many connections of this peer wait for their first message as may")]
    Peer,
}

/// The legs that wait.
#[derive(Debug)]
pub(crate) struct WaitingLegs {
    limit: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    by_peer: BTreeMap<PathPeer, usize>,
}

/// One leg that waits; dropping it ends that.
#[derive(Debug)]
pub(super) struct WaitingLeg<'w> {
    legs: &'w WaitingLegs,
    peer: PathPeer,
}

impl WaitingLegs {
    /// None waits, and `limit` may.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, waiting: Mutex::default() }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        lock(&self.waiting).total
    }

    /// A leg of `peer` waits from now on.
    pub(super) fn begin(&self, peer: &PathPeer) -> Result<WaitingLeg<'_>, WaitingLimit> {
        let per_peer = match peer {
            PathPeer::Controller(_) | PathPeer::Target(_) => WAITING_LEGS_PER_ENDPOINT_MAX,
            PathPeer::Broker(_) => WAITING_LEGS_PER_BROKER_MAX,
        };
        let mut waiting = lock(&self.waiting);
        if waiting.total >= self.limit {
            return Err(WaitingLimit::Broker);
        }
        let own = waiting.by_peer.get(peer).copied().unwrap_or(0);
        if own >= per_peer {
            return Err(WaitingLimit::Peer);
        }
        waiting.by_peer.insert(peer.clone(), own + 1);
        waiting.total += 1;
        Ok(WaitingLeg { legs: self, peer: peer.clone() })
    }
}

impl Drop for WaitingLeg<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.legs.waiting);
        waiting.total = waiting.total.saturating_sub(1);
        if let Some(own) = waiting.by_peer.get_mut(&self.peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                waiting.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_32_legs_waiting_and_all_together_as_many_as_configured() {
        let legs = WaitingLegs::new(40);
        let peer = |name: &str| PathPeer::Target(name.parse().unwrap());
        let mut held: Vec<_> = (0..32).map(|_| legs.begin(&peer("pc-1")).unwrap()).collect();
        assert_eq!(legs.begin(&peer("pc-1")).unwrap_err(), WaitingLimit::Peer);
        let others: Vec<_> = (0..8).map(|n| legs.begin(&peer(&format!("t{n}"))).unwrap()).collect();
        assert_eq!(legs.begin(&peer("pc-2")).unwrap_err(), WaitingLimit::Broker);
        held.pop();
        held.push(legs.begin(&peer("pc-1")).unwrap());
        drop((held, others));
        assert_eq!(lock(&legs.waiting).total, 0);
        assert!(lock(&legs.waiting).by_peer.is_empty());
    }
}
