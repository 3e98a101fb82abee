//! The health of all endpoints at one moment.

use std::fmt;

use super::profile::EndpointIndex;

/// An endpoint's state, by the words of Azure Traffic Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum EndpointStatus {
    /// The last probe was answered, or fewer probes failed than are tolerated.
    Online,
    /// More probes failed in a row than are tolerated.
    Degraded,
    /// It was neither answered yet, nor have more probes failed than are tolerated.
    CheckingEndpoint,
    /// The operator took it out.
    Disabled,
    /// Its profile is disabled.
    Inactive,
    /// What it stands for is off.
    Stopped,
    /// It is served without being probed.
    Unmonitored,
}

impl EndpointStatus {
    /// Its name in status and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::Degraded => "Degraded",
            Self::CheckingEndpoint => "CheckingEndpoint",
            Self::Disabled => "Disabled",
            Self::Inactive => "Inactive",
            Self::Stopped => "Stopped",
            Self::Unmonitored => "Unmonitored",
        }
    }
}

impl fmt::Display for EndpointStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is known of one endpoint, as far as it decides about answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Its state.
    pub status: EndpointStatus,
    /// Whether it takes new sessions; a draining broker does not.
    pub accepting: bool,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
}

impl Health {
    /// The health of an endpoint of which only the state is known.
    pub const fn with_status(status: EndpointStatus) -> Self {
        Self { status, accepting: true, mesh_healthy: true }
    }

    /// Whether it may ever be named in an answer.
    pub const fn is_in_rotation(self) -> bool {
        match self.status {
            EndpointStatus::Online
            | EndpointStatus::Degraded
            | EndpointStatus::CheckingEndpoint
            | EndpointStatus::Unmonitored => true,
            EndpointStatus::Disabled | EndpointStatus::Inactive | EndpointStatus::Stopped => false,
        }
    }

    /// Whether it is in rotation and takes new sessions, as far as is known.
    pub const fn is_available(self) -> bool {
        match self.status {
            EndpointStatus::Online | EndpointStatus::CheckingEndpoint | EndpointStatus::Unmonitored => {
                self.accepting
            }
            EndpointStatus::Degraded
            | EndpointStatus::Disabled
            | EndpointStatus::Inactive
            | EndpointStatus::Stopped => false,
        }
    }
}

/// The health of all endpoints at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    health: Vec<Health>,
}

impl Snapshot {
    /// The health of each endpoint, by its index.
    pub const fn new(health: Vec<Health>) -> Self {
        Self { health }
    }

    /// The health of one endpoint; one that is not in the snapshot is out of rotation.
    pub fn health(&self, index: EndpointIndex) -> Health {
        self.health.get(index.0).copied().unwrap_or(Health::with_status(EndpointStatus::Inactive))
    }
}
