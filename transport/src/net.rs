//! Sockets behind a trait, so that a simulation can stand in for the operating system.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a socket is for; decides its user timeout (protocol section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketUse {
    /// A control or mesh link: unacknowledged data ends it after 15 s.
    Link,
    /// A leg: 60 s, since a live peer that does not read is not dead.
    Leg,
}

/// A byte stream to one remote process.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Sets the socket options for a use, where the stream has any.
    fn set_use(&self, _purpose: SocketUse) {}
}

/// Any byte stream to one remote process.
pub type BoxedIo = Box<dyn Io>;

/// A stream and its two addresses.
pub struct Connection {
    /// The stream.
    pub io: BoxedIo,
    /// The other side.
    pub remote: SocketAddr,
    /// This side.
    pub local: SocketAddr,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("remote", &self.remote)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Takes connections in.
pub trait Listener: Send + Sync {
    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// As the operating system says; most pass (too many files, a connection reset before it was taken).
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;

    /// Where it listens.
    fn local_address(&self) -> SocketAddr;
}

/// The network.
pub trait Net: Send + Sync + 'static {
    /// Opens a stream.
    ///
    /// # Errors
    /// As the operating system says. There is no deadline: the caller has one.
    fn connect(&self, address: SocketAddr, purpose: SocketUse) -> BoxFuture<'_, io::Result<Connection>>;

    /// Listens; port 0 takes any.
    ///
    /// # Errors
    /// As the operating system says.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

/// The operating system's TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn connect(&self, _address: SocketAddr, _purpose: SocketUse) -> BoxFuture<'_, io::Result<Connection>> {
        unimplemented!()
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        unimplemented!()
    }
}

/// Makes an [`Io`] of a stream that has no socket options, for example a pipe or a simulated socket.
#[derive(Debug)]
pub struct PlainIo<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for PlainIo<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for PlainIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlainIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
