//! An endpoint's view of a path that it has asked for: writes go out raw at once, reads wait for `PathOpened`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rc_proto::wire::message::{PathFailed, PathOpened};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A path seen from one endpoint. Reading first takes the broker's answer, then raw bytes.
#[derive(Debug)]
pub struct PathIo<S> {
    _io: S,
}

/// The broker's refusal, inside the [`io::Error`] of a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path was refused: {0:?}")]
pub struct PathRefused(pub PathFailed);

impl PathRefused {
    /// The refusal behind a read error.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PathIo<S> {
    /// The broker's answer, once it was read.
    pub fn opened(&self) -> Option<&PathOpened> {
        unimplemented!()
    }

    /// Waits for the broker's answer. Cancel-safe.
    ///
    /// # Errors
    /// [`PathRefused`] inside, when the path was refused; otherwise what went wrong on the leg.
    pub async fn wait_opened(&mut self) -> io::Result<&PathOpened> {
        unimplemented!()
    }

    /// What carries the path.
    pub fn io(&self) -> &S {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PathIo<S> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PathIo<S> {
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
