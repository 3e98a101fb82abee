//! A profile and its endpoints, as the configuration has checked them.

use std::fmt;
use std::net::IpAddr;

use crate::name::DnsName;

/// Position of an endpoint among all endpoints of all profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(pub usize);

/// How long an answer may be cached, in seconds; at most 2³¹ − 1 (RFC 2181 section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Ttl(u32);

impl Ttl {
    /// The largest.
    pub const MAX: Self = Self(0x7fff_ffff);

    /// From seconds; `None` above [`Self::MAX`].
    pub const fn from_seconds(seconds: u32) -> Option<Self> {
        if seconds <= Self::MAX.0 { Some(Self(seconds)) } else { None }
    }

    /// In seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

/// How many addresses a MultiValue answer names at most: 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxReturn(usize);

impl MaxReturn {
    /// When nothing is configured.
    pub const DEFAULT: Self = Self(2);

    /// From a number; `None` outside 1 to 10.
    pub const fn new(count: usize) -> Option<Self> {
        if count >= 1 && count <= 10 { Some(Self(count)) } else { None }
    }

    /// The number.
    pub const fn count(self) -> usize {
        self.0
    }
}

/// How a profile chooses among its endpoints. The configuration refuses the names of methods that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Several healthy addresses at once, in random order.
    MultiValue {
        /// How many at most.
        max_return: MaxReturn,
    },
}

impl Method {
    /// Its name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MultiValue { .. } => "MultiValue",
        }
    }
}

/// What an answer says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An A or AAAA record.
    Address(IpAddr),
}

/// One place that a profile can send clients to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its place in the [`Snapshot`](super::Snapshot).
    pub index: EndpointIndex,
    /// Its name in configuration and status.
    pub name: String,
    /// What an answer says of it.
    pub target: Target,
    /// Whether the operator wants it used at all.
    pub enabled: bool,
    /// Whether it counts as healthy without being probed.
    pub always_serve: bool,
}

/// A DNS name whose answer depends on health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The DNS name that it answers for.
    pub name: DnsName,
    /// Whether the operator wants it answered at all.
    pub enabled: bool,
    /// How it chooses.
    pub method: Method,
    /// How long its answers may be cached.
    pub ttl: Ttl,
    /// In the order of the configuration.
    pub endpoints: Vec<Endpoint>,
}
