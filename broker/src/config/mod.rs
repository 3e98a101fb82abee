//! The configuration of `rc-broker`: the knob table, and the checked [`Config`] made of it.

mod knobs;
mod read;

use std::path::PathBuf;

use rc_daemon::config::{ConfigSources, Settings};
use rc_proto::identity::ticket::TicketKeys;
use rc_transport::CredentialFiles;

use crate::server::BrokerConfig;

pub use knobs::KNOBS;
pub(crate) use read::admin_socket;
pub use read::{SeedError, read};

/// The name of the binary.
pub const BINARY: &str = "rc-broker";

/// Everything that a run of the daemon needs, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its certificate, key, CA and revocation lists.
    pub credentials: CredentialFiles,
    /// The keys that tickets are judged by.
    pub ticket_keys: TicketKeys,
    /// The list of tickets that are revoked; there is no such file before the first one is.
    pub deny_list: Option<PathBuf>,
    /// The region that the certificate must name.
    pub region: Option<String>,
    /// The id that the certificate must name.
    pub id: Option<String>,
    /// The broker itself.
    pub broker: BrokerConfig,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Written once the broker listens.
    pub ready_file: Option<PathBuf>,
}

/// The merged values of the sources.
pub fn load(sources: ConfigSources) -> Settings {
    Settings::load(sources, KNOBS)
}

/// The reference page of every knob.
pub fn reference() -> String {
    rc_daemon::config::reference(BINARY, KNOBS)
}

#[cfg(test)]
mod tests;
