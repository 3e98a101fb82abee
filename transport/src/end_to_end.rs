//! The handshake between Controller and Target, inside a path that no broker can read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::message::PathFailed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::credentials::{Credentials, OwnCertificate};
use crate::trust::{Peer, PeerFault};

/// The end-to-end handshake; TLS 1.3, ALPN `rc-e2e/1`, no server name, no deadline of its own.
#[derive(Debug)]
pub struct EndToEnd;

/// Why there is no end-to-end connection.
#[derive(Debug, thiserror::Error)]
pub enum EndToEndError {
    /// The path was refused before anything came from the other end.
    #[error("the path was refused: {failed:?}")]
    PathFailed {
        /// The broker's answer.
        failed: Box<PathFailed>,
    },
    /// The path ended during the handshake.
    #[error("the path ended during the end-to-end handshake: {source}")]
    PathLost {
        /// What the path said.
        source: io::Error,
    },
    /// The other end is not who it should be.
    #[error("the other end showed a certificate that {0}")]
    Certificate(PeerFault),
    /// The other end showed no certificate.
    #[error("the other end showed no certificate")]
    NoCertificate,
    /// The other end refused the handshake.
    #[error(
        "the other end refused the handshake ({alert}); our certificate is {} (serial {}, from {})",
        own.id, own.serial, own.file.display()
    )]
    Refused {
        /// The TLS alert.
        alert: String,
        /// Our certificate.
        own: Box<OwnCertificate>,
    },
    /// The other end speaks another generation.
    #[error("the other end does not speak rc-e2e/1: upgrade the older side")]
    Protocol,
    /// The bytes are not TLS 1.3, or were altered on the way.
    #[error("the end-to-end handshake was broken on the way: {reason}")]
    Tls {
        /// What was found.
        reason: String,
    },
}

impl EndToEndError {
    /// Whether another path may help without somebody changing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            // What a broker altered on one path, another path carries whole.
            Self::PathLost { .. } | Self::Tls { .. } | Self::PathFailed { .. } => true,
            Self::Certificate(_) | Self::NoCertificate | Self::Refused { .. } | Self::Protocol => false,
        }
    }
}

impl EndToEnd {
    /// The Controller's side: proves that the other end is exactly `wanted`. The `ClientHello` is written at once,
    /// so `io` may be a [`crate::PathIo`] that still waits for `PathOpened`.
    ///
    /// # Errors
    /// When the path fails or the other end is somebody else.
    pub async fn client<S>(
        _own: &Credentials,
        _io: S,
        _wanted: &SpiffeId,
    ) -> Result<EndToEndStream<S>, EndToEndError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        unimplemented!()
    }

    /// The Target's side: requires role controller. The caller compares the peer with the ticket's `sub`.
    ///
    /// # Errors
    /// When the path fails or the other end is no Controller of our trust domain.
    pub async fn server<S>(_own: &Credentials, _io: S) -> Result<EndToEndStream<S>, EndToEndError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        unimplemented!()
    }
}

/// An end-to-end connection; a byte stream. Its end without `close_notify` is an error.
pub struct EndToEndStream<S> {
    _io: S,
}

impl<S> EndToEndStream<S> {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        unimplemented!()
    }

    /// What carries it.
    pub fn io(&self) -> &S {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for EndToEndStream<S> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EndToEndStream<S> {
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
