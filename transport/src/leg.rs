//! One hop: a TLS connection whose peer is proven.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rc_proto::wire::Alpn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::credentials::OwnCertificate;
use crate::trust::Peer;

/// One authenticated transport connection; a byte stream whose clean and error ends differ: a clean end reads as
/// end of file, an end without `close_notify` is an error that [`LegError::of`] tells.
///
/// Shutting it down sends `close_notify`, then closes the write side of the socket.
#[derive(Debug)]
pub struct Leg;

/// What a leg's read or write error means, when it is more than the operating system's word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LegError {
    /// The connection ended without `close_notify`: the peer, or something between, died.
    #[error("the connection to {remote} broke off")]
    BrokeOff {
        /// The other side.
        remote: SocketAddr,
    },
    /// The peer refused our certificate.
    #[error(
        "{remote} refused our certificate {} (serial {}, from {}): it may be expired, revoked, of another CA or of a \
         role that may not do this; the reason is in {remote}'s log", own.id, own.serial, own.file.display()
    )]
    CertificateRefused {
        /// The other side.
        remote: SocketAddr,
        /// Our certificate.
        own: Box<OwnCertificate>,
        /// The TLS alert.
        alert: String,
    },
    /// The peer ended the connection with another alert, or broke TLS.
    #[error("{remote} broke TLS: {reason}")]
    Tls {
        /// The other side.
        remote: SocketAddr,
        /// What happened.
        reason: String,
    },
}

impl LegError {
    /// What is behind an error of a leg's read or write; `None` for a plain socket error.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether dialling again may help without somebody changing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BrokeOff { .. } => true,
            Self::CertificateRefused { .. } | Self::Tls { .. } => false,
        }
    }
}

impl Leg {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        unimplemented!()
    }

    /// What both sides agreed to speak.
    pub fn alpn(&self) -> Alpn {
        unimplemented!()
    }

    /// The other side's address.
    pub fn remote(&self) -> SocketAddr {
        unimplemented!()
    }

    /// This side's address.
    pub fn local(&self) -> SocketAddr {
        unimplemented!()
    }

    /// How long the handshake's one round trip took, the peer's cryptography included.
    pub fn handshake_round_trip(&self) -> Duration {
        unimplemented!()
    }

    /// Ends a leg after a refusal was written: closes the write side, then reads and discards until the peer
    /// closes, 2 s or 256 KiB, so that a reset cannot overtake the refusal.
    pub async fn close_after_refusal(self) {
        unimplemented!()
    }
}

impl AsyncRead for Leg {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unimplemented!()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}
