//! Messages between brokers, and the signed lists that travel along.

use std::net::SocketAddr;

use crate::wire::codec::{self, Decode, Encode};
use crate::wire::codes::RegistrationRole;
use crate::wire::ext::Ext;
use crate::wire::ids::{BrokerId, EndpointId, Generation, Incarnation, InstanceId};
use crate::wire::limits;

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

/// Tag of a [`Locate`]'s extension that asks for the directory's entry instead of the registration.
const LOCATE_DIRECTORY_TAG: u16 = 1;

impl Locate {
    /// Asks what the receiver, as one of those that keep the directory's entry of the Target, was told of it.
    #[must_use]
    pub fn of_directory(mut self) -> Self {
        self.ext.0.push((LOCATE_DIRECTORY_TAG, Vec::new()));
        self
    }

    /// Whether it asks for the directory's entry.
    pub fn is_of_directory(&self) -> bool {
        self.ext.value(LOCATE_DIRECTORY_TAG).is_some()
    }
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

/// Tag of a [`Here`]'s extension with the places that a directory knows.
const HERE_PLACES_TAG: u16 = 1;

/// Where a directory was told that a Target is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// The broker.
    pub broker: BrokerId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The instance there.
    pub instance: InstanceId,
    /// Role of its registration.
    pub role: RegistrationRole,
    /// Round trip from there to the Target, in µs.
    pub cost_us: u32,
}

impl Here {
    /// The answer to a question of the directory: every place that is known, best first, at most
    /// [`limits::WHERE_PLACES_MAX`]. `None` when there is none.
    pub fn of_directory(query: u64, places: &[Place]) -> Option<Self> {
        let places = places.get(..places.len().min(limits::WHERE_PLACES_MAX))?;
        let best = places.first()?;
        let value = codec::encode(&places.to_vec()).ok()?;
        let ext = Ext(vec![(HERE_PLACES_TAG, value)]);
        Some(Self { query, instance: best.instance, role: best.role, cost_us: best.cost_us, ext })
    }

    /// The places of a directory's answer; none of any other answer.
    pub fn places(&self) -> Vec<Place> {
        let value = self.ext.value(HERE_PLACES_TAG);
        let mut places: Vec<Place> = value.and_then(|value| codec::decode(value).ok()).unwrap_or_default();
        places.truncate(limits::WHERE_PLACES_MAX);
        places
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> Place {
        Place {
            broker: format!("r/b{number}").parse().unwrap(),
            incarnation: Incarnation(7),
            instance: InstanceId([1; 16]),
            role: RegistrationRole::STANDBY,
            cost_us: number,
        }
    }

    #[test]
    fn a_directory_names_at_most_eight_places_and_garbage_names_none() {
        assert_eq!(Here::of_directory(1, &[]), None);
        for (count, named) in [(1, 1), (7, 7), (8, 8), (9, 8)] {
            let places: Vec<Place> = (0..count).map(place).collect();
            let here = Here::of_directory(1, &places).unwrap();
            assert_eq!((here.role, here.places().len()), (RegistrationRole::STANDBY, named));
            assert_eq!(here.places()[..], places[..named]);
        }
        let here = Here::of_directory(1, &[place(1)]).unwrap();
        let value = here.ext.value(HERE_PLACES_TAG).unwrap().to_vec();
        for length in 0..value.len() {
            let ext = Ext(vec![(HERE_PLACES_TAG, value[..length].to_vec())]);
            assert_eq!(Here { ext, ..here.clone() }.places(), []);
        }
        assert_eq!(Here { ext: Ext::none(), ..here }.places(), []);
    }

    #[test]
    fn a_question_of_the_directory_and_a_told_cost_are_extensions() {
        let target: EndpointId = "pc-1".parse().unwrap();
        let locate =
            Locate { query: 1, target: target.clone(), instance: None, watch_ms: 0, ext: Ext::none() };
        assert!(!locate.is_of_directory());
        assert!(locate.of_directory().is_of_directory());
        let announce = Announce {
            incarnation: Incarnation(1),
            target,
            instance: InstanceId([1; 16]),
            instance_started_ms: 1,
            generation: Generation(1),
            role: RegistrationRole::PRIMARY,
            present: true,
            ext: Ext::none(),
        };
        assert_eq!(announce.cost_us(), 0);
        assert_eq!(announce.with_cost(70_000).cost_us(), 70_000);
    }
}
