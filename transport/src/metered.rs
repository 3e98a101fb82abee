//! Counts what a stranger sends until it is known.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::BoxedIo;

/// A stream with a budget for what is read from it.
pub(crate) struct Metered {
    io: BoxedIo,
    /// Bytes read so far; counted to the end of the handshake only.
    read: usize,
    /// What may be read; `None` once the peer is known.
    budget: Option<usize>,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("more than {limit} bytes before the handshake was done")]
pub(crate) struct BudgetExceeded {
    /// The bytes allowed.
    pub(crate) limit: usize,
}

impl Metered {
    /// A stream that may read `budget` bytes.
    pub(crate) fn new(io: BoxedIo, budget: Option<usize>) -> Self {
        Self { io, read: 0, budget }
    }

    /// The peer is known: no budget any more.
    pub(crate) fn lift(&mut self) {
        self.budget = None;
    }

    /// Bytes read while there was a budget.
    pub(crate) fn bytes_read(&self) -> usize {
        self.read
    }

    /// The stream.
    pub(crate) fn io(&self) -> &BoxedIo {
        &self.io
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(limit) = this.budget else { return Pin::new(&mut this.io).poll_read(cx, buf) };
        let left = limit.saturating_sub(this.read);
        if left == 0 {
            // One byte more tells a peer that goes on from one that has ended.
            let mut probe = [0];
            let mut probe = ReadBuf::new(&mut probe);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut probe))?;
            if probe.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, BudgetExceeded { limit })));
        }
        let mut bounded = buf.take(left);
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut bounded))?;
        let count = bounded.filled().len();
        this.read += count;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
