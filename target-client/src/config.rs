//! What a Target is told beyond what every endpoint is.

use std::path::PathBuf;

use rc_client::ClientConfig;

/// Configuration of a Target.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// What every endpoint is told.
    pub client: ClientConfig,
    /// Public keys whose tickets are accepted: JSON Web Key Sets, the `ticket-keys.json` of `rc-certs`.
    pub ticket_keys: Vec<PathBuf>,
    /// The list of revoked tickets, the `deny.jws` of `rc-certs`, signed by one of the ticket keys; read at the start.
    pub deny_list: Option<PathBuf>,
    /// What strangers may ask of this process.
    pub limits: TargetLimits,
}

/// What strangers may ask of a Target. Each default is the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetLimits {
    /// Invites a second that are followed; the others are dropped. Default 10.
    pub invites_per_second: u32,
    /// Legs whose end-to-end handshake is not done yet, at once. Default 4.
    pub handshakes: usize,
    /// ATTACH messages a minute. Default 30.
    pub attaches_per_minute: u32,
    /// Sessions at once. Default 16.
    pub sessions: usize,
    /// Offers that wait for the application at once; a further one is refused. Default 64.
    pub pending_offers: usize,
}

impl Default for TargetLimits {
    fn default() -> Self {
        Self {
            invites_per_second: 10,
            handshakes: 4,
            attaches_per_minute: 30,
            sessions: 16,
            pending_offers: 64,
        }
    }
}

impl TargetConfig {
    /// Every default limit, with tickets signed by one of `ticket_keys`.
    pub fn new(client: ClientConfig, ticket_keys: impl IntoIterator<Item = PathBuf>) -> Self {
        let ticket_keys = ticket_keys.into_iter().collect();
        Self { client, ticket_keys, deny_list: None, limits: TargetLimits::default() }
    }
}
