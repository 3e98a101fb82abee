//! A continuous load over one byte stream whose far end sends everything back: it tells how long nothing arrived, and
//! proves that every byte came once and in order.
//!
//! Each byte follows from its offset and a seed, so that a byte that is lost, repeated or altered is told apart. Gaps
//! are what the application sees: the time between two arrivals, the sending interval included.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::eventually::eventually;

/// Bytes of one word of the pattern.
const WORD_BYTES: usize = 8;
const READ_BYTES: usize = 64 << 10;

/// How much is sent, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of one write.
    pub bytes: usize,
    /// Time between two writes; after a wait the next comes a whole interval later.
    pub interval: Duration,
}

impl Pace {
    /// What a person at a keyboard causes: 20 B each 50 ms.
    pub const INPUT: Self = Self { bytes: 20, interval: Duration::from_millis(50) };
    /// A file: 1 MB each second.
    pub const STREAM: Self = Self { bytes: 50_000, interval: Duration::from_millis(50) };
}

/// What came back, against what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proof {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that came back.
    pub received: u64,
    /// Bytes that were passed over.
    pub lost: u64,
    /// Bytes that came again, or late.
    pub repeated: u64,
    /// Bytes that were never sent.
    pub altered: u64,
}

impl Proof {
    /// Whether everything that was written came back, once and in order.
    pub fn is_exact(&self) -> bool {
        self.written == self.received && self.lost + self.repeated + self.altered == 0
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, received, lost, repeated, altered } = self;
        write!(
            f,
            "{written} B written, {received} received, {lost} lost, {repeated} repeated, {altered} altered"
        )
    }
}

/// Why a load did not go to its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The stream failed.
    #[error("the stream failed after {proof}: {reason}")]
    Stream {
        /// What had come until then.
        proof: Proof,
        /// The stream's word.
        reason: String,
    },
    /// Nothing that was sent after the mark came back in time.
    #[error("nothing new came back within {waited:?}; {proof}")]
    Stalled {
        /// What had come until then.
        proof: Proof,
        /// How long was waited.
        waited: Duration,
    },
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    sending: JoinHandle<()>,
    receiving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pattern: Pattern,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    proof: Proof,
    /// Where in the pattern the next byte is expected.
    expected: u64,
    last_arrival: Instant,
    longest: Duration,
    failure: Option<String>,
    is_done: bool,
}

impl Load {
    /// Starts to send to `writing` what `reading` is to bring back. `seed` makes this load's bytes differ from others'.
    pub fn start<R, W>(reading: R, writing: W, pace: Pace, seed: u64) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let state = State {
            proof: Proof::default(),
            expected: 0,
            last_arrival: Instant::now(),
            longest: Duration::ZERO,
            failure: None,
            is_done: false,
        };
        let shared = Arc::new(Shared { pattern: Pattern { seed }, state: Mutex::new(state) });
        let stop = CancellationToken::new();
        let sending = tokio::spawn(send(Arc::clone(&shared), writing, pace, stop.clone()));
        let receiving = tokio::spawn(receive(Arc::clone(&shared), reading));
        Self { shared, stop, sending, receiving }
    }

    /// Forgets the gaps so far, and returns how many bytes were written.
    ///
    /// What was written before a fault took hold may still come back, so [`Load::passes`] wants the number of
    /// [`Load::written`] after it.
    pub fn mark(&self) -> u64 {
        self.shared.with(|state| {
            state.longest = Duration::ZERO;
            state.proof.written
        })
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.proof().written
    }

    /// The longest time without an arrival since the mark; one that goes on counts as far as it has come.
    pub fn longest_gap(&self) -> Duration {
        self.shared.with(|state| state.longest.max(state.last_arrival.elapsed()))
    }

    /// What has come until now.
    pub fn proof(&self) -> Proof {
        self.shared.with(|state| state.proof)
    }

    /// Waits until something that was written after `mark` has come back; the longest gap until then.
    ///
    /// # Errors
    /// When the stream fails, or nothing has come after `limit`.
    pub async fn passes(&self, mark: u64, limit: Duration) -> Result<Duration, LoadError> {
        let past = || self.shared.with(|state| state.proof.received > mark || state.failure.is_some());
        let passed = eventually(limit, past).await;
        let (proof, failure) = self.shared.with(|state| (state.proof, state.failure.clone()));
        match failure {
            Some(reason) => Err(LoadError::Stream { proof, reason }),
            None if passed => Ok(self.longest_gap()),
            None => Err(LoadError::Stalled { proof, waited: limit }),
        }
    }

    /// Waits until the load has flowed for `span` without a gap longer than `gap_max`.
    ///
    /// # Errors
    /// When the stream fails, or it is not so after `limit`.
    pub async fn flows(&self, span: Duration, gap_max: Duration, limit: Duration) -> Result<(), LoadError> {
        let mut since = Instant::now();
        let mut failed = None;
        self.mark();
        let flowed = eventually(limit, || {
            failed = self.shared.with(|state| state.failure.clone());
            if self.longest_gap() > gap_max {
                since = Instant::now();
                self.mark();
            }
            failed.is_some() || since.elapsed() >= span
        })
        .await;
        let proof = self.proof();
        match failed {
            Some(reason) => Err(LoadError::Stream { proof, reason }),
            None if flowed => Ok(()),
            None => Err(LoadError::Stalled { proof, waited: limit }),
        }
    }

    /// Stops to send, and waits until the other end has sent everything back and finished.
    ///
    /// # Errors
    /// When the stream fails, or it has not ended after `limit`.
    pub async fn finish(self, limit: Duration) -> Result<Proof, LoadError> {
        self.stop.cancel();
        let done = || self.shared.with(|state| state.is_done || state.failure.is_some());
        let ended = eventually(limit, done).await;
        let (proof, failure) = self.shared.with(|state| (state.proof, state.failure.clone()));
        match failure {
            Some(reason) => Err(LoadError::Stream { proof, reason }),
            None if ended => Ok(proof),
            None => Err(LoadError::Stalled { proof, waited: limit }),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.sending.abort();
        self.receiving.abort();
    }
}

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fail(&self, reason: &std::io::Error) {
        self.with(|state| {
            state.failure.get_or_insert_with(|| reason.to_string());
        });
    }

    fn arrived(&self, bytes: &[u8]) {
        self.with(|state| {
            let now = Instant::now();
            state.longest = state.longest.max(now.duration_since(state.last_arrival));
            state.last_arrival = now;
            state.proof.received += bytes.len() as u64;
            self.pattern.judge(bytes, state);
        });
    }
}

