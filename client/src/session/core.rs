//! The session's pure core behind a lock, and who waits for what.
//!
//! Channels and pumps call straight into the core: no task stands between an application's bytes and a path. The lock
//! is held for one mutation and never across an await; wakers are called after it is released.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::session::{PathKey, ReadOutcome, Session};
use rc_proto::wire::codes::{Class, EndCode, RepathReason, ResetCode};
use rc_proto::wire::frame::{OpenOptions, Where};
use rc_proto::wire::{ChannelId, EndpointId, PathId, ServiceName, SessionId};
use rc_transport::Clock;
use tokio::io::ReadBuf;
use tokio::sync::{Notify, mpsc, watch};

use super::channel::ChannelReset;
use super::handle::Owner;
use super::start::SessionSetup;
use super::state::{Offered, State, ignore_gone};
use super::waits::{Fate, Slot, Wait};
use crate::error::OpenError;
use crate::status::{ChannelStatus, LastMove, PathStatus, SessionEnd, SessionStatus, whole_ms};

/// What a pump does next with its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// Write these bytes.
    Bytes,
    /// Nothing to write; the waker is called when there is.
    Nothing,
    /// The path is of no more use to the session: close it.
    Close,
}

/// One session, shared by its channels, its pumps and its timer.
pub(crate) struct SessionCore {
    id: SessionId,
    peer: EndpointId,
    pub(super) setup: SessionSetup,
    state: Mutex<State>,
    /// Wakes the timer when its deadline came nearer.
    pub(super) timer: Notify,
    /// Wakes who judges attaches on paths that stood by.
    pub(super) requests: Notify,
    /// Wakes who carries the planner's decisions out.
    pub(crate) moves: Notify,
    ended: watch::Sender<Option<SessionEnd>>,
    owner: Mutex<Weak<Owner>>,
}

impl SessionCore {
    pub(super) fn new(
        id: SessionId,
        peer: EndpointId,
        session: Session,
        setup: SessionSetup,
        offers: Option<mpsc::Sender<Offered>>,
    ) -> Self {
        let now = setup.clock.now();
        Self {
            id,
            peer,
            setup,
            state: Mutex::new(State::new(session, offers, now)),
            timer: Notify::new(),
            requests: Notify::new(),
            moves: Notify::new(),
            ended: watch::Sender::new(None),
            owner: Mutex::new(Weak::new()),
        }
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn peer(&self) -> &EndpointId {
        &self.peer
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.setup.clock
    }

    /// How the session ended, once it has.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<SessionEnd>> {
        self.ended.subscribe()
    }

