//! A channel as a byte stream: reads and writes go straight into the session under its lock.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rc_proto::wire::codes::{Class, ResetCode};
use rc_proto::wire::{ChannelId, ServiceName, SessionId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core::SessionCore;
use super::handle::Owner;
use super::waits::Fate;

/// One ordered stream of bytes each way, inside a session.
///
/// * Writing waits while the peer gives no credit; what was written is kept until the peer acknowledged it.
/// * `shutdown` ends this side's direction; the peer reads to the end and may go on writing.
/// * Dropping a channel whose own direction was not shut down resets it with [`ResetCode::CANCELLED`], both ways.
/// * A reset by the peer is an [`io::ErrorKind::ConnectionReset`] that holds a [`ChannelReset`]; the end of the session
///   is an [`io::ErrorKind::ConnectionAborted`] that holds a [`SessionEnd`](crate::SessionEnd).
pub struct Channel {
    owner: Arc<Owner>,
    id: ChannelId,
    service: ServiceName,
    class: Class,
}

/// The peer gave a channel up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the other side reset the channel: {code}{}{message}", if .message.is_empty() { "" } else { ": " })]
pub struct ChannelReset {
    /// Why.
    pub code: ResetCode,
    /// In its words; may be empty.
    pub message: String,
}

impl Channel {
    pub(super) fn new(owner: Arc<Owner>, id: ChannelId, service: ServiceName, class: Class) -> Self {
        Self { owner, id, service, class }
    }

    fn core(&self) -> &SessionCore {
        self.owner.core()
    }

    /// Its number in the session.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// What it was opened to.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its priority.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The session it belongs to.
    pub fn session(&self) -> SessionId {
        self.core().session_id()
    }

    /// Waits until the channel is of no use any more: the peer reset it, or the session ended. For work that is busy
    /// elsewhere and neither reads nor writes meanwhile. The future does not keep the session alive.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let (core, id) = (self.owner.shared_core(), self.id);
        async move {
            let fate = poll_fn(|context| core.poll_fate(id, &Fate::Opened, context)).await;
            if !matches!(fate, Fate::Reset { .. }) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the peer has received every byte that was written, or the channel is of no use any more. A reset
    /// overtakes what is still on its way: wait here, for as long as it matters, before one that comes behind output.
    pub async fn delivered(&self) {
        poll_fn(|context| self.core().poll_delivered(self.id, context)).await;
    }

    /// Gives the channel up in both directions, and tells the peer why.
    pub fn reset(self, code: ResetCode, message: &str) {
        self.core().reset_channel(self.id, code, message);
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.core().poll_read(self.id, context, buffer)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.core().poll_write(self.id, context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Written bytes are already on their way: the session keeps them until they are acknowledged.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.core().finish_channel(self.id))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.core().release_channel(self.id);
    }
}
