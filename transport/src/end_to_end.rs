//! The handshake between Controller and Target, inside a path that no broker can read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::Alpn;
use rc_proto::wire::message::PathFailed;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::credentials::{Credentials, OwnCertificate};
use crate::linger::close_after_refusal;
use crate::path_io::PathRefused;
use crate::tls::{self, TlsFailure, Wanted};
use crate::trust::{Peer, PeerFault};

/// Bytes that wait inside TLS behind a path that does not take them: small, since what comes later may be urgent.
const BUFFER_BYTES_MAX: usize = 20 * 1024;
/// Stands where TLS wants a name; it is never sent, and the verifier looks at the SPIFFE id only.
const UNSENT_NAME: &str = "end-to-end.invalid";

/// The end-to-end handshake; TLS 1.3, ALPN `rc-e2e/1`, no server name, no deadline of its own.
#[derive(Debug)]
pub struct EndToEnd;

/// Why there is no end-to-end connection.
#[derive(Debug, thiserror::Error)]
pub enum EndToEndError {
    /// The path was refused before anything came from the other end.
    #[error("the broker refused the path ({:?})", failed.code)]
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
    /// The other end refused our certificate.
    #[error("the other end refused our certificate {own} ({alert}); the reason is in that side's log")]
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
    /// TLS 1.3 lets this side finish before the Target has judged our certificate: its refusal comes from the first
    /// read, which [`EndToEndStream::explain`] tells.
    ///
    /// # Errors
    /// When the path fails or the other end is somebody else.
    pub async fn client<S>(
        own: &Credentials,
        io: S,
        wanted: &SpiffeId,
    ) -> Result<EndToEndStream<S>, EndToEndError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let broken = |reason: String| EndToEndError::Tls { reason };
        let mut config = tls::client_config(own.identity(), Wanted::Exactly(wanted.clone()), Alpn::EndToEnd)
            .map_err(|error| broken(error.to_string()))?;
        config.enable_sni = false;
        let name = ServerName::try_from(UNSENT_NAME).map_err(|error| broken(error.to_string()))?;
        let connecting = TlsConnector::from(Arc::new(config))
            .connect_with(name, io, |tls| tls.set_buffer_limit(Some(BUFFER_BYTES_MAX)));
        let stream = Box::pin(connecting).await.map_err(|error| explain(error, own.own_certificate()))?;
        EndToEndStream::new(stream.into(), own)
    }

    /// The Target's side: requires role controller. The caller compares the peer with the ticket's `sub`.
    ///
    /// # Errors
    /// When the path fails or the other end is no Controller of our trust domain; the path is closed then so that
    /// the alert arrives, which takes at most 2 s.
    pub async fn server<S>(own: &Credentials, io: S) -> Result<EndToEndStream<S>, EndToEndError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let config = own.listeners().for_protocol(Alpn::EndToEnd).ok_or(EndToEndError::Protocol)?;
        let accepting = TlsAcceptor::from(config)
            .accept_with(io, |tls| tls.set_buffer_limit(Some(BUFFER_BYTES_MAX)))
            .into_fallible();
        match Box::pin(accepting).await {
            Ok(stream) => EndToEndStream::new(stream.into(), own),
            Err((error, io)) => {
                let error = explain(error, own.own_certificate());
                if !matches!(error, EndToEndError::PathLost { .. } | EndToEndError::PathFailed { .. }) {
                    close_after_refusal(io).await;
                }
                Err(error)
            }
        }
    }
}

fn explain(error: io::Error, own: OwnCertificate) -> EndToEndError {
    if let Some(PathRefused(failed)) = PathRefused::of(&error) {
        return EndToEndError::PathFailed { failed: Box::new(failed.clone()) };
    }
    match TlsFailure::of(&error) {
        None => EndToEndError::PathLost { source: error },
        Some(TlsFailure::Certificate(refused)) => EndToEndError::Certificate(refused.fault),
        Some(TlsFailure::NoCertificate) => EndToEndError::NoCertificate,
        Some(TlsFailure::OwnCertificate(alert)) => EndToEndError::Refused { alert, own: Box::new(own) },
        Some(TlsFailure::Protocol) => EndToEndError::Protocol,
        Some(TlsFailure::Alert(reason) | TlsFailure::Broken(reason)) => EndToEndError::Tls { reason },
    }
}

/// An end-to-end connection; a byte stream. Its end without `close_notify` is an error.
pub struct EndToEndStream<S> {
    stream: Box<TlsStream<S>>,
    peer: Peer,
    own: OwnCertificate,
}

impl<S> fmt::Debug for EndToEndStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndToEndStream").field("peer", &self.peer.id).finish_non_exhaustive()
    }
}

impl<S> EndToEndStream<S> {
    fn new(stream: TlsStream<S>, own: &Credentials) -> Result<Self, EndToEndError> {
        let session = stream.get_ref().1;
        match tls::proven(session.peer_certificates(), session.alpn_protocol()) {
            None => Err(EndToEndError::NoCertificate),
            Some((peer, Some(Alpn::EndToEnd))) => {
                Ok(Self { stream: Box::new(stream), peer, own: own.own_certificate() })
            }
            Some((_, _)) => Err(EndToEndError::Protocol),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What carries it.
    pub fn io(&self) -> &S {
        self.stream.get_ref().0
    }

    /// What a read or write error of this stream means.
    pub fn explain(&self, error: io::Error) -> EndToEndError {
        explain(error, self.own.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for EndToEndStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut()).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EndToEndStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.as_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut()).poll_shutdown(cx)
    }
}
