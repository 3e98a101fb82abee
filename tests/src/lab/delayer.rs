//! Holds every packet of one direction between two hosts for a while: half of their round trip.
//!
//! Two threads: one reads which packets came and when they are due, the other lets them go. A constant delay keeps
//! packets in order; one that gets shorter lets none overtake.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::queue::{PacketNumber, PacketQueue};

/// Packets under way in one direction; the kernel drops what comes on top.
const UNDER_WAY_MAX: u32 = 200_000;
/// Between two looks whether the delayer is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const PER_MILLION: u32 = 1_000_000;

#[derive(Debug)]
struct Condition {
    one_way_us: AtomicU64,
    loss_per_million: AtomicU32,
    stop: AtomicBool,
}

/// One direction of a hop. Dropping it makes the direction a black hole.
#[derive(Debug)]
pub struct Delayer {
    condition: Arc<Condition>,
}

impl Delayer {
    /// Takes over queue `queue` of this network namespace and holds its packets for `one_way`. `seed` decides which
    /// packets are lost.
    ///
    /// # Errors
    /// When the kernel has no such queue, or another process holds it.
    pub fn start(queue: u16, one_way: Duration, seed: u64) -> io::Result<Self> {
        let packets = Arc::new(PacketQueue::bind(queue, UNDER_WAY_MAX)?);
        let condition = Arc::new(Condition {
            one_way_us: AtomicU64::new(0),
            loss_per_million: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        });
        let this = Self { condition: Arc::clone(&condition) };
        this.set_one_way(one_way);
        let (tell, told) = sync_channel(usize::try_from(UNDER_WAY_MAX).unwrap_or(usize::MAX));
        let letting_go = Arc::clone(&packets);
        let until = Arc::clone(&condition);
        std::thread::Builder::new()
            .name(format!("delay-{queue}-out"))
            .spawn(move || let_go(&letting_go, &told, &until))?;
        std::thread::Builder::new().name(format!("delay-{queue}-in")).spawn(move || {
            take_in(&packets, &tell, &condition, &mut SmallRng::seed_from_u64(seed));
        })?;
        Ok(this)
    }

    /// Holds packets that come from now on for `one_way`.
    pub fn set_one_way(&self, one_way: Duration) {
        let micros = u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX);
        self.condition.one_way_us.store(micros, Ordering::Relaxed);
    }

    /// Loses so many of a million packets that come from now on; a large packet counts as one.
    pub fn set_loss_per_million(&self, count: u32) {
        self.condition.loss_per_million.store(count, Ordering::Relaxed);
    }
}

impl Drop for Delayer {
    fn drop(&mut self) {
        self.condition.stop.store(true, Ordering::Relaxed);
    }
}

impl Condition {
    fn is_wanted(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

type Due = (Instant, PacketNumber);

fn take_in(queue: &PacketQueue, tell: &SyncSender<Due>, condition: &Condition, random: &mut impl Rng) {
    let mut buffer = PacketQueue::read_buffer();
    let mut came = Vec::new();
    while condition.is_wanted() {
        came.clear();
        if let Err(error) = queue.read(&mut buffer, &mut came) {
            tracing::error!(%error, "the packet queue cannot be read");
            return;
        }
        let due = Instant::now() + Duration::from_micros(condition.one_way_us.load(Ordering::Relaxed));
        let loss = condition.loss_per_million.load(Ordering::Relaxed);
        for packet in &came {
            if loss > 0 && random.random_range(0..PER_MILLION) < loss {
                // A packet that cannot be dropped is passed with the next batch.
                queue.drop_one(*packet).unwrap_or_default();
            } else if tell.send((due, *packet)).is_err() {
                return;
            }
        }
    }
}

fn let_go(queue: &PacketQueue, told: &Receiver<Due>, condition: &Condition) {
    let mut next = None;
    while condition.is_wanted() {
        let (due, mut last) = match next.take() {
            Some(due) => due,
            None => match told.recv_timeout(LOOK_INTERVAL) {
                Ok(due) => due,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        for (due, packet) in told.try_iter() {
            if due > now {
                next = Some((due, packet));
                break;
            }
            last = packet;
        }
        if let Err(error) = queue.accept_up_to(last) {
            tracing::error!(%error, "packets cannot be let go");
            return;
        }
    }
}
