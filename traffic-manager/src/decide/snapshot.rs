//! The health of all endpoints at one moment.

use std::fmt;

use super::directive::Directives;
use super::profile::{EndpointIndex, Profile};
use super::status::{ProfileStatus, Resolver};

/// An endpoint's state, by the words of Azure Traffic Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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
    /// How busy it is, per mille.
    pub load: u16,
}

impl Health {
    /// The health of an endpoint of which only the state is known.
    pub const fn with_status(status: EndpointStatus) -> Self {
        Self { status, accepting: true, mesh_healthy: true, load: 0 }
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

/// The health of all endpoints and the states of all profiles at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    health: Vec<Health>,
    profiles: Vec<ProfileStatus>,
}

impl Snapshot {
    /// What follows for every endpoint and every profile from what the monitor `observed`, by endpoint index, and from
    /// what is ordered. An endpoint that was not observed is being checked. The state of a nested endpoint follows from
    /// its profile's endpoints, through any number of levels.
    pub fn of(profiles: &[Profile], observed: &[Health], directives: &Directives) -> Self {
        let (health, profiles) = Resolver::new(profiles, observed, directives).resolve();
        Self { health, profiles }
    }

    /// The health of one endpoint; one that is not in the snapshot is out of rotation.
    pub fn health(&self, index: EndpointIndex) -> Health {
        self.health.get(index.0).copied().unwrap_or(Health::with_status(EndpointStatus::Inactive))
    }

    /// The state of a profile, by its position; one that is not in the snapshot is Inactive.
    pub fn profile(&self, position: usize) -> ProfileStatus {
        self.profiles.get(position).copied().unwrap_or(ProfileStatus::Inactive)
    }
}
