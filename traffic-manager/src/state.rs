//! What is known of the endpoints and ordered by the operator, so that a new process or a new configuration goes on from
//! there: it neither serves what is known to be dead nor drops what is known to be alive.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use rc_proto::Moment;
use serde::{Deserialize, Serialize};

use crate::config::EndpointConfig;
use crate::decide::{Directive, Directives, EndpointStatus, Health, Profile};
use crate::monitor::{EndpointView, LastKnown, Watch};
use crate::name::DnsName;
use crate::zone::Zones;

/// Of the file; another one is not read.
const VERSION: u32 = 1;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownState {
    version: u32,
    endpoints: Vec<KnownEndpoint>,
    directives: Vec<KnownDirective>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownEndpoint {
    profile: String,
    endpoint: String,
    /// What its answer gives: another target is another endpoint, whatever its name.
    target: String,
    status: EndpointStatus,
    accepting: bool,
    mesh_healthy: bool,
    load: u16,
    failures: u32,
    since_unix_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownDirective {
    profile: String,
    endpoint: String,
    directive: Directive,
}

/// Why the file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what this version writes.
    #[error("it is not what this version writes: {0}")]
    Format(String),
}

/// Now on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Moment,
    pub(crate) unix_ms: u64,
}

impl Clocks {
    /// The wall time of an earlier moment.
    fn unix_ms_of(self, moment: Moment) -> u64 {
        let age = u64::try_from(self.now.since(moment).as_millis()).unwrap_or(u64::MAX);
        self.unix_ms.saturating_sub(age)
    }

    /// The moment of an earlier wall time; at the earliest the clock's origin.
    fn moment_of(self, unix_ms: u64) -> Moment {
        let age = Duration::from_millis(self.unix_ms.saturating_sub(unix_ms));
        Moment::from_origin(self.now.since_origin().saturating_sub(age))
    }
}

impl Default for KnownState {
    fn default() -> Self {
        Self { version: VERSION, endpoints: Vec::new(), directives: Vec::new() }
    }
}

impl KnownState {
    /// What the monitor knows and the operator ordered.
    pub(crate) fn of(
        zones: &Zones,
        endpoints: &[EndpointConfig],
        views: &[EndpointView],
        directives: &Directives,
        clocks: Clocks,
    ) -> Self {
        let known = endpoints.iter().zip(views).enumerate().filter_map(|(at, (config, view))| {
            let Watch::Probed(_) = config.watch else { return None };
            let profile = zones.profile(config.profile)?;
            Some(KnownEndpoint {
                profile: profile.name.to_string(),
                endpoint: config.name.clone(),
                target: target(profile, at)?,
                status: view.health.status,
                accepting: view.health.accepting,
                mesh_healthy: view.health.mesh_healthy,
                load: view.health.load,
                failures: view.failures,
                since_unix_ms: clocks.unix_ms_of(view.since),
            })
        });
        let directives = directives.iter().map(|(profile, endpoint, directive)| KnownDirective {
            profile: profile.to_string(),
            endpoint: endpoint.to_owned(),
            directive,
        });
        Self { version: VERSION, endpoints: known.collect(), directives: directives.collect() }
    }

    /// Whether the other says the same of everything that decides about answers.
    pub(crate) fn is_as_good_as(&self, other: &Self) -> bool {
        let same = |a: &KnownEndpoint, b: &KnownEndpoint| {
            (&a.profile, &a.endpoint, &a.target, a.status, a.accepting, a.mesh_healthy, a.failures)
                == (&b.profile, &b.endpoint, &b.target, b.status, b.accepting, b.mesh_healthy, b.failures)
        };
        self.directives == other.directives
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().zip(&other.endpoints).all(|(a, b)| same(a, b))
    }

    /// What is known of each endpoint of a configuration, by its index.
    pub(crate) fn known(
        &self,
        zones: &Zones,
        endpoints: &[EndpointConfig],
        clocks: Clocks,
    ) -> Vec<Option<LastKnown>> {
        let by_name: BTreeMap<(&str, &str), &KnownEndpoint> = self
            .endpoints
            .iter()
            .map(|known| ((known.profile.as_str(), known.endpoint.as_str()), known))
            .collect();
        let each = endpoints.iter().enumerate().map(|(at, config)| {
            let profile = zones.profile(config.profile)?;
            let known = by_name.get(&(profile.name.as_str(), config.name.as_str()))?;
            if target(profile, at)? != known.target {
                return None;
            }
            let health = Health {
                accepting: known.accepting,
                mesh_healthy: known.mesh_healthy,
                load: known.load,
                ..Health::with_status(known.status)
            };
            let since = clocks.moment_of(known.since_unix_ms);
            Some(LastKnown { health, failures: known.failures, since })
        });
        each.collect()
    }

    /// The orders for endpoints that are still there.
    pub(crate) fn directives(&self, zones: &Zones) -> Directives {
        let mut directives = Directives::default();
        for known in &self.directives {
            if let Ok(profile) = known.profile.parse::<DnsName>() {
                directives.set(profile, known.endpoint.clone(), known.directive);
            }
        }
        directives.retain(|profile, endpoint| {
            let mut profiles = zones.profiles().iter().filter(|there| there.name == *profile);
            profiles.any(|there| there.endpoints().iter().any(|other| other.name == endpoint))
        });
        directives
    }

    /// Reads the file; nothing when there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, StateError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let state: Self =
            serde_json::from_slice(&text).map_err(|error| StateError::Format(error.to_string()))?;
        if state.version == VERSION {
            Ok(state)
        } else {
            Err(StateError::Format(format!("version {}", state.version)))
        }
    }

    /// Replaces the file; whoever reads it sees the old one or the new one.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, path)
    }
}

fn target(profile: &Profile, index: usize) -> Option<String> {
    let endpoint = profile.endpoints().iter().find(|endpoint| endpoint.index.0 == index)?;
    Some(endpoint.target.to_string())
}
