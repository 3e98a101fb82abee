//! Messages of a link: greeting, probe, registration, drain.

use std::net::SocketAddr;

use crate::wire::codec::{Decode, Encode};
use crate::wire::codes::RegistrationRole;
use crate::wire::ext::Ext;
use crate::wire::ids::{BrokerId, Generation, Incarnation, InstanceId, PathId};

/// First message of a link, from whoever dialled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Lowest and highest protocol version that the sender speaks.
    pub versions: (u16, u16),
    /// Feature bits that the sender offers.
    pub features: u64,
    /// On mesh links the sender's own incarnation; 0 from endpoints.
    pub incarnation: Incarnation,
    /// On mesh links the name that others dial; empty from endpoints.
    pub name: String,
    /// On mesh links the addresses that others dial.
    pub addresses: Vec<SocketAddr>,
    /// Later additions.
    pub ext: Ext,
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version in force on this link and its legs.
    pub version: u16,
    /// The feature bits in force: those both offered.
    pub features: u64,
    /// Who answers; the certificate must say the same.
    pub broker: BrokerId,
    /// The broker's current incarnation.
    pub incarnation: Incarnation,
    /// The broker's own DNS name and port, as others dial it.
    pub name: String,
    /// The broker's own addresses.
    pub addresses: Vec<SocketAddr>,
    /// Load per mille.
    pub load: u16,
    /// How often the endpoint should send a Ping on this link, in ms.
    pub keep_alive_ms: u32,
    /// Over how long idle endpoints spread their return after this broker is lost, in ms.
    pub reconnect_spread_ms: u32,
    /// Brokers to use when this one fails: id and name.
    pub alternates: Vec<(BrokerId, String)>,
    /// Later additions.
    pub ext: Ext,
}

/// A probe and keep-alive.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// Returned unchanged.
    pub nonce: u64,
    /// Later additions.
    pub ext: Ext,
}

/// Answer to [`Ping`]: the broker's state as its data path sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// The ping's nonce.
    pub nonce: u64,
    /// Who answers.
    pub broker: BrokerId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Load per mille.
    pub load: u16,
    /// Paths open now.
    pub paths: u32,
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// When draining: ms until it stops.
    pub drain_deadline_ms: Option<u32>,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
    /// Later additions.
    pub ext: Ext,
}

/// Tag of a [`Pong`]'s extension that tells how much of the mesh the broker sees: peers linked and peers that count, a
/// big-endian u16 each.
const PONG_PEERS_TAG: u16 = 1;
/// Tag of a [`Pong`]'s extension that advises the Target to move, in big-endian u32 ms from now.
const PONG_MOVE_TAG: u16 = 2;

impl Pong {
    /// Tells how many peers the broker is linked to, of how many that count.
    #[must_use]
    pub fn with_peers(mut self, linked: u16, counted: u16) -> Self {
        let value = [linked.to_be_bytes(), counted.to_be_bytes()].concat();
        self.ext.0.push((PONG_PEERS_TAG, value));
        self
    }

