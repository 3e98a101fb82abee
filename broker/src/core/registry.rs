//! Which Targets are here, which opens wait for one, and which invited legs are still to come.
//!
//! Everything about one Target sits behind one shard lock, and each method is one operation under it: a
//! registration and an open that arrive at the same instant always see each other. Methods return owned values; no
//! guard leaves this file. Called by the control links, the paths and the mesh.
//!
//! `L` is how a control link is reached, `P` wakes a parked open, `J` hands a joined leg over.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rc_proto::wire::{BrokerId, EndpointId, Generation, InstanceId, JoinSecret, PathId, limits};

pub use super::presence::{Hint, Hinted, LinkId, ParkId, Registering, Registration};
use super::presence::{Parked, PendingJoin, Presence};
use super::standing::Claim;

/// Opens that watch one Target, the parked ones included: what is tried through other brokers watches too.
const WATCHES_PER_TARGET_MAX: usize = 256;

/// How a look-up ended.
#[derive(Debug)]
pub enum Found<L> {
    /// The Target is here.
    Here(Registration<L>),
    /// It is not; the watch is installed.
    Parked {
        /// For [`Registry::unpark`].
        park: ParkId,
        /// Where others said that it is, best first.
        hints: Vec<Hint>,
    },
    /// More opens watch this Target than may.
    Full,
}

/// Whether an open may wait now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It waits, and counts as parked.
    Waiting,
    /// A registration has woken it meanwhile.
    Woken,
    /// As many opens wait for this Target as may.
    Full,
}

/// What a lost control link leaves.
#[derive(Debug)]
pub struct Departed<L, J> {
    /// Registrations that ended.
    pub registrations: Vec<Registration<L>>,
    /// Invites that went out over the link and can no longer be answered.
    pub joins: Vec<J>,
}

/// The registry of one broker.
pub struct Registry<L, P, J> {
    targets: DashMap<EndpointId, Presence<L, P, J>>,
    /// Registrations that stand, so that nobody has to count them.
    standing: AtomicUsize,
}

impl<L: Clone, P, J> Default for Registry<L, P, J> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Clone, P, J> Registry<L, P, J> {
    /// An empty registry.
    pub fn new() -> Self {
        Self { targets: DashMap::new(), standing: AtomicUsize::new(0) }
    }

    /// Takes a Target's claim that came over a control link. `now_ms` is the wall clock, which bounds the start
    /// that an instance claims.
    pub fn register(
        &self,
        target: &EndpointId,
        claim: Claim,
        link_id: LinkId,
        link: L,
        cost_us: u32,
        now_ms: u64,
    ) -> Registering<L, P> {
        let mut presence = self.targets.entry(target.clone()).or_default();
        let before = presence.registrations.len();
        let outcome = presence.register(Registration { claim, link_id, link, cost_us }, now_ms);
        self.recount(before, presence.registrations.len());
        let empty = presence.is_empty();
        drop(presence);
        if empty {
            self.sweep(target);
        }
        outcome
    }

