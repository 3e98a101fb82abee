//! The move under way and its attempts: when the next one starts, and which are left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::order::{AttemptId, OpenedPath, Reason};
use crate::Moment;
use crate::select::Backoff;
use crate::wire::BrokerId;
use crate::wire::codes::Purpose;

/// Attempts of one session at a time.
pub(super) const ATTEMPTS_MAX: usize = 3;
/// Shortest wait for an attempt before a second one starts beside it.
const HEDGE_MIN: Duration = Duration::from_millis(300);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Brokers that one move remembers as doubtful.
const DOUBTFUL_MAX: usize = 6;
/// Attempts after which a handover that nobody has to make is given up.
pub(super) const VOLUNTARY_ATTEMPTS_MAX: u32 = 3;

/// How far an attempt is.
///
/// ```text
/// Opening ──▶ Open ──▶ Ordered ──▶ (a path whose ATTACH is on its way)
/// ```
#[derive(Debug)]
pub(super) enum Progress {
    Opening,
    /// The path waits to be attached.
    Open(OpenedPath),
    /// The driver is told to attach it.
    Ordered(OpenedPath),
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) via: BrokerId,
    pub(super) progress: Progress,
}

/// The attempts under way, up to their ATTACH.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) under_way: BTreeMap<AttemptId, Attempt>,
    made: u64,
}

impl Attempts {
    pub(super) fn start(&mut self, via: BrokerId) -> AttemptId {
        self.made += 1;
        let id = AttemptId(self.made);
        self.under_way.insert(id, Attempt { via, progress: Progress::Opening });
        id
    }

    /// Whether a path is open and waits to be attached.
    pub(super) fn any_open(&self) -> bool {
        self.under_way.values().any(|attempt| matches!(attempt.progress, Progress::Open(_)))
    }

    /// Whether the driver is yet to carry an attach out.
    pub(super) fn any_ordered(&self) -> bool {
        self.under_way.values().any(|attempt| matches!(attempt.progress, Progress::Ordered(_)))
    }

    pub(super) fn note_opened(&mut self, id: AttemptId, opened: OpenedPath) {
        if let Some(attempt) = self.under_way.get_mut(&id) {
            attempt.progress = Progress::Open(opened);
        }
    }

    /// Takes the first path that waits; it counts as ordered from then on.
    pub(super) fn order(&mut self) -> Option<AttemptId> {
        let (id, attempt) =
            self.under_way.iter_mut().find(|(_, attempt)| matches!(attempt.progress, Progress::Open(_)))?;
        if let Progress::Open(opened) = &mut attempt.progress {
            attempt.progress = Progress::Ordered(std::mem::take(opened));
        }
        Some(*id)
    }

    /// The attempt has become a path.
    pub(super) fn take(&mut self, id: AttemptId) -> Option<OpenedPath> {
        match self.under_way.remove(&id)?.progress {
            Progress::Open(opened) | Progress::Ordered(opened) => Some(opened),
            Progress::Opening => None,
        }
    }

    /// Gives up all that is not ordered to be attached.
    pub(super) fn cancel(&mut self) -> Vec<AttemptId> {
        let ordered = |attempt: &Attempt| matches!(attempt.progress, Progress::Ordered(_));
        let cancelled: Vec<AttemptId> =
            self.under_way.iter().filter(|(_, attempt)| !ordered(attempt)).map(|(id, _)| *id).collect();
        self.under_way.retain(|_, attempt| ordered(attempt));
        cancelled
    }
}

/// What the session wants another path for.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) reason: Reason,
    /// RESUME, HANDOVER, or STANDBY after the old path has spoken again.
    pub(super) purpose: Purpose,
    pub(super) began: Moment,
    pub(super) started: u32,
    /// When the next attempt may start; `None` while one is waited for.
    pub(super) next: Option<Moment>,
    pub(super) tried: Vec<BrokerId>,
    pub(super) doubtful: Vec<BrokerId>,
    /// The session moves although the old path speaks again.
    pub(super) insists: bool,
    backoff: Backoff,
}

impl Move {
    pub(super) fn new(purpose: Purpose, reason: Reason, now: Moment) -> Self {
        Self {
            reason,
            purpose,
            began: now,
            started: 0,
            next: Some(now),
            tried: Vec::new(),
            doubtful: Vec::new(),
            insists: false,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
        }
    }

    /// What was a plan has become a need.
    pub(super) fn turn_into_recovery(&mut self, reason: Reason, now: Moment) {
        self.purpose = Purpose::RESUME;
        self.reason = reason;
        self.began = now;
        self.next = Some(now);
    }

    pub(super) fn doubt(&mut self, brokers: &[BrokerId]) {
        for broker in brokers {
            if !self.doubtful.contains(broker) && self.doubtful.len() < DOUBTFUL_MAX {
                self.doubtful.push(broker.clone());
            }
        }
    }

    /// An attempt through `via` has started.
    pub(super) fn note_started(&mut self, via: BrokerId, round_trip: Duration, now: Moment) {
        self.started = self.started.saturating_add(1);
        if self.tried.len() >= 64 {
            self.tried.clear();
        }
        self.tried.push(via);
        self.next = (self.purpose == Purpose::RESUME).then(|| now + hedge(round_trip) * self.started.min(16));
    }

    /// An attempt has failed: the next comes after the back-off, or when it was to come anyway.
    pub(super) fn note_failed(&mut self, now: Moment, rng: &mut impl rand::Rng) {
        let after = now + self.backoff.next_delay(rng);
        self.next = Some(self.next.map_or(after, |next| next.min(after)));
    }

    /// Whether nothing is lost by giving it up.
    pub(super) fn may_be_given_up(&self) -> bool {
        self.purpose == Purpose::HANDOVER
            && self.reason.is_voluntary()
            && self.started >= VOLUNTARY_ATTEMPTS_MAX
    }
}

/// How long an attempt or an ATTACH is waited for before another one starts beside it.
pub(super) fn hedge(round_trip: Duration) -> Duration {
    (round_trip * 3).max(HEDGE_MIN)
}
