//! One hop: a TLS connection whose peer is proven.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rc_proto::wire::Alpn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use crate::credentials::OwnCertificate;
use crate::linger;
use crate::metered::Metered;
use crate::tls::TlsFailure;
use crate::trust::Peer;

/// One authenticated transport connection; a byte stream whose clean and error ends differ: a clean end reads as
/// end of file, an end without `close_notify` is an error that [`LegError::of`] tells.
///
/// Shutting it down sends `close_notify`, then closes the write side of the socket. Dropping it does neither, so
/// the peer sees an error end.
pub struct Leg {
    carrier: Carrier,
    facts: Box<LegFacts>,
}

/// What moves the bytes. A stream of a QUIC connection is the other kind.
enum Carrier {
    Tls(Box<TlsStream<Metered>>),
}

/// What the handshake settled.
#[derive(Debug)]
pub(crate) struct LegFacts {
    pub(crate) peer: Peer,
    pub(crate) alpn: Alpn,
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) round_trip: Duration,
    pub(crate) began: Instant,
    pub(crate) own: OwnCertificate,
    pub(crate) is_dialled: bool,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg")
            .field("peer", &self.facts.peer.id)
            .field("alpn", &self.facts.alpn)
            .field("remote", &self.facts.remote)
            .finish_non_exhaustive()
    }
}

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
        "{remote} refused our certificate {own}: it may be revoked, of another CA or of a role that may not do \
         this; the reason is in that side's log"
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
    pub(crate) fn over_tls(stream: TlsStream<Metered>, facts: LegFacts) -> Self {
        Self { carrier: Carrier::Tls(Box::new(stream)), facts: Box::new(facts) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.facts.peer
    }

    /// What both sides agreed to speak.
    pub fn alpn(&self) -> Alpn {
        self.facts.alpn
    }

    /// The other side's address.
    pub fn remote(&self) -> SocketAddr {
        self.facts.remote
    }

    /// This side's address.
    pub fn local(&self) -> SocketAddr {
        self.facts.local
    }

    /// How long the handshake's one round trip took, the peer's cryptography included.
    pub fn handshake_round_trip(&self) -> Duration {
        self.facts.round_trip
    }

    /// Time since its handshake began: what a peer has used of its time for the handshake and the first message.
    pub fn age(&self) -> Duration {
        self.facts.began.elapsed()
    }

    /// Whether this side dialled.
    pub fn is_dialled(&self) -> bool {
        self.facts.is_dialled
    }

    /// Ends a leg after a refusal was written: closes the write side, then reads and discards until the peer
    /// closes, 2 s or 256 KiB, so that a reset cannot overtake the refusal.
    pub async fn close_after_refusal(self) {
        linger::close_after_refusal(self).await;
    }

    /// Ends the writing as an error end: what was written goes out, then the socket's write side is closed without
    /// `close_notify`, so the peer reads everything and learns that more is missing.
    pub fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream().poll_flush(cx))?;
        match &mut self.carrier {
            Carrier::Tls(stream) => Pin::new(stream.get_mut().0).poll_shutdown(cx),
        }
    }

    fn stream(&mut self) -> Pin<&mut TlsStream<Metered>> {
        match &mut self.carrier {
            Carrier::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let remote = self.facts.remote;
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return io::Error::new(error.kind(), LegError::BrokeOff { remote });
        }
        let explained = match TlsFailure::of(&error) {
            None => return error,
            Some(TlsFailure::OwnCertificate(alert)) => {
                let own = Box::new(self.facts.own.clone());
                LegError::CertificateRefused { remote, own, alert }
            }
            Some(TlsFailure::Alert(reason) | TlsFailure::Broken(reason)) => LegError::Tls { remote, reason },
            Some(TlsFailure::Certificate(_) | TlsFailure::NoCertificate | TlsFailure::Protocol) => {
                LegError::Tls { remote, reason: error.to_string() }
            }
        };
        io::Error::new(error.kind(), explained)
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf).map_err(|error| self.explain(error))
    }
}

impl AsyncWrite for Leg {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes).map_err(|error| self.explain(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx).map_err(|error| self.explain(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx).map_err(|error| self.explain(error))
    }
}
