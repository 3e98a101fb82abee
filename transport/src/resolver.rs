//! Names to addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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

/// One shared resolver; built again after three failures in a row and on [`Self::rebuild`].
pub struct Resolver;

impl Resolver {
    /// Resolves by `config`.
    pub fn new(_config: ResolverConfig) -> Self {
        unimplemented!()
    }

    /// Looks one family up. A literal address is answered at once.
    ///
    /// # Errors
    /// Why the name has no such address.
    pub async fn lookup(&self, _name: &str, _family: Family) -> Result<AddressAnswer, LookupError> {
        unimplemented!()
    }

    /// Looks the families up at the same time and waits for all; to act on the first, call [`Self::lookup`] for each.
    pub async fn addresses(&self, _name: &str, _families: Families) -> Addresses {
        unimplemented!()
    }

    /// Starts over, with the operating system's configuration read again: the network has changed.
    pub fn rebuild(&self) {
        unimplemented!()
    }
}
