//! How one probe ended.

use std::time::Duration;

use rc_proto::wire::{BrokerId, Incarnation};

/// What a probe found out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// From the first packet to the answer, handshakes included.
    #[serde(serialize_with = "as_milliseconds")]
    pub took: Duration,
    /// Load per mille; 0 for what is no broker.
    pub load: u16,
    /// Whether it takes new sessions; a draining broker does not.
    pub accepting: bool,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
    /// What a broker says of itself, from its data path.
    #[serde(flatten)]
    pub broker: Option<BrokerReport>,
}

impl Report {
    /// Of an endpoint that answered and says nothing of itself.
    pub const fn answered(took: Duration) -> Self {
        Self { took, load: 0, accepting: true, mesh_healthy: true, broker: None }
    }
}

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BrokerReport {
    /// Who answered.
    pub broker: BrokerId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Paths open.
    pub paths: u32,
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
    /// An HTTP status that does not count as healthy.
    #[error("HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The endpoint answered something else than was asked.
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
            Self::Status { .. } => "status",
            Self::Misbehaved { .. } => "misbehaved",
        }
    }
}
