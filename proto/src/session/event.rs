//! What a session tells its driver, and why it gives up a path.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wire::codes::{AbortCode, Class, EndCode, Lane, RepathReason, ResetCode};
use crate::wire::frame::{Attach, OpenOptions, Refused, Where};
use crate::wire::{ChannelId, Epoch, ServiceName};

/// The driver's own number for a path; never used twice in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey(pub u64);

/// What happened; taken with [`Session::poll_event`](super::Session::poll_event).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The path carries the session now (epoch 0: it stands by).
    Attached {
        /// The path.
        path: PathKey,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The Target refused the path; it is removed, close its leg. `Ended` follows when that is final.
    RefusedByPeer {
        /// The path.
        path: PathKey,
        /// The answer.
        refused: Box<Refused>,
    },
    /// An ATTACH came on a path that stood by: check its ticket, then `accept_attach` or `refuse_attach`.
    AttachRequested {
        /// The path.
        path: PathKey,
        /// The request.
        attach: Box<Attach>,
    },
    /// The peer opened a channel: `accept` or `refuse` it.
    Offered {
        /// The channel.
        channel: ChannelId,
        /// What it wants.
        service: ServiceName,
        /// The channel's priority.
        class: Class,
        /// The channel's options.
        options: OpenOptions,
    },
    /// The peer accepted a channel that this side opened.
    Opened(ChannelId),
    /// After an empty read there is something to read.
    Readable(ChannelId),
    /// After a short write there is room again.
    Writable(ChannelId),
    /// The peer has finished its direction; bytes before that may still wait to be read.
    PeerFinished(ChannelId),
    /// Both directions of the channel are gone. What came in order before the peer's reset stays readable.
    Reset {
        /// The channel.
        channel: ChannelId,
        /// Why.
        code: ResetCode,
        /// The same for people; from the peer, so escape it before printing.
        reason: String,
    },
    /// Both directions are finished and acknowledged.
    Closed(ChannelId),
    /// The peer is not heard on the path; race another one.
    Suspect(PathKey),
    /// The peer is heard again.
    Recovered(PathKey),
    /// The path is dead and removed; close its leg.
    Dead(PathKey),
    /// The path's planned end: flush it, close it.
    PathRetired(PathKey),
    /// No path carries the session; it is kept until the moment that `poll_timeout` gives.
    Detached,
    /// The Target asks for another path.
    RepathWanted {
        /// Why.
        reason: RepathReason,
        /// The path that it is about; 0 is none in particular.
        epoch: Epoch,
    },
    /// Where the Target is registered.
    Where(Box<Where>),
    /// The session is over.
    Ended {
        /// Why.
        code: EndCode,
        /// The same for people; when `by_peer`, escape it before printing.
        reason: String,
        /// Who said so.
        by_peer: bool,
    },
    /// A rule was broken and the session is over.
    Aborted {
        /// Which.
        code: AbortCode,
        /// The same for people; when `by_peer`, escape it before printing.
        reason: String,
        /// Who said so.
        by_peer: bool,
    },
}

/// Why a path's bytes cannot be followed any more. The path is removed; close its leg. The session goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// The path was never attached, or is removed.
    #[error("the session has no such path")]
    UnknownPath,
    /// A frame says that it carries more than any may.
    #[error("a frame announces {length} bytes, 16384 are allowed")]
    Oversize {
        /// Announced bytes.
        length: u16,
    },
    /// A frame or envelope is not what its type says.
    #[error("malformed: {what}")]
    Malformed {
        /// What and where.
        what: String,
    },
    /// A frame type that this version does not know, marked critical.
    #[error("frame type {kind} is unknown and critical: upgrade the older side")]
    UnknownCritical {
        /// The type.
        kind: u8,
    },
    /// A frame that does not belong on this path, at this time or from this side.
    #[error("{what} does not belong here")]
    OutOfPlace {
        /// What came.
        what: &'static str,
    },
    /// Bytes are missing in front of what came.
    #[error("channel {channel}: bytes are missing before offset {offset}")]
    Gap {
        /// The channel.
        channel: ChannelId,
        /// Where the bytes that came start.
        offset: u64,
    },
    /// A frame for a channel that was never opened.
    #[error("channel {channel} was never opened")]
    UnknownChannel {
        /// The channel.
        channel: ChannelId,
    },
    /// More answers are owed than an honest peer asks for.
    #[error("too many answers are owed")]
    TooManyAnswers,
}

/// Why an operation on a channel did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The channel is closed, was reset, or never was.
    #[error("channel {0} is not open")]
    NotOpen(ChannelId),
    /// The session has ended or is ending.
    #[error("the session is ending and opens no channels")]
    Ending,
    /// 64 channels are open, or every id was used.
    #[error("too many channels are open: close one first")]
    TooMany,
    /// The channel carries messages and takes no plain bytes, or the other way round.
    #[error("channel {0} is of the other kind: bytes and messages do not mix")]
    WrongKind(ChannelId),
    /// A message is empty or larger than 64 KiB.
    #[error("a message has 1 to 65536 bytes, this one {0}")]
    MessageLength(usize),
}

/// Why an ATTACH was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Only the Controller attaches.
    #[error("only the Controller attaches paths")]
    NotController,
    /// The session is over.
    #[error("the session is over")]
    Over,
    /// The key is in use, or the path to activate does not stand by.
    #[error("the path is not in the state that this needs")]
    PathState,
    /// The ticket is longer than 2 KiB.
    #[error("the ticket does not fit: at most 2048 bytes are allowed")]
    Ticket,
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing yet; a `Readable` or `PeerFinished` event follows.
    Empty,
    /// The peer has finished and everything was read.
    Finished,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing has carried it yet.
    Starting,
    /// At least one path carries it.
    Attached,
    /// No path carries it.
    Detached,
    /// END is wanted or on its way.
    Ending,
    /// It is over.
    Over,
}

/// One path for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStatus {
    /// The path.
    pub path: PathKey,
    /// Its epoch, 0 for standby.
    pub epoch: Epoch,
    /// Its lane.
    pub lane: Lane,
    /// Whether the Target has taken it.
    pub live: bool,
    /// Whether the peer is not heard on it.
    pub suspect: bool,
    /// Whether channels of the interactive lane are bound to it.
    pub bound: bool,
    /// Smoothed round trip.
    pub srtt: Option<Duration>,
    /// PINGs that were answered.
    pub pings_answered: u32,
    /// Round trip of the last one; zero before the first.
    pub last_ping: Duration,
}

/// A session for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Where it is in its life.
    pub state: SessionState,
    /// Highest epoch allocated or accepted.
    pub highest_epoch: Epoch,
    /// Channel bytes received, each counted once.
    pub bytes_in: u64,
    /// Channel bytes that the application wrote.
    pub bytes_out: u64,
    /// Channel bytes sent again.
    pub bytes_repeated: u64,
    /// Channels open.
    pub channels: usize,
    /// Paths, ascending by key.
    pub paths: Vec<PathStatus>,
}

/// Events that wait for the driver; it drains them after every call, so they are as many as one call makes.
#[derive(Debug, Default)]
pub(super) struct EventQueue(VecDeque<SessionEvent>);

impl EventQueue {
    pub(super) fn push(&mut self, event: SessionEvent) {
        self.0.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<SessionEvent> {
        self.0.pop_front()
    }
}
