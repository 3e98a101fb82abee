//! What goes into the planner and what comes out: plain values.

use std::time::Duration;

use crate::session::PathKey;
use crate::wire::codes::{EndCode, PathFailure, Purpose};
use crate::wire::{BrokerId, InstanceId, PathId};

/// One try to get a path; never used twice in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Settings of one session's planner.
#[derive(Debug, Clone)]
pub struct PlannerConfig {
    /// Between periodic handovers, which keep the way of a recovery exercised; `None` for none. Default 30 min.
    pub repath_every: Option<Duration>,
    /// Shortest time between two handovers that nobody has to make. Default 60 s, at most `repath_every`.
    pub voluntary_spacing: Duration,
    /// Time for one path to be opened. Default 12 s: longer than the 10 s that a broker waits for an absent Target.
    pub open_deadline: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            repath_every: Some(Duration::from_secs(30 * 60)),
            voluntary_spacing: Duration::from_secs(60),
            open_deadline: Duration::from_secs(12),
        }
    }
}

/// Why a session moves, or wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its last path is gone.
    PathLost,
    /// The peer is not heard, or does not hear us.
    Suspect,
    /// A broker on the way stops.
    Drain,
    /// The control link to the path's first broker ended.
    LinkLost,
    /// This machine's address changed, or it slept.
    NetworkChanged,
    /// The Target asked for another path.
    PeerAsked,
    /// A fresh ticket is to be presented before the old one runs out.
    Ticket,
    /// Another way is clearly faster.
    Better,
    /// The time between two changes of path is over.
    Periodic,
}

impl Reason {
    /// Whether the session could as well stay.
    pub fn is_voluntary(self) -> bool {
        matches!(self, Self::Better | Self::Periodic)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PathLost => "its last path was lost",
            Self::Suspect => "the other end was not heard",
            Self::Drain => "a broker on the way stops",
            Self::LinkLost => "the control link to its broker ended",
            Self::NetworkChanged => "this machine's network changed",
            Self::PeerAsked => "the target asked for it",
            Self::Ticket => "a fresh ticket is presented",
            Self::Better => "another way is faster",
            Self::Periodic => "it was time for the periodic change",
        })
    }
}

/// A broker through which a path may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerView {
    /// Which.
    pub broker: BrokerId,
    /// Whether a control link to it stands.
    pub linked: bool,
}

/// A path to open. Everything that OpenPath says and is not the same for the whole session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOrder {
    /// Names the attempt in what is told of it.
    pub attempt: AttemptId,
    /// The first broker.
    pub via: BrokerId,
    /// What the path is for.
    pub purpose: Purpose,
    /// The brokers behind the first, the Target's last; empty means that the first one locates the Target.
    pub route: Vec<BrokerId>,
    /// Brokers not to use, at most four.
    pub avoid: Vec<BrokerId>,
    /// The one instance of the Target that is wanted.
    pub instance: Option<InstanceId>,
    /// Time for it, the end-to-end handshake included.
    pub deadline: Duration,
}

/// A path that is open, its end-to-end handshake done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenedPath {
    /// Its id; `None` when no broker carries it.
    pub path: Option<PathId>,
    /// The brokers that it crosses, the first one first.
    pub hops: Vec<BrokerId>,
}

/// Why a path was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenFailure {
    /// A broker said no.
    Refused {
        /// Why.
        code: PathFailure,
        /// With RetryAfter: how long to stay away from the broker.
        retry_after: Duration,
        /// Other brokers to try.
        alternates: Vec<BrokerId>,
    },
    /// The broker cannot be reached, or the leg or the handshake broke.
    Unreachable,
    /// No answer within the time.
    Deadline,
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a path and prove the Target at its other end.
    Open(Box<OpenOrder>),
    /// Attach the opened path of an attempt: `session.attach` with this purpose, then `handle_attaching`.
    Attach {
        /// Which.
        attempt: AttemptId,
        /// RESUME, HANDOVER or STANDBY.
        purpose: Purpose,
    },
    /// Move the session to a path that stands by: `session.activate`, then `handle_activated`.
    Activate(PathKey),
    /// Drop what was opened or is being opened; nothing is told of it any more.
    Cancel(AttemptId),
    /// Start the planned end of a path: `session.retire`.
    Retire(PathKey),
    /// Close the leg of a path that stands by and is not wanted any more.
    Close(PathKey),
    /// Get a ticket, then `handle_ticket` or `handle_ticket_failed`.
    FetchTicket,
    /// End the session: the Target does not have it any more.
    End(EndCode),
    /// Tell it to whoever follows events.
    Report(Report),
}

/// What happened, with its reason, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The other end is not heard on a path.
    Suspect {
        /// Which.
        path: PathKey,
    },
    /// It is heard again.
    Trusted {
        /// Which.
        path: PathKey,
    },
    /// A path is gone.
    Lost {
        /// Which.
        path: PathKey,
        /// Whether it was retired, and so nobody needs it.
        planned: bool,
    },
    /// The session wants another path.
    Moving {
        /// RESUME or HANDOVER.
        purpose: Purpose,
        /// Why.
        reason: Reason,
    },
    /// A path could not be had; another attempt follows while one is wanted.
    AttemptFailed {
        /// The first broker.
        via: BrokerId,
        /// What happened.
        failure: OpenFailure,
    },
    /// The Target refused an attach.
    AttachRefused {
        /// The path.
        path: PathKey,
    },
    /// The session goes on over another path.
    Moved {
        /// Which.
        path: PathKey,
        /// RESUME or HANDOVER.
        purpose: Purpose,
        /// Why.
        reason: Reason,
        /// Time from the suspicion, the loss or the wish to ATTACHED.
        took: Duration,
        /// Paths that were tried for it.
        attempts: u32,
    },
    /// A path stands by.
    StandsBy {
        /// Which.
        path: PathKey,
    },
}
