//! Everything that one Target is to this broker; the registry keeps one behind each shard lock.

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::{BrokerId, Incarnation, InstanceId, JoinSecret, PathId, limits};

use super::standing::{Claim, Verdict, judge};

/// Remote registrations remembered of one Target; more are not needed to find it.
const REMOTE_PER_TARGET_MAX: usize = 8;

/// Numbers the control links of this broker run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct LinkId(pub u64);

/// Numbers a parked open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkId(pub(super) u64);

/// A Target's presence here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration<L> {
    /// What the Target claimed, with the role that it holds now.
    pub claim: Claim,
    /// The control link that it came by.
    pub link_id: LinkId,
    /// How the link is reached.
    pub link: L,
    /// Round trip to the Target in µs, 0 when it is not known.
    pub cost_us: u32,
}

/// A registration that another broker announced: a hint, never the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The broker that announced it.
    pub broker: BrokerId,
    /// That broker's incarnation.
    pub incarnation: Incarnation,
    /// What it announced.
    pub claim: Claim,
    /// Round trip from there to the Target in µs, 0 when it is not known.
    pub cost_us: u32,
}

/// How a Register ended.
#[derive(Debug)]
pub enum Registering<L, P> {
    /// It stands.
    Stands {
        /// With the role that it got.
        claim: Claim,
        /// Opens that waited for it; each is to be woken.
        woken: Vec<P>,
        /// Older instances here that it superseded; each is to be told.
        superseded: Vec<Registration<L>>,
        /// A registration of the same instance that it replaced, on an earlier link; that link is to be closed.
        replaced: Option<Registration<L>>,
        /// The oldest instance here, which had to make room; its link is to be closed.
        evicted: Option<Registration<L>>,
    },
    /// A later started instance holds the identity.
    Superseded {
        /// That instance.
        by: InstanceId,
    },
    /// A registration of the same instance with a higher generation stands.
    Stale {
        /// The claim that stands.
        standing: Claim,
    },
    /// The identity holds as many registrations here as it may.
    Full,
}

/// What an announcement led to.
#[derive(Debug)]
pub struct Hinted<L, P> {
    /// Opens that waited for it; each is to be woken.
    pub woken: Vec<P>,
    /// Older instances here that it superseded; each is to be told.
    pub superseded: Vec<Registration<L>>,
    /// Registrations here of the same instance, which has moved there; the mesh is to be told.
    pub moved: Vec<Registration<L>>,
}

pub(super) struct Parked<P> {
    pub(super) park: ParkId,
    pub(super) instance: Option<InstanceId>,
    pub(super) wake: P,
    /// Whether it waits for the Target, rather than for an attempt.
    pub(super) waits: bool,
}

pub(super) struct PendingJoin<J> {
    pub(super) path: PathId,
    pub(super) secret: JoinSecret,
    pub(super) link_id: LinkId,
    pub(super) handover: J,
}

pub(super) struct Presence<L, P, J> {
    pub(super) registrations: Vec<Registration<L>>,
    pub(super) hints: Vec<Hint>,
    pub(super) parked: Vec<Parked<P>>,
    pub(super) joins: Vec<PendingJoin<J>>,
    pub(super) next_park: u64,
}

impl<L, P, J> Default for Presence<L, P, J> {
    fn default() -> Self {
        Self {
            registrations: Vec::new(),
            hints: Vec::new(),
            parked: Vec::new(),
            joins: Vec::new(),
            next_park: 0,
        }
    }
}

