//! What a profile can do differently from others of its method. Everything that Azure Traffic Manager does not have is
//! off unless configured.

use std::net::IpAddr;

use crate::name::DnsName;

/// The options of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileOptions {
    /// The one record type that its answers have; `None`: whatever the endpoints are.
    pub record_type: Option<RecordType>,
    /// What Subnet routing answers when no range matches.
    pub no_match: NoMatch,
    /// Beyond Azure: what is answered when no endpoint is available.
    pub all_down: AllDown,
    /// Beyond Azure: with a smaller share of available endpoints than this, per mille, all of them are used, so that
    /// the few that are left do not drown. 0: as soon as one is available, only available ones are used.
    pub min_healthy_per_mille: u16,
    /// Beyond Azure: how a MultiValue answer is drawn.
    pub draw: Draw,
}

/// The type of record that a profile is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names.
    Cname,
}

impl RecordType {
    /// Its name in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
        }
    }
}

/// What Subnet routing answers when no range matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoMatch {
    /// The name exists without records, which leaves other askers behind one resolver alone.
    #[default]
    NoData,
    /// The name does not exist.
    NameError,
}

/// What is answered when no endpoint is available.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllDown {
    /// As if all were available.
    #[default]
    ServeAll,
    /// The name exists without records.
    NoData,
    /// The name does not exist.
    NameError,
    /// This address.
    Address(IpAddr),
    /// This name.
    Name(DnsName),
}

/// How a MultiValue answer is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Draw {
    /// Whether endpoints are drawn in proportion to their weights.
    pub by_weight: bool,
    /// Sheds and weighs endpoints by their load.
    pub by_load: Option<Watermarks>,
    /// Every asker's network sees the same so many endpoints, others see others.
    pub subset: Option<usize>,
}

/// Two loads, per mille.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Up to this load an endpoint is used.
    pub low: u16,
    /// From this load it is not; in between it is left out in proportion.
    pub high: u16,
}
