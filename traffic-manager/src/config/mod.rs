//! The configuration: the knob table, and the checked form that the process runs from.
//!
//! Everything is judged before anything starts, and every problem is reported at once.

mod knobs;
mod read;
mod tables;

use std::path::PathBuf;
use std::sync::Arc;

use rc_daemon::cli::CommonArgs;
use rc_daemon::config::Settings;
use rc_transport::CredentialFiles;

use crate::monitor::{ProbeTarget, Watch};
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
    /// UDP sockets at each address, each with a thread.
    pub udp_threads: usize,
    /// The name that clients are told who ask for it.
    pub nsid: Option<String>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where to tell the real addresses.
    pub ready_file: Option<PathBuf>,
    /// Probes in flight at once.
    pub probes_max: usize,
    /// Names and profiles.
    pub zones: Arc<Zones>,
    /// By endpoint index.
    pub endpoints: Vec<EndpointConfig>,
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