impl<L: Clone, P, J> Presence<L, P, J> {
    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty()
            && self.hints.is_empty()
            && self.parked.is_empty()
            && self.joins.is_empty()
    }

    pub(super) fn find(&self, instance: Option<InstanceId>) -> Option<Registration<L>> {
        self.registrations
            .iter()
            .filter(|found| found.claim.answers(instance))
            .min_by_key(|found| (found.claim.role.0, std::cmp::Reverse(found.claim.generation)))
            .cloned()
    }

    pub(super) fn hints_for(&self, instance: Option<InstanceId>) -> Vec<Hint> {
        let mut hints: Vec<_> =
            self.hints.iter().filter(|hint| hint.claim.answers(instance)).cloned().collect();
        hints.sort_by(|a, b| a.claim.role.0.cmp(&b.claim.role.0).then(a.broker.cmp(&b.broker)));
        hints
    }

    pub(super) fn register(&mut self, mut new: Registration<L>, now_ms: u64) -> Registering<L, P> {
        new.claim.clamp_start(now_ms);
        for hint in &self.hints {
            if let Verdict::OlderInstance = judge(&hint.claim, &new.claim) {
                return Registering::Superseded { by: hint.claim.instance };
            }
        }
        for found in &self.registrations {
            // An instance has one registration here, whatever its role: the higher generation is the later word.
            if found.claim.instance == new.claim.instance {
                if found.claim.generation > new.claim.generation && found.link_id != new.link_id {
                    return Registering::Stale { standing: found.claim.clone() };
                }
            } else if judge(&found.claim, &new.claim) == Verdict::OlderInstance {
                return Registering::Superseded { by: found.claim.instance };
            }
        }
        let same_instance =
            self.registrations.iter().position(|found| found.claim.instance == new.claim.instance);
        let is_full = self.registrations.len() >= limits::REGISTRATIONS_PER_IDENTITY_MAX;
        let evicted = if same_instance.is_none() && is_full {
            let Some(index) = self.oldest_demoted(&new.claim) else { return Registering::Full };
            Some(self.registrations.remove(index))
        } else {
            None
        };
        let replaced = same_instance.map(|index| self.registrations.remove(index));
        let superseded = self.demote_older(&new.claim);
        self.hints.retain(|hint| judge(&hint.claim, &new.claim) != Verdict::Replaces);
        let claim = new.claim.clone();
        self.registrations.push(new);
        let replaced =
            replaced.filter(|old| self.registrations.last().is_some_and(|new| new.link_id != old.link_id));
        for gone in replaced.iter().chain(&evicted) {
            self.forget_joins(gone.link_id);
        }
        Registering::Stands { woken: self.wake(&claim), claim, superseded, replaced, evicted }
    }

    /// The oldest instance with the role resume that is older than `newer`.
    fn oldest_demoted(&self, newer: &Claim) -> Option<usize> {
        let demoted = self.registrations.iter().enumerate().filter(|(_, found)| {
            found.claim.role == RegistrationRole::RESUME && found.claim.is_older_than(newer)
        });
        let oldest = demoted.min_by_key(|(_, found)| (found.claim.started_ms, found.claim.instance));
        oldest.map(|(index, _)| index)
    }

    /// Gives every older instance the role resume, and returns those here that had another one.
    fn demote_older(&mut self, newer: &Claim) -> Vec<Registration<L>> {
        let mut told = Vec::new();
        for known in &mut self.hints {
            if judge(&known.claim, newer) == Verdict::Supersedes {
                known.claim.role = RegistrationRole::RESUME;
            }
        }
        for found in &mut self.registrations {
            if judge(&found.claim, newer) == Verdict::Supersedes
                && found.claim.role != RegistrationRole::RESUME
            {
                found.claim.role = RegistrationRole::RESUME;
                told.push(found.clone());
            }
        }
        told
    }

    pub(super) fn take_hint(&mut self, mut hint: Hint, now_ms: u64) -> Hinted<L, P> {
        hint.claim.clamp_start(now_ms);
        let is_of_same =
            |known: &Hint| known.broker == hint.broker && known.claim.instance == hint.claim.instance;
        self.hints.retain(|known| !is_of_same(known));
        let known = || {
            let here = self.registrations.iter().map(|found| &found.claim);
            here.chain(self.hints.iter().map(|known| &known.claim))
        };
        if known().any(|known| judge(known, &hint.claim) == Verdict::OlderGeneration) {
            // The Target has moved on from there already.
            return Hinted { woken: Vec::new(), superseded: Vec::new(), moved: Vec::new() };
        }
        if known().any(|known| judge(known, &hint.claim) == Verdict::OlderInstance) {
            hint.claim.role = RegistrationRole::RESUME;
        }
        self.hints.retain(|known| judge(&known.claim, &hint.claim) != Verdict::Replaces);
        if self.hints.len() >= REMOTE_PER_TARGET_MAX {
            self.hints.remove(0);
        }
        let superseded = self.demote_older(&hint.claim);
        let moved: Vec<_> = self
            .registrations
            .extract_if(.., |found| judge(&found.claim, &hint.claim) == Verdict::Replaces)
            .collect();
        for gone in &moved {
            self.forget_joins(gone.link_id);
        }
        let woken = self.wake(&hint.claim);
        self.hints.push(hint);
        Hinted { woken, superseded, moved }
    }

    /// Gives up invites over a link that nobody may listen to any more: their opens ask elsewhere.
    fn forget_joins(&mut self, link_id: LinkId) {
        self.joins.retain(|join| join.link_id != link_id);
    }

    fn wake(&mut self, claim: &Claim) -> Vec<P> {
        self.parked
            .extract_if(.., |parked| claim.answers(parked.instance))
            .map(|parked| parked.wake)
            .collect()
    }
}
