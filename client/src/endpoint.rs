//! One endpoint process: its pinned broker, its sessions, its shutdown.

use rc_proto::identity::SpiffeId;
use rc_proto::select::Choice;
use rc_proto::wire::{InstanceId, Role, SessionId};
use serde::Serialize;

use crate::config::ClientConfig;
use crate::error::{LocateError, SetupError};
use crate::event::Events;
use crate::status::{PinStatus, SessionStatus};

/// A Controller or a Target; cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {}

/// An endpoint as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointStatus {
    /// Who it is.
    pub id: SpiffeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// Ms since it started.
    pub age_ms: u64,
    /// End of its certificate's validity, unix ms.
    pub certificate_ends_ms: u64,
    /// The pinned broker.
    pub pin: Option<PinStatus>,
    /// The last choice of a broker: candidates, samples, scores and the rule that decided.
    pub choice: Option<Choice>,
    /// Its live sessions.
    pub sessions: Vec<SessionStatus>,
}

impl Endpoint {
    /// Reads the credentials, which must be of `role`, and begins to look for a broker.
    ///
    /// # Errors
    /// When the credentials or the settings cannot be used.
    pub fn start(config: ClientConfig, role: Role) -> Result<Self, SetupError> {
        let _ = (config, role);
        Err(SetupError::NoBrokers)
    }

    /// Waits for the pinned broker.
    ///
    /// # Errors
    /// When none is found within the time for a race.
    pub async fn pinned(&self) -> Result<PinStatus, LocateError> {
        Err(LocateError::Stopped)
    }

    /// The endpoint as it is now.
    pub fn status(&self) -> EndpointStatus {
        unimplemented!()
    }

    /// Follows what happens, from now on.
    pub fn events(&self) -> Events {
        unimplemented!()
    }

    /// Ends a session at once; false when there is none of that id.
    pub fn disconnect(&self, session: SessionId) -> bool {
        let _ = session;
        false
    }

    /// Ends every session and the control link, and waits for them.
    pub async fn shutdown(&self) {}
}

/// What one look for brokers found, without using any of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeReport {
    /// Each service name and what it resolved to.
    pub names: Vec<ResolvedName>,
    /// The choice that an endpoint would make now.
    pub choice: Choice,
}

/// What a service name resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedName {
    /// The name.
    pub name: String,
    /// Its addresses, of both families.
    pub addresses: Vec<std::net::IpAddr>,
    /// How long the answer holds, in s; the shorter of both families.
    pub ttl_s: Option<u64>,
    /// Why a family gave nothing.
    pub failures: Vec<String>,
}

/// Resolves, races and measures once, and tells what would be chosen.
///
/// # Errors
/// When the settings cannot be used, or no broker answers.
pub async fn probe(config: ClientConfig, role: Role) -> Result<ProbeReport, ProbeError> {
    drop(config);
    Err(ProbeError::Setup(SetupError::Role { found: String::new(), wanted: role.segment() }))
}

/// Why a probe found nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProbeError {
    /// The settings cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No broker answered.
    #[error(transparent)]
    Locate(#[from] LocateError),
}

impl ProbeError {
    /// The kind of failure.
    pub fn kind(&self) -> crate::FailureKind {
        match self {
            Self::Setup(error) => error.kind(),
            Self::Locate(error) => error.kind(),
        }
    }
}
