//! What is asked, by whom, and what is answered.

use std::fmt;
use std::net::IpAddr;

use crate::name::DnsName;

/// The record type of a question, as far as it matters to a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Whatever is there.
    Any,
    /// Any other type, CNAME among them.
    Other,
}

impl AskedType {
    /// Whether an address is of the type.
    pub const fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::A => address.is_ipv4(),
            Self::Aaaa => address.is_ipv6(),
            Self::Any => true,
            Self::Other => false,
        }
    }
}

/// The part of a client's address that its resolver passed on (RFC 7871).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSubnet {
    /// The address; bits behind the prefix are zero.
    pub address: IpAddr,
    /// How many bits of it are given; 0 means that the client does not want it known.
    pub source_prefix: u8,
}

/// Who asks for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The record type.
    pub asked: AskedType,
    /// Where the query came from, usually a resolver.
    pub source: IpAddr,
    /// For whom it was asked, when the resolver says so.
    pub subnet: Option<ClientSubnet>,
}

impl Asker {
    /// The address that decides: that of the client's network when it is given, else the query's source.
    pub fn address(&self) -> IpAddr {
        let given = self.subnet.filter(|subnet| subnet.source_prefix > 0);
        given.map_or(self.source, |subnet| subnet.address).to_canonical()
    }
}

/// The outcome for one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to answer.
    pub answer: Answer,
    /// How many bits of the client subnet the answer depends on (RFC 7871 scope); 0: on none.
    pub scope_prefix: u8,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One address record for each, in this order; at least one.
    Addresses(Vec<IpAddr>),
    /// One CNAME record.
    Name(DnsName),
    /// The name exists, but not with this type.
    NoData,
    /// The name does not exist.
    NameError,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(" "))
            }
            Self::Name(name) => write!(f, "CNAME {name}"),
            Self::NoData => f.write_str("NODATA"),
            Self::NameError => f.write_str("NXDOMAIN"),
        }
    }
}
