//! One DNS question, asked as an endpoint asks it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use rc_transport::{Family, Resolver, ResolverConfig};

use crate::mesh::SERVICE_NAME;

/// The service name's addresses and the time they hold, from one DNS server.
pub(super) async fn resolve(server: SocketAddr) -> anyhow::Result<(Vec<IpAddr>, Duration)> {
    let resolver = Resolver::new(ResolverConfig { servers: vec![server], ..ResolverConfig::default() });
    let answer = resolver.lookup(SERVICE_NAME, Family::V4).await.context("the DNS server answers")?;
    Ok((answer.addresses, answer.ttl))
}
