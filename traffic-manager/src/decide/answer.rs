//! What is asked, by whom, and what is answered.

use std::net::IpAddr;

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
    /// The name exists, but not with this type.
    NoData,
    /// The name does not exist.
    NameError,
}