    pub(super) fn set_owner(&self, owner: Weak<Owner>) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
    }

    /// The owner, while any handle or channel lives.
    pub(super) fn owner(&self) -> Option<Arc<Owner>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Applies one mutation with `now` read once, then tells everybody whom it concerns.
    pub(super) fn with<R>(&self, mutate: impl FnOnce(&mut State, Moment) -> R) -> R {
        let mut state = self.lock();
        let now = self.setup.clock.now();
        let result = mutate(&mut state, now);
        let settled = state.settle(now);
        drop(state);
        for event in settled.events {
            self.setup.events.publish(event);
        }
        if settled.plan_due {
            self.moves.notify_one();
        }
        if settled.attach_requested {
            self.requests.notify_waiters();
        }
        if settled.timer_nearer {
            self.timer.notify_one();
        }
        if let Some(end) = settled.ended {
            self.ended.send_if_modified(|told| told.is_none() && told.replace(end).is_none());
            self.timer.notify_one();
        }
        settled.wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// Looks without changing anything.
    pub(super) fn look<R>(&self, look: impl FnOnce(&State, Moment) -> R) -> R {
        let state = self.lock();
        look(&state, self.setup.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug in the pure core; the rest of the process goes on with what is there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the pumps' side

    /// Takes the next whole frames for a path into `out`.
    pub(super) fn poll_transmit(&self, key: PathKey, out: &mut Vec<u8>, waker: &Waker) -> Transmit {
        self.with(|state, now| state.poll_transmit(key, out, waker, now))
    }

    /// Whether a path whose stream takes no bytes is to be closed; the waker is called when it is.
    pub(super) fn poll_close(&self, key: PathKey, waker: &Waker) -> bool {
        self.with(|state, _| state.wants_closed(key, true, waker))
    }

    /// Bytes came on a path.
    pub(super) fn handle_bytes(&self, key: PathKey, bytes: &[u8]) {
        self.with(|state, now| state.handle_bytes(key, bytes, now));
    }

    /// The path is gone; `reason` is empty when the session wanted it closed.
    pub(super) fn path_gone(&self, key: PathKey, reason: &str) {
        self.with(|state, now| state.path_gone(key, reason, now));
        self.timer.notify_one();
    }

    // ---- the channels' side

    /// Asks for a channel.
    pub(super) fn open_channel(&self, service: &ServiceName, class: Class) -> Result<ChannelId, OpenError> {
        self.with(|state, _| {
            if let Some(end) = &state.end {
                return Err(OpenError::SessionEnded { service: service.clone(), end: end.clone() });
            }
            let id = state
                .session
                .open(service.clone(), class, OpenOptions::default())
                .map_err(|_| OpenError::TooMany { service: service.clone() })?;
            state.slots.insert(id, Slot::new(service.clone(), class, Fate::Asked));
            Ok(id)
        })
    }

    /// Waits while `fate` is what the channel is at: for the answer to an open, or for an offer to be withdrawn.
    pub(super) fn poll_fate(&self, id: ChannelId, still: &Fate, context: &Context<'_>) -> Poll<Fate> {
        self.with(|state, _| {
            if let Some(end) = &state.end {
                return Poll::Ready(Fate::Reset { code: ResetCode::CANCELLED, message: end.to_string() });
            }
            match state.slots.get_mut(&id) {
                None => Poll::Ready(Fate::Closed),
                Some(slot) if slot.fate == *still => {
                    slot.wait(Wait::Fate, context);
                    Poll::Pending
                }
                Some(slot) => Poll::Ready(slot.fate.clone()),
            }
        })
    }

    /// Whether an offered channel still waits for its answer.
    pub(super) fn is_offered(&self, id: ChannelId) -> bool {
        self.look(|state, _| {
            state.end.is_none() && state.slots.get(&id).is_some_and(|slot| slot.fate == Fate::Offered)
        })
    }

    /// Says yes to an offered channel; false when it is no longer wanted.
    pub(super) fn accept_channel(&self, id: ChannelId) -> bool {
        self.with(|state, _| {
            let offered = state.slots.get(&id).is_some_and(|slot| slot.fate == Fate::Offered);
            if !offered || state.end.is_some() || state.session.accept(id).is_err() {
                return false;
            }
            if let Some(slot) = state.slots.get_mut(&id) {
                slot.fate = Fate::Opened;
            }
            true
        })
    }

    /// Says no to an offered channel.
    pub(super) fn refuse_channel(&self, id: ChannelId, code: ResetCode, message: &str) {
        self.with(|state, _| {
            if state.slots.get(&id).is_some_and(|slot| slot.fate == Fate::Offered) {
                ignore_gone(state.session.refuse(id, code, message));
            }
            state.drop_slot(id);
        });
    }

    pub(crate) fn reset_channel(&self, id: ChannelId, code: ResetCode, message: &str) {
        self.with(|state, _| {
            ignore_gone(state.session.reset(id, code, message));
            state.drop_slot(id);
        });
    }

    /// The channel's holder is gone: what it had shut down is still delivered, all else is reset.
    pub(crate) fn release_channel(&self, id: ChannelId) {
        self.with(|state, _| {
            let Some(slot) = state.slots.get_mut(&id) else { return };
            if slot.is_over() {
                state.drop_slot(id);
            } else if slot.finished {
                slot.release();
                state.discard(id);
            } else {
                ignore_gone(state.session.reset(id, ResetCode::CANCELLED, ""));
                state.drop_slot(id);
            }
        });
    }

    pub(crate) fn poll_read(
        &self,
        id: ChannelId,
        context: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.with(|state, _| {
            // What came before a reset is still read. Behind that the session reads the channel as finished; its
            // holder has to know the difference.
            if !state.session.has_left(id)
                && let Some(reset) = state.reset_of(id)
            {
                let at_end = state.slots.get(&id).is_some_and(|slot| slot.read_to_end);
                return Poll::Ready(if at_end { Ok(()) } else { Err(reset) });
            }
            match state.session.read(id, buffer.initialize_unfilled()) {
                Ok(ReadOutcome::Bytes(count)) => {
                    buffer.advance(count);
                    Poll::Ready(Ok(()))
                }
                Ok(ReadOutcome::Finished) => {
                    if let Some(slot) = state.slots.get_mut(&id) {
                        slot.read_to_end = true;
                    }
                    Poll::Ready(Ok(()))
                }
                Ok(ReadOutcome::Empty) => {
                    state.quiet = true;
                    state.wait_open(id, Wait::Readable, context)
                }
                Err(_) => Poll::Ready(state.closed_error(id).map_or(Ok(()), Err)),
            }
        })
    }

    pub(crate) fn poll_write(
        &self,
        id: ChannelId,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.with(|state, _| {
            if state.end.is_some() || state.slots.get(&id).is_none_or(|slot| slot.finished) {
                return Poll::Ready(Err(state.write_error(id)));
            }
            match state.session.write(id, bytes) {
                Ok(0) => {
                    state.quiet = true;
                    state.wait_open(id, Wait::Writable, context).map_ok(|()| 0)
                }
                Ok(count) => Poll::Ready(Ok(count)),
                Err(_) => Poll::Ready(Err(state.write_error(id))),
            }
        })
    }

    pub(crate) fn finish_channel(&self, id: ChannelId) -> io::Result<()> {
        self.with(|state, _| {
            if let Some(error) = state.closed_error(id) {
                return Err(error);
            }
            match state.slots.get_mut(&id) {
                Some(slot) if !slot.finished && !slot.is_over() => {
                    slot.finished = true;
                    ignore_gone(state.session.finish(id));
                    Ok(())
                }
                Some(_) | None => Ok(()),
            }
        })
    }

    /// Waits until the peer has acknowledged every byte that was written, or never will.
    pub(super) fn poll_delivered(&self, id: ChannelId, context: &Context<'_>) -> Poll<()> {
        self.with(|state, _| {
            let open = state.end.is_none() && state.slots.get(&id).is_some_and(|slot| !slot.is_over());
            if !open || state.session.is_delivered(id) {
                return Poll::Ready(());
            }
            state.quiet = true;
            state.pingers.push(context.waker().clone());
            Poll::Pending
        })
    }

    // ---- the session as a whole

    /// Asks for a PING at the first call, and waits for an answer that came after it.
    pub(super) fn poll_ping(
        &self,
        before: &mut Option<(PathKey, u32)>,
        context: &Context<'_>,
    ) -> Poll<Duration> {
        self.with(|state, now| {
            let known = before.and_then(|(key, count)| {
                let path = state.session.status().paths.into_iter().find(|path| path.path == key)?;
                Some((path.pings_answered != count, path.last_ping))
            });
            match known {
                Some((true, round_trip)) => return Poll::Ready(round_trip),
                Some((false, _)) => state.quiet = true,
                None => *before = state.ask_ping(now),
            }
            state.pingers.push(context.waker().clone());
            Poll::Pending
        })
    }

    /// The session as it is now.
    pub(crate) fn status(&self) -> SessionStatus {
        self.look(|state, now| {
            let inner = state.session.status();
            let paths = inner.paths.iter().filter_map(|path| {
                let facts = &state.paths.get(&path.path)?.facts;
                Some(PathStatus {
                    path: facts.path,
                    epoch: path.epoch,
                    lane: path.lane,
                    in_use: path.bound,
                    standby: path.epoch == rc_proto::wire::Epoch(0),
                    suspect: path.suspect,
                    hops: facts.hops.clone(),
                    first_round_trip_us: facts.first_round_trip_us,
                    round_trip_us: path.srtt.map(|srtt| u32::try_from(srtt.as_micros()).unwrap_or(u32::MAX)),
                })
            });
            let channels = state.slots.iter().map(|(id, slot)| ChannelStatus {
                channel: *id,
                service: slot.service.clone(),
                class: slot.class,
            });
            SessionStatus {
                session: self.id,
                peer: self.peer.clone(),
                age_ms: whole_ms(now.since(state.began)),
                paths: paths.collect(),
                last_move: state
                    .moves
                    .last
                    .map(|(at, moved)| LastMove { ago_ms: whole_ms(now.since(at)), moved }),
                channels: channels.collect(),
                sent_bytes: inner.bytes_out,
                received_bytes: inner.bytes_in,
            }
        })
    }

    /// Target: tells the Controller where it is registered, now and on each later path.
    pub(crate) fn tell_where(&self, place: &Where) {
        self.with(|state, _| state.session.tell_where(place));
    }

    /// Target: asks the Controller for another path than `path`, or than any. False when the session has no such path.
    pub(crate) fn ask_repath(&self, reason: RepathReason, path: Option<PathId>) -> bool {
        self.with(|state, _| {
            let key = state.paths.iter().find(|(_, slot)| slot.facts.path == path).map(|(key, _)| *key);
            let asks = state.end.is_none() && (path.is_none() || key.is_some());
            if asks {
                state.session.ask_repath(reason, key.filter(|_| path.is_some()));
            }
            asks
        })
    }

    /// Ends the session once every channel is done.
    pub(super) fn end(&self, code: EndCode, message: &str) {
        self.with(|state, _| state.session.end(code, message));
    }

    /// Ends the session at once: every channel is reset.
    pub(crate) fn disconnect(&self, code: EndCode, message: &str) {
        self.with(|state, now| {
            state.session.cut(code, message, now);
            for slot in state.slots.values_mut().filter(|slot| !slot.is_over()) {
                slot.fate = Fate::Reset { code: ResetCode::CANCELLED, message: message.to_owned() };
                slot.wake_all(&mut state.wakes);
            }
        });
    }
}

impl State {
    /// Waits, unless the session or the channel is over.
    fn wait_open(&mut self, id: ChannelId, wait: Wait, context: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.closed_error(id) {
            return Poll::Ready(Err(error));
        }
        match self.slots.get_mut(&id) {
            Some(slot) => {
                slot.wait(wait, context);
                Poll::Pending
            }
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// The reset that ended the channel, if one did.
    fn reset_of(&self, id: ChannelId) -> Option<io::Error> {
        match self.slots.get(&id).map(|slot| &slot.fate) {
            Some(Fate::Reset { code, message }) => {
                let reset = ChannelReset { code: *code, message: message.clone() };
                Some(io::Error::new(io::ErrorKind::ConnectionReset, reset))
            }
            Some(Fate::Asked | Fate::Offered | Fate::Opened | Fate::Closed) | None => None,
        }
    }

    /// Why the channel can be used no more; `None` while it can, and after a clean end.
    fn closed_error(&self, id: ChannelId) -> Option<io::Error> {
        if let Some(reset) = self.reset_of(id) {
            return Some(reset);
        }
        let closed = self.slots.get(&id).is_some_and(|slot| slot.fate == Fate::Closed);
        let end = self.end.as_ref().filter(|_| !closed)?;
        Some(io::Error::new(io::ErrorKind::ConnectionAborted, end.clone()))
    }

    fn write_error(&self, id: ChannelId) -> io::Error {
        self.closed_error(id).unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}
