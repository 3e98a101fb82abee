//! Binds the sockets and serves.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::handler::Handler;
use super::records::ZoneRecords;
use crate::decide::Maps;
use crate::monitor::LatestSnapshot;
use crate::zone::Zones;

/// Answers that one TCP connection may have waiting to be read.
const TCP_ANSWERS_MAX: usize = 16;
/// TCP connections that wait to be taken.
const TCP_BACKLOG: i32 = 1024;
/// Ports to try when any will do: one that is free for UDP may be taken for TCP.
const ANY_PORT_ATTEMPTS: usize = 16;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({transport}): {source}; name a free address of this machine in listen.dns"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// A configured name does not fit a DNS message.
    #[error("a name of the zones does not fit a DNS message: {reason}; shorten it")]
    Name {
        /// What the DNS library says.
        reason: String,
    },
}

/// Sockets that are bound and not served yet: UDP and TCP on the same port of each address.
#[derive(Debug)]
pub struct Listening {
    pairs: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
}

impl Listening {
    /// Binds each address; port 0 takes one that is free for both transports. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError::Bind`] for the first address that cannot be had.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let mut listening = Self { pairs: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let (bound, udp, tcp) = bind_pair(*address)?;
            let failed = |transport| move |source| ListenError::Bind { address: bound, transport, source };
            let udp = UdpSocket::from_std(udp).map_err(failed("UDP"))?;
            let tcp = TcpListener::from_std(tcp).map_err(failed("TCP"))?;
            listening.pairs.push((udp, tcp));
            listening.addresses.push(bound);
        }
        Ok(listening)
    }

    /// Where it really listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

fn bind_pair(address: SocketAddr) -> Result<(SocketAddr, StdUdpSocket, StdTcpListener), ListenError> {
    let failed = |transport| move |source| ListenError::Bind { address, transport, source };
    let attempts = if address.port() == 0 { ANY_PORT_ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let udp: StdUdpSocket = socket(address, Type::DGRAM, Protocol::UDP).map_err(failed("UDP"))?.into();
        let bound = udp.local_addr().map_err(failed("UDP"))?;
        match socket(bound, Type::STREAM, Protocol::TCP) {
            Ok(tcp) => return Ok((bound, udp, tcp.into())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < attempts => {}
            Err(error) => return Err(failed("TCP")(error)),
        }
    }
    Err(failed("TCP")(io::ErrorKind::AddrInUse.into()))
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // So that both families of one port can be listed.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A restart need not wait for connections of the previous process.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(TCP_BACKLOG)?;
    }
    Ok(socket)
}

/// A server that answers until it is stopped.
pub struct DnsServer {
    server: Server<Handler>,
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").finish_non_exhaustive()
    }
}

impl DnsServer {
    /// Starts to answer from `zones` by the health in `snapshot`. A TCP connection without a query for `tcp_idle` is
    /// closed.
    ///
    /// # Errors
    /// [`ListenError::Name`] when a configured name does not fit a DNS message.
    pub fn start(
        listening: Listening,
        zones: Arc<Zones>,
        snapshot: LatestSnapshot,
        counters: Arc<Counters>,
        tcp_idle: Duration,
    ) -> Result<Self, ListenError> {
        let records =
            ZoneRecords::of(&zones).map_err(|error| ListenError::Name { reason: error.to_string() })?;
        let mut server = Server::new(Handler { zones, records, snapshot, maps: Maps::default(), counters });
        for (udp, tcp) in listening.pairs {
            server.register_socket(udp);
            server.register_listener(tcp, tcp_idle, TCP_ANSWERS_MAX);
        }
        Ok(Self { server })
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// When a socket fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        let outcome = tokio::select! {
            () = stop.cancelled() => self.server.shutdown_gracefully().await,
            outcome = self.server.block_until_done() => outcome,
        };
        outcome.map_err(io::Error::other)
    }
}
