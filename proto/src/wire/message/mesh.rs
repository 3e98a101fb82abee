//! Messages between brokers, and the signed lists that travel along.

use std::net::SocketAddr;

use crate::wire::codec::{Decode, Encode};
use crate::wire::codes::RegistrationRole;
use crate::wire::ext::Ext;
use crate::wire::ids::{BrokerId, EndpointId, Generation, Incarnation, InstanceId};

/// A broker asks a peer whether it holds a Target.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Locate {
    /// The asker's number for this question.
    pub query: u64,
    /// Who is wanted.
    pub target: EndpointId,
    /// The one instance that is wanted.
    pub instance: Option<InstanceId>,
    /// Keep the question open this long, and answer when the Target registers, in ms.
    pub watch_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// The Target is registered here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Here {
    /// The question.
    pub query: u64,
    /// The instance found.
    pub instance: InstanceId,
    /// Role of its registration.
    pub role: RegistrationRole,
    /// Round trip from this broker to the Target, in µs.
    pub cost_us: u32,
    /// Later additions.
    pub ext: Ext,
}

/// The Target is not registered here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NotHere {
    /// The question.
    pub query: u64,
    /// Later additions.
    pub ext: Ext,
}

/// A registration came or went at the sender.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Announce {
    /// Incarnation of the sender.
    pub incarnation: Incarnation,
    /// Whose registration.
    pub target: EndpointId,
    /// Its instance.
    pub instance: InstanceId,
    /// When the instance started, unix ms.
    pub instance_started_ms: u64,
    /// Its generation.
    pub generation: Generation,
    /// Its role.
    pub role: RegistrationRole,
    /// False when the registration ended; removal compares incarnation, instance and generation.
    pub present: bool,
    /// Later additions.
    pub ext: Ext,
}

/// Tag of an [`Announce`]'s extension that tells the round trip to the Target, big-endian u32 µs.
const ANNOUNCE_COST_TAG: u16 = 1;

impl Announce {
    /// Tells the round trip from the sender to the Target, in µs.
    #[must_use]
    pub fn with_cost(mut self, cost_us: u32) -> Self {
        self.ext.0.push((ANNOUNCE_COST_TAG, cost_us.to_be_bytes().to_vec()));
        self
    }

    /// The round trip from the sender to the Target in µs, 0 when it does not tell.
    pub fn cost_us(&self) -> u32 {
        let told = self.ext.value(ANNOUNCE_COST_TAG).and_then(|value| value.try_into().ok());
        told.map_or(0, u32::from_be_bytes)
    }
}

/// One member of the mesh, as the sender knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PeerEntry {
    /// The broker.
    pub broker: BrokerId,
    /// Its own name.
    pub name: String,
    /// Its addresses; hints only.
    pub addresses: Vec<SocketAddr>,
    /// Its incarnation as last seen.
    pub incarnation: Incarnation,
    /// Ms since the sender was last linked to it.
    pub age_ms: u32,
}

/// The members that the sender knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Peers {
    /// At most [`crate::wire::limits::PEERS_MAX`].
    pub peers: Vec<PeerEntry>,
    /// Later additions.
    pub ext: Ext,
}

/// The round trips that the sender measured to its peers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Matrix {
    /// Peer and round trip in µs, at most [`crate::wire::limits::MATRIX_ENTRIES_MAX`].
    pub round_trips: Vec<(BrokerId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// Part of a CA-signed certificate revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Crl {
    /// SHA-256 of the issuer's distinguished name (DER).
    pub issuer_sha256: [u8; 32],
    /// CRL number; the highest verified one wins.
    pub number: u64,
    /// Which part this is, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// This part of the DER.
    pub der: Vec<u8>,
    /// Later additions.
    pub ext: Ext,
}

/// Part of a signed list of revoked tickets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Deny {
    /// The key that signed it.
    pub kid: String,
    /// List number; the highest verified one wins.
    pub number: u64,
    /// Which part this is, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// This part of the compact JWS.
    pub jws: String,
    /// Later additions.
    pub ext: Ext,
}
