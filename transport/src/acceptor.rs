//! Takes a connection in: handshake, protocol and role, within a deadline and a byte budget.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rc_proto::wire::{Alpn, BrokerId, EndpointId, Role, limits};
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;

use crate::connector::socket_use;
use crate::credentials::Credentials;
use crate::leg::{Leg, LegFacts};
use crate::linger::close_after_refusal;
use crate::metered::{BudgetExceeded, Metered};
use crate::net::Connection;
use crate::tls::{self, Refused, TlsFailure};
use crate::trust::PeerFault;

/// What a broker speaks to whoever dials it.
const ACCEPTED: [Alpn; 3] = [Alpn::Control, Alpn::Path, Alpn::Mesh];
/// The fatal TLS alert `no_application_protocol` as a plaintext record (RFC 8446, 5.1 and 6.2).
const NO_APPLICATION_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// What a stranger may cost before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Time for the whole handshake. What is left of it when the handshake is done is the time for a link's first
    /// message: see [`Leg::age`].
    pub deadline: Duration,
    /// Bytes of TLS records that the peer may send until the handshake is done: a certificate chain has to fit. The
    /// [`limits::PRE_AUTH_BYTES_MAX`] of what it says before its first request was accepted are counted apart, by
    /// [`crate::MessageStream`].
    pub handshake_bytes: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { deadline: limits::PRE_AUTH_DEADLINE, handshake_bytes: 16 * 1024 }
    }
}

/// A connection whose peer's role and protocol are proven.
#[derive(Debug)]
pub enum Accepted {
    /// A control link.
    Control {
        /// Who dialled.
        peer: ControlPeer,
        /// The connection.
        leg: Leg,
    },
    /// One leg of a path.
    Path {
        /// Who dialled.
        peer: PathPeer,
        /// The connection.
        leg: Leg,
    },
    /// A link between brokers.
    Mesh {
        /// Who dialled.
        broker: BrokerId,
        /// The connection.
        leg: Leg,
    },
}

/// Who may hold a control link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlPeer {
    /// A Controller.
    Controller(EndpointId),
    /// A Target.
    Target(EndpointId),
    /// A traffic manager, which may only probe.
    TrafficManager(EndpointId),
}

/// Who may bring a leg.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathPeer {
    /// A Controller that opens a path.
    Controller(EndpointId),
    /// A Target that joins one.
    Target(EndpointId),
    /// A broker that forwards one.
    Broker(BrokerId),
}

/// Why a connection was not taken. The peer sees one and the same alert for every bad certificate; the cause is
/// here, for the local event.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer closed without a byte, as a load balancer's check does.
    #[error("closed without a byte")]
    Silent,
    /// The peer went away in the middle.
    #[error("broke off during the handshake: {source}")]
    BrokeOff {
        /// The operating system's word.
        source: io::Error,
    },
    /// Not done in time.
    #[error("no handshake within {} ms", deadline.as_millis())]
    Deadline {
        /// The time allowed.
        deadline: Duration,
    },
    /// More bytes than a handshake needs.
    #[error("sent more than {limit} bytes without completing a handshake")]
    Budget {
        /// The bytes allowed.
        limit: usize,
    },
    /// No protocol, or none of ours, was offered.
    #[error("offered none of our protocols, but {offered:?}")]
    Protocol {
        /// What was offered, printable and shortened.
        offered: Vec<String>,
    },
    /// No certificate was shown.
    #[error("showed no certificate")]
    NoCertificate,
    /// The peer refused our certificate.
    #[error("refused our certificate ({alert}); the reason is in that side's log")]
    RefusedUs {
        /// The TLS alert.
        alert: String,
    },
    /// A bad certificate was shown.
    #[error("showed a certificate that {fault}; it says to be {shown}")]
    Certificate {
        /// What is wrong.
        fault: PeerFault,
        /// What the certificate says of itself, unproven: name, serial number and issuer.
        shown: String,
    },
    /// Not TLS 1.3.
    #[error("does not speak TLS 1.3: {reason}")]
    Tls {
        /// What was found.
        reason: String,
    },
}

