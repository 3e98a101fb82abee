//! A profile and its endpoints, as the configuration has checked them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::options::ProfileOptions;
use super::place::Location;
use super::ranges::{AddressRange, RangeMap};
use super::region::GeoRegion;
use crate::name::DnsName;

/// Profiles above each other, at most.
pub const NESTING_MAX: usize = 10;

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

/// How a profile chooses among its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The available endpoint with the lowest priority number.
    Priority,
    /// One available endpoint at random, in proportion to the weights.
    Weighted,
    /// The available endpoint with the lowest latency from the asker.
    Performance,
    /// The endpoint that the asker's part of the world is mapped to.
    Geographic,
    /// Several healthy addresses at once, in random order.
    MultiValue {
        /// How many at most.
        max_return: MaxReturn,
    },
    /// The endpoint that the asker's address range is mapped to.
    Subnet,
}

impl Method {
    /// Its name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priority => "Priority",
            Self::Weighted => "Weighted",
            Self::Performance => "Performance",
            Self::Geographic => "Geographic",
            Self::MultiValue { .. } => "MultiValue",
            Self::Subnet => "Subnet",
        }
    }
}

/// How many endpoints of a nested profile have to be available for it to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumChildren {
    /// Of any kind.
    pub any: usize,
    /// That give IPv4 addresses; 0: no matter.
    pub v4: usize,
    /// That give IPv6 addresses; 0: no matter.
    pub v6: usize,
}

impl MinimumChildren {
    /// When nothing is configured: one of any kind.
    pub const DEFAULT: Self = Self { any: 1, v4: 0, v6: 0 };
}

/// What an answer says of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An A or AAAA record.
    Address(IpAddr),
    /// A CNAME record.
    Name(DnsName),
    /// Whatever another profile answers.
    Nested {
        /// Its position among all profiles.
        profile: usize,
        /// When it counts as available.
        minimum: MinimumChildren,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Nested { profile, .. } => write!(f, "profile {profile}"),
        }
    }
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
    /// Priority: 1 to 1000, the lowest wins; of equal ones the first listed.
    pub priority: u16,
    /// Weighted: 1 to 1000.
    pub weight: u16,
    /// Performance: where it is.
    pub location: Option<Location>,
    /// Geographic: the parts of the world that are sent to it.
    pub regions: Vec<GeoRegion>,
    /// Subnet, and overrides of Performance and Geographic: the askers that are sent to it.
    pub subnets: Vec<AddressRange>,
}

impl Endpoint {
    /// An enabled endpoint with priority 1, weight 1, and no location, regions or subnets.
    pub fn new(index: EndpointIndex, name: impl Into<String>, target: Target) -> Self {
        Self {
            index,
            name: name.into(),
            target,
            enabled: true,
            always_serve: false,
            priority: 1,
            weight: 1,
            location: None,
            regions: Vec::new(),
            subnets: Vec::new(),
        }
    }
}

/// A DNS name whose answer depends on health. Its endpoints do not change once it is made: what is looked up by
/// address and by region is prepared for the query.
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
    /// What is not the same for every profile of its method.
    pub options: ProfileOptions,
    endpoints: Vec<Endpoint>,
    /// Position of the endpoint that a range of askers is mapped to.
    subnets: RangeMap<usize>,
    /// Position of the endpoint that a part of the world is mapped to.
    regions: BTreeMap<GeoRegion, usize>,
}

impl Profile {
    /// An enabled profile with the usual options. The endpoints are in the order of the configuration.
    pub fn new(name: DnsName, method: Method, ttl: Ttl, endpoints: Vec<Endpoint>) -> Self {
        let positions = || endpoints.iter().enumerate();
        let subnets =
            positions().flat_map(|(at, endpoint)| endpoint.subnets.iter().map(move |range| (*range, at)));
        let subnets = subnets.collect();
        let regions =
            positions().flat_map(|(at, endpoint)| endpoint.regions.iter().map(move |region| (*region, at)));
        let regions = regions.collect();
        let options = ProfileOptions::default();
        Self { name, enabled: true, method, ttl, options, endpoints, subnets, regions }
    }

    /// Its endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint whose subnets an address is in, and how many bits of the address that depends on.
    pub(super) fn by_subnet(&self, address: IpAddr) -> (Option<&Endpoint>, u8) {
        let found = self.subnets.get(address);
        (found.value.and_then(|at| self.endpoints.get(*at)), found.prefix)
    }

    /// The endpoint that a part of the world is mapped to.
    pub(super) fn by_region(&self, region: GeoRegion) -> Option<&Endpoint> {
        self.regions.get(&region).and_then(|at| self.endpoints.get(*at))
    }
}
