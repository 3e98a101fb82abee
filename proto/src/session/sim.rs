//! Two sessions joined by simulated paths, checked after every step: used by tests only.
//!
//! A path may delay, freeze one way, be cut at any byte, have a bit flipped, die silently or on one side only, and
//! come back to life.
//! What the applications write is a pattern of channel, direction and offset, so one wrong byte shows.

mod check;
mod faults;
pub mod line;
mod random;
mod work;

pub use check::{Watch, unacknowledged};
pub use random::{Outcome, run_schedule, run_seed};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::attach::read_first;
use super::{PathFault, PathKey, Session, SessionConfig, SessionEvent};
use crate::Moment;
use crate::wire::codes::{EndCode, Lane, Purpose};
use crate::wire::{ChannelId, Epoch, InstanceId, SessionId};

/// Bytes that a path holds before its sender is not asked for more.
const BACKLOG_BYTES: usize = 48 * 1024;
/// Bytes asked for at a time.
const BUDGET_BYTES: usize = 32 * 1024;

/// What the simulation found wrong.
pub type Violation = String;

/// An end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The one that attaches.
    Controller,
    /// The one that accepts.
    Target,
}

impl End {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Controller => Self::Target,
            Self::Target => Self::Controller,
        }
    }
}

/// One direction of a path.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    queue: VecDeque<(Moment, Vec<u8>)>,
    frozen: bool,
}

impl Pipe {
    fn backlog(&self) -> usize {
        self.queue.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// One path.
#[derive(Debug)]
pub struct Wire {
    pub(super) to_target: Pipe,
    pub(super) to_controller: Pipe,
    pub(super) delay: Duration,
    /// Which ends still have their leg.
    pub(super) open: BTreeSet<End>,
    /// When an open end hears that the other is gone; never, if the death is silent.
    pub(super) notice: Option<Moment>,
    /// Cut: what is written now goes nowhere.
    dead: bool,
    /// End-to-end TLS takes nothing more that flows towards this end.
    spoilt: Option<End>,
    /// The Target's bytes before its ATTACH is whole.
    first: Option<Vec<u8>>,
}

/// What one application wrote on a channel and the other has read.
#[derive(Debug, Default, Clone)]
pub struct Flow {
    /// Bytes written.
    pub written: u64,
    /// Ends of messages, on a channel of messages.
    pub boundaries: BTreeSet<u64>,
    /// FIN was written.
    pub finished: bool,
    /// Bytes read or skipped.
    pub read: u64,
    /// The reader saw the end.
    pub ended: bool,
    /// The channel was reset.
    pub reset: bool,
}

/// What an end was told, for assertions.
#[derive(Debug, Default)]
pub struct Heard {
    /// Every event, in order.
    pub events: Vec<SessionEvent>,
    /// Epochs that went live.
    pub epochs: BTreeSet<Epoch>,
    /// How the session ended.
    pub ended: Option<EndCode>,
}

/// Two sessions and what is between them.
pub struct Pair {
    /// The Controller's session.
    pub controller: Session,
    /// The Target's, once an ATTACH has come.
    pub target: Option<Session>,
    /// Virtual time.
    pub now: Moment,
    /// Live paths.
    pub wires: BTreeMap<PathKey, Wire>,
    /// By channel and writing end.
    pub flows: BTreeMap<(ChannelId, End), Flow>,
    /// Events of both ends.
    pub heard: BTreeMap<End, Heard>,
    target_config: SessionConfig,
    next_path: u64,
    watch: Watch,
}

/// The byte at `offset` of a channel's direction.
pub fn pattern(channel: ChannelId, writer: End, offset: u64) -> u8 {
    let side = if writer == End::Controller { 0x5b } else { 0xa7 };
    let mixed = (offset ^ (u64::from(channel.0) << 32) ^ side).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes().first().copied().unwrap_or_default()
}

impl Pair {
    /// Two ends without a path.
    pub fn new(config: SessionConfig) -> Self {
        let now = Moment::from_origin(Duration::from_secs(1000));
        let target_config =
            SessionConfig { resume_window: config.resume_window + Duration::from_secs(30), ..config.clone() };
        Self {
            controller: Session::controller(config, SessionId([7; 16]), InstanceId([1; 16]), now),
            target: None,
            now,
            wires: BTreeMap::new(),
            flows: BTreeMap::new(),
            heard: BTreeMap::new(),
            target_config,
            next_path: 1,
            watch: Watch::default(),
        }
    }

    /// Two ends with one path of 10 ms that is attached.
    ///
    /// # Errors
    /// When an invariant breaks.
    pub fn attached(config: SessionConfig) -> Result<(Self, PathKey), Violation> {
        let mut pair = Self::new(config);
        let path = pair.attach(Purpose::NEW, Lane::INTERACTIVE)?;
        pair.run_for(Duration::from_millis(100))?;
        Ok((pair, path))
    }

    /// A wire that nothing is attached to yet.
    pub fn lay_wire(&mut self) -> PathKey {
        let path = PathKey(self.next_path);
        self.next_path += 1;
        let wire = Wire {
            to_target: Pipe::default(),
            to_controller: Pipe::default(),
            delay: Duration::from_millis(10),
            open: BTreeSet::from([End::Controller, End::Target]),
            notice: None,
            dead: false,
            spoilt: None,
            first: Some(Vec::new()),
        };
        self.wires.insert(path, wire);
        path
    }

    /// Lays a wire and attaches it.
    ///
    /// # Errors
    /// When the session takes no path.
    pub fn attach(&mut self, purpose: Purpose, lane: Lane) -> Result<PathKey, Violation> {
        let path = self.lay_wire();
        self.controller
            .attach(path, purpose, lane, "ticket".to_owned(), self.now)
            .map_err(|error| format!("attach: {error}"))?;
        Ok(path)
    }

    /// The session at an end, if it exists.
    pub fn session(&self, end: End) -> Option<&Session> {
        match end {
            End::Controller => Some(&self.controller),
            End::Target => self.target.as_ref(),
        }
    }

    /// The session at an end, if it exists.
    pub fn session_mut(&mut self, end: End) -> Option<&mut Session> {
        match end {
            End::Controller => Some(&mut self.controller),
            End::Target => self.target.as_mut(),
        }
    }

    /// The flow of a channel out of `writer`.
    pub fn flow(&self, channel: ChannelId, writer: End) -> Flow {
        self.flows.get(&(channel, writer)).cloned().unwrap_or_default()
    }

    /// Runs for `span` of virtual time, checking after every step.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Violation> {
        let until = self.now + span;
        let mut turns_without_time = 0;
        loop {
            self.pump()?;
            match self.next_moment().filter(|at| *at <= until) {
                Some(at) if at <= self.now && turns_without_time > 1000 => {
                    return Err("a timer or an arrival makes no progress".to_owned());
                }
                Some(at) => {
                    turns_without_time = if at > self.now { 0 } else { turns_without_time + 1 };
                    self.now = at.max(self.now);
                }
                None => break,
            }
            self.deliver()?;
            let now = self.now;
            for end in [End::Controller, End::Target] {
                if let Some(session) = self.session_mut(end)
                    && session.poll_timeout().is_some_and(|at| at <= now)
                {
                    session.handle_timeout(now);
                }
            }
        }
        self.now = until;
        Ok(())
    }

    /// Moves events to the applications and bytes to the wires until nothing moves.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub fn pump(&mut self) -> Result<(), Violation> {
        for _ in 0..10_000 {
            self.take_events()?;
            let mut moved = false;
            for path in self.wires.keys().copied().collect::<Vec<_>>() {
                for end in [End::Controller, End::Target] {
                    moved |= self.transmit(path, end);
                }
            }
            self.check()?;
            if !moved {
                return self.take_events();
            }
        }
        Err("a path is never quiet".to_owned())
    }