impl AcceptError {
    /// A short fixed word for counters and events.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::BrokeOff { .. } => "broke-off",
            Self::Deadline { .. } => "deadline",
            Self::Budget { .. } => "budget",
            Self::Protocol { .. } => "protocol",
            Self::NoCertificate => "no-certificate",
            Self::RefusedUs { .. } => "refused-us",
            Self::Certificate { .. } => "certificate",
            Self::Tls { .. } => "tls",
        }
    }

    /// Whether this happens in normal operation and deserves no more than a counter.
    pub fn is_normal(&self) -> bool {
        match self {
            Self::Silent | Self::BrokeOff { .. } => true,
            Self::Deadline { .. }
            | Self::Budget { .. }
            | Self::Protocol { .. }
            | Self::NoCertificate
            | Self::RefusedUs { .. }
            | Self::Certificate { .. }
            | Self::Tls { .. } => false,
        }
    }
}

/// Takes connections in at a broker.
pub struct Acceptor {
    credentials: ArcSwap<Credentials>,
    limits: AcceptLimits,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Accepts with our own credentials.
    pub fn new(credentials: Arc<Credentials>, limits: AcceptLimits) -> Self {
        Self { credentials: ArcSwap::new(credentials), limits }
    }

    /// Uses other credentials from the next connection on.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        self.credentials.store(credentials);
    }

    /// The credentials in use.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Does the handshake. On a refusal it returns after the peer could read the alert, at most 2 s later.
    ///
    /// # Errors
    /// Why the connection was not taken.
    pub async fn accept(&self, connection: Connection) -> Result<Accepted, AcceptError> {
        match self.handshake(connection).await {
            Ok(accepted) => Ok(accepted),
            Err(refused) => Err(refused.linger().await),
        }
    }

    /// The same, but returns at once: the caller lets the peer read the alert by [`RefusedPeer::linger`], when it
    /// holds nothing for it any more.
    ///
    /// # Errors
    /// The peer that was not taken.
    pub async fn handshake(&self, connection: Connection) -> Result<Accepted, RefusedPeer> {
        let deadline = self.limits.deadline;
        let by = Instant::now() + deadline;
        let own = self.credentials();
        let handshake = Box::pin(handshake(&own, connection, self.limits.handshake_bytes));
        match timeout_at(by, handshake).await {
            Err(_) => Err(RefusedPeer { error: AcceptError::Deadline { deadline }, io: None }),
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err((error, io))) => Err(RefusedPeer { error, io }),
        }
    }
}

/// A peer that was not taken, and may still have to read why.
pub struct RefusedPeer {
    error: AcceptError,
    io: Option<Metered>,
}

impl fmt::Debug for RefusedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedPeer").field("error", &self.error).finish_non_exhaustive()
    }
}

impl RefusedPeer {
    /// Why it was not taken.
    pub fn error(&self) -> &AcceptError {
        &self.error
    }

    /// Waits until the peer could read the alert, at most 2 s.
    pub async fn linger(self) -> AcceptError {
        if let Some(io) = self.io {
            close_after_refusal(io).await;
        }
        self.error
    }
}

/// A failure, and the stream when the peer is still to read an alert from it.
type Refusal = (AcceptError, Option<Metered>);

async fn handshake(own: &Credentials, connection: Connection, budget: usize) -> Result<Accepted, Refusal> {
    let Connection { io, remote, local } = connection;
    let began = Instant::now();
    let mut hello =
        LazyConfigAcceptor::new(rustls::server::Acceptor::default(), Metered::new(io, Some(budget)));
    let start = match Pin::new(&mut hello).await {
        Ok(start) => start,
        Err(error) => {
            let io = hello.take_io();
            let silent = io.as_ref().is_none_or(|io| io.bytes_read() == 0);
            return Err((explain(error, silent), io));
        }
    };
    let offered: Vec<Vec<u8>> =
        start.client_hello().alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let Some((alpn, config)) = choose(own, &offered) else {
        let mut io = start.io;
        let offered = printable(&offered);
        // rustls would take a client that offers nothing; one that offers others gets the same answer.
        return Err(match io.write_all(&NO_APPLICATION_PROTOCOL).await {
            Ok(()) => (AcceptError::Protocol { offered }, Some(io)),
            Err(_) => (AcceptError::Protocol { offered }, None),
        });
    };
    start.io.io().set_use(socket_use(alpn));
    let started = Instant::now();
    let mut stream = start
        .into_stream_with(config, |tls| tls.set_buffer_limit(Some(tls::BUFFER_BYTES_MAX)))
        .into_fallible()
        .await
        .map_err(|(error, io)| (explain(error, false), Some(io)))?;
    let round_trip = started.elapsed();
    stream.get_mut().0.lift();
    let session = stream.get_ref().1;
    let proven = tls::proven(session.peer_certificates(), session.alpn_protocol());
    let Some((peer, Some(agreed))) = proven.filter(|(_, agreed)| *agreed == Some(alpn)) else {
        return Err((AcceptError::Protocol { offered: printable(&offered) }, None));
    };
    let own = own.own_certificate();
    let facts = LegFacts { peer, alpn: agreed, remote, local, round_trip, began, own, is_dialled: false };
    sort(Leg::over_tls(stream.into(), facts)).map_err(|error| (error, None))
}

