//! One endpoint's health.
//!
//! ```text
//!            due                       answer, failure or deadline
//!  Waiting ──────▶ Queued ──start──▶ Probing ──────────────────────▶ Waiting
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;

use super::outcome::{ProbeFailure, Report};
use crate::decide::{EndpointStatus, Health};

/// An interval is shortened by a random part of up to one tenth, so that probes of many endpoints spread out while
/// the bound on noticing a fault stays.
const JITTER_DIVISOR: u32 = 10;
/// How far back Degraded turns count towards [`ProbePlan::flap_limit`].
const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// Most successes in a row that a flapping endpoint needs to come back.
const FLAP_SUCCESSES_MAX: u32 = 16;
/// A deadline that we notice this much late says more about us than about the broker.
const OWN_STALL: Duration = Duration::from_millis(500);

/// How one endpoint is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePlan {
    /// From the start of one probe to the start of the next, at most.
    pub interval: Duration,
    /// How long a probe may take; not more than the interval.
    pub timeout: Duration,
    /// Failures in a row that change nothing.
    pub tolerated_failures: u8,
    /// How often an endpoint may turn Degraded within ten minutes and still come back at its first success; each
    /// further time doubles the successes in a row that it needs, up to 16. 0: the first success always counts.
    pub flap_limit: u8,
}

/// What was known of an endpoint before this monitor began: by another one, or by an earlier run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastKnown {
    /// What decided about answers.
    pub health: Health,
    /// Failures in a row.
    pub failures: u32,
    /// When its state last changed.
    pub since: Moment,
}

/// What the monitor is to do with one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Probe it.
    Probed(ProbePlan),
    /// Do not probe it; its state is fixed.
    Fixed(EndpointStatus),
}

/// What is known of one endpoint, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// What decides about answers.
    pub health: Health,
    /// When its state last changed.
    pub since: Moment,
    /// Failures in a row.
    pub failures: u32,
    /// The last answer; `None` when there was none, or when it is Degraded.
    pub report: Option<Report>,
    /// The last failure since the last answer.
    pub last_failure: Option<ProbeFailure>,
}

#[derive(Debug)]
enum Phase {
    /// Not to be probed.
    Unprobed,
    /// The next probe is due at this moment.
    Waiting { due: Moment },
    /// Due, but as many probes as allowed are in flight.
    Queued,
    /// One probe is in flight.
    Probing { number: u64, started: Moment, deadline: Moment },
}

/// How a probe in flight stands at a moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It still has time.
    No,
    /// Its time is over.
    Yes,
    /// Its time was over long ago: we were not running.
    WeStalled,
}

/// The machine of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointMonitor {
    watch: Watch,
    phase: Phase,
    view: EndpointView,
    flaps: Flaps,
}

/// How often an endpoint went down of late, and how far its return is.
#[derive(Debug, Default)]
struct Flaps {
    /// When it turned Degraded, the latest ones.
    downs: VecDeque<Moment>,
    /// Successes in a row since it is Degraded.
    successes: u32,
}

impl Flaps {
    fn went_down(&mut self, plan: &ProbePlan, now: Moment) {
        self.successes = 0;
        if plan.flap_limit > 0 {
            self.downs.push_back(now);
            // More would not lengthen the way back.
            let kept = usize::from(plan.flap_limit) + 5;
            while self.downs.len() > kept {
                self.downs.pop_front();
            }
        }
    }

    /// Counts a success of a Degraded endpoint; says whether it is back.
    fn is_back(&mut self, plan: &ProbePlan, now: Moment) -> bool {
        self.successes = self.successes.saturating_add(1);
        while self.downs.front().is_some_and(|down| now.since(*down) > FLAP_WINDOW) {
            self.downs.pop_front();
        }
        let beyond = self.downs.len().saturating_sub(usize::from(plan.flap_limit));
        let needed =
            u32::try_from(beyond).map_or(u32::MAX, |beyond| 1_u32.checked_shl(beyond).unwrap_or(u32::MAX));
        plan.flap_limit == 0 || self.successes >= needed.min(FLAP_SUCCESSES_MAX)
    }
}

impl EndpointMonitor {
    pub(super) fn new(watch: Watch, first_probe: Moment, now: Moment) -> Self {
        let (status, phase) = match watch {
            Watch::Probed(_) => (EndpointStatus::CheckingEndpoint, Phase::Waiting { due: first_probe }),
            Watch::Fixed(status) => (status, Phase::Unprobed),
        };
        let health = Health::with_status(status);
        let view = EndpointView { health, since: now, failures: 0, report: None, last_failure: None };
        Self { watch, phase, view, flaps: Flaps::default() }
    }

    /// Goes on from what was known; what the operator has fixed stays.
    pub(super) fn resume(&mut self, known: &LastKnown) {
        if let Watch::Probed(_) = self.watch {
            self.view.health = known.health;
            self.view.failures = known.failures;
            self.view.since = known.since;
        }
    }

