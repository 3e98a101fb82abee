//! Dials a broker and proves that it is the one that was meant.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::{Alpn, BrokerId};

use crate::credentials::{Credentials, OwnCertificate};
use crate::leg::Leg;
use crate::net::Net;
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
    #[error("{address} was expected to be {expected} but showed a certificate that {fault}")]
    Certificate {
        /// What was dialled.
        address: SocketAddr,
        /// Who was expected.
        expected: Expectation,
        /// What is wrong.
        fault: PeerFault,
    },
    /// The peer refused the handshake.
    #[error(
        "{address} refused the handshake ({alert}); our certificate is {} (serial {}, from {})",
        own.id, own.serial, own.file.display()
    )]
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
pub struct Connector;

impl Connector {
    /// Dials over `net`.
    pub fn new(_credentials: Arc<Credentials>, _net: Arc<dyn Net>) -> Self {
        unimplemented!()
    }

    /// Uses other credentials from the next dial on.
    pub fn set_credentials(&self, _credentials: Arc<Credentials>) {
        unimplemented!()
    }

    /// The credentials in use.
    pub fn credentials(&self) -> Arc<Credentials> {
        unimplemented!()
    }

    /// Connects and proves the peer. TLS 1.3 lets the dialler finish before the peer has judged our certificate:
    /// a refusal of ours comes as [`crate::LegError::CertificateRefused`] from the first read.
    ///
    /// # Errors
    /// When nothing answers in time, or who answers is not `expect`.
    pub async fn connect(
        &self,
        _address: SocketAddr,
        _expect: &Expectation,
        _alpn: Alpn,
        _deadline: Duration,
    ) -> Result<Leg, ConnectError> {
        unimplemented!()
    }
}
