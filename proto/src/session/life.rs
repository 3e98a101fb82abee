//! The session's state and its life: paths come, bind, fail and go; the session starts, detaches and ends.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{Mutant, SessionConfig};
use super::ending::{Ending, SessionFrames};
use super::event::{AttachError, EventQueue, PathKey, PathStatus, SessionEvent, SessionState, SessionStatus};
use super::liveness::Verdict;
use super::path::{Path, PathSet, RETIRE_LINGER, Stage};
use super::sender::ChannelSender;
use super::table::ChannelTable;
use crate::Moment;
use crate::wire::codes::{AbortCode, AttachKind, EndCode, Lane, Purpose, RepathReason};
use crate::wire::frame::{Abort, Attach, EndToEnd, FrameHeader, FrameType, Repath};
use crate::wire::limits::TICKET_BYTES_MAX;
use crate::wire::{ChannelId, Epoch, Ext, InstanceId, ServiceName, SessionId};

/// What is said to a peer whose channel ids no honest peer would use.
pub(super) const SCATTERED: &str = "channel ids are scattered";

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Controller,
    Target,
}

/// Who talks to whom.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) side: Side,
    pub(super) session: SessionId,
    pub(super) instance: InstanceId,
    /// The peer's instance: the Target's is pinned by the first ATTACHED.
    pub(super) peer: Option<InstanceId>,
}

/// What the session measures time against.
#[derive(Debug)]
pub(super) struct SessionClock {
    /// Since when no path carries the session.
    pub(super) detached: Option<Moment>,
    /// Whether a path ever did.
    pub(super) started: bool,
    /// How long it is kept without one.
    pub(super) window: Duration,
    /// Gaps within the last minute.
    pub(super) gaps: VecDeque<Moment>,
}

/// Channel bytes, for status.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_repeated: u64,
}

/// Says whether the ticket in force permits a service.
pub(super) type Permits = Box<dyn Fn(&ServiceName) -> bool + Send + Sync>;

/// One side of a resumable session; see the [module](super) for how a driver uses it.
pub struct Session {
    pub(super) identity: Identity,
    pub(super) config: SessionConfig,
    pub(super) table: ChannelTable,
    pub(super) paths: PathSet,
    pub(super) ending: Ending,
    pub(super) frames: SessionFrames,
    pub(super) events: EventQueue,
    pub(super) clock: SessionClock,
    pub(super) totals: Totals,
    pub(super) permits: Option<Permits>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("side", &self.identity.side)
            .field("session", &self.identity.session)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The Controller's side of a new session. `instance` is this process's own.
    pub fn controller(config: SessionConfig, session: SessionId, instance: InstanceId, now: Moment) -> Self {
        Self::new(Side::Controller, config, session, instance, now)
    }

    /// The Target's side of a session that an ATTACH has asked for. `instance` is this process's own.
    pub fn target(config: SessionConfig, session: SessionId, instance: InstanceId, now: Moment) -> Self {
        Self::new(Side::Target, config, session, instance, now)
    }

    fn new(side: Side, config: SessionConfig, session: SessionId, instance: InstanceId, now: Moment) -> Self {
        let config = config.clamped();
        let first_own = match side {
            Side::Controller => ChannelId(1),
            Side::Target => ChannelId(2),
        };
        Self {
            identity: Identity { side, session, instance, peer: None },
            table: ChannelTable::new(first_own),
            paths: PathSet::default(),
            ending: Ending::Running,
            frames: SessionFrames::default(),
            events: EventQueue::default(),
            clock: SessionClock {
                detached: Some(now),
                started: false,
                window: config.resume_window,
                gaps: VecDeque::new(),
            },
            totals: Totals::default(),
            permits: None,
            config,
        }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.identity.session
    }

