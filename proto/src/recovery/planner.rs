//! The planner itself: what it is told, what follows, and what it tells.

use std::collections::VecDeque;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::attempts::{Attempts, Move};
use super::brokers::Brokers;
use super::order::{Action, AttemptId, BrokerView, OpenFailure, OpenedPath, PlannerConfig, Reason, Report};
use super::paths::{Paths, Stage};
use super::upkeep::{Due, Upkeep};
use crate::Moment;
use crate::session::PathKey;
use crate::wire::Epoch;
use crate::wire::codes::{PathFailure, Purpose};

/// How long the pinned instance is looked for before another one's word counts that the session is gone.
pub(super) const INSTANCE_SOUGHT: Duration = Duration::from_secs(5);

/// What the planner remembers of earlier moves.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) last_recovery: Option<Moment>,
    /// Since when other instances say that they do not know the session.
    pub(super) unknown_since: Option<Moment>,
    pub(super) round_trip: Duration,
}

/// Plans the paths of one Controller session; see the [module](super).
#[derive(Debug)]
pub struct Planner {
    pub(super) config: PlannerConfig,
    pub(super) rng: SmallRng,
    pub(super) brokers: Brokers,
    pub(super) paths: Paths,
    pub(super) attempts: Attempts,
    pub(super) goal: Option<Move>,
    pub(super) history: History,
    pub(super) upkeep: Upkeep,
    pub(super) actions: VecDeque<Action>,
    pub(super) over: bool,
}

impl Planner {
    /// A planner without paths. `seed` decides its jitter.
    pub fn new(config: PlannerConfig, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            brokers: Brokers::default(),
            paths: Paths::default(),
            attempts: Attempts::default(),
            goal: None,
            history: History::default(),
            upkeep: Upkeep::new(&config),
            actions: VecDeque::new(),
            over: false,
            config,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`Self::poll_action`] has one.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        if self.over {
            return None;
        }
        let next = self.goal.as_ref().and_then(|goal| goal.next).filter(|_| self.may_start());
        let (retire, close) = (self.fallback_end().map(|(_, at)| at), self.standby_end().map(|(_, at)| at));
        let hedged = self.hedged_attach_at();
        let due = if self.goal.is_none() { self.upkeep.deadline() } else { None };
        let ticket = self.upkeep.ticket_deadline();
        [next, retire, close, hedged, due, ticket].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.step(now);
    }

    // ---- brokers and tickets

    /// The brokers that can be used now, best first. Call it whenever that changes.
    pub fn handle_brokers(&mut self, view: Vec<BrokerView>, now: Moment) {
        self.brokers.set_view(view);
        if let Some(goal) = &mut self.goal
            && self.attempts.under_way.is_empty()
            && goal.started == 0
        {
            goal.next = Some(now);
        }
        self.step(now);
    }

    /// The session holds a ticket that ends at `ends`; `None` when it never does.
    pub fn handle_ticket(&mut self, ends: Option<Moment>, now: Moment) {
        if self.upkeep.set_ticket(ends, now, &mut self.rng) {
            self.upkeep.plan(Due { at: now, reason: Reason::Ticket, leave: Vec::new() });
        }
        self.step(now);
    }

    /// The source gave no ticket.
    pub fn handle_ticket_failed(&mut self, now: Moment) {
        self.upkeep.note_ticket_failed(now, &mut self.rng);
        self.step(now);
    }

    /// The round trip to the Target, as the session measures it.
    pub fn handle_round_trip(&mut self, round_trip: Duration) {
        self.history.round_trip = round_trip;
    }

    // ---- what became of actions

    /// The session began on this path.
    pub fn adopt(&mut self, path: PathKey, epoch: Epoch, opened: OpenedPath, now: Moment) {
        self.paths.insert(path, opened, epoch, Stage::Live { since: now });
        self.upkeep.note_moved(Reason::PathLost, now, &mut self.rng);
        self.step(now);
    }

    /// The path of an attempt is open.
    pub fn handle_opened(&mut self, attempt: AttemptId, opened: OpenedPath, now: Moment) {
        if let Some(via) = opened.hops.first() {
            self.brokers.note_worked(via);
        }
        self.attempts.note_opened(attempt, opened);
        self.step(now);
    }

    /// The path of an attempt could not be had.
    pub fn handle_open_failed(&mut self, attempt: AttemptId, failure: OpenFailure, now: Moment) {
        let Some(under_way) = self.attempts.under_way.remove(&attempt) else { return };
        if failure == OpenFailure::Unreachable {
            self.brokers.note_failed(&under_way.via, now);
        }
        if let OpenFailure::Refused { code, retry_after, alternates } = &failure {
            self.brokers.note_alternates(alternates);
            match *code {
                PathFailure::RETRY_AFTER => self.brokers.stay_away(&under_way.via, *retry_after, now),
                PathFailure::UNAUTHORIZED => self.upkeep.want_ticket(now),
                _ => {}
            }
        }
        self.report(Report::AttemptFailed { via: under_way.via, failure });
        self.note_failed(now);
        self.step(now);
    }

    /// ATTACH was queued on the path of an attempt.
    pub fn handle_attaching(
        &mut self,
        attempt: AttemptId,
        path: PathKey,
        epoch: Epoch,
        purpose: Purpose,
        now: Moment,
    ) {
        let opened = self.attempts.take(attempt).unwrap_or_default();
        let stage = Stage::Attaching { attempt: Some(attempt), purpose, since: now };
        self.paths.insert(path, opened, epoch, stage);
        self.step(now);
    }

    /// ATTACH was queued on a path that stood by.
    pub fn handle_activated(&mut self, path: PathKey, epoch: Epoch, now: Moment) {
        if let Some(known) = self.paths.get_mut(path) {
            known.epoch = epoch;
            known.stage = Stage::Attaching { attempt: None, purpose: Purpose::RESUME, since: now };
        }
        self.step(now);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }
}
