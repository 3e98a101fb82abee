//! TCP: a task for each connection, answering one query after the other (RFC 7766).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::respond::{Served, Transport, respond};
use super::serving::LatestServing;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address at a time; more are closed.
const CONNECTIONS_PER_SOURCE_MAX: usize = 128;
/// The longest query; a connection that announces a longer one is closed.
const QUERY_BYTES_MAX: u16 = 4096;
/// How long a client may take to receive an answer.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// After an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Debug)]
pub(super) struct TcpShared {
    serving: LatestServing,
    idle: Duration,
    slots: Arc<Semaphore>,
    sources: Mutex<BTreeMap<IpAddr, usize>>,
}

impl TcpShared {
    /// Connections without a query for `idle` are closed.
    pub(super) fn new(serving: LatestServing, idle: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { serving, idle, slots, sources: Mutex::default() }
    }

    /// Counts a connection of `source`; `None` when it has enough.
    fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Admitted> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= CONNECTIONS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Admitted { shared: Arc::clone(self), source })
    }
}

/// A connection that is counted until it ends.
struct Admitted {
    shared: Arc<TcpShared>,
    source: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// Accepts connections until `stop`; those that are open end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<TcpShared>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&shared.slots).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let source = peer.ip().to_canonical();
            let Some(admitted) = shared.admit(source) else { continue };
            let stop = stop.clone();
            connections.spawn(async move {
                let ended = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = converse(stream, &admitted.shared, source) => ended,
                };
                if let Err(error) = ended {
                    tracing::trace!(%error, %source, "a TCP connection broke off");
                }
                drop((admitted, slot));
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
    connections.close();
    connections.wait().await;
}

/// Answers one query after the other until the client is silent, leaves, or sends what is no query.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &TcpShared,
    source: IpAddr,
) -> io::Result<()> {
    let mut random = SmallRng::from_rng(&mut rand::rng());
    let (mut query, mut out) = (Vec::new(), Vec::new());
    loop {
        let length = match timeout(shared.idle, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        if length > QUERY_BYTES_MAX {
            return Ok(());
        }
        query.resize(usize::from(length), 0);
        let Ok(read) = timeout(shared.idle, stream.read_exact(&mut query)).await else { return Ok(()) };
        read?;
        {
            let serving = shared.serving.load();
            let snapshot = serving.snapshot.load();
            let maps = serving.maps.load();
            let served = Served::of(&serving, &snapshot, &maps);
            let Some(outcome) = respond(&served, &query, source, Transport::Tcp, &mut random, &mut out)
            else {
                return Ok(());
            };
            serving.counters.count(0, &outcome);
        }
        let length = u16::try_from(out.len()).map_err(io::Error::other)?;
        out.splice(0..0, length.to_be_bytes());
        let Ok(written) = timeout(WRITE_MAX, stream.write_all(&out)).await else { return Ok(()) };
        written?;
    }
}
