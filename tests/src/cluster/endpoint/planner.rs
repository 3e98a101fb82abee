//! When the Controller opens which path.
//!
//! A small planner of the simulation's own: a trusted path of the interactive lane at all times, another broker after
//! each failure, full-jitter back-off from the second attempt on, a handover when somebody asks for one.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
use rc_proto::session::{SessionState, SessionStatus};
use rc_proto::wire::codes::{Lane, Purpose};

use crate::cluster::net::Host;

/// Attempts at a time.
const ATTEMPTS_MAX: usize = 2;
/// A second attempt starts beside a slow first one after this.
const HEDGE: Duration = Duration::from_millis(400);
/// First and longest back-off.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the planner looks while something is to be done.
const LOOK: Duration = Duration::from_millis(100);

/// A path to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Order {
    pub(in crate::cluster) purpose: Purpose,
    pub(in crate::cluster) lane: Lane,
    pub(in crate::cluster) via: Host,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Planner {
    running: usize,
    running_bulk: usize,
    failures: u32,
    next: Moment,
    turn: usize,
    handover: Option<Moment>,
    pub(in crate::cluster) wants_bulk: bool,
    wants_standby: bool,
}

impl Planner {
    /// The session is to move to another path at `at`.
    pub(in crate::cluster) fn move_at(&mut self, at: Moment) {
        self.handover = Some(self.handover.map_or(at, |set| set.min(at)));
    }

    pub(in crate::cluster) fn stand_by(&mut self) {
        self.wants_standby = true;
    }

    pub(in crate::cluster) fn began(&mut self, lane: Lane, now: Moment) {
        if lane == Lane::BULK {
            self.running_bulk += 1;
        } else {
            self.running += 1;
            self.next = now + HEDGE;
        }
    }

    /// An attempt is over; with `is_good` it carries the session.
    pub(in crate::cluster) fn over(
        &mut self,
        lane: Lane,
        is_good: bool,
        wait: Option<Duration>,
        now: Moment,
        rng: &mut SmallRng,
    ) {
        if lane == Lane::BULK {
            self.running_bulk = self.running_bulk.saturating_sub(1);
        } else {
            self.running = self.running.saturating_sub(1);
        }
        if is_good {
            self.failures = 0;
            self.next = now;
            return;
        }
        let factor = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        let longest = BACKOFF.0.saturating_mul(factor).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        let backoff = rng.random_range(Duration::ZERO..=longest);
        self.next = now + wait.unwrap_or(backoff);
    }

    pub(in crate::cluster) fn poll_timeout(&self, status: &SessionStatus, now: Moment) -> Option<Moment> {
        if status.state == SessionState::Over {
            return None;
        }
        let lacks =
            !has_trusted(status, Lane::INTERACTIVE) || (self.wants_bulk && !has_trusted(status, Lane::BULK));
        let look = lacks.then_some(self.next.max(now + LOOK));
        [look, self.handover.map(|at| at.max(self.next).max(now + LOOK))].into_iter().flatten().min()
    }

    /// What to open now, if anything; it counts as ordered.
    pub(in crate::cluster) fn wish(
        &mut self,
        status: &SessionStatus,
        now: Moment,
    ) -> Option<(Purpose, Lane)> {
        if status.state == SessionState::Over || now < self.next {
            return None;
        }
        if !has_trusted(status, Lane::INTERACTIVE) {
            let purpose = if status.highest_epoch.0 == 0 { Purpose::NEW } else { Purpose::RESUME };
            return (self.running < ATTEMPTS_MAX).then_some((purpose, Lane::INTERACTIVE));
        }
        if self.running == 0 && self.handover.take_if(|at| now >= *at).is_some() {
            return Some((Purpose::HANDOVER, Lane::INTERACTIVE));
        }
        if self.wants_bulk && self.running_bulk == 0 && !has_trusted(status, Lane::BULK) {
            return Some((Purpose::RESUME, Lane::BULK));
        }
        std::mem::take(&mut self.wants_standby).then_some((Purpose::STANDBY, Lane::INTERACTIVE))
    }

    /// The broker to go through: another one than the session goes through now, each in its turn.
    pub(in crate::cluster) fn choose(&mut self, brokers: &[Host], current: Option<Host>) -> Option<Host> {
        let others: Vec<Host> = brokers.iter().copied().filter(|broker| Some(*broker) != current).collect();
        let pool = if others.is_empty() { brokers } else { &others };
        let turn = if self.failures == 0 { 0 } else { self.turn };
        self.turn += 1;
        pool.get(turn.checked_rem(pool.len())?).copied()
    }
}

/// Whether a path of the lane carries the session, or is about to, and is not suspect.
fn has_trusted(status: &SessionStatus, lane: Lane) -> bool {
    status.paths.iter().any(|path| path.live && !path.suspect && path.lane == lane)
}