    /// Controller: queues an ATTACH as the first bytes of `path` and returns the epoch it claims (0 for standby).
    ///
    /// With purpose new or resume the channels use the path at once, with handover once the Target has taken it,
    /// with standby not before [`Self::activate`]. The Target's refusal comes as an event.
    ///
    /// # Errors
    /// When nothing was queued; the session is unchanged.
    pub fn attach(
        &mut self,
        path: PathKey,
        purpose: Purpose,
        lane: Lane,
        ticket: String,
        now: Moment,
    ) -> Result<Epoch, AttachError> {
        self.check_may_attach(&ticket, now)?;
        if self.paths.contains(path) {
            return Err(AttachError::PathState);
        }
        let standby = purpose == Purpose::STANDBY;
        let (epoch, bytes) = self.build_attach(lane, standby, ticket)?;
        let binds = !standby && purpose != Purpose::HANDOVER;
        let stage = Stage::Attaching { binds, standby, since: now, sent: None, behind: 0 };
        let mut state = Path::new(stage, lane, epoch, now, self.config.flaw());
        state.replaces_older = purpose == Purpose::HANDOVER;
        state.owed.outbox.push_back(bytes);
        self.paths.insert(path, state);
        self.rebind(now);
        Ok(epoch)
    }

    /// Controller: moves the session to a path that stands by; returns the epoch that it claims.
    ///
    /// # Errors
    /// When the path does not stand by or nothing was queued; the session is unchanged.
    pub fn activate(&mut self, path: PathKey, ticket: String, now: Moment) -> Result<Epoch, AttachError> {
        self.check_may_attach(&ticket, now)?;
        let Some(lane) =
            self.paths.path(path).filter(|state| state.stage == Stage::Standby).map(|state| state.lane)
        else {
            return Err(AttachError::PathState);
        };
        let (epoch, bytes) = self.build_attach(lane, false, ticket)?;
        self.paths.highest = epoch;
        if let Some(state) = self.paths.path_mut(path) {
            state.stage = Stage::Attaching { binds: true, standby: false, since: now, sent: None, behind: 0 };
            state.epoch = epoch;
            state.owed.outbox.push_back(frame(FrameType::Envelope, ChannelId(0), 0, &bytes));
        }
        self.rebind(now);
        Ok(epoch)
    }

    fn check_may_attach(&mut self, ticket: &str, now: Moment) -> Result<(), AttachError> {
        self.expire(now);
        if self.identity.side != Side::Controller {
            return Err(AttachError::NotController);
        }
        if self.ending.is_over() {
            return Err(AttachError::Over);
        }
        if ticket.len() > TICKET_BYTES_MAX { Err(AttachError::Ticket) } else { Ok(()) }
    }

    fn build_attach(
        &mut self,
        lane: Lane,
        standby: bool,
        ticket: String,
    ) -> Result<(Epoch, Vec<u8>), AttachError> {
        let next = Epoch(self.paths.highest.0.saturating_add(1));
        let epoch = if standby { Epoch(0) } else { next };
        let kind = match (standby, self.identity.peer) {
            (true, _) => AttachKind::STANDBY,
            (false, None) => AttachKind::NEW,
            (false, Some(_)) => AttachKind::RESUME,
        };
        let attach = Attach {
            session: self.identity.session,
            epoch,
            kind,
            lane,
            instance: self.identity.instance,
            ticket,
            channels: if standby { Vec::new() } else { self.table.claims() },
            features: self.config.features,
            ext: Ext::none(),
        };
        let bytes = EndToEnd::Attach(attach).to_bytes().map_err(|_| AttachError::Ticket)?;
        Ok((epoch, bytes))
    }

    /// Starts the planned end of a path: its channels move on, the peer is told, and `PathRetired` follows when it
    /// has closed or 2 s have passed.
    pub fn retire(&mut self, path: PathKey, now: Moment) {
        let Some(state) = self.paths.path_mut(path).filter(|state| state.is_live()) else { return };
        state.stage = Stage::Retiring { until: now + RETIRE_LINGER };
        let epoch = state.epoch;
        self.paths.note_retired(epoch);
        self.rebind(now);
    }

    /// Retires every live path of the lane of `newer` whose epoch is lower.
    pub(super) fn retire_older(&mut self, newer: PathKey, now: Moment) {
        let Some(state) = self.paths.path_mut(newer) else { return };
        state.replaces_older = false;
        let (lane, epoch) = (state.lane, state.epoch);
        let older: Vec<PathKey> = self
            .paths
            .iter()
            .filter(|(_, path)| path.is_live() && path.lane == lane && path.epoch < epoch)
            .map(|(key, _)| key)
            .collect();
        for key in older {
            self.retire(key, now);
        }
    }