    /// Ends the registration that `instance` made over `link_id`, unless a later generation stands.
    pub fn unregister(
        &self,
        target: &EndpointId,
        link_id: LinkId,
        instance: InstanceId,
        generation: Generation,
    ) -> Option<Registration<L>> {
        let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) else { return None };
        let presence = entry.get_mut();
        let index = presence.registrations.iter().position(|found| {
            found.link_id == link_id
                && found.claim.instance == instance
                && found.claim.generation <= generation
        })?;
        let removed = presence.registrations.remove(index);
        self.recount(1, 0);
        if presence.is_empty() {
            drop(entry.remove());
        }
        Some(removed)
    }

    /// Ends everything that came or went over a control link. A registration that has moved to a later link
    /// stays.
    pub fn link_lost(&self, target: &EndpointId, link_id: LinkId) -> Departed<L, J> {
        let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) else {
            return Departed { registrations: Vec::new(), joins: Vec::new() };
        };
        let presence = entry.get_mut();
        let before = presence.registrations.len();
        let registrations = presence.registrations.extract_if(.., |found| found.link_id == link_id).collect();
        self.recount(before, presence.registrations.len());
        let joins =
            presence.joins.extract_if(.., |join| join.link_id == link_id).map(|join| join.handover).collect();
        if presence.is_empty() {
            drop(entry.remove());
        }
        Departed { registrations, joins }
    }

    /// Looks a Target up without waiting for it.
    pub fn find(&self, target: &EndpointId, instance: Option<InstanceId>) -> Option<Registration<L>> {
        self.targets.get(target).and_then(|presence| presence.find(instance))
    }

    /// Where others said that a Target is, best first.
    pub fn hints(&self, target: &EndpointId, instance: Option<InstanceId>) -> Vec<Hint> {
        self.targets.get(target).map(|presence| presence.hints_for(instance)).unwrap_or_default()
    }

    /// Everything that is known of a Target's whereabouts: what is here, and what others said.
    pub fn everything(&self, target: &EndpointId) -> (Vec<Registration<L>>, Vec<Hint>) {
        let known = self.targets.get(target);
        known.map(|presence| (presence.registrations.clone(), presence.hints.clone())).unwrap_or_default()
    }

    /// Looks a Target up and, when it is not here, installs a watch in the same operation. `wake` is dropped
    /// unless it was installed.
    pub fn find_or_park(&self, target: &EndpointId, instance: Option<InstanceId>, wake: P) -> Found<L> {
        let mut presence = self.targets.entry(target.clone()).or_default();
        if let Some(found) = presence.find(instance) {
            return Found::Here(found);
        }
        if presence.parked.len() >= WATCHES_PER_TARGET_MAX {
            return Found::Full;
        }
        let park = ParkId(presence.next_park);
        presence.next_park += 1;
        presence.parked.push(Parked { park, instance, wake, waits: false });
        Found::Parked { park, hints: presence.hints_for(instance) }
    }

    /// Everything else was tried: the open waits for a registration from now on.
    pub fn settle(&self, target: &EndpointId, park: ParkId) -> Settled {
        let Some(mut presence) = self.targets.get_mut(target) else { return Settled::Woken };
        let waiting = presence.parked.iter().filter(|parked| parked.waits && parked.park != park).count();
        let Some(parked) = presence.parked.iter_mut().find(|parked| parked.park == park) else {
            return Settled::Woken;
        };
        if waiting >= limits::PARKED_PER_TARGET_MAX {
            return Settled::Full;
        }
        parked.waits = true;
        Settled::Waiting
    }

    /// Takes a watch back. `None` when a registration has woken it already.
    pub fn unpark(&self, target: &EndpointId, park: ParkId) -> Option<P> {
        let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) else { return None };
        let presence = entry.get_mut();
        let index = presence.parked.iter().position(|parked| parked.park == park)?;
        let parked = presence.parked.remove(index);
        if presence.is_empty() {
            drop(entry.remove());
        }
        Some(parked.wake)
    }

    /// Takes what a peer announced. Late news of an instance that has moved on changes nothing.
    pub fn hint_came(&self, target: &EndpointId, hint: Hint, now_ms: u64) -> Hinted<L, P> {
        let mut presence = self.targets.entry(target.clone()).or_default();
        let before = presence.registrations.len();
        let outcome = presence.take_hint(hint, now_ms);
        self.recount(before, presence.registrations.len());
        outcome
    }

    /// Removes what a peer announced, when incarnation, instance and generation are those that left.
    pub fn hint_left(&self, target: &EndpointId, left: &Hint) {
        if let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) {
            let presence = entry.get_mut();
            presence.hints.retain(|hint| {
                !(hint.broker == left.broker
                    && hint.incarnation == left.incarnation
                    && hint.claim.instance == left.claim.instance
                    && hint.claim.generation <= left.claim.generation)
            });
            if presence.is_empty() {
                drop(entry.remove());
            }
        }
    }

    /// Forgets everything that a peer announced.
    pub fn peer_lost(&self, broker: &BrokerId) {
        self.targets.retain(|_, presence| {
            presence.hints.retain(|hint| hint.broker != *broker);
            !presence.is_empty()
        });
    }

    /// Notes that an invited leg is to come. `false` when the Target has as many pending as it may, or this path
    /// is already expected; `handover` is dropped then.
    pub fn expect_join(
        &self,
        target: &EndpointId,
        link_id: LinkId,
        path: PathId,
        secret: JoinSecret,
        handover: J,
    ) -> bool {
        let mut presence = self.targets.entry(target.clone()).or_default();
        let is_registered = presence.registrations.iter().any(|found| found.link_id == link_id);
        let is_expected = presence.joins.iter().any(|join| join.path == path);
        let fits = presence.joins.len() < limits::PENDING_JOINS_PER_TARGET_MAX;
        if is_registered && !is_expected && fits {
            presence.joins.push(PendingJoin { path, secret, link_id, handover });
            return true;
        }
        let empty = presence.is_empty();
        drop(presence);
        if empty {
            self.sweep(target);
        }
        false
    }

    /// Claims a pending join: only for the identity that was invited, once, and with the secret.
    pub fn take_join(&self, target: &EndpointId, path: PathId, secret: &JoinSecret) -> Option<J> {
        let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) else { return None };
        let presence = entry.get_mut();
        let index = presence.joins.iter().position(|join| join.path == path)?;
        let holds = presence.joins.get(index).is_some_and(|join| is_same_secret(&join.secret, secret));
        if !holds {
            return None;
        }
        let join = presence.joins.remove(index);
        if presence.is_empty() {
            drop(entry.remove());
        }
        Some(join.handover)
    }

    /// Takes a pending join back, when its open has given up.
    pub fn forget_join(&self, target: &EndpointId, path: PathId) {
        if let Entry::Occupied(mut entry) = self.targets.entry(target.clone()) {
            let presence = entry.get_mut();
            presence.joins.retain(|join| join.path != path);
            if presence.is_empty() {
                drop(entry.remove());
            }
        }
    }

    /// How many registrations stand here.
    pub fn registration_count(&self) -> usize {
        self.standing.load(Ordering::Relaxed)
    }

    /// A copy of every registration, in the order of the Targets' names.
    pub fn registrations(&self) -> Vec<(EndpointId, Registration<L>)> {
        let mut all: Vec<_> = self
            .targets
            .iter()
            .flat_map(|entry| {
                let target = entry.key().clone();
                let found: Vec<_> = entry.registrations.to_vec();
                found.into_iter().map(move |registration| (target.clone(), registration))
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.claim.instance.cmp(&b.1.claim.instance)));
        all
    }

    /// How many Targets have any state here: registrations, hints, parked opens or pending joins.
    pub fn tracked_count(&self) -> usize {
        self.targets.len()
    }

    /// Called while the Target's shard is locked, so the total never goes below what stands.
    fn recount(&self, before: usize, after: usize) {
        if after >= before {
            self.standing.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.standing.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn sweep(&self, target: &EndpointId) {
        let _removed = self.targets.remove_if(target, |_, presence| presence.is_empty());
    }
}

/// Compares without an early exit, so that timing tells nothing of the secret.
fn is_same_secret(a: &JoinSecret, b: &JoinSecret) -> bool {
    let difference = a.0.iter().zip(b.0.iter()).fold(0_u8, |seen, (x, y)| seen | (x ^ y));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
