//! UDP: a thread for each socket that waits in the kernel, answers a batch of queries, and waits again. No task and no
//! allocation for a packet.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::limit::{RateLimit, Verdict};
use super::respond::{Served, Transport, UDP_BYTES_MAX, respond, shorten};
use super::serving::{LatestServing, Serving};
use crate::decide::{Maps, Snapshot};

#[cfg(target_os = "linux")]
#[path = "udp_batch.rs"]
mod exchange;
#[cfg(not(target_os = "linux"))]
#[path = "udp_single.rs"]
mod exchange;

use exchange::Exchange;

/// The longest query that is read whole; a longer one is malformed.
const QUERY_BYTES_MAX: usize = 2048;
/// A thread looks this often whether it is to stop.
pub(super) const STOP_LOOK: Duration = Duration::from_millis(200);

/// Answers the queries of one socket.
pub(super) struct UdpWorker {
    socket: UdpSocket,
    serving: LatestServing,
    answerer: Answerer,
    stop: Arc<AtomicBool>,
}

/// What one thread answers with.
struct Answerer {
    thread: usize,
    random: SmallRng,
    limit: Option<Arc<RateLimit>>,
    origin: Instant,
}

/// What a batch of queries is answered from.
struct Moment<'s> {
    serving: &'s Serving,
    snapshot: &'s Snapshot,
    maps: &'s Maps,
    /// Nanoseconds since the start.
    now: u64,
}

impl UdpWorker {
    pub(super) fn new(
        socket: UdpSocket,
        serving: LatestServing,
        thread: usize,
        limit: Option<Arc<RateLimit>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let answerer = Answerer { thread, random: SmallRng::from_os_rng(), limit, origin: Instant::now() };
        Self { socket, serving, answerer, stop }
    }

    /// Answers until it is to stop.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut exchange = Exchange::new(&self.socket)?;
        while !self.stop.load(Ordering::Relaxed) {
            if exchange.receive(&self.socket)? == 0 {
                continue;
            }
            let serving = self.serving.load();
            let snapshot = serving.snapshot.load();
            let now = u64::try_from(self.answerer.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let maps = serving.maps.load();
            let moment = Moment { serving: &serving, snapshot: &snapshot, maps: &maps, now };
            let answerer = &mut self.answerer;
            exchange.answer(|query, source, out| answerer.answer(&moment, query, source, out));
            exchange.send(&self.socket);
        }
        Ok(())
    }
}

impl Answerer {
    /// Writes the response into `out`; says whether there is one to send.
    fn answer(&mut self, moment: &Moment<'_>, query: &[u8], source: IpAddr, out: &mut Vec<u8>) -> bool {
        let served = Served::of(moment.serving, moment.snapshot, moment.maps);
        let source = source.to_canonical();
        let Some(outcome) = respond(&served, query, source, Transport::Udp, &mut self.random, out) else {
            return false;
        };
        moment.serving.counters.count(self.thread, &outcome);
        let Some(limit) = &self.limit else { return true };
        match limit.judge(source, query.len(), out.len(), moment.now, self.random.random()) {
            Verdict::Send => true,
            Verdict::Shorten => {
                moment.serving.counters.count_limited(self.thread);
                shorten(query, out).is_some()
            }
            Verdict::Drop => {
                moment.serving.counters.count_limited(self.thread);
                false
            }
        }
    }
}

/// A buffer that holds every UDP response.
fn response_buffer() -> Vec<u8> {
    // An answer is written whole before it is found too long.
    Vec::with_capacity(4 * usize::from(UDP_BYTES_MAX))
}