async fn send(
    shared: Arc<Shared>,
    mut writing: impl AsyncWrite + Unpin,
    pace: Pace,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(pace.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut block = vec![0; pace.bytes];
    let mut offset = 0_u64;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        shared.pattern.fill(offset, &mut block);
        offset += block.len() as u64;
        // Counted first: what comes back quickly was not received before it was written.
        shared.with(|state| state.proof.written = offset);
        if let Err(error) = write_whole(&mut writing, &block).await {
            shared.fail(&error);
            return;
        }
    }
    if let Err(error) = writing.shutdown().await {
        shared.fail(&error);
    }
}

async fn write_whole(writing: &mut (impl AsyncWrite + Unpin), block: &[u8]) -> std::io::Result<()> {
    writing.write_all(block).await?;
    writing.flush().await
}

async fn receive(shared: Arc<Shared>, mut reading: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match reading.read(&mut buffer).await {
            Ok(0) => {
                shared.with(|state| state.is_done = true);
                return;
            }
            Ok(count) => shared.arrived(buffer.get(..count).unwrap_or_default()),
            Err(error) => {
                shared.fail(&error);
                return;
            }
        }
    }
}

/// Bytes that follow from their offset: each word is its number, mixed reversibly, so that a word tells where it is
/// from.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    seed: u64,
}

/// Odd, and its inverse modulo 2^64.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
const INVERSE: u64 = 0xF1DE_83E1_9937_733D;

impl Pattern {
    fn word(self, number: u64) -> [u8; WORD_BYTES] {
        let mixed = number.wrapping_add(self.seed).wrapping_mul(MULTIPLIER);
        (mixed ^ (mixed >> 32)).to_le_bytes()
    }

    fn number(self, word: [u8; WORD_BYTES]) -> u64 {
        let mixed = u64::from_le_bytes(word);
        (mixed ^ (mixed >> 32)).wrapping_mul(INVERSE).wrapping_sub(self.seed)
    }

    fn byte(self, offset: u64) -> u8 {
        let word = self.word(offset / WORD_BYTES as u64);
        let place = usize::try_from(offset % WORD_BYTES as u64).unwrap_or_default();
        word.get(place).copied().unwrap_or_default()
    }

    fn fill(self, offset: u64, block: &mut [u8]) {
        for (place, byte) in (offset..).zip(block) {
            *byte = self.byte(place);
        }
    }

    fn holds(self, offset: u64, bytes: &[u8]) -> bool {
        (offset..).zip(bytes).all(|(place, byte)| self.byte(place) == *byte)
    }

