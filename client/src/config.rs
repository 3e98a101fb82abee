//! What an endpoint is told: who it is, where brokers are, and its timers and limits.
//!
//! Everything here is already validated types; files of settings are read by the binaries.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rc_proto::recovery::PlannerConfig;
use rc_proto::session::SessionConfig;
use rc_proto::wire::{BrokerId, IdError, Role};
use rc_transport::CredentialFiles;
use serde::Serialize;

use crate::pool::POOL_LEGS_MAX;

/// Configuration of a Controller or a Target, as far as both need the same.
///
/// [`ClientConfig::new`] sets every default; the fields are public so that an application changes what it knows.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Who this process is.
    pub credentials: CredentialFiles,
    /// Where brokers are.
    pub brokers: BrokerPlaces,
    /// Deadlines and periods.
    pub timers: Timers,
    /// Memory of channels.
    pub buffers: Buffers,
    /// How long a session is kept while no path carries it; 0 to 15 min. A Controller uses the smaller of this and what
    /// its Target announces less 30 s. `None` is the default of the role.
    pub resume_window: Option<Duration>,
    /// Between a Controller's periodic changes of path, which keep the way of a recovery exercised; `None` for none.
    /// Default 30 min.
    pub repath_every: Option<Duration>,
    /// Connections to brokers that are kept ready for the next path, 0 to 2: to the pinned broker, then to that of the
    /// second link. Default 2. With none, each new path begins with a handshake.
    pub pool_legs: usize,
    /// Directory for what outlives the process: the last-known-good broker list, and a Target's used tickets. `None`
    /// keeps both in memory only.
    pub state_dir: Option<PathBuf>,
}

/// Where brokers are found.
#[derive(Debug, Clone)]
pub struct BrokerPlaces {
    /// Service names, each resolved to the addresses of several brokers.
    pub names: Vec<String>,
    /// Brokers whose address is known without DNS; the certificate must show exactly that id.
    pub addresses: Vec<StaticBroker>,
    /// Port of every address that a name resolves to. Default 443.
    pub port: u16,
    /// DNS servers to ask; empty means those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// Whether loopback, link-local and v4-mapped addresses are used. Default false; for tests and demonstrations.
    pub allow_loopback: bool,
}

/// A broker whose address is known without DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaticBroker {
    /// The id that its certificate must show.
    pub broker: BrokerId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why a text is not a [`StaticBroker`].
#[derive(Debug, thiserror::Error)]
pub enum StaticBrokerError {
    /// Not `<region>/<id>@<ip>:<port>`.
    #[error("{text:?} is not <region>/<id>@<address>:<port>, for example in/broker-3@192.0.2.7:443")]
    Shape {
        /// The text.
        text: String,
    },
    /// The part before the `@` is no broker id.
    #[error("{text:?} names no broker: {source}")]
    Id {
        /// The text.
        text: String,
        /// Which rule it breaks.
        source: IdError,
    },
}

impl std::str::FromStr for StaticBroker {
    type Err = StaticBrokerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || StaticBrokerError::Shape { text: text.to_owned() };
        let (broker, address) = text.split_once('@').ok_or_else(shape)?;
        let address = address.parse().map_err(|_| shape())?;
        let broker =
            broker.parse().map_err(|source| StaticBrokerError::Id { text: text.to_owned(), source })?;
        Ok(Self { broker, address })
    }
}

/// Deadlines and periods. Each default is the protocol's.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// For a broker's TCP and TLS handshake and its first answer. Default 3 s. Too small loses far brokers, too large
    /// delays the next candidate of a broken one.
    pub dial: Duration,
    /// For a broker to be found and pinned, before an operation that needs one gives up. Default 10 s.
    pub locate: Duration,
    /// For a path to be opened, the Target's part included. Default 15 s: longer than the 10 s that a broker waits
    /// for an absent Target.
    pub open_path: Duration,
    /// For the end-to-end handshake and the first answer of the peer. Default 5 s.
    pub attach: Duration,
    /// Between keep-alive pings on the control link, when the broker does not say. Default 15 s.
    pub keep_alive: Duration,
    /// For the answer to a keep-alive ping. Default 5 s.
    pub keep_alive_answer: Duration,
}