    /// The path's leg has ended, whoever ended it. Unknown paths are ignored.
    pub fn path_lost(&mut self, path: PathKey, now: Moment) {
        self.expire(now);
        if self.paths.remove(path).is_some() {
            self.rebind(now);
        }
    }

    /// Removes a path and tells the driver why by `event`.
    pub(super) fn drop_path(&mut self, path: PathKey, event: SessionEvent, now: Moment) {
        if self.paths.remove(path).is_some() {
            self.events.push(event);
            self.rebind(now);
        }
    }

    /// Chooses the path of each lane again, after anything that may change the choice.
    pub(super) fn rebind(&mut self, now: Moment) {
        let control = self.paths.choose(Lane::INTERACTIVE);
        let bulk = self.paths.choose(Lane::BULK);
        if (self.table.control, self.table.bulk) != (control, bulk) {
            self.paths.values_mut().for_each(|path| path.window.forget_probes());
        }
        if self.table.bind(control, bulk, now) {
            self.ending.repeat();
            self.paths.repeat_retired();
            if let Some((_, due)) = self.frames.place.as_mut() {
                *due = true;
            }
        }
        if self.paths.any_live() {
            self.clock.detached = None;
            self.clock.started = true;
        } else if self.clock.detached.is_none() {
            self.clock.detached = Some(now);
            if !self.ending.is_over() {
                self.events.push(SessionEvent::Detached);
            }
            self.expire(now);
        }
    }

    /// When the session ends for want of a path. One that nothing has carried yet has no window: its driver gives up.
    fn window_end(&self) -> Option<Moment> {
        self.clock.detached.filter(|_| self.clock.started).map(|since| since + self.clock.window)
    }

    /// Ends the session once it was without a path for its window. Every entry that reads calls this first.
    pub(super) fn expire(&mut self, now: Moment) {
        let expired = self.window_end().is_some_and(|end| now >= end);
        if expired && !self.ending.is_over() {
            self.finish_session(EndCode::WINDOW_EXPIRED, String::new(), false);
        }
    }

    /// The session is over: nothing more is written, what was received stays readable.
    pub(super) fn finish_session(&mut self, code: EndCode, reason: String, by_peer: bool) {
        if self.ending.is_over() {
            return;
        }
        self.close_down(code);
        self.events.push(SessionEvent::Ended { code, reason, by_peer });
    }

    pub(super) fn close_down(&mut self, code: EndCode) {
        self.ending = Ending::Over { code };
        self.table.resets.clear();
        for channel in self.table.open.values_mut() {
            channel.sender = ChannelSender::new(0, None, self.config.flaw());
            channel.offer_due = false;
        }
    }

    /// A rule was broken: says so on every path and ends the session.
    pub(super) fn abort(&mut self, code: AbortCode, reason: &str) {
        if self.ending.is_over() {
            return;
        }
        self.close_down(EndCode::INTERNAL);
        let body = Abort { code, reason: reason.to_owned(), ext: Ext::none() };
        let payload = body.encode().unwrap_or_default();
        for path in self.paths.values_mut().filter(|path| path.carries()) {
            path.owed.outbox.push_back(frame(FrameType::Abort, ChannelId(0), 0, &payload));
        }
        self.events.push(SessionEvent::Aborted { code, reason: reason.to_owned(), by_peer: false });
    }

    /// Target: asks the Controller for another path. `path` names the one that it is about.
    pub fn ask_repath(&mut self, reason: RepathReason, path: Option<PathKey>) {
        let epoch = path.and_then(|key| self.paths.path(key)).map_or(Epoch(0), |state| state.epoch);
        self.frames.repath = Repath { reason, epoch, ext: Ext::none() }.encode().ok();
    }

    /// Asks for a PING on the path that carries the interactive channels, unless one is on its way; returns that path.
    /// Its [`PathStatus`] counts the answers.
    pub fn ping(&mut self, now: Moment) -> Option<PathKey> {
        let key = self.table.control?;
        self.paths.path_mut(key)?.liveness.ask(now);
        Some(key)
    }

