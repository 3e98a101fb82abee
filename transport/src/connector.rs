//! Dials a broker and proves that it is the one that was meant.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rc_proto::wire::{Alpn, BrokerId};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::credentials::{Credentials, OwnCertificate};
use crate::leg::{Leg, LegFacts};
use crate::metered::Metered;
use crate::net::{Connection, Net, SocketUse};
use crate::tls::{self, Refused, TlsFailure, Wanted};
use crate::trust::PeerFault;

/// Who must answer. The chain, the role broker and our own trust domain are always required on top.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// Any broker whose certificate has this DNS name.
    ServiceName(String),
    /// Exactly this broker.
    Broker(BrokerId),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceName(name) => write!(f, "a broker of {name}"),
            Self::Broker(id) => write!(f, "broker {id}"),
        }
    }
}

/// Why a broker could not be reached or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("{address}: {source}")]
    Unreachable {
        /// What was dialled.
        address: SocketAddr,
        /// The operating system's word.
        source: io::Error,
    },
    /// Not done in time.
    #[error("{address}: no {stage} within {} ms", deadline.as_millis())]
    Deadline {
        /// What was dialled.
        address: SocketAddr,
        /// What was waited for: "TCP connection" or "TLS handshake".
        stage: &'static str,
        /// The time allowed.
        deadline: Duration,
    },
    /// Whoever answered is not to be trusted.
    #[error(
        "{address} was expected to be {expected} but showed a certificate that {fault}; it says to be {shown}"
    )]
    Certificate {
        /// What was dialled.
        address: SocketAddr,
        /// Who was expected.
        expected: Expectation,
        /// What is wrong.
        fault: PeerFault,
        /// What the certificate says of itself, unproven: name, serial number and issuer.
        shown: String,
    },
    /// The peer refused the handshake.
    #[error("{address} refused the handshake ({alert}); our certificate is {own}")]
    Refused {
        /// What was dialled.
        address: SocketAddr,
        /// The TLS alert.
        alert: String,
        /// Our certificate.
        own: Box<OwnCertificate>,
    },
    /// The peer does not speak our protocol.
    #[error("{address} does not speak {alpn}: it is no broker of this generation; check the address and upgrade the older side", alpn = alpn.name())]
    Protocol {
        /// What was dialled.
        address: SocketAddr,
        /// What was offered.
        alpn: Alpn,
    },
    /// The connection ended during the handshake.
    #[error(
        "{address} closed the connection during the TLS handshake ({reason}): it may be overloaded, or no broker listens there"
    )]
    BrokeOff {
        /// What was dialled.
        address: SocketAddr,
        /// The operating system's word.
        reason: String,
    },
    /// Whoever answered does not speak TLS 1.3.
    #[error("{address} does not speak TLS 1.3 ({reason}): check the address and port")]
    Tls {
        /// What was dialled.
        address: SocketAddr,
        /// What was found.
        reason: String,
    },
}

impl ConnectError {
    /// Whether dialling again may help without somebody changing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::BrokeOff { .. } => true,
            Self::Certificate { .. } | Self::Refused { .. } | Self::Protocol { .. } | Self::Tls { .. } => {
                false
            }
        }
    }

    /// What was dialled.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Unreachable { address, .. }
            | Self::Deadline { address, .. }
            | Self::Certificate { address, .. }
            | Self::Refused { address, .. }
            | Self::Protocol { address, .. }
            | Self::BrokeOff { address, .. }
            | Self::Tls { address, .. } => *address,
        }
    }
}

/// Dials brokers with our own credentials.
pub struct Connector {
    credentials: ArcSwap<Credentials>,
    net: Arc<dyn Net>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("credentials", &*self.credentials.load()).finish_non_exhaustive()
    }
}

impl Connector {
    /// Dials over `net`.
    pub fn new(credentials: Arc<Credentials>, net: Arc<dyn Net>) -> Self {
        Self { credentials: ArcSwap::new(credentials), net }
    }