/// The first protocol in the peer's order that brokers answer to.
fn choose(own: &Credentials, offered: &[Vec<u8>]) -> Option<(Alpn, Arc<ServerConfig>)> {
    let alpn =
        offered.iter().filter_map(|name| Alpn::from_name(name)).find(|alpn| ACCEPTED.contains(alpn))?;
    own.listeners().for_protocol(alpn).map(|config| (alpn, config))
}

/// The protocol and the role, as types. The verifier has refused every other pair; this says it once more.
fn sort(leg: Leg) -> Result<Accepted, AcceptError> {
    let id = &leg.peer().id;
    let role = id.role();
    let wrong = || AcceptError::Certificate {
        fault: PeerFault::WrongRole { found: role, id: id.clone() },
        shown: id.to_string(),
    };
    match leg.alpn() {
        Alpn::Control => {
            let endpoint = id.endpoint_id().ok_or_else(wrong)?;
            let peer = match role {
                Role::Controller => ControlPeer::Controller(endpoint),
                Role::Target => ControlPeer::Target(endpoint),
                Role::TrafficManager => ControlPeer::TrafficManager(endpoint),
                Role::Broker | Role::RcServer => return Err(wrong()),
            };
            Ok(Accepted::Control { peer, leg })
        }
        Alpn::Path => {
            let peer = match (role, id.endpoint_id(), id.broker_id()) {
                (Role::Controller, Some(endpoint), None) => PathPeer::Controller(endpoint),
                (Role::Target, Some(endpoint), None) => PathPeer::Target(endpoint),
                (Role::Broker, None, Some(broker)) => PathPeer::Broker(broker),
                _ => return Err(wrong()),
            };
            Ok(Accepted::Path { peer, leg })
        }
        Alpn::Mesh => {
            let broker = id.broker_id().ok_or_else(wrong)?;
            Ok(Accepted::Mesh { broker, leg })
        }
        Alpn::EndToEnd => Err(wrong()),
    }
}

fn explain(error: io::Error, silent: bool) -> AcceptError {
    if let Some(exceeded) = error.get_ref().and_then(|inner| inner.downcast_ref::<BudgetExceeded>()) {
        return AcceptError::Budget { limit: exceeded.limit };
    }
    match TlsFailure::of(&error) {
        None if silent => AcceptError::Silent,
        None => AcceptError::BrokeOff { source: error },
        Some(TlsFailure::Certificate(Refused { fault, shown })) => AcceptError::Certificate { fault, shown },
        Some(TlsFailure::NoCertificate) => AcceptError::NoCertificate,
        Some(TlsFailure::OwnCertificate(alert)) => AcceptError::RefusedUs { alert },
        Some(TlsFailure::Protocol) => AcceptError::Protocol { offered: Vec::new() },
        Some(TlsFailure::Alert(reason) | TlsFailure::Broken(reason)) => AcceptError::Tls { reason },
    }
}

/// The first few names that a stranger offered, without anything that a terminal would obey.
fn printable(offered: &[Vec<u8>]) -> Vec<String> {
    offered
        .iter()
        .take(4)
        .map(|name| name.iter().take(32).map(|byte| byte.escape_ascii().to_string()).collect())
        .collect()
}
