//! The state of a profile, from those of its endpoints.

use std::fmt;

use super::profile::Profile;
use super::snapshot::{EndpointStatus, Snapshot};

/// A profile's state, by the words of Azure Traffic Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum ProfileStatus {
    /// At least one endpoint is Degraded.
    Degraded,
    /// None is Degraded and at least one is Online or served unprobed.
    Online,
    /// Nothing is known of any endpoint yet.
    CheckingEndpoints,
    /// It has no endpoint in rotation.
    Inactive,
    /// The operator switched it off.
    Disabled,
}

impl ProfileStatus {
    /// The state of `profile`.
    pub fn of(profile: &Profile, snapshot: &Snapshot) -> Self {
        if !profile.enabled {
            return Self::Disabled;
        }
        let mut found = Self::Inactive;
        for endpoint in &profile.endpoints {
            found = match (snapshot.health(endpoint.index).status, found) {
                (EndpointStatus::Degraded, _) => return Self::Degraded,
                (EndpointStatus::Online | EndpointStatus::Unmonitored, _) => Self::Online,
                (EndpointStatus::CheckingEndpoint, Self::Inactive) => Self::CheckingEndpoints,
                (
                    EndpointStatus::CheckingEndpoint
                    | EndpointStatus::Disabled
                    | EndpointStatus::Inactive
                    | EndpointStatus::Stopped,
                    unchanged,
                ) => unchanged,
            };
        }
        found
    }

    /// Whether the name does not exist for the world.
    pub const fn is_off(self) -> bool {
        match self {
            Self::Inactive | Self::Disabled => true,
            Self::Degraded | Self::Online | Self::CheckingEndpoints => false,
        }
    }

    /// Its name in status and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degraded => "Degraded",
            Self::Online => "Online",
            Self::CheckingEndpoints => "CheckingEndpoints",
            Self::Inactive => "Inactive",
            Self::Disabled => "Disabled",
        }
    }
}

impl fmt::Display for ProfileStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