    /// Compares what came with what is expected, and goes on from where it belongs.
    fn judge(self, bytes: &[u8], state: &mut State) {
        let right = (state.expected..).zip(bytes).take_while(|(place, byte)| self.byte(*place) == **byte);
        let right = right.count();
        state.expected += right as u64;
        let Some(rest) = bytes.get(right..).filter(|rest| !rest.is_empty()) else { return };
        match self.place_of(rest, state.proof.written) {
            Some(place) if place > state.expected => {
                state.proof.lost += place - state.expected;
                state.expected = place + rest.len() as u64;
            }
            Some(place) => {
                state.proof.repeated += (state.expected - place).min(rest.len() as u64);
                state.expected = state.expected.max(place + rest.len() as u64);
            }
            None => {
                state.proof.altered += rest.len() as u64;
                state.expected += rest.len() as u64;
            }
        }
    }

    /// Where in the first `written` bytes of the pattern these are from.
    fn place_of(self, bytes: &[u8], written: u64) -> Option<u64> {
        let aligned = (0..WORD_BYTES).find_map(|ahead| {
            let word = bytes.get(ahead..)?.first_chunk()?;
            let start = self.number(*word).checked_mul(WORD_BYTES as u64)?.checked_sub(ahead as u64)?;
            (start < written && self.holds(start, bytes)).then_some(start)
        });
        let alike = |place: &u64| self.holds(*place, bytes);
        // Too short for a word: wherever it fits, the last place first.
        aligned.or_else(|| (written.saturating_sub(4096)..written).rev().find(alike))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern { seed: 7 };

    fn judged(pieces: &[(u64, u64)]) -> Proof {
        let proof = Proof { written: 100_000, ..Proof::default() };
        let last_arrival = Instant::now();
        let longest = Duration::ZERO;
        let mut state = State { proof, expected: 0, last_arrival, longest, failure: None, is_done: false };
        for (start, end) in pieces {
            let mut block = vec![0; usize::try_from(end - start).unwrap()];
            PATTERN.fill(*start, &mut block);
            PATTERN.judge(&block, &mut state);
        }
        state.proof
    }

    #[test]
    fn a_word_tells_where_it_is_from() {
        for number in [0, 1, 77, u64::from(u32::MAX), u64::MAX - 9] {
            assert_eq!(PATTERN.number(PATTERN.word(number)), number);
        }
    }

    #[test]
    fn pieces_in_order_are_exact_however_they_are_cut() {
        let proof = judged(&[(0, 1), (1, 20), (20, 21), (21, 5_000)]);
        assert_eq!((proof.lost, proof.repeated, proof.altered), (0, 0, 0));
    }

    #[test]
    fn lost_repeated_and_altered_bytes_are_told_apart() {
        assert_eq!(judged(&[(0, 1_003), (1_020, 2_000)]).lost, 17);
        assert_eq!(judged(&[(0, 1_003), (901, 1_203)]).repeated, 102);
        // Two pieces that change places: the later one is missed at first, the earlier one comes late.
        let swapped = judged(&[(0, 100), (200, 300), (100, 200), (300, 400)]);
        assert_eq!((swapped.lost, swapped.repeated, swapped.altered), (100, 100, 0));
        let mut state = State {
            proof: Proof { written: 64, ..Proof::default() },
            expected: 0,
            last_arrival: Instant::now(),
            longest: Duration::ZERO,
            failure: None,
            is_done: false,
        };
        let mut block = [0; 64];
        PATTERN.fill(0, &mut block);
        block[40] ^= 0x10;
        PATTERN.judge(&block, &mut state);
        assert!(state.proof.altered > 0, "{}", state.proof);
    }

    #[tokio::test]
    async fn an_echo_is_exact_and_its_gap_is_seen() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let hold = Arc::new(tokio::sync::Mutex::new(()));
        let held = Arc::clone(&hold);
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
                drop(held.lock().await);
                far_write.write_all(&buffer[..count]).await.unwrap();
            }
            far_write.shutdown().await.unwrap();
        });
        let (reading, writing) = tokio::io::split(near);
        let pace = Pace { bytes: 20, interval: Duration::from_millis(5) };
        let load = Load::start(reading, writing, pace, 3);
        load.passes(0, Duration::from_secs(10)).await.unwrap();
        let mark = load.mark();
        let guard = hold.lock().await;
        assert!(
            eventually(Duration::from_secs(10), || load.longest_gap() > Duration::from_millis(200)).await
        );
        drop(guard);
        let gap = load.passes(mark + 100, Duration::from_secs(10)).await.unwrap();
        assert!(gap >= Duration::from_millis(200), "{gap:?}");
        let proof = load.finish(Duration::from_secs(10)).await.unwrap();
        assert!(proof.is_exact() && proof.written > 100, "{proof}");
    }
}
