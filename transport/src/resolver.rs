//! Names to addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

/// Failures in a row after which the resolver is built again.
const FAILURES_MAX: u32 = 3;
/// Addresses that are kept of one answer.
const ADDRESSES_MAX: usize = 64;

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Name servers; empty means those of the operating system.
    pub servers: Vec<SocketAddr>,
    /// Time for one attempt at one server.
    pub timeout: Duration,
    /// Attempts at each server.
    pub attempts: usize,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(1), attempts: 2 }
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Which families to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// Both.
    #[default]
    Both,
    /// A only.
    V4Only,
    /// AAAA only.
    V6Only,
}

/// What one family's lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressAnswer {
    /// In the order of the answer; never empty.
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds; [`Duration::MAX`] for a literal address.
    pub ttl: Duration,
}

/// Why a name has no address. Each names what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Not a name.
    #[error("{name:?} is neither a DNS name nor an address")]
    NotAName {
        /// What was given.
        name: String,
    },
    /// The name does not exist.
    #[error("the name {name} does not exist (NXDOMAIN, said by {server}): check its spelling")]
    NxDomain {
        /// The name.
        name: String,
        /// Who was asked.
        server: String,
    },
    /// The name exists without addresses of this family.
    #[error("the name {name} has no {family:?} address")]
    NoData {
        /// The name.
        name: String,
        /// The family.
        family: Family,
    },
    /// The server could not say.
    #[error("the name server {server} could not resolve {name} ({code})")]
    ServFail {
        /// The name.
        name: String,
        /// Who was asked.
        server: String,
        /// The response code.
        code: String,
    },
    /// No answer in time.
    #[error("the name server {server} did not answer for {name} in time")]
    Timeout {
        /// The name.
        name: String,
        /// Who was asked.
        server: String,
    },
    /// An answer that is none.
    #[error("the name server {server} sent an answer for {name} that cannot be read ({reason})")]
    Garbage {
        /// The name.
        name: String,
        /// Who was asked.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network refused.
    #[error("the name server {server} cannot be reached for {name}: {reason}")]
    Unreachable {
        /// The name.
        name: String,
        /// Who was asked.
        server: String,
        /// The operating system's word.
        reason: String,
    },
    /// The operating system names no servers, or ones that cannot be read.
    #[error(
        "the system's resolver configuration cannot be read ({reason}): name servers in the configuration"
    )]
    NoServers {
        /// Why.
        reason: String,
    },
}

impl LookupError {
    /// Whether asking again may help without somebody changing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NxDomain { .. }
            | Self::NoData { .. }
            | Self::ServFail { .. }
            | Self::Timeout { .. }
            | Self::Garbage { .. }
            | Self::Unreachable { .. }
            | Self::NoServers { .. } => true,
            Self::NotAName { .. } => false,
        }
    }
}

/// The result of each family that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// A records, when asked for.
    pub v4: Option<Result<AddressAnswer, LookupError>>,
    /// AAAA records, when asked for.
    pub v6: Option<Result<AddressAnswer, LookupError>>,
}

/// One shared resolver; built again after three failures in a row and on [`Self::rebuild`], since a resolver can
/// stick to a dead server and does not read the system's configuration again.
///
/// Nothing is cached here: callers keep what they found for as long as its TTL says, and their last good addresses
/// beyond it.
pub struct Resolver {
    config: ResolverConfig,
    /// Empty before the first lookup and after the system's configuration could not be read.
    current: ArcSwapOption<TokioResolver>,
    failures: AtomicU32,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Resolves by `config`.
    pub fn new(config: ResolverConfig) -> Self {
        Self { config, current: ArcSwapOption::empty(), failures: AtomicU32::new(0) }
    }

