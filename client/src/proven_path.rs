//! A path whose other end is proven, and what broke it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rc_transport::{EndToEndError, EndToEndStream, Leg, PathIo, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What broke a path that is more than its end; readable after the stream is gone.
#[derive(Clone, Default)]
pub(crate) struct PathBreak(Arc<Mutex<Option<EndToEndError>>>);

impl PathBreak {
    /// Takes what is known.
    pub(crate) fn take(&self) -> Option<EndToEndError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, broken: EndToEndError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(broken);
    }
}

/// A byte stream to the other endpoint that no broker can read. Its errors say what they mean: TLS 1.3 brings a
/// refusal of our certificate only after the handshake.
pub(crate) struct ProvenPath {
    stream: EndToEndStream<PathIo<Leg>>,
    broken: PathBreak,
}

impl ProvenPath {
    pub(crate) fn new(stream: EndToEndStream<PathIo<Leg>>) -> Self {
        Self { stream, broken: PathBreak::default() }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        self.stream.peer()
    }

    /// What carries it.
    pub(crate) fn io(&self) -> &PathIo<Leg> {
        self.stream.io()
    }

    /// Where what breaks it is told.
    pub(crate) fn broken(&self) -> PathBreak {
        self.broken.clone()
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        let explained = self.stream.explain(error);
        if let EndToEndError::PathLost { source } = explained {
            return source;
        }
        let told = io::Error::new(kind, explained.to_string());
        self.broken.note(explained);
        told
    }
}

impl AsyncRead for ProvenPath {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| self.explain(error))
    }
}

impl AsyncWrite for ProvenPath {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes).map_err(|error| self.explain(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.explain(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(|error| self.explain(error))
    }
}
