//! Which other brokers an endpoint is named, and in which order.

use rc_proto::wire::{BrokerId, limits};

/// What a peer says of itself with each answer to a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerReport {
    /// Load per mille.
    pub load: u16,
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
}

impl Default for PeerReport {
    /// What holds of a peer until it has answered once.
    fn default() -> Self {
        Self { load: 0, accepting: true, mesh_healthy: true }
    }
}

/// A peer that may be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternate {
    /// The broker.
    pub broker: BrokerId,
    /// Its name and port; may be empty.
    pub name: String,
    /// What it said last.
    pub report: PeerReport,
}

/// The brokers to name, best first, at most as many as a message carries. One that takes nothing is never named; one
/// that sees little of the mesh comes last; those of this broker's region come before others, then the least loaded.
pub fn ranked(own: &BrokerId, mut peers: Vec<Alternate>) -> Vec<(BrokerId, String)> {
    peers.retain(|peer| peer.report.accepting && peer.name.len() <= limits::TEXT_BYTES_MAX);
    peers.sort_by(|one, other| rank(own, one).cmp(&rank(own, other)));
    peers.truncate(limits::ALTERNATES_MAX);
    peers.into_iter().map(|peer| (peer.broker, peer.name)).collect()
}

fn rank<'p>(own: &BrokerId, peer: &'p Alternate) -> (bool, bool, u16, &'p BrokerId) {
    let is_foreign = peer.broker.region() != own.region();
    (!peer.report.mesh_healthy, is_foreign, peer.report.load, &peer.broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, load: u16, accepting: bool, mesh_healthy: bool) -> Alternate {
        let report = PeerReport { load, accepting, mesh_healthy };
        Alternate { broker: id.parse().unwrap(), name: String::new(), report }
    }

    fn names(peers: Vec<Alternate>) -> Vec<String> {
        let own = "in/own".parse().unwrap();
        ranked(&own, peers).into_iter().map(|(broker, _)| broker.to_string()).collect()
    }

    #[test]
    fn the_own_region_comes_first_then_the_least_loaded_and_the_isolated_last() {
        let peers = vec![
            peer("in/isolated", 0, true, false),
            peer("us/idle", 0, true, true),
            peer("in/busy", 900, true, true),
            peer("in/idle", 100, true, true),
            peer("us/busy", 500, true, true),
        ];
        assert_eq!(names(peers), ["in/idle", "in/busy", "us/idle", "us/busy", "in/isolated"]);
    }

    #[test]
    fn a_broker_that_takes_nothing_is_never_named() {
        assert_eq!(names(vec![peer("in/drains", 0, false, true)]), Vec::<String>::new());
    }

    #[test]
    fn no_more_are_named_than_a_message_carries() {
        for (count, named) in [(15, 15), (16, 16), (17, 16)] {
            let peers = (0..count).map(|n| peer(&format!("in/b{n}"), 0, true, true)).collect();
            assert_eq!(names(peers).len(), named);
        }
    }
}
