//! Who is told and asked where a Target is.
//!
//! In a mesh of up to [`ASK_ALL_MAX`] peers everybody is told of every registration, and asked. In a larger one a
//! registration is told to the [`REPLICAS`] brokers that rendezvous hashing names, and to whoever they say holds
//! another registration of the Target; who looks for the Target consults them first, and asks everybody when that
//! leads nowhere. Entries are hints: a wrong one costs a round trip. What left is told to everybody, so that no hint
//! outlives its registration for long.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::mesh::locate::{ANSWER_MIN, ASK_ALL_MAX};
use rc_proto::mesh::rendezvous;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::Place;
use rc_proto::wire::{BrokerId, EndpointId, Incarnation, InstanceId};

use super::registry::{Hint, Registration};

/// Brokers that keep the entry of a Target.
pub const REPLICAS: usize = 3;

/// Whether a broker with these peers uses a directory.
pub fn is_used(linked: &[BrokerId]) -> bool {
    linked.len() > ASK_ALL_MAX
}

/// The peers that keep the entry of `target`, as `own` sees the mesh; itself left out.
pub fn replicas(own: &BrokerId, linked: &[BrokerId], target: &EndpointId) -> Vec<BrokerId> {
    let mut replicas = rendezvous(target, linked.iter().chain([own]), REPLICAS);
    replicas.retain(|broker| broker != own);
    replicas
}

/// The peers that are told of a registration of `target` at `own`.
pub fn audience(own: &BrokerId, linked: &[BrokerId], target: &EndpointId) -> Vec<BrokerId> {
    if is_used(linked) { replicas(own, linked, target) } else { linked.to_vec() }
}

/// The peers that have to be told now that the mesh is no longer `before` but `after`.
pub fn gained(own: &BrokerId, before: &[BrokerId], after: &[BrokerId], target: &EndpointId) -> Vec<BrokerId> {
    let known = audience(own, before, target);
    let mut gained = audience(own, after, target);
    gained.retain(|broker| !known.contains(broker));
    gained
}

/// Everything that a broker knows of a Target's whereabouts, best first.
pub fn places<L>(own: (&BrokerId, Incarnation), here: Vec<Registration<L>>, hints: Vec<Hint>) -> Vec<Place> {
    let here = here.into_iter().map(|found| Place {
        broker: own.0.clone(),
        incarnation: own.1,
        instance: found.claim.instance,
        role: found.claim.role,
        cost_us: found.cost_us,
    });
    let told = hints.into_iter().map(|hint| Place {
        broker: hint.broker,
        incarnation: hint.incarnation,
        instance: hint.claim.instance,
        role: hint.claim.role,
        cost_us: hint.cost_us,
    });
    let mut places: Vec<_> = here.chain(told).collect();
    places.sort_by_key(|place| place.role.0);
    places
}

/// What a consultation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Every place, superseded instances included.
    Everything,
    /// What an open may use that names this instance, or none.
    Open(Option<InstanceId>),
}

impl Wanted {
    fn fits(self, place: &Place) -> bool {
        match self {
            Self::Everything => true,
            Self::Open(Some(instance)) => place.instance == instance,
            Self::Open(None) => place.role != RegistrationRole::RESUME,
        }
    }
}

/// One question to the replicas: over with the first that knows a place, or when nobody is left to wait for.
#[derive(Debug)]
pub struct Consultation {
    wanted: Wanted,
    /// Until when each that was asked is waited for.
    waiting: BTreeMap<BrokerId, Moment>,
    found: Vec<Place>,
}

impl Consultation {
    /// Asks these, each with the round trip of its link.
    pub fn new(wanted: Wanted, asked: impl IntoIterator<Item = (BrokerId, Duration)>, now: Moment) -> Self {
        let patience = |round_trip: Duration| (round_trip * 2).max(ANSWER_MIN);
        let waiting = asked.into_iter().map(|(broker, round_trip)| (broker, now + patience(round_trip)));
        Self { wanted, waiting: waiting.collect(), found: Vec::new() }
    }

    /// A replica answered with what it knows; what is not wanted is left out.
    pub fn handle_answer(&mut self, from: &BrokerId, places: Vec<Place>) {
        if self.waiting.remove(from).is_some() {
            self.found.extend(places.into_iter().filter(|place| self.wanted.fits(place)));
        }
    }

    /// The replica's link is gone.
    pub fn handle_lost(&mut self, from: &BrokerId) {
        self.waiting.remove(from);
    }

    /// Until when to wait for an answer; `None` when it is over.
    pub fn wait_until(&mut self, now: Moment) -> Option<Moment> {
        self.waiting.retain(|_, until| *until > now);
        if self.found.is_empty() { self.waiting.values().max().copied() } else { None }
    }

    /// The places found.
    pub fn into_places(self) -> Vec<Place> {
        self.found
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
