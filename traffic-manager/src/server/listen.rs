//! Binds the sockets and serves.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counters::Counters;
use super::limit::RateLimit;
use super::serving::{LatestServing, Serving};
use super::tcp::{self, TcpShared};
use super::udp::{STOP_LOOK, UdpWorker};
use crate::monitor::LatestSnapshot;
use crate::zone::Zones;

/// TCP connections that wait to be taken.
const TCP_BACKLOG: i32 = 1024;
/// Ports to try when any will do: one that is free for TCP may be taken for UDP.
const ANY_PORT_ATTEMPTS: usize = 16;
/// Bytes of queries that one UDP socket may have waiting, as far as the system allows.
const UDP_RECEIVE_BYTES: usize = 1 << 20;

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
    /// The system gives no thread.
    #[error("cannot start a thread for DNS: {source}; see the limits of this user")]
    Thread {
        /// What the operating system says.
        source: io::Error,
    },
}

/// Sockets that are bound and not served yet: UDP and TCP on the same port of each address.
#[derive(Debug)]
pub struct Listening {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listening {
    /// Binds each address, with one UDP socket; see [`Self::bind_many`].
    ///
    /// # Errors
    /// [`ListenError::Bind`] for the first address that cannot be had.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        Self::bind_many(addresses, 1)
    }

    /// Binds each address with `udp_sockets` UDP sockets, among which the system spreads the queries; port 0 takes one
    /// that is free for both transports. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError::Bind`] for the first address that cannot be had.
    pub fn bind_many(addresses: &[SocketAddr], udp_sockets: usize) -> Result<Self, ListenError> {
        let mut listening = Self { udp: Vec::new(), tcp: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let (bound, udp, tcp) = bind_both(*address, udp_sockets.max(1))?;
            let failed = |source| ListenError::Bind { address: bound, transport: "TCP", source };
            listening.udp.extend(udp);
            listening.tcp.push(TcpListener::from_std(tcp).map_err(failed)?);
            listening.addresses.push(bound);
        }
        Ok(listening)
    }

    /// Where it really listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

type Bound = (SocketAddr, Vec<UdpSocket>, StdTcpListener);

/// TCP comes first: its port is ours alone, while UDP sockets of one user may share theirs.
fn bind_both(address: SocketAddr, udp_sockets: usize) -> Result<Bound, ListenError> {
    let failed = |transport| move |source| ListenError::Bind { address, transport, source };
    let attempts = if address.port() == 0 { ANY_PORT_ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let tcp: StdTcpListener = tcp_socket(address).map_err(failed("TCP"))?.into();
        let bound = tcp.local_addr().map_err(failed("TCP"))?;
        let udp: io::Result<Vec<UdpSocket>> =
            (0..udp_sockets).map(|_| udp_socket(bound, udp_sockets > 1).map(UdpSocket::from)).collect();
        match udp {
            Ok(udp) => return Ok((bound, udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < attempts => {}
            Err(error) => return Err(failed("UDP")(error)),
        }
    }
    Err(failed("UDP")(io::ErrorKind::AddrInUse.into()))
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    only_its_family(&socket, address)?;
    // A restart need not wait for connections of the previous process.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket)
}

fn udp_socket(address: SocketAddr, is_one_of_many: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    only_its_family(&socket, address)?;
    #[cfg(unix)]
    if is_one_of_many {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    let _ = is_one_of_many;
    if let Err(error) = socket.set_recv_buffer_size(UDP_RECEIVE_BYTES) {
        tracing::debug!(%error, "the receive buffer keeps its size");
    }
    socket.set_read_timeout(Some(STOP_LOOK))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// So that both families of one port can be listed.
fn only_its_family(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(true) } else { Ok(()) }
}

/// How the server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    /// UDP sockets to bind at each address, each with a thread.
    pub udp_threads: usize,
    /// A TCP connection without a query for so long is closed.
    pub tcp_idle: Duration,
    /// Responses a second to one network over UDP; `None` for no limit.
    pub responses_per_second: Option<u32>,
}

/// A server that answers until it is stopped.
#[derive(Debug)]
pub struct DnsServer {
    threads: StopFlag,
    ended: mpsc::Receiver<io::Result<()>>,
    tcp: Vec<TcpListener>,
    shared: Arc<TcpShared>,
}

/// Ends the UDP threads when it is dropped.
#[derive(Debug)]
struct StopFlag(Arc<AtomicBool>);

impl Drop for StopFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl DnsServer {
    /// Starts to answer from `zones` by the health in `snapshot`, without a limit of responses. A TCP connection
    /// without a query for `tcp_idle` is closed.
    ///
    /// # Errors
    /// [`ListenError::Thread`] when the system gives no thread.
    pub fn start(
        listening: Listening,
        zones: Arc<Zones>,
        snapshot: LatestSnapshot,
        counters: Arc<Counters>,
        tcp_idle: Duration,
    ) -> Result<Self, ListenError> {
        let serving = LatestServing::new(Serving::new(zones, snapshot, counters));
        Self::start_with(
            listening,
            &serving,
            ServerOptions { udp_threads: 1, tcp_idle, responses_per_second: None },
        )
    }

    /// Starts to answer from what `serving` holds at each moment.
    ///
    /// # Errors
    /// [`ListenError::Thread`] when the system gives no thread.
    pub fn start_with(
        listening: Listening,
        serving: &LatestServing,
        options: ServerOptions,
    ) -> Result<Self, ListenError> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = StopFlag(Arc::clone(&stop));
        let limit = options.responses_per_second.map(|rate| Arc::new(RateLimit::new(rate)));
        let (ending, ended) = mpsc::channel(listening.udp.len().max(1));
        for (number, socket) in listening.udp.into_iter().enumerate() {
            let worker = UdpWorker::new(socket, serving.clone(), number, limit.clone(), Arc::clone(&stop));
            let ending = ending.clone();
            let body = move || {
                // Nobody waits any more when the server was dropped.
                drop(ending.blocking_send(worker.run()));
            };
            std::thread::Builder::new()
                .name(format!("dns-udp-{number}"))
                .spawn(body)
                .map_err(|source| ListenError::Thread { source })?;
        }
        let shared = Arc::new(TcpShared::new(serving.clone(), options.tcp_idle));
        Ok(Self { threads, ended, tcp: listening.tcp, shared })
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// When a socket fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        let tasks = TaskTracker::new();
        let ends = stop.child_token();
        for listener in std::mem::take(&mut self.tcp) {
            tasks.spawn(tcp::serve(listener, Arc::clone(&self.shared), ends.clone()));
        }
        let first = tokio::select! {
            () = stop.cancelled() => None,
            first = self.ended.recv() => first,
        };
        ends.cancel();
        tasks.close();
        drop(self.threads);
        let mut outcome = first.unwrap_or(Ok(()));
        while let Some(ended) = self.ended.recv().await {
            outcome = outcome.and(ended);
        }
        tasks.wait().await;
        outcome
    }
}
