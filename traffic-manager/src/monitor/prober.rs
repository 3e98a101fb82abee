//! Probes of every kind over the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_transport::{BoxFuture, Clock, Connector, Expectation, Families, Resolver};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::broker;
use super::driver::Prober;
use super::http::{self, HttpProbe};
use super::outcome::{ProbeFailure, Report};
use crate::decide::EndpointIndex;

/// Where an endpoint is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePlace {
    /// At an address.
    Address(SocketAddr),
    /// At whatever address the name has at the moment.
    Name {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAsk {
    /// A Ping of the broker's data path, over TLS with our own identity, and who has to answer it.
    Broker(Expectation),
    /// An HTTP request.
    Http(HttpProbe),
    /// Nothing: a TCP connection is enough.
    Tcp,
}

/// Whom a probe asks what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where.
    pub place: ProbePlace,
    /// What.
    pub ask: ProbeAsk,
    /// How long it may take as a whole.
    pub timeout: Duration,
}

/// Sends probes over the network.
pub struct NetworkProber<C> {
    tools: Arc<Tools<C>>,
    /// By endpoint index; `None` for endpoints that are not probed.
    targets: Vec<Option<ProbeTarget>>,
}

struct Tools<C> {
    /// For brokers; `None` when none is probed.
    connector: Option<Arc<Connector>>,
    resolver: Resolver,
    tls: TlsConnector,
    clock: C,
}

impl<C> std::fmt::Debug for NetworkProber<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkProber").field("targets", &self.targets.len()).finish_non_exhaustive()
    }
}

/// TLS cannot be set up at all.
#[derive(Debug, thiserror::Error)]
#[error("TLS for probes cannot be set up: {reason}")]
pub struct ProberError {
    reason: String,
}

impl<C: Clock> NetworkProber<C> {
    /// A prober of these targets, each at its endpoint's index. Brokers are probed through `connector`.
    ///
    /// # Errors
    /// When the cryptographic library refuses its own defaults.
    pub fn new(
        connector: Option<Arc<Connector>>,
        resolver: Resolver,
        clock: C,
        targets: Vec<Option<ProbeTarget>>,
    ) -> Result<Self, ProberError> {
        let tls: ClientConfig =
            http::tls_config().map_err(|error| ProberError { reason: error.to_string() })?;
        let tls = TlsConnector::from(Arc::new(tls));
        Ok(Self { tools: Arc::new(Tools { connector, resolver, tls, clock }), targets })
    }
}

impl<C: Clock> Prober for NetworkProber<C> {
    fn probe(&self, endpoint: EndpointIndex) -> BoxFuture<'static, Result<Report, ProbeFailure>> {
        let target = self.targets.get(endpoint.0).cloned().flatten();
        let tools = Arc::clone(&self.tools);
        Box::pin(async move {
            let Some(target) = target else {
                return Err(ProbeFailure::Unreachable { reason: "no address to probe".to_owned() });
            };
            tools.ask(&target).await
        })
    }
}

impl<C: Clock> Tools<C> {
    async fn ask(&self, target: &ProbeTarget) -> Result<Report, ProbeFailure> {
        let began = self.clock.now();
        let address = self.locate(&target.place).await?;
        match &target.ask {
            ProbeAsk::Broker(expect) => {
                let Some(connector) = &self.connector else {
                    let reason = "there are no credentials to ask a broker with".to_owned();
                    return Err(ProbeFailure::Untrusted { reason });
                };
                return broker::ping(connector, &self.clock, address, expect, target.timeout).await;
            }
            // The connection closes as it is dropped.
            ProbeAsk::Tcp => drop(connect(address).await?),
            ProbeAsk::Http(probe) if probe.secure => {
                let stream = connect(address).await?;
                let name = ServerName::try_from(probe.host.clone())
                    .unwrap_or_else(|_| ServerName::from(address.ip()));
                let stream = self.tls.connect(name, stream).await.map_err(|error| {
                    ProbeFailure::Misbehaved { reason: format!("TLS with {address}: {error}") }
                })?;
                probe.ask(stream).await?;
            }
            ProbeAsk::Http(probe) => probe.ask(connect(address).await?).await?,
        }
        Ok(Report::answered(self.clock.now().since(began)))
    }

    async fn locate(&self, place: &ProbePlace) -> Result<SocketAddr, ProbeFailure> {
        match place {
            ProbePlace::Address(address) => Ok(*address),
            ProbePlace::Name { name, port } => {
                let found = self.resolver.addresses(&format!("{name}."), Families::Both).await;
                let answers = [found.v4, found.v6].into_iter().flatten().flatten();
                let address = answers.flat_map(|answer| answer.addresses).next().ok_or_else(|| {
                    ProbeFailure::Unreachable { reason: format!("the name {name} has no address") }
                })?;
                Ok(SocketAddr::new(address, *port))
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeFailure> {
    TcpStream::connect(address)
        .await
        .map_err(|error| ProbeFailure::Unreachable { reason: format!("{address}: {error}") })
}
