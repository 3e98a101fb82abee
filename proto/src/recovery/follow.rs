//! What follows from what is known: which attempt starts, what is attached, what is let go.

use std::time::Duration;

use super::attempts::{ATTEMPTS_MAX, Move, hedge};
use super::brokers::Doubts;
use super::order::{Action, OpenOrder, Reason, Report};
use super::paths::{Known, Stage};
use super::planner::{INSTANCE_SOUGHT, Planner};
use crate::Moment;
use crate::session::PathKey;
use crate::wire::InstanceId;
use crate::wire::codes::Purpose;

/// How long an older path is kept after a recovery, to fall back to.
const FALLBACK_KEPT: Duration = Duration::from_secs(30);
/// How long a path that was made for a false alarm is kept ready.
const STANDBY_KEPT: Duration = Duration::from_secs(60);
/// Paths at once, those being opened included; the Target takes no more.
const PATHS_MAX: usize = 6;

impl Planner {
    /// Brings the plan in line with what is known now.
    pub(super) fn step(&mut self, now: Moment) {
        if self.over {
            return;
        }
        self.judge_goal(now);
        if self.goal.is_none()
            && let Some(due) = self.upkeep.take_due(now)
        {
            let mut goal = Move::new(Purpose::HANDOVER, due.reason, now);
            goal.doubt(&due.leave);
            self.report(Report::Moving { purpose: Purpose::HANDOVER, reason: due.reason });
            self.goal = Some(goal);
        }
        self.attach_ready(now);
        while self.may_start() && self.goal.as_ref().and_then(|goal| goal.next).is_some_and(|at| at <= now) {
            self.start_attempt(now);
        }
        self.let_go(now);
        if self.upkeep.take_ticket_wish(now) {
            self.actions.push_back(Action::FetchTicket);
        }
    }

    /// Whether the move under way is still wanted, and as what.
    fn judge_goal(&mut self, now: Moment) {
        if self.goal.is_none() && !self.paths.trusted() && self.paths.len() > 0 {
            // What the last move left is not heard either.
            self.goal = Some(Move::new(Purpose::RESUME, Reason::Suspect, now));
        }
        let trusted = self.paths.trusted();
        let attaching = self.paths.attaching_since().is_some();
        let Some(goal) = &mut self.goal else {
            self.cancel_all();
            return;
        };
        if goal.purpose == Purpose::RESUME && trusted && !goal.insists && !attaching {
            goal.purpose = Purpose::STANDBY;
            goal.next = None;
        }
        let nothing_left = self.attempts.under_way.is_empty() && !attaching;
        let idle_standby = goal.purpose == Purpose::STANDBY && nothing_left && !self.paths.has_standby();
        let has_standby = goal.purpose == Purpose::STANDBY && self.paths.has_standby();
        if idle_standby || has_standby || (goal.may_be_given_up() && nothing_left) {
            let reason = goal.reason;
            self.goal = None;
            if reason.is_voluntary() {
                self.upkeep.note_moved(reason, now, &mut self.rng);
            }
            self.cancel_all();
        }
    }

    fn cancel_all(&mut self) {
        self.actions.extend(self.attempts.cancel().into_iter().map(Action::Cancel));
    }

    /// Attaches what is open, unless an ATTACH is on its way and young.
    fn attach_ready(&mut self, now: Moment) {
        let Some(goal) = &self.goal else { return };
        let purpose = goal.purpose;
        if self.attempts.any_ordered() || self.hedged_attach_at().is_some_and(|at| at > now) {
            return;
        }
        if let Some(attempt) = self.attempts.order() {
            self.actions.push_back(Action::Attach { attempt, purpose });
        }
    }

    /// When a second path may be attached beside one whose answer is waited for.
    pub(super) fn hedged_attach_at(&self) -> Option<Moment> {
        if !self.attempts.any_open() {
            return None;
        }
        self.paths.attaching_since().map(|since| since + hedge(self.history.round_trip))
    }

    /// Whether a further attempt has room.
    pub(super) fn may_start(&self) -> bool {
        let under_way = self.attempts.under_way.len();
        let limit = match self.goal.as_ref().map(|goal| goal.purpose) {
            Some(Purpose::RESUME) => ATTEMPTS_MAX,
            Some(_) => 1,
            None => 0,
        };
        let attaching = usize::from(self.paths.attaching_since().is_some());
        under_way + attaching < limit && under_way + self.paths.len() < PATHS_MAX
    }

    fn start_attempt(&mut self, now: Moment) {
        let Some(goal) = &mut self.goal else { return };
        let mut tried = goal.tried.clone();
        tried.extend(self.attempts.under_way.values().map(|attempt| attempt.via.clone()));
        let doubts = Doubts { doubtful: &goal.doubtful, tried: &tried };
        let Some(way) = self.brokers.choose(&doubts, now) else {
            goal.next = self.brokers.next_free(now).or_else(|| Some(now + Duration::from_secs(1)));
            return;
        };
        goal.note_started(way.via.clone(), self.history.round_trip, now);
        // When the pinned instance is not found for long, whoever has the name may say that the session is gone.
        let sought = now.since(goal.began) < INSTANCE_SOUGHT || goal.started.is_multiple_of(2);
        let instance: Option<InstanceId> = self.brokers.instance().filter(|_| sought);
        let attempt = self.attempts.start(way.via.clone());
        self.actions.push_back(Action::Open(Box::new(OpenOrder {
            attempt,
            via: way.via,
            purpose: goal.purpose,
            route: way.route,
            avoid: way.avoid,
            instance,
            deadline: self.config.open_deadline,
        })));
    }

    /// Retires what is only kept to fall back to, and closes what stood by long enough.
    fn let_go(&mut self, now: Moment) {
        if let Some((path, at)) = self.fallback_end()
            && at <= now
        {
            self.paths.remove(path);
            self.actions.push_back(Action::Retire(path));
        }
        if let Some((path, at)) = self.standby_end()
            && at <= now
        {
            self.paths.remove(path);
            self.actions.push_back(Action::Close(path));
        }
    }

    pub(super) fn fallback_end(&self) -> Option<(PathKey, Moment)> {
        let (newest, known) = self.paths.newest().filter(|(_, known)| !known.suspect)?;
        let Stage::Live { since } = known.stage else { return None };
        self.paths.spare(newest).map(|older| (older, since + FALLBACK_KEPT))
    }

    pub(super) fn standby_end(&self) -> Option<(PathKey, Moment)> {
        let since = |known: &Known| match known.stage {
            Stage::Standby { since } => Some(since + STANDBY_KEPT),
            Stage::Attaching { .. } | Stage::Live { .. } | Stage::Leaving => None,
        };
        self.paths
            .iter()
            .filter_map(|(key, known)| since(known).map(|at| (key, at)))
            .min_by_key(|(_, at)| *at)
    }

    pub(super) fn finish(&mut self) {
        self.over = true;
        self.goal = None;
        self.actions.retain(|action| matches!(action, Action::Report(_) | Action::Cancel(_)));
        self.cancel_all();
    }
}