    /// Asks for a PING on every path: this machine was away, and wants to know which of them are left.
    pub fn ping_all(&mut self, now: Moment) {
        for path in self.paths.values_mut() {
            path.liveness.ask(now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        if self.ending.is_over() {
            return None;
        }
        [self.paths.deadline(), self.table.deadline(), self.ending.deadline(), self.window_end()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed. Call it when [`Self::poll_timeout`] says so; earlier does no harm, and over 200 ms later
    /// gives no verdict on a path.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.expire(now);
        if self.ending.is_over() {
            return;
        }
        for channel in self.table.open.values_mut() {
            channel.ack.tick(now);
        }
        for key in self.paths.keys() {
            self.tick_path(key, now);
        }
        if let Some((code, reason)) = self.ending.given_up(now) {
            self.finish_session(code, reason, false);
        }
        self.settle();
    }

    fn tick_path(&mut self, key: PathKey, now: Moment) {
        let Some(path) = self.paths.path_mut(key) else { return };
        path.window.tick(now);
        match path.stage {
            Stage::Attaching { .. } => {
                if path.deadline().is_some_and(|at| at <= now) {
                    self.drop_path(key, SessionEvent::Dead(key), now);
                }
            }
            Stage::Retiring { until } => {
                if until <= now {
                    self.drop_path(key, SessionEvent::PathRetired(key), now);
                }
            }
            Stage::Standby | Stage::Judging | Stage::Live => match path.liveness.tick(now) {
                Verdict::Unchanged => {}
                Verdict::Suspect => {
                    self.events.push(SessionEvent::Suspect(key));
                    if self.identity.side == Side::Target {
                        self.ask_repath(RepathReason::SUSPECT, Some(key));
                    }
                    self.rebind(now);
                }
                Verdict::Dead => self.drop_path(key, SessionEvent::Dead(key), now),
            },
        }
    }

    /// Takes channels that are through off the table and lets a wanted END follow.
    pub(super) fn settle(&mut self) {
        if self.ending.is_over() {
            return;
        }
        let closed: Vec<ChannelId> =
            self.table.open.iter().filter(|(_, channel)| channel.is_closed()).map(|(id, _)| *id).collect();
        for id in closed {
            if let Err(code) = self.table.close_finished(id) {
                self.abort(code, SCATTERED);
                return;
            }
            self.events.push(SessionEvent::Closed(id));
        }
        if let Ending::Wanted { code, reason, until } = &self.ending
            && (self.table.is_quiet() || self.config.flaw().is(Mutant::EndBeforeChannels))
        {
            self.ending = Ending::Sent { code: *code, reason: reason.clone(), due: true, until: *until };
        }
    }

    pub(super) fn close_channel(&mut self, id: ChannelId) {
        if let Err(code) = self.table.close(id) {
            self.abort(code, SCATTERED);
        }
    }

    /// The next event, if any; drain them after every call.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop()
    }

    /// The paths that the session knows, ascending.
    pub fn paths(&self) -> Vec<PathKey> {
        self.paths.keys()
    }

    /// A snapshot for people and metrics.
    pub fn status(&self) -> SessionStatus {
        let state = if self.ending.is_over() {
            SessionState::Over
        } else if self.ending.is_closing() {
            SessionState::Ending
        } else if self.clock.detached.is_none() {
            SessionState::Attached
        } else if self.clock.started {
            SessionState::Detached
        } else {
            SessionState::Starting
        };
        let paths = self.paths.iter().map(|(key, path)| PathStatus {
            path: key,
            epoch: path.epoch,
            lane: path.lane,
            live: path.is_live(),
            suspect: path.is_suspect(),
            bound: self.table.control == Some(key),
            srtt: path.liveness.srtt(),
            pings_answered: path.liveness.answered().0,
            last_ping: path.liveness.answered().1,
        });
        SessionStatus {
            state,
            highest_epoch: self.paths.highest,
            bytes_in: self.totals.bytes_in,
            bytes_out: self.totals.bytes_out,
            bytes_repeated: self.totals.bytes_repeated,
            channels: self.table.open.len(),
            paths: paths.collect(),
        }
    }
}

/// One whole frame in a buffer of its own; payloads are bounded where they are made.
pub(super) fn frame(kind: FrameType, channel: ChannelId, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let header = FrameHeader { length, ..FrameHeader::new(kind, channel, offset) };
    let mut bytes = Vec::with_capacity(FrameHeader::BYTES + payload.len());
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