    /// How many peers the broker is linked to, of how many that count; `None` when it does not tell.
    pub fn peers(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.ext.value(PONG_PEERS_TAG)?.try_into().ok()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// Advises the Target to move so many ms from now: the broker is isolated. Only to one that the Target measured,
    /// that takes it and that is linked to more peers.
    #[must_use]
    pub fn advising_to_move(mut self, after_ms: u32) -> Self {
        self.ext.0.push((PONG_MOVE_TAG, after_ms.to_be_bytes().to_vec()));
        self
    }

    /// The advice to move, in ms from now; `None` when there is none. An earlier one no longer holds then.
    pub fn move_after_ms(&self) -> Option<u32> {
        self.ext.value(PONG_MOVE_TAG)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// A Target says that it can be reached here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// This run of the process.
    pub instance: InstanceId,
    /// When this run started, unix ms.
    pub instance_started_ms: u64,
    /// Counts this instance's registrations.
    pub generation: Generation,
    /// What the registration is for.
    pub role: RegistrationRole,
    /// What the Target measured: broker and score in ms, at most [`crate::wire::limits::SCORES_MAX`].
    pub scores: Vec<(BrokerId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// The registration stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Registered {
    /// Of the registration that stands.
    pub generation: Generation,
    /// Its role.
    pub role: RegistrationRole,
    /// Later additions.
    pub ext: Ext,
}

/// Another instance of the same identity, started later, has taken the registration.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Superseded {
    /// The instance that won.
    pub by: InstanceId,
    /// Wait at least this long before registering again, in ms.
    pub back_off_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// Not now: come back after the time given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetryAfter {
    /// The sender's slot, in ms from now.
    pub after_ms: u32,
    /// Other brokers to try.
    pub alternates: Vec<(BrokerId, String)>,
    /// Later additions.
    pub ext: Ext,
}

/// The Target can no longer be reached here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Unregister {
    /// The instance whose registration ends.
    pub instance: InstanceId,
    /// Its generation.
    pub generation: Generation,
    /// Later additions.
    pub ext: Ext,
}

/// The sender is about to stop.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// Ms until it stops.
    pub deadline_ms: u32,
    /// Where to go.
    pub alternates: Vec<(BrokerId, String)>,
    /// Each of the receiver's paths and its slot for moving, in ms from now.
    pub slots: Vec<(PathId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// Tag of a [`Drain`]'s extension that names the broker that is about to stop, when it is not the sender.
const DRAIN_PEER_TAG: u16 = 1;

impl Drain {
    /// The same, passed on for the peer `broker`: the sender itself goes on.
    #[must_use]
    pub fn of_peer(mut self, broker: &BrokerId) -> Self {
        self.ext.0.push((DRAIN_PEER_TAG, broker.as_str().as_bytes().to_vec()));
        self
    }

    /// The peer that is about to stop; `None` when the sender is.
    pub fn peer(&self) -> Option<BrokerId> {
        let name = self.ext.value(DRAIN_PEER_TAG)?;
        std::str::from_utf8(name).ok()?.parse().ok()
    }

    /// Whether it was passed on for a peer, so that the sender itself goes on.
    pub fn is_passed_on(&self) -> bool {
        self.ext.value(DRAIN_PEER_TAG).is_some()
    }
}

/// What an endpoint measured, for the traffic manager's latency table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ScoreReport {
    /// Broker and score in ms, at most [`crate::wire::limits::SCORES_MAX`].
    pub scores: Vec<(BrokerId, u32)>,
    /// Age of the measurement, in ms.
    pub age_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_tells_what_the_broker_sees_and_advises_to_move() {
        let pong = Pong {
            nonce: 1,
            broker: "in/b".parse().unwrap(),
            incarnation: Incarnation(1),
            load: 0,
            paths: 0,
            accepting: true,
            drain_deadline_ms: None,
            mesh_healthy: false,
            ext: Ext::none(),
        };
        assert_eq!((pong.peers(), pong.move_after_ms()), (None, None));
        let told = pong.with_peers(2, 500).advising_to_move(59_999);
        assert_eq!((told.peers(), told.move_after_ms()), (Some((2, 500)), Some(59_999)));
        let short = Pong { ext: Ext(vec![(PONG_PEERS_TAG, vec![1]), (PONG_MOVE_TAG, vec![])]), ..told };
        assert_eq!((short.peers(), short.move_after_ms()), (None, None));
    }

    #[test]
    fn a_drain_that_is_passed_on_names_the_peer_that_stops() {
        let own = Drain { deadline_ms: 1, alternates: Vec::new(), slots: Vec::new(), ext: Ext::none() };
        assert_eq!((own.peer(), own.is_passed_on()), (None, false));
        let peer: BrokerId = "in/broker-3".parse().unwrap();
        let passed_on = own.of_peer(&peer);
        assert_eq!((passed_on.peer(), passed_on.is_passed_on()), (Some(peer), true));
    }
}
