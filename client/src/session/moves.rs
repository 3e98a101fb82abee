//! How a session fares on its paths: what is told of them, what the planner of a Controller hears, and the last move.

use std::collections::VecDeque;

use rc_proto::Moment;
use rc_proto::recovery::{Action, Planner, Reason};
use rc_proto::session::{PathKey, SessionEvent};
use rc_proto::wire::Epoch;
use rc_proto::wire::codes::Purpose;
use rc_proto::wire::frame::Attach;

use super::state::{PathSlot, State};
use crate::event::Event;
use crate::status::{MoveStatus, whole_ms};

/// An ATTACH on a path that stood by, which nobody has judged yet.
pub(super) type Requested = (PathKey, Box<Attach>);

/// See the module.
#[derive(Default)]
pub(super) struct Moves {
    /// A Controller's; a Target follows.
    pub(super) plan: Option<Planner>,
    /// The last move, and when it was done.
    pub(super) last: Option<(Moment, MoveStatus)>,
    /// Since when the session wants another path, and why.
    trouble: Option<(Moment, Reason)>,
    /// Whether a path ever carried the session.
    begun: bool,
    keys_made: u64,
    /// What the last path died of.
    last_loss: String,
    /// At most one of each path.
    requested: VecDeque<Requested>,
    events: Vec<Event>,
}

impl Moves {
    pub(super) fn next_key(&mut self) -> PathKey {
        self.keys_made += 1;
        PathKey(self.keys_made)
    }

    pub(super) fn note_loss(&mut self, reason: &str) {
        if !reason.is_empty() {
            reason.clone_into(&mut self.last_loss);
        }
    }

    pub(super) fn take_loss(&mut self) -> String {
        std::mem::take(&mut self.last_loss)
    }

    pub(super) fn request(&mut self, path: PathKey, attach: Box<Attach>) {
        self.requested.push_back((path, attach));
    }

    pub(super) fn take_request(&mut self) -> Option<Requested> {
        self.requested.pop_front()
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requested.is_empty()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn plan_timeout(&self) -> Option<Moment> {
        self.plan.as_ref().and_then(Planner::poll_timeout)
    }

    pub(super) fn has_actions(&self) -> bool {
        self.plan.as_ref().is_some_and(Planner::has_actions)
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.plan.as_mut()?.poll_action()
    }
}

impl State {
    /// Tells people and the planner of an event that concerns paths.
    pub(super) fn note_event(&mut self, event: &SessionEvent, now: Moment) {
        if let SessionEvent::Attached { path, epoch } = event {
            self.note_attached(*path, *epoch, now);
        } else if let SessionEvent::Suspect(path) = event {
            self.note_suspect(*path, now);
        } else if let SessionEvent::Recovered(path) = event {
            self.moves.trouble = None;
            self.tell_path(*path, |session, path, epoch| Event::PathTrusted { session, path, epoch });
        } else if matches!(event, SessionEvent::Detached) {
            self.moves.trouble.get_or_insert((now, Reason::PathLost));
            let (session, reason) = (self.session.id(), self.moves.last_loss.clone());
            self.moves.events.push(Event::SessionDetached { session, reason });
        }
        let measured = matches!(event, SessionEvent::Attached { .. } | SessionEvent::Suspect(_));
        let round_trip = if measured { self.round_trip() } else { None };
        if let Some(plan) = &mut self.moves.plan {
            if let Some(round_trip) = round_trip {
                plan.handle_round_trip(round_trip);
            }
            plan.handle_session_event(event, now);
        }
    }

    /// The leg of a path has ended; `reason` is empty when this side wanted it closed.
    pub(super) fn note_gone(&mut self, key: PathKey, path: &PathSlot, reason: &str, now: Moment) {
        self.moves.requested.retain(|(requested, _)| *requested != key);
        if let Some(epoch) = path.epoch.filter(|_| self.end.is_none()) {
            let reason = if reason.is_empty() { path.closing.unwrap_or_default() } else { reason };
            let (session, reason) = (self.session.id(), reason.to_owned());
            self.moves.events.push(Event::PathEnded { session, path: path.facts.path, epoch, reason });
        }
        if let Some(plan) = &mut self.moves.plan {
            plan.handle_path_lost(key, now);
        }
    }

    fn note_attached(&mut self, key: PathKey, epoch: Epoch, now: Moment) {
        let session = self.session.id();
        let Some(slot) = self.paths.get_mut(&key) else { return };
        slot.epoch = Some(epoch);
        let path = slot.facts.path;
        let brokers = slot.facts.hops.iter().map(|hop| hop.broker.clone()).collect();
        self.moves.events.push(Event::PathOpened { session, path, epoch, brokers });
        if epoch == Epoch(0) {
            return;
        }
        let first = !std::mem::replace(&mut self.moves.begun, true);
        let trouble = self.moves.trouble.take();
        if first || self.moves.plan.is_some() {
            return;
        }
        // The Controller moved the session; this side knows only what went before.
        let (since, reason) = trouble.map_or((now, None), |(since, reason)| (since, Some(reason)));
        let purpose = if reason.is_some() { Purpose::RESUME } else { Purpose::HANDOVER };
        let took_ms = whole_ms(now.since(since));
        self.moves.last = Some((now, MoveStatus { purpose, reason, took_ms, attempts: None }));
        self.moves.events.push(Event::SessionMoved { session, path, purpose, reason, took_ms });
    }

    fn note_suspect(&mut self, key: PathKey, now: Moment) {
        if self.paths.get(&key).is_some_and(|slot| slot.epoch.is_some_and(|epoch| epoch > Epoch(0))) {
            self.moves.trouble.get_or_insert((now, Reason::Suspect));
        }
        self.tell_path(key, |session, path, epoch| Event::PathSuspect { session, path, epoch });
    }

    fn tell_path(
        &mut self,
        key: PathKey,
        event: impl FnOnce(rc_proto::wire::SessionId, Option<rc_proto::wire::PathId>, Epoch) -> Event,
    ) {
        if let Some(slot) = self.paths.get(&key) {
            let event = event(self.session.id(), slot.facts.path, slot.epoch.unwrap_or_default());
            self.moves.events.push(event);
        }
    }

    /// The round trip to the peer on the path in use, when it was measured.
    fn round_trip(&self) -> Option<std::time::Duration> {
        let paths = self.session.status().paths;
        paths.iter().filter(|path| path.live).max_by_key(|path| (path.bound, path.epoch))?.srtt
    }
}
