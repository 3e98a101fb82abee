//! What an endpoint tells about itself: plain values that serialise.

use std::net::SocketAddr;
use std::time::Duration;

use rc_proto::recovery::Reason;
use rc_proto::wire::codes::{AbortCode, Class, EndCode, Lane, Purpose, RegistrationRole};
use rc_proto::wire::{BrokerId, ChannelId, EndpointId, Epoch, Incarnation, PathId, ServiceName, SessionId};
use serde::Serialize;

/// The broker an endpoint uses, and how it is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinStatus {
    /// Its id, as its certificate shows it.
    pub broker: BrokerId,
    /// Where the control link goes.
    pub address: SocketAddr,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Round trip of the last keep-alive, in µs.
    pub round_trip_us: Option<u32>,
    /// Load per mille, from its last answer.
    pub load: u16,
    /// Whether a Target's registration is confirmed there; false for Controllers.
    pub registered: bool,
    /// What a Target is registered there as.
    pub role: Option<RegistrationRole>,
    /// Ms since the control link was made.
    pub linked_for_ms: u64,
}

/// One way of a path, from the Controller's broker to the Target's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopStatus {
    /// The broker.
    pub broker: BrokerId,
    /// Its round trip to the next hop in µs; 0 when it is not known.
    pub next_round_trip_us: u32,
}

/// One live path of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// The path; `None` when no broker carries it.
    pub path: Option<PathId>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its kind.
    pub lane: Lane,
    /// Whether it carries the session's channels now.
    pub in_use: bool,
    /// Whether it stands by: ready, and carrying nothing.
    pub standby: bool,
    /// Whether the other endpoint is not heard on it.
    pub suspect: bool,
    /// The brokers on the way; on the Target's side only its own broker is known.
    pub hops: Vec<HopStatus>,
    /// Round trip of this endpoint to its own broker in µs, when measured.
    pub first_round_trip_us: Option<u32>,
    /// Round trip of this endpoint to the other one in µs, smoothed, when measured.
    pub round_trip_us: Option<u32>,
}

/// How a session came to another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MoveStatus {
    /// Resume or handover.
    pub purpose: Purpose,
    /// Why; `None` at a Target when the Controller alone knows.
    pub reason: Option<Reason>,
    /// Ms from the suspicion, the loss or the wish until the new path carried the session.
    pub took_ms: u64,
    /// Paths that were tried for it; `None` at a Target.
    pub attempts: Option<u32>,
}

/// The last change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LastMove {
    /// Ms since then.
    pub ago_ms: u64,
    /// How.
    #[serde(flatten)]
    pub moved: MoveStatus,
}

/// One channel of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// Its id.
    pub channel: ChannelId,
    /// What it was opened to.
    pub service: ServiceName,
    /// Its priority.
    pub class: Class,
}

/// A session, as one of its endpoints sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// The other endpoint.
    pub peer: EndpointId,
    /// Ms since it began.
    pub age_ms: u64,
    /// Its live paths.
    pub paths: Vec<PathStatus>,
    /// Its last change of path, if there was one.
    pub last_move: Option<LastMove>,
    /// Its open channels.
    pub channels: Vec<ChannelStatus>,
    /// Bytes that the application wrote to channels.
    pub sent_bytes: u64,
    /// Bytes received on channels, each counted once.
    pub received_bytes: u64,
}

/// Which side ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// This process.
    Local,
    /// The other endpoint.
    Peer,
    /// The network between them.
    Network,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionEnd {
    /// Why.
    pub code: EndCode,
    /// Who ended it.
    pub by: EndedBy,
    /// The rule that was broken, when one was.
    pub abort: Option<AbortCode>,
    /// What else is known, in words; may be empty.
    pub detail: String,
}

impl SessionEnd {
    /// An end that nobody explained.
    pub(crate) fn unknown() -> Self {
        Self { code: EndCode::INTERNAL, by: EndedBy::Local, abort: None, detail: String::new() }
    }

    /// Whether the session ended as its endpoints wanted.
    pub fn is_clean(&self) -> bool {
        self.code == EndCode::DONE && self.abort.is_none()
    }
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = match self.by {
            EndedBy::Local => "this side",
            EndedBy::Peer => "the other side",
            EndedBy::Network => "the network",
        };
        write!(f, "the session was ended by {by}: {}", self.code)?;
        if let Some(abort) = self.abort {
            write!(f, " ({abort})")?;
        }
        if !self.detail.is_empty() {
            write!(f, ", {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for SessionEnd {}

/// A span as whole milliseconds, saturating.
pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
