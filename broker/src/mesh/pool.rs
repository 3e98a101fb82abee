//! Legs between brokers: pre-handshaken connections, one path each, never used again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rc_proto::wire::{Alpn, BrokerId, limits};
use rc_transport::{Expectation, Families, Leg};
use tokio::time::Instant;

use super::Mesh;
use crate::links::SharedNode;
use crate::node::{Node, lock};

/// Connections kept ready per peer.
const READY_MAX: usize = 2;
/// Time for one address to answer.
const DIAL_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Ready {
    leg: Leg,
    since: Instant,
}

/// Connections that are ready, and how many are being made.
#[derive(Debug, Default)]
pub(super) struct Pool {
    peers: Mutex<BTreeMap<BrokerId, PeerPool>>,
}

#[derive(Debug, Default)]
struct PeerPool {
    ready: Vec<Ready>,
    coming: usize,
}

impl Pool {
    fn take(&self, peer: &BrokerId, age_max: Duration) -> Option<Leg> {
        let mut peers = lock(&self.peers);
        let ready = &mut peers.get_mut(peer)?.ready;
        ready.retain(|ready| ready.since.elapsed() < age_max);
        ready.pop().map(|ready| ready.leg)
    }

    /// Counts a connection that is to be made; `false` when enough are there.
    fn begin(&self, peer: &BrokerId) -> bool {
        let mut peers = lock(&self.peers);
        let pool = peers.entry(peer.clone()).or_default();
        let wanted = pool.ready.len() + pool.coming < READY_MAX;
        pool.coming += usize::from(wanted);
        wanted
    }

    fn end(&self, peer: &BrokerId, leg: Option<Leg>) {
        if let Some(pool) = lock(&self.peers).get_mut(peer) {
            pool.coming = pool.coming.saturating_sub(1);
            pool.ready.extend(leg.map(|leg| Ready { leg, since: Instant::now() }));
        }
    }

    fn prune(&self, age_max: Duration) {
        for pool in lock(&self.peers).values_mut() {
            pool.ready.retain(|ready| ready.since.elapsed() < age_max);
        }
    }

    pub(super) fn clear(&self) {
        lock(&self.peers).values_mut().for_each(|pool| pool.ready.clear());
    }

    pub(super) fn forget(&self, peer: &BrokerId) {
        drop(lock(&self.peers).remove(peer));
    }
}

impl Mesh {
    /// A ready connection to `peer`, and one more is made for the next open.
    pub(crate) fn take_pooled(&self, node: &SharedNode, peer: &BrokerId) -> Option<Leg> {
        let leg = self.pool.take(peer, age_max(node));
        refill(node, peer);
        leg
    }

    /// Renews the ready connections that the peer would close soon.
    pub(crate) fn renew_pools(&self, node: &SharedNode) {
        self.pool.prune(age_max(node));
        for (peer, _) in self.links() {
            refill(node, &peer);
        }
    }

    /// A fresh connection for one path: to an address where this broker answered before, else to its own name, else
    /// to the addresses that it tells.
    pub(crate) async fn dial_leg(&self, peer: &BrokerId) -> Option<Leg> {
        let (answered, name, addresses) = self.whereabouts(peer)?;
        let expect = Expectation::Broker(peer.clone());
        let dial = |address: SocketAddr| self.connector.connect(address, &expect, Alpn::Path, DIAL_MAX);
        if let Some(address) = answered
            && let Ok(leg) = dial(address).await
        {
            return Some(leg);
        }
        let resolved = self.resolve(&name).await;
        for address in resolved.into_iter().chain(addresses).take(limits::ADDRESSES_MAX) {
            if let Ok(leg) = dial(address).await {
                return Some(leg);
            }
        }
        None
    }

    fn whereabouts(&self, peer: &BrokerId) -> Option<(Option<SocketAddr>, String, Vec<SocketAddr>)> {
        let state = lock(&self.state);
        let link = state.links.get(peer)?;
        // Also of one that drains: it still serves what exists.
        let hint = state.members.hint(peer).map(|hint| hint.addresses.clone());
        Some((link.answered_at, link.name.clone(), hint.unwrap_or_default()))
    }

    /// Addresses of `host:port`; none for an empty or unknown name.
    pub(super) async fn resolve(&self, name: &str) -> Vec<SocketAddr> {
        let Some((host, port)) = name.rsplit_once(':').and_then(|(h, p)| Some((h, p.parse::<u16>().ok()?)))
        else {
            return Vec::new();
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = self.resolver.addresses(host, Families::Both).await;
        [found.v4, found.v6]
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .flat_map(|answer| answer.addresses)
            .map(|address| SocketAddr::new(address, port))
            .collect()
    }
}

/// The peer closes a connection that waits longer than this; ours goes a little earlier.
fn age_max(node: &Node) -> Duration {
    node.timers.mesh_leg_idle / 5 * 4
}

/// Makes ready connections to a linked peer until enough are there.
pub(super) fn refill(node: &SharedNode, peer: &BrokerId) {
    while node.mesh.pool.begin(peer) {
        let (node, peer) = (SharedNode::clone(node), peer.clone());
        let tasks = node.lifetime.tasks.clone();
        drop(tasks.spawn(async move {
            let leg = tokio::select! {
                biased;
                () = node.lifetime.stop.cancelled() => None,
                leg = Box::pin(node.mesh.dial_leg(&peer)) => leg,
            };
            end(&node, &peer, leg);
        }));
    }
}

fn end(node: &Node, peer: &BrokerId, leg: Option<Leg>) {
    node.mesh.pool.end(peer, leg);
}
