//! What the lock protects: the pure session, its paths, its channels' waiters, and what a mutation leaves to be told.

use std::collections::BTreeMap;
use std::task::Waker;

use rc_proto::Moment;
use rc_proto::identity::ticket::KeyThumbprint;
use rc_proto::session::{ChannelError, PathKey, ReadOutcome, Session, SessionEvent, SessionState};
use rc_proto::wire::codes::{Class, EndCode, Lane, ResetCode};
use rc_proto::wire::frame::Refused;
use rc_proto::wire::{ChannelId, Epoch, PathId, ServiceName};
use tokio::sync::{mpsc, oneshot};

use super::core::Transmit;
use super::moves::Moves;
use super::waits::{Fate, Slot, Wait};
use crate::event::Event;
use crate::status::{EndedBy, HopStatus, SessionEnd};

/// Why a path is given up whose peer fell silent.
const NOT_HEARD: &str = "the peer is not heard any more";

/// A channel that the peer opened.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) channel: ChannelId,
    pub(crate) service: ServiceName,
    pub(crate) class: Class,
}

/// How an ATTACH was answered.
#[derive(Debug)]
pub(super) enum AttachAnswer {
    Attached,
    Refused(Box<Refused>),
    PathGone(String),
}

/// What is known of a path beside the session's own view.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathFacts {
    pub(crate) path: Option<PathId>,
    pub(crate) lane: Option<Lane>,
    pub(crate) hops: Vec<HopStatus>,
    pub(crate) first_round_trip_us: Option<u32>,
    /// Thumbprint of the key that the other end proved on this path.
    pub(crate) peer_key: Option<KeyThumbprint>,
}

/// One path's pump, from the session's side.
pub(super) struct PathSlot {
    pub(super) facts: PathFacts,
    /// Its epoch, once the Target has taken it; 0 while it stands by.
    pub(super) epoch: Option<Epoch>,
    /// Why the session is done with it: the pump closes it.
    pub(super) closing: Option<&'static str>,
    waker: Option<Waker>,
    /// The stream takes no bytes: the waker is called when the path is to be closed, not for further bytes.
    full: bool,
    attach: Option<oneshot::Sender<AttachAnswer>>,
}

/// What is to be told once the lock is released.
pub(super) struct Settled {
    pub(super) wakes: Vec<Waker>,
    pub(super) timer_nearer: bool,
    pub(super) ended: Option<SessionEnd>,
    pub(super) attach_requested: bool,
    pub(super) plan_due: bool,
    pub(super) events: Vec<Event>,
}

/// What was told outside the lock before.
#[derive(Debug, Default)]
struct Told {
    timeout: Option<Moment>,
    plan_timeout: Option<Moment>,
    end: bool,
}

/// Everything under the session's lock.
pub(super) struct State {
    pub(super) session: Session,
    pub(super) slots: BTreeMap<ChannelId, Slot>,
    pub(super) paths: BTreeMap<PathKey, PathSlot>,
    pub(super) end: Option<SessionEnd>,
    pub(super) wakes: Vec<Waker>,
    /// Who waits for a PING to be answered.
    pub(super) pingers: Vec<Waker>,
    pub(super) began: Moment,
    offers: Option<mpsc::Sender<Offered>>,
    pub(super) moves: Moves,
    told: Told,
    /// The mutation gave the paths nothing to send.
    pub(super) quiet: bool,
}

impl State {
    pub(super) fn new(session: Session, offers: Option<mpsc::Sender<Offered>>, now: Moment) -> Self {
        Self {
            session,
            slots: BTreeMap::new(),
            paths: BTreeMap::new(),
            end: None,
            wakes: Vec::new(),
            pingers: Vec::new(),
            began: now,
            offers,
            moves: Moves::default(),
            told: Told::default(),
            quiet: false,
        }
    }

    /// Handles what the mutation before made happen.
    pub(super) fn settle(&mut self, now: Moment) -> Settled {
        while let Some(event) = self.session.poll_event() {
            self.note_event(&event, now);
            self.handle_event(event);
        }
        if !std::mem::take(&mut self.quiet) {
            self.wake_paths();
        }
        let timeout = self.session.poll_timeout();
        let timer_nearer = match (timeout, self.told.timeout) {
            (Some(timeout), Some(armed)) => timeout < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.told.timeout = timeout;
        let ended = self.end.clone().filter(|_| !self.told.end);
        self.told.end |= ended.is_some();
        let plan_timeout = self.moves.plan_timeout();
        let plan_due = self.moves.has_actions() || plan_timeout != self.told.plan_timeout;
        self.told.plan_timeout = plan_timeout;
        Settled {
            wakes: std::mem::take(&mut self.wakes),
            timer_nearer,
            ended,
            attach_requested: self.moves.has_requests(),
            plan_due,
            events: self.moves.take_events(),
        }
    }

    /// When the session wants to be called next; the timer arms itself at it.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.session.poll_timeout()
    }