    /// Looks one family up. A literal address is answered at once.
    ///
    /// # Errors
    /// Why the name has no such address.
    pub async fn lookup(&self, name: &str, family: Family) -> Result<AddressAnswer, LookupError> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return if address.is_ipv4() == (family == Family::V4) {
                Ok(AddressAnswer { addresses: vec![address], ttl: Duration::MAX })
            } else {
                Err(LookupError::NoData { name: name.to_owned(), family })
            };
        }
        let mut full = Name::from_ascii(name).map_err(|_| LookupError::NotAName { name: name.to_owned() })?;
        if name.is_empty() {
            return Err(LookupError::NotAName { name: name.to_owned() });
        }
        // Search domains would look elsewhere for what is missing.
        full.set_fqdn(true);
        let answer = self.ask(name, full, family).await;
        self.note(&answer);
        answer
    }

    /// Looks the families up at the same time and waits for all; to act on the first, call [`Self::lookup`] for each.
    pub async fn addresses(&self, name: &str, families: Families) -> Addresses {
        match families {
            Families::V4Only => Addresses { v4: Some(self.lookup(name, Family::V4).await), v6: None },
            Families::V6Only => Addresses { v4: None, v6: Some(self.lookup(name, Family::V6).await) },
            Families::Both => {
                let (v4, v6) = tokio::join!(self.lookup(name, Family::V4), self.lookup(name, Family::V6));
                Addresses { v4: Some(v4), v6: Some(v6) }
            }
        }
    }

    /// Starts over, with the operating system's configuration read again: the network has changed.
    pub fn rebuild(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.current.store(None);
    }

    async fn ask(&self, name: &str, full: Name, family: Family) -> Result<AddressAnswer, LookupError> {
        let resolver = self.resolver()?;
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let by = self.longest();
        let lookup = match tokio::time::timeout(by, Box::pin(resolver.lookup(full, kind))).await {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => return Err(self.explain(&error, name, family)),
            Err(_) => return Err(LookupError::Timeout { name: name.to_owned(), server: self.servers() }),
        };
        let mut ttl = u32::MAX;
        let mut addresses = Vec::new();
        for record in lookup.answers() {
            // Aliases on the way bound the answer's life too.
            ttl = ttl.min(record.ttl);
            let address = record.data.ip_addr().filter(|address| address.is_ipv4() == (family == Family::V4));
            addresses.extend(address.filter(|_| addresses.len() < ADDRESSES_MAX));
        }
        if addresses.is_empty() {
            return Err(LookupError::NoData { name: name.to_owned(), family });
        }
        Ok(AddressAnswer { addresses, ttl: Duration::from_secs(u64::from(ttl)) })
    }

    fn resolver(&self) -> Result<Arc<TokioResolver>, LookupError> {
        if let Some(resolver) = self.current.load_full() {
            return Ok(resolver);
        }
        let built =
            Arc::new(self.build().map_err(|error| LookupError::NoServers { reason: error.to_string() })?);
        self.current.store(Some(Arc::clone(&built)));
        Ok(built)
    }

    fn build(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.config.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.config.servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config =
                hickory_resolver::config::ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let is_system = self.config.servers.is_empty();
        let options = builder.options_mut();
        options.timeout = self.config.timeout;
        options.attempts = self.config.attempts.max(1);
        options.cache_size = 0;
        options.use_hosts_file = if is_system { ResolveHosts::Auto } else { ResolveHosts::Never };
        builder.build()
    }

    /// A bound on everything that the resolver may do for one lookup.
    fn longest(&self) -> Duration {
        let servers = u32::try_from(self.config.servers.len()).unwrap_or(u32::MAX).clamp(1, 3);
        let attempts = u32::try_from(self.config.attempts).unwrap_or(u32::MAX).clamp(1, 10);
        self.config.timeout.saturating_mul(servers.saturating_mul(attempts))
    }

    /// Counts failures that another server, or a fresh start, might mend.
    fn note(&self, answer: &Result<AddressAnswer, LookupError>) {
        let has_failed = match answer {
            Ok(_) => false,
            Err(error) => match error {
                LookupError::ServFail { .. }
                | LookupError::Timeout { .. }
                | LookupError::Garbage { .. }
                | LookupError::Unreachable { .. }
                | LookupError::NoServers { .. } => true,
                LookupError::NotAName { .. } | LookupError::NxDomain { .. } | LookupError::NoData { .. } => {
                    false
                }
            },
        };
        if !has_failed {
            self.failures.store(0, Ordering::Relaxed);
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            tracing::debug!("name resolution starts over after repeated failures");
            self.rebuild();
        }
    }

    fn explain(&self, error: &NetError, name: &str, family: Family) -> LookupError {
        let (name, server) = (name.to_owned(), self.servers());
        #[expect(clippy::wildcard_enum_match_arm, reason = "the resolver's error is non-exhaustive")]
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => LookupError::NxDomain { name, server },
                ResponseCode::NoError => LookupError::NoData { name, family },
                code => LookupError::ServFail { name, server, code: code.to_string() },
            },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                LookupError::ServFail { name, server, code: code.to_string() }
            }
            NetError::Timeout => LookupError::Timeout { name, server },
            NetError::Io(error) => LookupError::Unreachable { name, server, reason: error.to_string() },
            NetError::NoConnections => {
                LookupError::Unreachable { name, server, reason: "no connection".to_owned() }
            }
            other => LookupError::Garbage { name, server, reason: other.to_string() },
        }
    }

    /// Who was asked, for a user.
    fn servers(&self) -> String {
        match self.config.servers.as_slice() {
            [] => "of the system".to_owned(),
            servers => servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}
