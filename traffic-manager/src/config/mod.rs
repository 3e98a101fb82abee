//! The configuration: the knob table, and the checked form that the process runs from.
//!
//! Everything is judged before anything starts, and every problem is reported at once.

mod check;
mod endpoints;
mod knobs;
mod private;
mod probes;
mod profiles;
mod read;
mod zones;

use std::path::PathBuf;
use std::sync::Arc;

use rc_daemon::cli::CommonArgs;
use rc_daemon::config::Settings;
use rc_transport::CredentialFiles;

use crate::maps::MapFiles;
use crate::monitor::{ProbeTarget, Watch};
use crate::name::DnsName;
use crate::server::ServerOptions;
use crate::zone::Zones;

pub use knobs::{KNOBS, reference};
pub(crate) use read::admin_socket;
pub use read::read;

/// The program's name.
pub const BINARY: &str = "rc-traffic-manager";

/// What the process runs from.
#[derive(Debug)]
pub struct Config {
    /// Our certificate, key and authorities; `None` when nothing is probed.
    pub credentials: Option<CredentialFiles>,
    /// Where DNS is served.
    pub listen: Vec<std::net::SocketAddr>,
    /// How it is served.
    pub server: ServerOptions,
    /// The name that clients are told who ask for it.
    pub nsid: Option<String>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where what is known outlives the process.
    pub state_file: PathBuf,
    /// Where metrics are answered.
    pub metrics: Vec<std::net::SocketAddr>,
    /// Where to tell the real addresses.
    pub ready_file: Option<PathBuf>,
    /// Probes in flight at once.
    pub probes_max: usize,
    /// Names and profiles.
    pub zones: Arc<Zones>,
    /// By endpoint index.
    pub endpoints: Vec<EndpointConfig>,
    /// Where the tables of askers are.
    pub maps: MapFiles,
}

impl Config {
    /// Why this configuration cannot take the place of the one that runs; each a sentence. The record type that a
    /// profile is bound to is a promise to those who query it.
    pub fn obstacles_to_follow(&self, running: &Self) -> Vec<String> {
        let bound = |zones: &Zones, name: &DnsName| {
            let profile = zones.profiles().iter().find(|profile| profile.name == *name)?;
            profile.options.record_type
        };
        let each = running.zones.profiles().iter().filter_map(|old| {
            let before = old.options.record_type?;
            let is_there = self.zones.profiles().iter().any(|profile| profile.name == old.name);
            let after = bound(&self.zones, &old.name);
            (is_there && after != Some(before)).then(|| {
                format!(
                    "profile {} is bound to {} records: that cannot change while it is served; remove the profile \
                     first, or give the new one another name",
                    old.name,
                    before.name()
                )
            })
        });
        each.collect()
    }
}

/// What is to be done with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Position of its profile in the zones.
    pub profile: usize,
    /// Its name.
    pub name: String,
    /// Whether and how it is probed.
    pub watch: Watch,
    /// Whom a probe dials; `None` when it is not probed.
    pub target: Option<ProbeTarget>,
}

/// All layers of this process.
pub fn load(common: &CommonArgs) -> Settings {
    Settings::load(common.config_sources(BINARY), KNOBS)
}

#[cfg(test)]
mod tests;