    /// Whether everything is over: nothing will ever happen again.
    pub(super) fn is_spent(&self) -> bool {
        self.end.is_some() && self.paths.is_empty()
    }

    /// Asks for a PING; the path that it goes over, and how many were answered there before.
    pub(super) fn ask_ping(&mut self, now: Moment) -> Option<(PathKey, u32)> {
        let key = self.session.ping(now)?;
        let path = self.session.status().paths.into_iter().find(|path| path.path == key)?;
        Some((key, path.pings_answered))
    }

    /// A session that never began: whatever it still wants to say, nobody hears it.
    pub(super) fn abandon_unless_started(&mut self) {
        if self.session.status().state != SessionState::Starting {
            return;
        }
        self.finish(EndCode::INTERNAL, EndedBy::Local, None, String::new());
        self.close_every_path();
    }

    // ---- paths

    pub(super) fn add_path(&mut self, facts: PathFacts) -> PathKey {
        let key = self.moves.next_key();
        let slot = PathSlot { facts, epoch: None, closing: None, waker: None, full: false, attach: None };
        self.paths.insert(key, slot);
        key
    }

    /// Takes a path back that the session refused.
    pub(super) fn forget_path(&mut self, key: PathKey) {
        self.paths.remove(&key);
    }

    /// Asks to be told how the path's ATTACH is answered.
    pub(super) fn await_attach(&mut self, key: PathKey) -> oneshot::Receiver<AttachAnswer> {
        let (tell, answer) = oneshot::channel();
        if let Some(path) = self.paths.get_mut(&key) {
            path.attach = Some(tell);
        }
        answer
    }

    pub(super) fn poll_transmit(
        &mut self,
        key: PathKey,
        out: &mut Vec<u8>,
        waker: &Waker,
        now: Moment,
    ) -> Transmit {
        let budget = self.session.transmit_budget(key);
        self.session.poll_transmit(key, now, budget, out);
        if !out.is_empty() {
            return Transmit::Bytes;
        }
        if self.wants_closed(key, false, waker) { Transmit::Close } else { Transmit::Nothing }
    }

    /// Whether the path is to be closed; if not, stores the waker. `full` says that its stream takes no bytes.
    pub(super) fn wants_closed(&mut self, key: PathKey, full: bool, waker: &Waker) -> bool {
        let over = self.end.is_some();
        match self.paths.get_mut(&key) {
            Some(path) if path.closing.is_none() && !over => {
                path.waker = Some(waker.clone());
                path.full = full;
                // The waker just stored must not be called for this very look.
                self.quiet = true;
                false
            }
            Some(_) | None => true,
        }
    }

    pub(super) fn handle_bytes(&mut self, key: PathKey, bytes: &[u8], now: Moment) {
        if let Some(path) = self.paths.get_mut(&key) {
            // The pump is running and looks again by itself.
            path.waker = None;
        }
        self.wakes.append(&mut self.pingers);
        if let Err(fault) = self.session.handle_bytes(key, bytes, now) {
            if self.end.is_none() {
                tracing::warn!(%fault, "a path carried what cannot be followed");
                self.moves.note_loss(&fault.to_string());
            }
            self.close_path(key, "what it carried cannot be followed");
        }
    }

    pub(super) fn path_gone(&mut self, key: PathKey, reason: &str, now: Moment) {
        let Some(mut path) = self.paths.remove(&key) else { return };
        self.moves.note_loss(reason);
        if let Some(tell) = path.attach.take() {
            drop(tell.send(AttachAnswer::PathGone(reason.to_owned())));
        }
        self.session.path_lost(key, now);
        self.note_gone(key, &path, reason, now);
    }

    /// The pump closes the path; `why` is told to people.
    pub(super) fn close_path(&mut self, key: PathKey, why: &'static str) {
        if let Some(path) = self.paths.get_mut(&key) {
            path.closing = Some(why);
            self.wakes.extend(path.waker.take());
        }
    }

