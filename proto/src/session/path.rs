//! The paths of a session: their stages, their epochs, and which of them a channel binds to.
//!
//! ```text
//! Controller:  Attaching ──ATTACHED──▶ Live ──retire──▶ Retiring ──closed, ≤ 2 s──▶ (gone)
//!                  └──ATTACHED, epoch 0──▶ Standby ──activate──▶ Attaching
//! Target:      Live  |  Standby ──ATTACH──▶ Judging ──accepted──▶ Live
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::config::Flaw;
use super::event::PathKey;
use super::liveness::Liveness;
use super::pace::Pace;
use super::reader::FrameReader;
use super::schedule::Scheduler;
use super::window::Window;
use crate::Moment;
use crate::wire::codes::Lane;
use crate::wire::limits::ATTACH_DEADLINE;
use crate::wire::{ChannelId, Epoch};

/// Paths of one lane that carry the session at once.
pub(super) const LIVE_PER_LANE_MAX: usize = 3;
/// How long the sender of RETIRE lets the peer close first.
pub(super) const RETIRE_LINGER: Duration = Duration::from_secs(2);
/// Retired epochs that are repeated on each bind.
const RETIRED_MAX: usize = 8;
/// Answers for closed channels that may wait on one path.
const ANSWERS_MAX: usize = 1024;
/// PONGs that may wait on one path.
const PONGS_MAX: usize = 16;

/// Where a path is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The Controller's ATTACH is on its way; with `binds`, channels use the path already.
    /// `behind` counts the bytes written before the answer.
    Attaching { binds: bool, standby: bool, since: Moment, sent: Option<Moment>, behind: usize },
    /// Ready, carries nothing.
    Standby,
    /// The Target's caller has an ATTACH to judge; nothing behind it is parsed.
    Judging,
    /// Carries the session.
    Live,
    /// RETIRE was sent; carries nothing.
    Retiring { until: Moment },
}

/// An answer for a channel that is closed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// DATA with FIN is acknowledged up to this position.
    Ack(u64),
    /// RESET is answered.
    Reset,
}

/// What a path itself owes its peer, in the order in which it goes.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Whole envelopes or frames that go before everything else.
    pub(super) outbox: VecDeque<Vec<u8>>,
    pub(super) pongs: VecDeque<u64>,
    pub(super) answers: BTreeMap<ChannelId, Answer>,
}

impl Owed {
    /// Notes an answer for a closed channel; false when too many are owed.
    pub(super) fn answer(&mut self, channel: ChannelId, answer: Answer) -> bool {
        let full = self.answers.len() >= ANSWERS_MAX && !self.answers.contains_key(&channel);
        if !full {
            self.answers.insert(channel, answer);
        }
        !full
    }

    /// Notes a PING to answer; more than a few unanswered ones are forgotten.
    pub(super) fn pong(&mut self, nonce: u64) {
        if self.pongs.len() < PONGS_MAX {
            self.pongs.push_back(nonce);
        }
    }
}

/// One path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) stage: Stage,
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) liveness: Liveness,
    pub(super) reader: FrameReader,
    pub(super) schedule: Scheduler,
    pub(super) pace: Pace,
    pub(super) window: Window,
    /// The next input is an envelope outside any frame, and so is the first output.
    pub(super) first_exchange: bool,
    pub(super) owed: Owed,
    /// Older paths of the lane retire once an ACK came on this one.
    pub(super) replaces_older: bool,
    /// The peer says that it hears nothing here.
    pub(super) doubted: bool,
}

impl Path {
    pub(super) fn new(stage: Stage, lane: Lane, epoch: Epoch, now: Moment, flaw: Flaw) -> Self {
        Self {
            stage,
            lane,
            epoch,
            liveness: Liveness::new(now),
            reader: FrameReader::default(),
            schedule: Scheduler::default(),
            pace: Pace::default(),
            window: Window::new(now, flaw),
            first_exchange: true,
            owed: Owed::default(),
            replaces_older: false,
            doubted: false,
        }
    }

    /// Whether the Target has taken the path and it is not on its way out.
    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether channels may bind to it.
    fn binds(&self) -> bool {
        match self.stage {
            Stage::Attaching { binds, .. } => binds,
            Stage::Live => true,
            Stage::Standby | Stage::Judging | Stage::Retiring { .. } => false,
        }
    }