    fn transmit(&mut self, path: PathKey, end: End) -> bool {
        let now = self.now;
        let Some(wire) = self.wires.get(&path) else { return false };
        let room = wire.pipe(end.other()).backlog() < BACKLOG_BYTES && wire.open.contains(&end);
        let delay = wire.delay;
        if !room {
            return false;
        }
        let Some(session) = self.session_mut(end) else { return false };
        let mut bytes = Vec::new();
        if !session.poll_transmit(path, now, BUDGET_BYTES, &mut bytes) {
            return false;
        }
        if let Some(wire) = self.wires.get_mut(&path)
            && !wire.dead
            && wire.open.contains(&end.other())
        {
            wire.pipe_mut(end.other()).queue.push_back((now + delay, bytes));
        }
        true
    }

    fn next_moment(&self) -> Option<Moment> {
        let timers = [End::Controller, End::Target]
            .into_iter()
            .filter_map(|end| self.session(end).and_then(Session::poll_timeout));
        let arrivals = self.wires.values().flat_map(|wire| {
            let pipes = [&wire.to_target, &wire.to_controller].into_iter().filter(|pipe| !pipe.frozen);
            pipes.filter_map(|pipe| pipe.queue.front().map(|(at, _)| *at)).chain(wire.notice)
        });
        timers.chain(arrivals).min()
    }

    fn deliver(&mut self) -> Result<(), Violation> {
        for path in self.wires.keys().copied().collect::<Vec<_>>() {
            for end in [End::Controller, End::Target] {
                while let Some(bytes) = self.take_arrived(path, end) {
                    if self.is_spoilt(path, end) {
                        break;
                    }
                    self.hand_over(path, end, &bytes)?;
                    self.take_events()?;
                    self.check()?;
                }
            }
            let now = self.now;
            if self.wires.get(&path).and_then(|wire| wire.notice).is_some_and(|at| at <= now) {
                for end in [End::Controller, End::Target] {
                    self.lose_at(path, end);
                }
            }
        }
        Ok(())
    }