    /// Every pump closes its path.
    fn close_every_path(&mut self) {
        let keys: Vec<PathKey> = self.paths.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close_path(key, "the session is over"));
    }

    fn wake_paths(&mut self) {
        for path in self.paths.values_mut().filter(|path| !path.full) {
            self.wakes.extend(path.waker.take());
        }
    }

    fn answer_attach(&mut self, key: PathKey, answer: AttachAnswer) {
        if let Some(tell) = self.paths.get_mut(&key).and_then(|path| path.attach.take()) {
            drop(tell.send(answer));
        }
    }

    // ---- events

    fn handle_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Attached { path, epoch: _ } => self.answer_attach(path, AttachAnswer::Attached),
            SessionEvent::RefusedByPeer { path, refused } => {
                self.answer_attach(path, AttachAnswer::Refused(refused));
                self.close_path(path, "the target refused it");
            }
            SessionEvent::Offered { channel, service, class, options: _ } => {
                self.offer(Offered { channel, service, class });
            }
            SessionEvent::Opened(channel) => self.change(channel, Fate::Opened),
            SessionEvent::Readable(channel) | SessionEvent::PeerFinished(channel) => {
                self.wake(channel, Wait::Readable);
                self.discard(channel);
            }
            SessionEvent::Writable(channel) => self.wake(channel, Wait::Writable),
            SessionEvent::Reset { channel, code, reason } => {
                self.change(channel, Fate::Reset { code, message: reason });
            }
            SessionEvent::Closed(channel) => self.change(channel, Fate::Closed),
            SessionEvent::Dead(path) => {
                self.moves.note_loss(NOT_HEARD);
                self.close_path(path, NOT_HEARD);
            }
            SessionEvent::PathRetired(path) => self.close_path(path, "another path replaced it"),
            SessionEvent::Ended { code: EndCode::WINDOW_EXPIRED, by_peer: false, .. } => {
                let detail = self.moves.take_loss();
                self.finish(EndCode::WINDOW_EXPIRED, EndedBy::Network, None, detail);
            }
            SessionEvent::Ended { code, reason, by_peer } => self.finish(code, by(by_peer), None, reason),
            SessionEvent::Aborted { code, reason, by_peer } => {
                tracing::warn!(%code, reason, by_peer, "the session was aborted");
                self.finish(EndCode::INTERNAL, by(by_peer), Some(code), reason);
            }
            SessionEvent::AttachRequested { path, attach } => self.moves.request(path, attach),
            // Told and planned by `note_event`.
            SessionEvent::Suspect(_)
            | SessionEvent::Recovered(_)
            | SessionEvent::Detached
            | SessionEvent::RepathWanted { .. }
            | SessionEvent::Where(_) => {}
        }
    }

    pub(super) fn finish(
        &mut self,
        code: EndCode,
        by: EndedBy,
        abort: Option<rc_proto::wire::codes::AbortCode>,
        detail: String,
    ) {
        if self.end.is_none() {
            self.end = Some(SessionEnd { code, by, abort, detail });
            self.wakes.extend(self.paths.values_mut().filter_map(|path| path.waker.take()));
            for slot in self.slots.values_mut() {
                slot.wake_all(&mut self.wakes);
            }
        }
    }

    /// The peer opened a channel; a further one than the application may have waiting is refused.
    fn offer(&mut self, offered: Offered) {
        let (channel, slot) =
            (offered.channel, Slot::new(offered.service.clone(), offered.class, Fate::Offered));
        let refusal = match &self.offers {
            None => Some(ResetCode::NO_SUCH_SERVICE),
            Some(offers) => offers.try_send(offered).err().map(|_| ResetCode::TOO_MANY),
        };
        match refusal {
            Some(code) => ignore_gone(self.session.refuse(channel, code, "")),
            None => {
                self.slots.insert(channel, slot);
            }
        }
    }

    fn change(&mut self, channel: ChannelId, fate: Fate) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.fate = fate;
        slot.wake_all(&mut self.wakes);
        if slot.released.is_some() && slot.is_over() {
            self.drop_slot(channel);
        }
    }

    /// Nobody asks for the channel any more.
    pub(super) fn drop_slot(&mut self, channel: ChannelId) {
        self.slots.remove(&channel);
        self.session.forget(channel);
    }

    fn wake(&mut self, channel: ChannelId, wait: Wait) {
        if let Some(slot) = self.slots.get_mut(&channel) {
            slot.wake(wait, &mut self.wakes);
        }
    }

    /// Takes and drops what comes on a channel whose holder is gone. When the peer goes on and on although it has
    /// acknowledged all that the channel carried, resets it; before, a reset would take the last of that away.
    pub(super) fn discard(&mut self, channel: ChannelId) {
        let Some(mut left) = self.slots.get(&channel).and_then(|slot| slot.released) else { return };
        let delivered = self.session.is_acknowledged(channel);
        let mut scratch = [0; 4096];
        while let Ok(ReadOutcome::Bytes(count)) = self.session.read(channel, &mut scratch) {
            if !delivered {
                continue;
            }
            left = left.saturating_sub(count);
            if left == 0 {
                ignore_gone(self.session.reset(channel, ResetCode::CANCELLED, ""));
                self.drop_slot(channel);
                return;
            }
        }
        if let Some(slot) = self.slots.get_mut(&channel) {
            slot.released = Some(left);
        }
    }
}

fn by(by_peer: bool) -> EndedBy {
    if by_peer { EndedBy::Peer } else { EndedBy::Local }
}

/// A channel that is gone already needs no further end.
pub(super) fn ignore_gone(result: Result<(), ChannelError>) {
    if let Err(error) = result {
        tracing::trace!(%error, "the channel is gone already");
    }
}
