//! Where a leg to a broker goes. Several brokers may sit behind one address, so the certificate decides.

use std::net::SocketAddr;

use rc_proto::wire::message::{Invite, Welcome};
use rc_proto::wire::{Alpn, BrokerId};
use rc_transport::{Expectation, Family, Leg};

use crate::reach::Reach;

/// Port of a name that comes without one.
const DEFAULT_PORT: u16 = 443;

/// A broker and every place where it may be reached, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerContact {
    pub(crate) broker: BrokerId,
    /// Where it answered before.
    pub(crate) answered: Option<SocketAddr>,
    /// Its own name, with or without a port; may be empty.
    pub(crate) name: String,
    /// The addresses that it tells.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl BrokerContact {
    /// A broker of which another one told the name.
    pub(crate) fn named(broker: &BrokerId, name: &str) -> Self {
        Self { broker: broker.clone(), answered: None, name: name.to_owned(), addresses: Vec::new() }
    }

    /// A broker that answered at `address`.
    pub(crate) fn answered(broker: BrokerId, address: SocketAddr) -> Self {
        Self { broker, answered: Some(address), name: String::new(), addresses: Vec::new() }
    }

    pub(crate) fn of_welcome(welcome: &Welcome, answered: SocketAddr) -> Self {
        Self {
            broker: welcome.broker.clone(),
            answered: Some(answered),
            name: welcome.name.clone(),
            addresses: welcome.addresses.clone(),
        }
    }

    pub(crate) fn of_invite(invite: &Invite, answered: Option<SocketAddr>) -> Self {
        Self {
            broker: invite.broker.clone(),
            answered,
            name: invite.name.clone(),
            addresses: invite.addresses.clone(),
        }
    }
}

/// Dials a leg to exactly this broker: where it answered before, else its own name, else what it tells.
///
/// # Errors
/// What every place answered, in words.
pub(crate) async fn dial_leg(reach: &Reach, contact: &BrokerContact) -> Result<Leg, String> {
    let mut failures = Vec::new();
    let mut tried = Vec::new();
    if let Some(address) = contact.answered
        && let Some(leg) = dial(reach, contact, address, &mut tried, &mut failures).await
    {
        return Ok(leg);
    }
    for address in resolve_own_name(reach, &contact.name).await {
        if let Some(leg) = dial(reach, contact, address, &mut tried, &mut failures).await {
            return Ok(leg);
        }
    }
    for address in &contact.addresses {
        if let Some(leg) = dial(reach, contact, *address, &mut tried, &mut failures).await {
            return Ok(leg);
        }
    }
    if failures.is_empty() {
        failures.push("no address of it is known".to_owned());
    }
    Err(failures.join("; "))
}

async fn dial(
    reach: &Reach,
    contact: &BrokerContact,
    address: SocketAddr,
    tried: &mut Vec<SocketAddr>,
    failures: &mut Vec<String>,
) -> Option<Leg> {
    if tried.contains(&address) {
        return None;
    }
    tried.push(address);
    let expect = Expectation::Broker(contact.broker.clone());
    match reach.connector.connect(address, &expect, Alpn::Path, reach.timers.dial).await {
        Ok(leg) => Some(leg),
        Err(error) => {
            failures.push(error.to_string());
            None
        }
    }
}

/// The addresses of a broker's own name, which may carry a port.
pub(crate) async fn resolve_own_name(reach: &Reach, name: &str) -> Vec<SocketAddr> {
    if name.is_empty() {
        return Vec::new();
    }
    let (host, port) = split_port(name);
    let (v4, v6) = futures_util::future::join(
        reach.names.lookup(host, Family::V4),
        reach.names.lookup(host, Family::V6),
    )
    .await;
    let found = [v4, v6].into_iter().flatten().flat_map(|answer| answer.addresses);
    found.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn split_port(name: &str) -> (&str, u16) {
    if let Some((host, rest)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
        return (host, port.unwrap_or(DEFAULT_PORT));
    }
    match name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().unwrap_or(DEFAULT_PORT)),
        Some(_) | None => (name, DEFAULT_PORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_carry_its_port() {
        assert_eq!(split_port("b.example"), ("b.example", 443));
        assert_eq!(split_port("b.example:8443"), ("b.example", 8443));
        assert_eq!(split_port("[::1]:8443"), ("::1", 8443));
        assert_eq!(split_port("[::1]"), ("::1", 443));
        assert_eq!(split_port("::1"), ("::1", 443));
    }
}
