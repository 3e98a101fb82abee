//! The states of endpoints and profiles, from what is observed and ordered.

use std::fmt;

use super::directive::{Directive, Directives};
use super::profile::{Endpoint, MinimumChildren, Profile, Target};
use super::snapshot::{EndpointStatus, Health};

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
    /// The state of an enabled profile whose endpoints have these states.
    pub fn of(endpoints: impl IntoIterator<Item = EndpointStatus>) -> Self {
        let mut found = Self::Inactive;
        for endpoint in endpoints {
            found = match (endpoint, found) {
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

/// How many endpoints of a profile are in a state: of any kind, giving IPv4, giving IPv6.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    any: usize,
    v4: usize,
    v6: usize,
}

impl Count {
    fn add(&mut self, families: (bool, bool)) {
        self.any += 1;
        self.v4 += usize::from(families.0);
        self.v6 += usize::from(families.1);
    }

    const fn reaches(self, minimum: MinimumChildren) -> bool {
        self.any >= minimum.any && self.v4 >= minimum.v4 && self.v6 >= minimum.v6
    }
}

/// What a profile is to the endpoints that nest it.
#[derive(Debug, Clone, Copy)]
struct Standing {
    status: ProfileStatus,
    /// Online and taking sessions.
    online: Count,
    /// These and those that are being checked.
    hopeful: Count,
    mesh_healthy: bool,
    /// Whether its endpoints give IPv4, IPv6.
    families: (bool, bool),
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Unknown,
    /// Its endpoints are being looked at. To meet it again is a loop, which the configuration refuses.
    Open,
    Done(Standing),
}

/// Works out all states, each once, children before parents.
pub(super) struct Resolver<'r> {
    profiles: &'r [Profile],
    directives: &'r Directives,
    observed: &'r [Health],
    health: Vec<Health>,
    progress: Vec<Progress>,
}

impl<'r> Resolver<'r> {
    pub(super) fn new(profiles: &'r [Profile], observed: &'r [Health], directives: &'r Directives) -> Self {
        let progress = vec![Progress::Unknown; profiles.len()];
        Self { profiles, directives, observed, health: observed.to_vec(), progress }
    }

    pub(super) fn resolve(mut self) -> (Vec<Health>, Vec<ProfileStatus>) {
        let statuses = (0..self.profiles.len()).map(|at| self.standing(at).map(|standing| standing.status));
        let statuses: Vec<ProfileStatus> =
            statuses.map(|found| found.unwrap_or(ProfileStatus::Inactive)).collect();
        (self.health, statuses)
    }

    /// `None`: there is no such profile, or it contains itself.
    fn standing(&mut self, position: usize) -> Option<Standing> {
        match *self.progress.get(position)? {
            Progress::Done(standing) => return Some(standing),
            Progress::Open => return None,
            Progress::Unknown => {}
        }
        let profile = self.profiles.get(position)?;
        *self.progress.get_mut(position)? = Progress::Open;
        let (mut online, mut hopeful) = (Count::default(), Count::default());
        let (mut mesh_healthy, mut families) = (false, (false, false));
        let mut statuses = Vec::with_capacity(profile.endpoints().len());
        for endpoint in profile.endpoints() {
            let (health, gives) = self.endpoint(profile, endpoint);
            families = (families.0 || gives.0, families.1 || gives.1);
            if health.is_available() {
                hopeful.add(gives);
                mesh_healthy |= health.mesh_healthy;
                if health.status != EndpointStatus::CheckingEndpoint {
                    online.add(gives);
                }
            }
            statuses.push(health.status);
            self.store(endpoint, health);
        }
        let status = if profile.enabled { ProfileStatus::of(statuses) } else { ProfileStatus::Disabled };
        let standing = Standing { status, online, hopeful, mesh_healthy, families };
        *self.progress.get_mut(position)? = Progress::Done(standing);
        Some(standing)
    }

    fn store(&mut self, endpoint: &Endpoint, health: Health) {
        let at = endpoint.index.0;
        if self.health.len() <= at {
            self.health.resize(at + 1, Health::with_status(EndpointStatus::Inactive));
        }
        if let Some(place) = self.health.get_mut(at) {
            *place = health;
        }
    }

    /// An endpoint's health, and whether it gives IPv4, IPv6. Disabled counts before everything, then a disabled
    /// profile, then what it stands for being off, then being served unprobed, then what was observed.
    fn endpoint(&mut self, profile: &Profile, endpoint: &Endpoint) -> (Health, (bool, bool)) {
        let directive = self.directives.of(&profile.name, &endpoint.name);
        let is_enabled = match directive {
            Some(Directive::Disabled) => false,
            Some(Directive::Enabled) => true,
            Some(Directive::Drain) | None => endpoint.enabled,
        };
        let (mut health, families) = match endpoint.target {
            Target::Address(address) => {
                (self.leaf(endpoint, directive), (address.is_ipv4(), address.is_ipv6()))
            }
            Target::Name(_) => (self.leaf(endpoint, directive), (true, true)),
            Target::Nested { profile, minimum } => self.nested(profile, minimum),
        };
        if !is_enabled {
            health = Health::with_status(EndpointStatus::Disabled);
        } else if !profile.enabled {
            health = Health::with_status(EndpointStatus::Inactive);
        }
        health.accepting &= directive != Some(Directive::Drain);
        (health, families)
    }

    fn leaf(&self, endpoint: &Endpoint, directive: Option<Directive>) -> Health {
        let observed = self.observed.get(endpoint.index.0).copied();
        let observed = observed.unwrap_or(Health::with_status(EndpointStatus::CheckingEndpoint));
        match observed.status {
            EndpointStatus::Stopped => observed,
            _ if endpoint.always_serve => Health { status: EndpointStatus::Unmonitored, ..observed },
            // It was not probed until the order came.
            EndpointStatus::Disabled if directive == Some(Directive::Enabled) => {
                Health::with_status(EndpointStatus::CheckingEndpoint)
            }
            EndpointStatus::Online
            | EndpointStatus::Degraded
            | EndpointStatus::CheckingEndpoint
            | EndpointStatus::Disabled
            | EndpointStatus::Inactive
            | EndpointStatus::Unmonitored => observed,
        }
    }

    fn nested(&mut self, position: usize, minimum: MinimumChildren) -> (Health, (bool, bool)) {
        let Some(child) = self.standing(position).filter(|child| !child.status.is_off()) else {
            return (Health::with_status(EndpointStatus::Stopped), (false, false));
        };
        let status = if child.online.reaches(minimum) {
            EndpointStatus::Online
        } else if child.hopeful.reaches(minimum) {
            EndpointStatus::CheckingEndpoint
        } else {
            EndpointStatus::Degraded
        };
        let mesh_healthy = child.mesh_healthy || child.hopeful.any == 0;
        (Health { mesh_healthy, ..Health::with_status(status) }, child.families)
    }
}
