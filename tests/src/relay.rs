//! A loopback relay that makes a hop as long as a real one: every byte leaves half a round trip after it came.
//!
//! One relay stands for one (viewing region, broker) pair and listens on a loopback address of its own. The TCP
//! handshake itself is the kernel's and takes no time; everything after it, end of stream included, is delayed in
//! both directions. What is under way is bounded, so a stopped reader stalls the writer as a real network does.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes under way in one direction of one connection: 220 ms at about 1 Gbit/s.
const UNDER_WAY_BYTES_MAX: u32 = 32 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// One direction of a hop, as seen from who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who dialled to who listens.
    There,
    /// From who listens to who dialled.
    Back,
}

/// The condition of one simulated hop; may change while traffic flows.
#[derive(Debug)]
pub struct Hop {
    one_way_us: AtomicU64,
    cut_there: AtomicBool,
    cut_back: AtomicBool,
    /// Connections older than this many strandings carry nothing any more.
    strandings: AtomicU64,
    changed: Notify,
}

impl Hop {
    /// A hop with this round trip.
    pub fn new(round_trip: Duration) -> Arc<Self> {
        let hop = Self {
            one_way_us: AtomicU64::new(0),
            cut_there: AtomicBool::new(false),
            cut_back: AtomicBool::new(false),
            strandings: AtomicU64::new(0),
            changed: Notify::new(),
        };
        hop.set_round_trip(round_trip);
        Arc::new(hop)
    }

    /// Makes the hop longer or shorter for bytes that come from now on.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let half = u64::try_from(round_trip.as_micros() / 2).unwrap_or(u64::MAX);
        self.one_way_us.store(half, Ordering::Relaxed);
    }

    /// While cut, nothing passes and nothing is refused: bytes vanish into the wait, as behind a dead router.
    pub fn set_cut(&self, cut: bool) {
        self.set_cut_way(Way::There, cut);
        self.set_cut_way(Way::Back, cut);
    }

    /// The same for one direction.
    pub fn set_cut_way(&self, way: Way, cut: bool) {
        self.cut_of(way).store(cut, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// What is connected now carries nothing any more, and is not told: as when the dialler gets another source
    /// address. New connections pass.
    pub fn strand(&self) {
        self.strandings.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn cut_of(&self, way: Way) -> &AtomicBool {
        match way {
            Way::There => &self.cut_there,
            Way::Back => &self.cut_back,
        }
    }

    fn stranding(&self) -> u64 {
        self.strandings.load(Ordering::SeqCst)
    }

    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way_us.load(Ordering::Relaxed))
    }

    /// Waits until a connection that was made after so many strandings may carry bytes this way.
    async fn passable(&self, way: Way, stranding: u64) {
        loop {
            let changed = self.changed.notified();
            if !self.cut_of(way).load(Ordering::SeqCst) && self.stranding() == stranding {
                return;
            }
            changed.await;
        }
    }
}

/// A running relay; dropping it ends the listener and every connection through it.
#[derive(Debug)]
pub struct DelayRelay {
    address: SocketAddr,
    hop: Arc<Hop>,
    stop: CancellationToken,
}

