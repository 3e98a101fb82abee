//! Sockets behind a trait, so that a simulation can stand in for the operating system.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::platform;

/// Connections that the kernel completes ahead of the process; a storm of returning endpoints must fit.
const BACKLOG: i32 = 4096;
/// Keep-alive: first probe after this silence, then at this interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Unacknowledged data ends a link after this time.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a leg, whose peer may live and not read.
const LEG_USER_TIMEOUT: Duration = Duration::from_secs(60);

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

    /// Listens; port 0 takes any. An IPv6 address takes no IPv4 connections: both families are two listeners.
    ///
    /// # Errors
    /// As the operating system says.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

/// The operating system's TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn connect(&self, address: SocketAddr, purpose: SocketUse) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            let stream = socket.connect(address).await?;
            set_options(&stream)?;
            stream.set_use(purpose);
            Ok(Connection { local: stream.local_addr()?, remote: address, io: Box::new(stream) })
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            platform::reuse_address(&SockRef::from(&socket))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            let local = listener.local_addr()?;
            Ok(Box::new(TcpAccepting { listener, local }) as Box<dyn Listener>)
        })
    }
}

struct TcpAccepting {
    listener: TcpListener,
    local: SocketAddr,
}

impl Listener for TcpAccepting {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, remote) = self.listener.accept().await?;
            set_options(&stream)?;
            Ok(Connection { local: stream.local_addr()?, remote, io: Box::new(stream) })
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.local
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    platform::bound_unsent(&socket)
}

impl Io for TcpStream {
    fn set_use(&self, purpose: SocketUse) {
        let limit = match purpose {
            SocketUse::Link => LINK_USER_TIMEOUT,
            SocketUse::Leg => LEG_USER_TIMEOUT,
        };
        if let Err(error) = platform::set_user_timeout(&SockRef::from(self), limit) {
            tracing::debug!(%error, "user timeout not set");
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_families_connect_and_carry_bytes() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpNet.listen(address.parse().unwrap()).await.unwrap();
            let target = listener.local_address();
            assert_ne!(target.port(), 0);
            let (ours, theirs) = tokio::join!(TcpNet.connect(target, SocketUse::Leg), listener.accept());
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            assert_eq!((ours.remote, ours.local), (target, theirs.remote));
            ours.io.write_all(b"x").await.unwrap();
            assert_eq!(theirs.io.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test]
    async fn an_ipv6_listener_leaves_the_ipv4_port_free() {
        let six = TcpNet.listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = six.local_address().port();
        assert!(TcpNet.listen(SocketAddr::from(([0, 0, 0, 0], port))).await.is_ok());
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let first = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let second = TcpNet.listen(first.local_address()).await;
        assert_eq!(second.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn socket_options_are_those_of_the_protocol() {
        let listener = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let stream = TcpStream::connect(listener.local_address()).await.unwrap();
        set_options(&stream).unwrap();
        let socket = SockRef::from(&stream);
        for (purpose, seconds) in [(SocketUse::Link, 15), (SocketUse::Leg, 60)] {
            stream.set_use(purpose);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(seconds)));
        }
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 32 * 1024);
    }
}