    /// Whether the peer is not heard on it, or says that it does not hear us.
    pub(super) fn is_suspect(&self) -> bool {
        self.doubted || self.liveness.is_suspect()
    }

    /// Largest payload of a frame here, at most `limit`.
    pub(super) fn payload_max(&self, limit: usize) -> usize {
        self.window.payload_max(self.pace.payload_max(limit))
    }

    /// Whether frames other than PING, PONG and ENVELOPE belong here.
    pub(super) fn carries(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Retiring { .. })
    }

    /// When something is to be decided about the path.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::Attaching { since, .. } => Some(since + ATTACH_DEADLINE),
            Stage::Retiring { until } => Some(until),
            Stage::Standby | Stage::Judging | Stage::Live => self.liveness.deadline(),
        }
    }
}

/// All paths of a session.
#[derive(Debug, Default)]
pub(super) struct PathSet {
    paths: BTreeMap<PathKey, Path>,
    /// Highest epoch allocated (Controller) or accepted (Target), or told by a refusal.
    pub(super) highest: Epoch,
    /// Epochs to retire, and whether the control path still has to carry each.
    pub(super) retired: VecDeque<(Epoch, bool)>,
}

impl PathSet {
    pub(super) fn contains(&self, key: PathKey) -> bool {
        self.paths.contains_key(&key)
    }

    pub(super) fn path(&self, key: PathKey) -> Option<&Path> {
        self.paths.get(&key)
    }

    pub(super) fn path_mut(&mut self, key: PathKey) -> Option<&mut Path> {
        self.paths.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: PathKey, path: Path) {
        self.highest = self.highest.max(path.epoch);
        self.paths.insert(key, path);
    }

    pub(super) fn remove(&mut self, key: PathKey) -> Option<Path> {
        self.paths.remove(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathKey, &Path)> {
        self.paths.iter().map(|(key, path)| (*key, path))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.values_mut()
    }

    pub(super) fn keys(&self) -> Vec<PathKey> {
        self.paths.keys().copied().collect()
    }

    /// The path of an epoch.
    pub(super) fn by_epoch(&self, epoch: Epoch) -> Option<PathKey> {
        self.iter().find(|(_, path)| path.epoch == epoch && epoch != Epoch(0)).map(|(key, _)| key)
    }

    /// Whether a path carries the session.
    pub(super) fn any_live(&self) -> bool {
        self.paths.values().any(Path::is_live)
    }

    /// The path that channels of `lane` bind to: the highest epoch of their lane that is not suspect, else of the
    /// interactive lane, else of any lane, else the suspect one that was heard last.
    pub(super) fn choose(&self, lane: Lane) -> Option<PathKey> {
        let candidates = || self.iter().filter(|(_, path)| path.binds());
        let trusted = candidates()
            .filter(|(_, path)| !path.is_suspect())
            .max_by_key(|(_, path)| (path.lane == lane, path.lane == Lane::INTERACTIVE, path.epoch));
        trusted
            .or_else(|| candidates().max_by_key(|(_, path)| (path.liveness.heard(), path.epoch)))
            .map(|(key, _)| key)
    }

    /// The live path of `lane` with the lowest epoch, when there are more than three.
    pub(super) fn surplus(&self, lane: Lane) -> Option<PathKey> {
        let live = || self.iter().filter(|(_, path)| path.is_live() && path.lane == lane);
        if live().count() <= LIVE_PER_LANE_MAX {
            return None;
        }
        live().min_by_key(|(_, path)| path.epoch).map(|(key, _)| key)
    }

    /// Remembers that `epoch` is retired, to be told on this and each later control path.
    pub(super) fn note_retired(&mut self, epoch: Epoch) {
        self.retired.push_back((epoch, true));
        if self.retired.len() > RETIRED_MAX {
            self.retired.pop_front();
        }
    }

    pub(super) fn repeat_retired(&mut self) {
        self.retired.iter_mut().for_each(|(_, due)| *due = true);
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let paced = self.paths.values().filter_map(|path| path.window.deadline());
        self.paths.values().filter_map(Path::deadline).chain(paced).min()
    }
}