impl DelayRelay {
    /// Listens on `listen` and forwards each connection to `target` over `hop`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(listen: SocketAddr, target: SocketAddr, hop: Arc<Hop>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, target, Arc::clone(&hop), stop.clone()));
        Ok(Self { address, hop, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The hop it simulates.
    pub fn hop(&self) -> &Arc<Hop> {
        &self.hop
    }
}

impl Drop for DelayRelay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, hop: Arc<Hop>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((near, _)) => {
                let connection = connect_through(near, target, Arc::clone(&hop), stop.clone());
                tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "delay relay cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn connect_through(near: TcpStream, target: SocketAddr, hop: Arc<Hop>, stop: CancellationToken) {
    let stranding = hop.stranding();
    hop.passable(Way::There, stranding).await;
    hop.passable(Way::Back, stranding).await;
    // Dropping `near` at once is what a refused port looks like from behind a relay.
    let Ok(far) = TcpStream::connect(target).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let both = async {
        tokio::join!(
            direction(near_read, far_write, Arc::clone(&hop), Way::There, stranding),
            direction(far_read, near_write, Arc::clone(&hop), Way::Back, stranding)
        );
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = both => {}
    }
}

/// What is under way in one direction: chunks by the time they are due; `None` is the end of the stream.
#[derive(Default)]
struct UnderWay {
    chunks: std::sync::Mutex<VecDeque<(Instant, Option<Vec<u8>>)>>,
    arrived: Notify,
}

impl UnderWay {
    fn push(&self, due: Instant, chunk: Option<Vec<u8>>) {
        self.chunks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push_back((due, chunk));
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<(Instant, Option<Vec<u8>>)> {
        self.chunks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
    }
}

async fn direction(read: OwnedReadHalf, write: OwnedWriteHalf, hop: Arc<Hop>, way: Way, stranding: u64) {
    let under_way = UnderWay::default();
    let room = Semaphore::new(UNDER_WAY_BYTES_MAX as usize);
    let passable = || hop.passable(way, stranding);
    tokio::join!(receive(read, &under_way, &room, &hop), deliver(write, &under_way, &room, passable));
}

async fn receive(mut read: OwnedReadHalf, under_way: &UnderWay, room: &Semaphore, hop: &Hop) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = read.read(&mut buffer).await.unwrap_or(0);
        let due = Instant::now() + hop.one_way();
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            under_way.push(due, None);
            return;
        };
        match room.acquire_many(u32::try_from(count).unwrap_or(UNDER_WAY_BYTES_MAX)).await {
            Ok(permit) => permit.forget(),
            Err(_closed) => return,
        }
        under_way.push(due, Some(chunk.to_vec()));
    }
}

async fn deliver<F: Future<Output = ()>>(
    mut write: OwnedWriteHalf,
    under_way: &UnderWay,
    room: &Semaphore,
    passable: impl Fn() -> F,
) {
    loop {
        let Some((due, chunk)) = under_way.pop() else {
            under_way.arrived.notified().await;
            continue;
        };
        tokio::time::sleep_until(due).await;
        passable().await;
        let Some(chunk) = chunk else { break };
        if write.write_all(&chunk).await.is_err() {
            break;
        }
        room.add_permits(chunk.len());
    }
    // The peer may have gone first; there is nobody left to tell.
    drop(write.shutdown().await);
    room.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_byte_takes_one_round_trip_there_and_back() {
        let hop = Hop::new(Duration::from_millis(80));
        let relay =
            DelayRelay::start("127.0.0.1:0".parse().unwrap(), echo_server().await, hop).await.unwrap();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        let begin = Instant::now();
        stream.write_all(b"x").await.unwrap();
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await.unwrap();
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(80), "{took:?}");
        assert_eq!(&answer, b"x");
    }

    #[tokio::test]
    async fn order_and_end_of_stream_survive_the_delay() {
        let hop = Hop::new(Duration::from_millis(10));
        let relay =
            DelayRelay::start("127.0.0.1:0".parse().unwrap(), echo_server().await, hop).await.unwrap();
        let stream = TcpStream::connect(relay.address()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_hop_holds_bytes_until_it_heals() {
        let hop = Hop::new(Duration::ZERO);
        hop.set_cut(true);
        assert!(!passes(&hop, Way::There, 0).await);
        hop.set_cut(false);
        assert!(passes(&hop, Way::There, 0).await);
    }

    async fn passes(hop: &Hop, way: Way, stranding: u64) -> bool {
        tokio::time::timeout(Duration::from_secs(1), hop.passable(way, stranding)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_direction_may_be_cut_alone() {
        let hop = Hop::new(Duration::ZERO);
        hop.set_cut_way(Way::Back, true);
        assert!(passes(&hop, Way::There, 0).await);
        assert!(!passes(&hop, Way::Back, 0).await);
    }

    #[tokio::test]
    async fn a_stranded_connection_carries_nothing_and_a_new_one_passes() {
        let hop = Hop::new(Duration::ZERO);
        let relay =
            DelayRelay::start("127.0.0.1:0".parse().unwrap(), echo_server().await, hop).await.unwrap();
        let mut old = TcpStream::connect(relay.address()).await.unwrap();
        let mut answer = [0; 1];
        old.write_all(b"x").await.unwrap();
        old.read_exact(&mut answer).await.unwrap();
        relay.hop().strand();
        old.write_all(b"y").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(300), old.read_exact(&mut answer)).await;
        assert!(silent.is_err());
        let mut new = TcpStream::connect(relay.address()).await.unwrap();
        new.write_all(b"z").await.unwrap();
        new.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"z");
    }
}
