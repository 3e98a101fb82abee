//! What is due without anything going wrong: periodic handovers, planned ones, fresh tickets, paths to let go.

use std::time::Duration;

use rand::Rng;

use super::order::{PlannerConfig, Reason};
use crate::Moment;
use crate::select::Backoff;
use crate::wire::BrokerId;

/// Planned handovers that wait at once; one for each reason.
const DUE_MAX: usize = 8;
/// First and longest wait after a ticket could not be had.
const TICKET_RETRY_FIRST: Duration = Duration::from_secs(1);
const TICKET_RETRY_MAX: Duration = Duration::from_secs(60);

/// A handover that is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Moment,
    pub(super) reason: Reason,
    pub(super) leave: Vec<BrokerId>,
}

/// The ticket that the session holds.
#[derive(Debug)]
struct Ticket {
    ends: Option<Moment>,
    renew_at: Option<Moment>,
    fetching: bool,
    backoff: Backoff,
}

/// Everything that a clock brings.
#[derive(Debug)]
pub(super) struct Upkeep {
    repath_every: Option<Duration>,
    voluntary_spacing: Duration,
    periodic_at: Option<Moment>,
    last_voluntary: Option<Moment>,
    due: Vec<Due>,
    ticket: Ticket,
}

impl Upkeep {
    pub(super) fn new(config: &PlannerConfig) -> Self {
        let spacing =
            config.repath_every.map_or(config.voluntary_spacing, |every| every.min(config.voluntary_spacing));
        Self {
            repath_every: config.repath_every,
            voluntary_spacing: spacing,
            periodic_at: None,
            last_voluntary: None,
            due: Vec::new(),
            ticket: Ticket {
                ends: None,
                renew_at: None,
                fetching: false,
                backoff: Backoff::new(TICKET_RETRY_FIRST, TICKET_RETRY_MAX),
            },
        }
    }

    /// The session changed its path: the period starts again.
    pub(super) fn note_moved(&mut self, reason: Reason, now: Moment, rng: &mut impl Rng) {
        if reason.is_voluntary() {
            self.last_voluntary = Some(now);
        }
        self.periodic_at = self.repath_every.map(|every| now + every.mul_f64(rng.random_range(0.9..=1.1)));
    }

    /// Plans a handover; a sooner one of the same reason replaces a later one.
    pub(super) fn plan(&mut self, due: Due) {
        let room = self.due.len() < DUE_MAX;
        match self.due.iter_mut().find(|planned| planned.reason == due.reason) {
            Some(planned) => {
                planned.at = planned.at.min(due.at);
                planned.leave.extend(due.leave);
                planned.leave.sort();
                planned.leave.dedup();
            }
            None if room => self.due.push(due),
            None => {}
        }
    }

    /// Drops planned handovers that a move has made needless; `crossed` says whether a broker still carries the session.
    pub(super) fn settle(&mut self, crossed: impl Fn(&BrokerId) -> bool) {
        self.due.retain(|due| due.reason == Reason::Ticket || due.leave.iter().any(&crossed));
    }

    /// The handover that is to start now.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Due> {
        if self.periodic_at.is_some_and(|at| at <= now) {
            self.periodic_at = None;
            self.plan(Due { at: now, reason: Reason::Periodic, leave: Vec::new() });
        }
        let (index, _) = self
            .due
            .iter()
            .enumerate()
            .filter(|(_, due)| self.starts_at(due) <= now)
            .min_by_key(|(_, due)| due.reason)?;
        Some(self.due.swap_remove(index))
    }

    fn starts_at(&self, due: &Due) -> Moment {
        match self.last_voluntary {
            Some(last) if due.reason.is_voluntary() => due.at.max(last + self.voluntary_spacing),
            Some(_) | None => due.at,
        }
    }

    /// The first ticket, or a fresh one. True when it is to be presented by a handover.
    pub(super) fn set_ticket(&mut self, ends: Option<Moment>, now: Moment, rng: &mut impl Rng) -> bool {
        let ticket = &mut self.ticket;
        let was_fetching = std::mem::take(&mut ticket.fetching);
        let longer = match (ticket.ends, ends) {
            (Some(before), Some(ends)) => ends > before,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if was_fetching && ticket.ends.is_some() && !longer {
            // The source has no other ticket yet.
            ticket.renew_at = Some(now + ticket.backoff.next_delay(rng).max(TICKET_RETRY_FIRST));
            return false;
        }
        ticket.ends = ends;
        ticket.backoff.reset();
        ticket.renew_at = ends.map(|ends| now + ends.since(now).mul_f64(rng.random_range(0.7..=0.8)));
        was_fetching && longer
    }

    /// There was no ticket to be had.
    pub(super) fn note_ticket_failed(&mut self, now: Moment, rng: &mut impl Rng) {
        self.ticket.fetching = false;
        self.ticket.renew_at = Some(now + self.ticket.backoff.next_delay(rng).max(TICKET_RETRY_FIRST));
    }

    /// The held ticket is of no use any more.
    pub(super) fn want_ticket(&mut self, now: Moment) {
        let at = self.ticket.renew_at.map_or(now, |at| at.min(now));
        self.ticket.renew_at = Some(at);
    }

    /// Whether a ticket is to be fetched now; it counts as being fetched from then on.
    pub(super) fn take_ticket_wish(&mut self, now: Moment) -> bool {
        let wanted = !self.ticket.fetching && self.ticket.renew_at.is_some_and(|at| at <= now);
        if wanted {
            self.ticket.fetching = true;
            self.ticket.renew_at = None;
        }
        wanted
    }

    /// When a ticket is wanted.
    pub(super) fn ticket_deadline(&self) -> Option<Moment> {
        self.ticket.renew_at.filter(|_| !self.ticket.fetching)
    }

    /// When a handover is to start.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let periodic = self.periodic_at.map(|at| match self.last_voluntary {
            Some(last) => at.max(last + self.voluntary_spacing),
            None => at,
        });
        self.due.iter().map(|due| self.starts_at(due)).chain(periodic).min()
    }
}