    /// Stops to be probed, or is probed at once; a probe in flight is forgotten.
    pub(super) fn pause(&mut self, is_paused: bool, now: Moment) {
        if let Watch::Probed(_) = self.watch {
            self.phase = if is_paused { Phase::Unprobed } else { Phase::Waiting { due: now } };
        }
    }

    pub(super) const fn view(&self) -> &EndpointView {
        &self.view
    }

    /// When it next wants to be looked at.
    pub(super) const fn timer(&self) -> Option<Moment> {
        match self.phase {
            Phase::Unprobed | Phase::Queued => None,
            Phase::Waiting { due } => Some(due),
            Phase::Probing { deadline, .. } => Some(deadline),
        }
    }

    /// Moves to the queue when a probe is due.
    pub(super) fn queue_if_due(&mut self, now: Moment) -> bool {
        let is_due = matches!(self.phase, Phase::Waiting { due } if due <= now);
        if is_due {
            self.phase = Phase::Queued;
        }
        is_due
    }

    /// Starts a probe; returns how long it may take.
    pub(super) fn start(&mut self, number: u64, now: Moment) -> Option<Duration> {
        let (Watch::Probed(plan), Phase::Queued) = (self.watch, &self.phase) else { return None };
        self.phase = Phase::Probing { number, started: now, deadline: now + plan.timeout };
        Some(plan.timeout)
    }

    /// The probe in flight.
    pub(super) const fn probe_in_flight(&self) -> Option<u64> {
        match self.phase {
            Phase::Probing { number, .. } => Some(number),
            Phase::Unprobed | Phase::Waiting { .. } | Phase::Queued => None,
        }
    }

    pub(super) fn overdue(&self, now: Moment) -> Overdue {
        match self.phase {
            Phase::Probing { deadline, .. } if deadline + OWN_STALL < now => Overdue::WeStalled,
            Phase::Probing { deadline, .. } if deadline <= now => Overdue::Yes,
            Phase::Unprobed | Phase::Waiting { .. } | Phase::Queued | Phase::Probing { .. } => Overdue::No,
        }
    }

    /// The probe in flight ended without saying anything.
    pub(super) fn void(&mut self, now: Moment, rng: &mut impl Rng) {
        self.wait(now, rng);
    }

    pub(super) fn timed_out(&mut self, now: Moment, rng: &mut impl Rng) {
        if let Watch::Probed(plan) = self.watch {
            self.ended(Err(ProbeFailure::Timeout { after: plan.timeout }), now, rng);
        }
    }

    /// The probe in flight ended.
    pub(super) fn ended(&mut self, outcome: Result<Report, ProbeFailure>, now: Moment, rng: &mut impl Rng) {
        self.wait(now, rng);
        let before = self.view.health.status;
        match outcome {
            Ok(report) => self.answered(report, now),
            Err(failure) => self.failed(failure, now),
        }
        if self.view.health.status != before {
            self.view.since = now;
        }
    }

    fn answered(&mut self, report: Report, now: Moment) {
        let Watch::Probed(plan) = self.watch else { return };
        if self.view.health.status == EndpointStatus::Degraded && !self.flaps.is_back(&plan, now) {
            self.view.failures = 0;
            self.view.last_failure = None;
            return;
        }
        self.view.health = Health {
            status: EndpointStatus::Online,
            accepting: report.accepting,
            mesh_healthy: report.mesh_healthy,
            load: report.load,
        };
        self.view.failures = 0;
        self.view.report = Some(report);
        self.view.last_failure = None;
    }

    fn failed(&mut self, failure: ProbeFailure, now: Moment) {
        self.view.failures = self.view.failures.saturating_add(1);
        self.view.last_failure = Some(failure);
        self.flaps.successes = 0;
        let Watch::Probed(plan) = self.watch else { return };
        if self.view.failures > u32::from(plan.tolerated_failures) {
            if self.view.health.status != EndpointStatus::Degraded {
                self.flaps.went_down(&plan, now);
            }
            self.view.health = Health::with_status(EndpointStatus::Degraded);
            self.view.report = None;
        }
    }

    fn wait(&mut self, now: Moment, rng: &mut impl Rng) {
        let (Watch::Probed(plan), &Phase::Probing { started, .. }) = (self.watch, &self.phase) else {
            return;
        };
        let shortened = plan.interval.saturating_sub(random_part(plan.interval / JITTER_DIVISOR, rng));
        self.phase = Phase::Waiting { due: (started + shortened).max(now) };
    }
}

/// A random span from zero to `whole`.
pub(super) fn random_part(whole: Duration, rng: &mut impl Rng) -> Duration {
    whole.mul_f64(rng.random_range(0.0..=1.0))
}
