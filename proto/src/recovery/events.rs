//! What happens to the session's paths, and what it means for the move under way.

use std::time::Duration;

use super::attempts::{Move, hedge};
use super::order::{Action, Reason, Report};
use super::paths::{Known, SECOND_SUSPICION, Stage};
use super::planner::{INSTANCE_SOUGHT, Planner};
use super::upkeep::Due;
use crate::Moment;
use crate::session::{PathKey, SessionEvent};
use crate::wire::codes::{Denial, EndCode, Purpose, Refusal, RepathReason};
use crate::wire::frame::Refused;
use crate::wire::{BrokerId, Epoch, PathId};

/// At most one recovery move in this time while something delivers.
const RECOVERY_SPACING: Duration = Duration::from_secs(10);
/// A drain without a slot for a path is followed within this.
const DRAIN_SPREAD_MAX: Duration = Duration::from_secs(2);

impl Planner {
    /// An event of the session.
    pub fn handle_session_event(&mut self, event: &SessionEvent, now: Moment) {
        match event {
            SessionEvent::Attached { path, epoch } => self.handle_attached(*path, *epoch, now),
            SessionEvent::RefusedByPeer { path, refused } => self.handle_refused(*path, refused, now),
            SessionEvent::Suspect(path) => self.suspect(*path, now),
            SessionEvent::Recovered(path) => self.trust(*path),
            SessionEvent::Dead(path) => self.lose(*path, false, now),
            SessionEvent::PathRetired(path) => self.lose(*path, true, now),
            SessionEvent::RepathWanted { reason, epoch } => self.handle_repath(*reason, *epoch, now),
            SessionEvent::Where(place) => self.brokers.set_place((**place).clone()),
            SessionEvent::Ended { .. } | SessionEvent::Aborted { .. } => self.finish(),
            SessionEvent::Detached => self.need_path(Reason::PathLost, &[], false, now),
            SessionEvent::AttachRequested { .. }
            | SessionEvent::Offered { .. }
            | SessionEvent::Opened(_)
            | SessionEvent::Readable(_)
            | SessionEvent::Writable(_)
            | SessionEvent::PeerFinished(_)
            | SessionEvent::Reset { .. }
            | SessionEvent::Closed(_) => return,
        }
        self.step(now);
    }

    /// The leg of a path has ended. Unknown paths are ignored.
    pub fn handle_path_lost(&mut self, path: PathKey, now: Moment) {
        self.lose(path, false, now);
        self.step(now);
    }

    /// A broker stops; `slots` says when each path that it carries is to move.
    pub fn handle_drain(
        &mut self,
        broker: &BrokerId,
        slots: &[(PathId, Moment)],
        alternates: &[BrokerId],
        until: Moment,
        now: Moment,
    ) {
        self.brokers.note_alternates(alternates);
        self.brokers.note_draining(broker.clone(), until);
        let slot = slots.iter().find(|(path, _)| self.paths.by_id(*path).is_some_and(Known::is_live));
        let crosses = self.paths.iter().any(|(_, known)| known.is_live() && known.crosses(broker));
        if let Some((_, at)) = slot {
            self.plan(Reason::Drain, (*at).max(now), vec![broker.clone()]);
        } else if crosses {
            let spread = until.since(now).min(DRAIN_SPREAD_MAX);
            let at = now + spread.mul_f64(rand::Rng::random_range(&mut self.rng, 0.0..=0.5));
            self.plan(Reason::Drain, at, vec![broker.clone()]);
        }
        self.step(now);
    }

    /// The control link to `broker` ended, and nobody meant it to: paths that start there are doubtful.
    pub fn handle_link_lost(&mut self, broker: &BrokerId, now: Moment) {
        self.brokers.note_failed(broker, now);
        let starts_there = |known: &Known| known.opened.hops.first() == Some(broker);
        if self.paths.iter().any(|(_, known)| known.is_live() && starts_there(known)) {
            self.plan(Reason::LinkLost, now, vec![broker.clone()]);
        }
        self.step(now);
    }

    /// This machine's address changed, or it slept.
    pub fn handle_network_changed(&mut self, now: Moment) {
        self.plan(Reason::NetworkChanged, now, Vec::new());
        self.step(now);
    }

    /// Another way was measured as clearly better than the one in use.
    pub fn handle_better(&mut self, now: Moment) {
        self.plan(Reason::Better, now, Vec::new());
        self.step(now);
    }

    fn plan(&mut self, reason: Reason, at: Moment, leave: Vec<BrokerId>) {
        if !self.over {
            self.upkeep.plan(Due { at, reason, leave });
        }
    }

