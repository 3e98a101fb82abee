//! An endpoint's view of a path that it has asked for: writes go out raw at once, reads wait for `PathOpened`.
//!
//! That lets the end-to-end handshake start behind `OpenPath`, one round trip before the path is known to be there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rc_proto::wire::message::{Message, PathFailed, PathOpened};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framing::{FramingError, Inbound, Outbound};
use crate::leg::Leg;

/// A path seen from one endpoint. Reading first takes the broker's answer, then raw bytes.
#[derive(Debug)]
pub struct PathIo<S> {
    io: S,
    outbound: Outbound,
    state: State,
    /// A write that failed while the answer was due: the answer may lie behind it, and says more.
    failed_write: Option<io::Error>,
}

/// ```text
/// Waiting ── PathOpened ──▶ Open
///    └────── PathFailed, or anything else ──▶ Ended
/// ```
#[derive(Debug)]
enum State {
    Waiting(Box<Inbound>),
    Open { opened: Box<PathOpened>, rest: BytesMut },
    Ended(Option<PathRefused>),
}

/// The broker's refusal, inside the [`io::Error`] of a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker refused the path ({:?})", .0.code)]
pub struct PathRefused(pub PathFailed);

impl PathRefused {
    /// The refusal behind a read error.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl<S> PathIo<S> {
    pub(crate) fn new(io: S, inbound: Inbound, outbound: Outbound) -> Self {
        Self { io, outbound, state: State::Waiting(Box::new(inbound)), failed_write: None }
    }

    /// The broker's answer, once it was read.
    pub fn opened(&self) -> Option<&PathOpened> {
        match &self.state {
            State::Open { opened, .. } => Some(opened),
            State::Waiting(_) | State::Ended(_) => None,
        }
    }

    /// What carries the path.
    pub fn io(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PathIo<S> {
    /// Waits for the broker's answer. Cancel-safe.
    ///
    /// # Errors
    /// [`PathRefused`] inside, when the path was refused; otherwise what went wrong on the leg.
    pub async fn wait_opened(&mut self) -> io::Result<&PathOpened> {
        std::future::poll_fn(|cx| self.poll_opened(cx)).await?;
        self.opened().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_write_raw(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.outbound.poll_drain(&mut self.io, cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a cancelled send left must be out before an answer can come.
        if let Poll::Ready(Err(error)) = self.outbound.poll_drain(&mut self.io, cx) {
            tracing::trace!(%error, "write before the answer failed; the answer may still be there");
        }
        let answer = match &mut self.state {
            State::Open { .. } => return Poll::Ready(Ok(())),
            State::Ended(Some(refused)) => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, refused.clone())));
            }
            State::Ended(None) => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            State::Waiting(inbound) => ready!(inbound.poll_message(&mut self.io, cx)),
        };
        let State::Waiting(inbound) = std::mem::replace(&mut self.state, State::Ended(None)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        Poll::Ready(self.settle(answer, *inbound))
    }

    fn settle(&mut self, answer: Result<Option<Message>, FramingError>, inbound: Inbound) -> io::Result<()> {
        match answer {
            Ok(Some(Message::PathOpened(opened))) => {
                self.state = State::Open { opened: Box::new(opened), rest: inbound.into_rest() };
                Ok(())
            }
            Ok(Some(Message::PathFailed(failed))) => {
                let refused = PathRefused(failed);
                self.state = State::Ended(Some(refused.clone()));
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, refused))
            }
            Ok(Some(other)) => {
                let what = format!("{:?} came where the answer to a path was due", other.kind());
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(FramingError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

impl PathIo<Leg> {
    /// As [`Leg::poll_break_off`].
    pub fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outbound.poll_drain(&mut self.io, cx))?;
        self.io.poll_break_off(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PathIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_opened(cx))?;
        if let State::Open { rest, .. } = &mut this.state
            && !rest.is_empty()
        {
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest.split_to(count));
            if !rest.has_remaining() {
                *rest = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PathIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.failed_write.is_none() {
            match ready!(this.poll_write_raw(cx, bytes)) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => this.failed_write = Some(error),
            }
        }
        // A refusal and then a reset: what was sent before the reset is still to be read.
        let read = match &this.state {
            State::Waiting(_) => ready!(this.poll_opened(cx)),
            State::Open { .. } | State::Ended(_) => Ok(()),
        };
        let written = this.failed_write.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        Poll::Ready(Err(read.err().filter(|error| PathRefused::of(error).is_some()).unwrap_or(written)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.outbound.poll_drain(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.outbound.poll_drain(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
