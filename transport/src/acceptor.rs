//! Takes a connection in: handshake, protocol and role, within a deadline and a byte budget.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::{BrokerId, EndpointId, limits};

use crate::credentials::Credentials;
use crate::leg::Leg;
use crate::net::Connection;
use crate::trust::PeerFault;

/// What a stranger may cost before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Time for the whole handshake.
    pub deadline: Duration,
    /// Bytes that the peer may send until the handshake is done.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlPeer {
    /// A Controller.
    Controller(EndpointId),
    /// A Target.
    Target(EndpointId),
    /// A traffic manager, which may only probe.
    TrafficManager(EndpointId),
}

/// Who may bring a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A bad certificate was shown.
    #[error("showed a certificate that {0}")]
    Certificate(PeerFault),
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
            Self::Certificate(_) => "certificate",
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
            | Self::Certificate(_)
            | Self::Tls { .. } => false,
        }
    }
}

/// Takes connections in at a broker.
pub struct Acceptor;

impl Acceptor {
    /// Accepts with our own credentials.
    pub fn new(_credentials: Arc<Credentials>, _limits: AcceptLimits) -> Self {
        unimplemented!()
    }

    /// Uses other credentials from the next connection on.
    pub fn set_credentials(&self, _credentials: Arc<Credentials>) {
        unimplemented!()
    }

    /// Does the handshake. On a refusal it returns after the peer could read the alert, at most 2 s later.
    ///
    /// # Errors
    /// Why the connection was not taken.
    pub async fn accept(&self, _connection: Connection) -> Result<Accepted, (SocketAddr, AcceptError)> {
        unimplemented!()
    }
}