    fn handle_attached(&mut self, path: PathKey, epoch: Epoch, now: Moment) {
        let Some(known) = self.paths.get_mut(path) else { return };
        let Stage::Attaching { purpose, .. } = known.stage else { return };
        known.epoch = epoch;
        if epoch == Epoch(0) {
            known.stage = Stage::Standby { since: now };
            self.report(Report::StandsBy { path });
            self.goal.take_if(|goal| goal.purpose == Purpose::STANDBY);
            return;
        }
        known.stage = Stage::Live { since: now };
        self.history.unknown_since = None;
        let Some(goal) = self.goal.take() else { return };
        let (reason, took) = (goal.reason, now.since(goal.began));
        let attempts = goal.started;
        self.report(Report::Moved { path, purpose, reason, took, attempts });
        if purpose == Purpose::RESUME {
            self.history.last_recovery = Some(now);
        } else {
            self.paths.leave_all_but(path);
        }
        self.upkeep.note_moved(reason, now, &mut self.rng);
        let left = self.paths.newest().map(|(_, known)| known.opened.hops.clone()).unwrap_or_default();
        self.upkeep.settle(|broker| left.contains(broker));
    }

    fn handle_refused(&mut self, path: PathKey, refused: &Refused, now: Moment) {
        if self.paths.remove(path).is_none() {
            return;
        }
        self.report(Report::AttachRefused { path });
        match (refused.code, refused.denial) {
            (Refusal::UNKNOWN_SESSION, _) => {
                let since = *self.history.unknown_since.get_or_insert(now);
                if now.since(since) >= INSTANCE_SOUGHT {
                    self.actions.push_back(Action::End(EndCode::REFUSED));
                }
            }
            (Refusal::DENIED, Some(Denial::TICKET_EXPIRED | Denial::TICKET_USED | Denial::CLOCK)) => {
                self.upkeep.want_ticket(now);
            }
            // The session has taken the higher epoch over: the next attempt starts at once.
            (Refusal::STALE_EPOCH, _) if self.paths.attaching_since().is_none() => {
                if let Some(goal) = &mut self.goal {
                    goal.next = Some(now);
                }
                return;
            }
            _ => {}
        }
        self.note_failed(now);
    }

    fn handle_repath(&mut self, reason: RepathReason, epoch: Epoch, now: Moment) {
        let named = self.paths.by_epoch(epoch).or_else(|| self.paths.newest().map(|(key, _)| key));
        if reason == RepathReason::SUSPECT {
            if let Some(path) = named {
                self.suspect(path, now);
            }
            return;
        }
        let known = named.and_then(|path| self.paths.get_mut(path));
        let last = known.and_then(|known| known.opened.hops.last().cloned());
        let leave = last.filter(|_| reason == RepathReason::DRAIN).into_iter().collect();
        let reason = if reason == RepathReason::BETTER { Reason::Better } else { Reason::PeerAsked };
        self.plan(reason, now, leave);
    }

    fn suspect(&mut self, path: PathKey, now: Moment) {
        let preferred = self.paths.newest().is_some_and(|(newest, _)| newest == path);
        let Some(known) = self.paths.get_mut(path) else { return };
        if known.suspect {
            return;
        }
        known.suspect = true;
        let again = preferred && known.suspected.is_some_and(|before| now.since(before) < SECOND_SUSPICION);
        known.suspected = Some(now);
        let (live, hops) = (known.is_live(), known.opened.hops.clone());
        self.report(Report::Suspect { path });
        if live {
            self.need_path(Reason::Suspect, &hops, again, now);
        }
    }

    fn trust(&mut self, path: PathKey) {
        let Some(known) = self.paths.get_mut(path).filter(|known| known.suspect) else { return };
        known.suspect = false;
        self.report(Report::Trusted { path });
    }

    fn lose(&mut self, path: PathKey, planned: bool, now: Moment) {
        let Some(known) = self.paths.remove(path) else { return };
        self.report(Report::Lost { path, planned });
        match known.stage {
            Stage::Live { .. } if !planned => {
                self.need_path(Reason::PathLost, &known.opened.hops, false, now);
            }
            Stage::Attaching { .. } => self.note_failed(now),
            Stage::Live { .. } | Stage::Leaving | Stage::Standby { .. } => {}
        }
    }

    /// A path that carried the session is doubtful or gone.
    fn need_path(&mut self, reason: Reason, hops: &[BrokerId], again: bool, now: Moment) {
        if self.over {
            return;
        }
        let spaced = self.history.last_recovery.is_none_or(|last| now.since(last) >= RECOVERY_SPACING);
        let insists = again && spaced;
        if self.paths.trusted() && !insists {
            return;
        }
        let starts = match &mut self.goal {
            None => {
                self.goal = Some(Move::new(Purpose::RESUME, reason, now));
                true
            }
            Some(goal) if goal.purpose != Purpose::RESUME => {
                goal.turn_into_recovery(reason, now);
                true
            }
            Some(_) => false,
        };
        if let Some(goal) = &mut self.goal {
            goal.doubt(hops);
            goal.insists |= insists;
        }
        if starts {
            self.report(Report::Moving { purpose: Purpose::RESUME, reason });
            if let Some(standby) = self.paths.standby() {
                self.actions.push_back(Action::Activate(standby));
                if let Some(goal) = &mut self.goal {
                    goal.next = Some(now + hedge(self.history.round_trip));
                }
            }
        }
    }

    /// An attempt or an ATTACH has come to nothing.
    pub(super) fn note_failed(&mut self, now: Moment) {
        if let Some(goal) = &mut self.goal {
            goal.note_failed(now, &mut self.rng);
        }
    }
}