/// Memory of each channel of a session. Each must hold what the path carries in one round trip: 4 MiB are 150 Mbit/s
/// over 220 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes that a channel keeps until the peer acknowledges them. Default 4 MiB.
    pub send_cap: usize,
    /// Bytes that the peer may send ahead of the application's reading; at least 64 KiB. Default 4 MiB.
    pub receive_window: u64,
}

impl Default for Buffers {
    fn default() -> Self {
        let config = SessionConfig::default();
        Self { send_cap: config.send_cap_bytes, receive_window: config.receive_window_bytes }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(3),
            locate: Duration::from_secs(10),
            open_path: Duration::from_secs(15),
            attach: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            keep_alive_answer: Duration::from_secs(5),
        }
    }
}

impl BrokerPlaces {
    /// Every place in words: service names, and static addresses.
    pub(crate) fn wanted(&self) -> Vec<String> {
        let fixed = self.addresses.iter().map(|known| format!("{}@{}", known.broker, known.address));
        self.names.iter().cloned().chain(fixed).collect()
    }

    /// Service names on port 443, with the system's DNS servers.
    pub fn named(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            names: names.into_iter().map(Into::into).collect(),
            addresses: Vec::new(),
            port: 443,
            name_servers: Vec::new(),
            allow_loopback: false,
        }
    }
}

/// How long a Target keeps a session that has no path; a Controller gives up 30 s earlier.
const TARGET_RESUME_WINDOW: Duration = Duration::from_secs(150);
/// Longest resume window.
const RESUME_WINDOW_MAX: Duration = Duration::from_secs(15 * 60);

impl ClientConfig {
    /// The settings of the sessions of an endpoint of this role.
    pub(crate) fn session(&self, role: Role) -> SessionConfig {
        let defaults = SessionConfig::default();
        let window = if role == Role::Target { TARGET_RESUME_WINDOW } else { defaults.resume_window };
        SessionConfig {
            send_cap_bytes: self.buffers.send_cap,
            receive_window_bytes: self.buffers.receive_window,
            resume_window: self.resume_window.unwrap_or(window).min(RESUME_WINDOW_MAX),
            ..defaults
        }
    }

    /// Every default, for brokers behind `names`.
    pub fn new(credentials: CredentialFiles, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            credentials,
            brokers: BrokerPlaces::named(names),
            timers: Timers::default(),
            buffers: Buffers::default(),
            resume_window: None,
            repath_every: PlannerConfig::default().repath_every,
            pool_legs: POOL_LEGS_MAX,
            state_dir: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_broker_names_its_id_and_its_address() {
        let broker: StaticBroker = "in/broker-3@[::1]:8443".parse().unwrap();
        assert_eq!(broker.broker.as_str(), "in/broker-3");
        assert_eq!(broker.address, "[::1]:8443".parse().unwrap());
        for refused in ["in/b", "in/b@host:1", "b@127.0.0.1:1", "in/b@127.0.0.1"] {
            assert!(refused.parse::<StaticBroker>().is_err(), "{refused}");
        }
    }

    #[test]
    fn the_settings_of_a_session_are_the_configured_ones() {
        let files = CredentialFiles {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            ca: PathBuf::new(),
            crl: None,
        };
        let mut config = ClientConfig::new(files, ["brokers.mesh.example"]);
        let window = |config: &ClientConfig, role| config.session(role).resume_window.as_secs();
        assert_eq!((window(&config, Role::Target), window(&config, Role::Controller)), (150, 120));
        config.buffers = Buffers { send_cap: 1, receive_window: 2 };
        config.resume_window = Some(Duration::from_secs(3));
        let session = config.session(Role::Target);
        assert_eq!((session.send_cap_bytes, session.receive_window_bytes), (1, 2));
        assert_eq!(session.resume_window, Duration::from_secs(3));
    }
}