    /// Uses other credentials from the next dial on.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        self.credentials.store(credentials);
    }

    /// The credentials in use.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Connects and proves the peer. TLS 1.3 lets the dialler finish before the peer has judged our certificate:
    /// a refusal of ours comes as [`crate::LegError::CertificateRefused`] from the first read.
    ///
    /// # Errors
    /// When nothing answers in time, or who answers is not `expect`.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expect: &Expectation,
        alpn: Alpn,
        deadline: Duration,
    ) -> Result<Leg, ConnectError> {
        let by = Instant::now() + deadline;
        let late = |stage| move |_| ConnectError::Deadline { address, stage, deadline };
        let connection = timeout_at(by, self.net.connect(address, socket_use(alpn)))
            .await
            .map_err(late("TCP connection"))?
            .map_err(|source| ConnectError::Unreachable { address, source })?;
        let own = self.credentials();
        let handshake = Box::pin(handshake(&own, connection, expect, alpn));
        timeout_at(by, handshake).await.map_err(late("TLS handshake"))?
    }
}

/// What a connection of this protocol is for.
pub(crate) fn socket_use(alpn: Alpn) -> SocketUse {
    match alpn {
        Alpn::Control | Alpn::Mesh => SocketUse::Link,
        Alpn::Path | Alpn::EndToEnd => SocketUse::Leg,
    }
}

async fn handshake(
    own: &Credentials,
    connection: Connection,
    expect: &Expectation,
    alpn: Alpn,
) -> Result<Leg, ConnectError> {
    let address = connection.remote;
    let broken = |reason: String| ConnectError::Tls { address, reason };
    let mut config = tls::client_config(own.identity(), Wanted::Dialled(expect.clone()), alpn)
        .map_err(|error| broken(error.to_string()))?;
    // The server name only goes out for those between that route by it; the verifier has its own expectation.
    let name = match expect {
        Expectation::ServiceName(name) => ServerName::try_from(tls::canonical_name(name)).ok(),
        Expectation::Broker(_) => None,
    };
    config.enable_sni = name.is_some();
    let name = name.unwrap_or_else(|| ServerName::from(address.ip()));
    let started = Instant::now();
    let stream = TlsConnector::from(Arc::new(config))
        .connect_with(name, Metered::new(connection.io, None), |tls| {
            tls.set_buffer_limit(Some(tls::BUFFER_BYTES_MAX));
        })
        .await
        .map_err(|error| explain(&error, own, address, expect, alpn))?;
    let round_trip = started.elapsed();
    let session = stream.get_ref().1;
    let (peer, agreed) = tls::proven(session.peer_certificates(), session.alpn_protocol())
        .ok_or_else(|| broken("the certificate is gone".to_owned()))?;
    if agreed != Some(alpn) {
        return Err(ConnectError::Protocol { address, alpn });
    }
    let facts = LegFacts {
        peer,
        alpn,
        remote: address,
        local: connection.local,
        round_trip,
        began: started,
        own: own.own_certificate(),
        is_dialled: true,
    };
    Ok(Leg::over_tls(stream.into(), facts))
}

fn explain(
    error: &io::Error,
    own: &Credentials,
    address: SocketAddr,
    expected: &Expectation,
    alpn: Alpn,
) -> ConnectError {
    match TlsFailure::of(error) {
        None => ConnectError::BrokeOff { address, reason: error.to_string() },
        Some(TlsFailure::Certificate(Refused { fault, shown })) => {
            ConnectError::Certificate { address, expected: expected.clone(), fault, shown }
        }
        Some(TlsFailure::OwnCertificate(alert)) => {
            ConnectError::Refused { address, alert, own: Box::new(own.own_certificate()) }
        }
        Some(TlsFailure::Protocol) => ConnectError::Protocol { address, alpn },
        Some(TlsFailure::NoCertificate) => {
            ConnectError::Tls { address, reason: "it showed no certificate".to_owned() }
        }
        Some(TlsFailure::Alert(reason) | TlsFailure::Broken(reason)) => ConnectError::Tls { address, reason },
    }
}