    fn take_arrived(&mut self, path: PathKey, end: End) -> Option<Vec<u8>> {
        let now = self.now;
        let wire = self.wires.get_mut(&path)?;
        if !wire.open.contains(&end) {
            return None;
        }
        let pipe = wire.pipe_mut(end);
        if pipe.frozen || pipe.queue.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        pipe.queue.pop_front().map(|(_, bytes)| bytes)
    }

    fn hand_over(&mut self, path: PathKey, end: End, bytes: &[u8]) -> Result<(), Violation> {
        let mut rest = bytes.to_vec();
        if end == End::Target
            && let Some(first) = self.wires.get_mut(&path).and_then(|wire| wire.first.as_mut())
        {
            first.extend_from_slice(&rest);
            let found = read_first(first).map_err(|error| error.to_string())?;
            let Some((attach, used)) = found else { return Ok(()) };
            rest = first.split_off(used);
            if let Some(wire) = self.wires.get_mut(&path) {
                wire.first = None;
            }
            let now = self.now;
            let config = &self.target_config;
            let target = self.target.get_or_insert_with(|| {
                Session::target(config.clone(), attach.session, InstanceId([2; 16]), now)
            });
            if let Err(refused) = target.accept_attach(path, &attach, |_| true, now) {
                let delay = self.wires.get(&path).map_or(Duration::ZERO, |wire| wire.delay);
                if let Some(wire) = self.wires.get_mut(&path) {
                    wire.to_controller.queue.push_back((now + delay, refused.to_bytes()));
                }
                self.close_at(path, End::Target);
                return Ok(());
            }
        }
        let now = self.now;
        let Some(session) = self.session_mut(end) else { return Ok(()) };
        match session.handle_bytes(path, &rest, now) {
            Ok(()) => Ok(()),
            Err(PathFault::UnknownPath) => {
                self.close_at(path, end);
                Ok(())
            }
            Err(fault) => Err(format!("{end:?} gave up path {}: {fault}", path.0)),
        }
    }

    fn take_events(&mut self) -> Result<(), Violation> {
        for end in [End::Controller, End::Target] {
            while let Some(event) = self.session_mut(end).and_then(Session::poll_event) {
                self.handle_event(end, &event)?;
                self.heard.entry(end).or_default().events.push(event);
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, end: End, event: &SessionEvent) -> Result<(), Violation> {
        let now = self.now;
        match event {
            SessionEvent::Attached { epoch, .. } => {
                let epochs = &mut self.heard.entry(end).or_default().epochs;
                if end == End::Target && *epoch != Epoch(0) && epochs.last().is_some_and(|last| last > epoch)
                {
                    return Err(format!("the Target took epoch {epoch} after a later one"));
                }
                let fresh = epochs.insert(*epoch);
                if !fresh && *epoch != Epoch(0) {
                    return Err(format!("epoch {epoch} went live twice at {end:?}"));
                }
            }
            SessionEvent::AttachRequested { path, attach } => {
                if let Some(target) = self.target.as_mut() {
                    // A refusal is queued by the session itself.
                    let _epoch = target.accept_attach(*path, attach, |_| true, now).ok();
                }
            }
            SessionEvent::Offered { channel, .. } => {
                if let Some(session) = self.session_mut(end) {
                    session.accept(*channel).map_err(|error| error.to_string())?;
                }
            }
            SessionEvent::RefusedByPeer { path, .. } | SessionEvent::Dead(path) => self.close_at(*path, end),
            SessionEvent::PathRetired(path) => self.lose_at(*path, end),
            SessionEvent::PeerFinished(channel) => check::finished(self, *channel, end)?,
            SessionEvent::Reset { channel, .. } => {
                for writer in [End::Controller, End::Target] {
                    self.flows.entry((*channel, writer)).or_default().reset = true;
                }
            }
            SessionEvent::Ended { code, .. } => {
                self.heard.entry(end).or_default().ended = Some(*code);
            }
            SessionEvent::Aborted { code, reason, .. } => {
                return Err(format!("{end:?} aborted: {code} {reason}"));
            }
            SessionEvent::Opened(_)
            | SessionEvent::Readable(_)
            | SessionEvent::Writable(_)
            | SessionEvent::Closed(_)
            | SessionEvent::Suspect(_)
            | SessionEvent::Recovered(_)
            | SessionEvent::Detached
            | SessionEvent::RepathWanted { .. }
            | SessionEvent::Where(_) => {}
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Violation> {
        self.watch.check(Some(&self.controller), self.target.as_ref())
    }
}

impl Wire {
    fn pipe(&self, towards: End) -> &Pipe {
        match towards {
            End::Controller => &self.to_controller,
            End::Target => &self.to_target,
        }
    }

    fn pipe_mut(&mut self, towards: End) -> &mut Pipe {
        match towards {
            End::Controller => &mut self.to_controller,
            End::Target => &mut self.to_target,
        }
    }
}
