//! How one probe ended.

use std::time::Duration;

use rc_proto::wire::{BrokerId, Incarnation};

/// What a broker says of itself, from its data path.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Who answered.
    pub broker: BrokerId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Load per mille.
    pub load: u16,
    /// Paths open.
    pub paths: u32,
    /// Whether it takes new sessions; a draining broker does not.
    pub accepting: bool,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
    /// From the first packet to the answer, the handshake included.
    #[serde(serialize_with = "as_milliseconds")]
    pub took: Duration,
}

fn as_milliseconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// Not done in time.
    #[error("no answer within {} ms", after.as_millis())]
    Timeout {
        /// The time allowed.
        after: Duration,
    },
    /// No connection.
    #[error("not reached: {reason}")]
    Unreachable {
        /// What the network said.
        reason: String,
    },
    /// Somebody answered who is not the broker that was expected, or who does not trust us.
    #[error("no trust: {reason}")]
    Untrusted {
        /// What does not hold.
        reason: String,
    },
    /// The broker answered something else than was asked.
    #[error("wrong answer: {reason}")]
    Misbehaved {
        /// What came.
        reason: String,
    },
}

impl ProbeFailure {
    /// A short fixed word for status and events.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
            Self::Misbehaved { .. } => "misbehaved",
        }
    }
}
