//! How much bulk, sound and screen may be under way on one path: what the path holds, and a queue of a few milliseconds.
//!
//! Input shares the path, so each byte that waits in front of its slowest hop is time that input waits, wherever the
//! hops keep it: in a router, in the kernel, in a broker. The window sees them all alike, since it goes by round trips of
//! the session itself. It counts what all channels of the path have under way together.
//!
//! ```text
//! Start ──late samples, and the rate follows no more──▶ Cruise
//! ```
//! * A *sample* is a round trip, and what was under way when it began: their quotient is a rate of delivery.
//! * Start: twice what was delivered in the least round trip, so the window doubles each round trip; it waits while samples
//!   are late.
//! * Cruise: best rate of eight turns × (least round trip + wanted queue). A turn is a least round trip, 25 ms at least.
//!   Each fourth wants the double queue, to find out whether the rate follows. While it does, or less queues than wanted,
//!   each turn asks for a 64th more than the one before.
//! * The least round trip is that of the last 5 to 10 s. Before a queue of our own could pass for it, a turn sends less than
//!   the path holds.
//! * Two turns whose every sample waited too long forget the older rates. If less under way then does not make the round
//!   trip shorter, the queue is not ours, or the way has become longer: that round trip is the least from then on.
//!
//! Samples wait for one another when a loss below is repaired, so the best of a turn counts and one bad turn nothing. A
//! sender that has nothing to send, or whose peer reads slowly, is not limited by the window: then only a higher rate
//! counts. The window never falls below four frames, so a path that acknowledges is never stuck.

mod pacer;
mod probe;
mod trip;

use std::collections::VecDeque;
use std::time::Duration;

use self::pacer::Pacer;
use self::probe::{Probe, Probes};
use self::trip::LeastTrip;
use super::config::{Flaw, Mutant};
use crate::Moment;
use crate::wire::ChannelId;

/// Time that bulk may wait in front of the slowest hop when that takes [`QUEUE_RATE`].
const QUEUE: Duration = Duration::from_millis(4);
/// Bytes a second: 100 Mbit/s.
const QUEUE_RATE: u64 = 12_500_000;
/// Bounds of that time at other rates.
const QUEUE_RANGE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(24));
/// A sample that waited so long while the window doubles may be one of a queue.
const START_QUEUE: Duration = Duration::from_millis(12);
/// A queue of this length is not what the window asked for.
const QUEUE_MAX: Duration = Duration::from_millis(30);
/// Window until a round trip is known.
const START_BYTES: u64 = 32 * 1024;
/// Frames that may always be under way.
const FRAMES_MIN: u64 = 4;
/// Time that a frame may take at the rate, and its least size.
const FRAME: Duration = Duration::from_millis(5);
const FRAME_BYTES_MIN: u64 = 1024;
const TURN_MIN: Duration = Duration::from_millis(25);
/// Turns whose rates count.
const RATES: usize = 8;
/// Turns from one probe to the next: as much again may wait, to find out whether the rate follows.
const PROBE_TURNS: u8 = 4;
/// Each turn with less queue than wanted, in a row, asks for a 64th more; up to so many.
const EMPTY_TURNS_MAX: u8 = 8;
/// Turns in a row whose every sample waited too long, after which the window shrinks.
const LATE_TURNS: u8 = 2;
/// Samples in a row that have to have waited before the start ends.
const LATE_SAMPLES: u8 = 3;

/// How the window is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Doubling; `late` samples in a row have waited.
    Start { late: u8 },
    /// Following the rate: turn `step` since the last probe; for `empty` turns less queued than wanted, for `late` turns
    /// too much.
    Cruise { step: u8, empty: u8, late: u8, draining: bool },
}

impl Phase {
    const CRUISE: Self = Self::Cruise { step: 1, empty: 0, late: 0, draining: false };
}

/// What the samples of one turn said.
#[derive(Debug, Clone, Copy)]
struct Turn {
    began: Moment,
    /// Bytes a second.
    best_rate: u64,
    least: Option<Duration>,
    /// The least of those that began with no more under way than the last cut allows.
    least_since_cut: Option<Duration>,
    /// The window limited one of them.
    limited: bool,
}

impl Turn {
    fn new(began: Moment) -> Self {
        Self { began, best_rate: 0, least: None, least_since_cut: None, limited: false }
    }
}

/// A queue was too long and the window was made smaller.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Round trip before.
    trip: Duration,
    /// Window after.
    size: u64,
}

/// The window of one path's sender.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    floor: u64,
    phase: Phase,
    trip: LeastTrip,
    rates: VecDeque<u64>,
    turn: Turn,
    cut: Option<Cut>,
    /// The window was what stopped the sender last.
    limited: bool,
    probes: Probes,
    pacer: Pacer,
    flaw: Flaw,
}

impl Window {
    pub(super) fn new(now: Moment, flaw: Flaw) -> Self {
        Self {
            size: START_BYTES,
            floor: 0,
            phase: Phase::Start { late: 0 },
            trip: LeastTrip::default(),
            rates: VecDeque::new(),
            turn: Turn::new(now),
            cut: None,
            limited: false,
            probes: Probes::default(),
            pacer: Pacer::default(),
            flaw,
        }
    }

    /// Lets everything go, as if there were no window.
    #[cfg(test)]
    pub(super) fn hold_open(&mut self) {
        self.size = u64::MAX;
    }

    // ---- sending

    /// Whether a frame may go when `in_flight` bytes are under way and a frame has at most `frame` bytes.
    pub(super) fn is_open(&mut self, in_flight: u64, frame: usize, now: Moment) -> bool {
        self.floor = FRAMES_MIN * frame as u64;
        if in_flight >= self.allowed() {
            self.limited = true;
            return false;
        }
        self.pacer.is_open(now)
    }

    /// Bytes that may be under way.
    fn allowed(&self) -> u64 {
        match self.phase {
            Phase::Cruise { draining: true, .. } => self.size.max(self.floor / FRAMES_MIN),
            Phase::Start { .. } => self.size,
            Phase::Cruise { .. } => self.size.max(self.floor),
        }
    }

    /// Largest payload of a frame, at most `limit`: input may wait behind one.
    pub(super) fn payload_max(&self, limit: usize) -> usize {
        match self.phase {
            Phase::Start { .. } => limit,
            Phase::Cruise { .. } => {
                let bytes = bytes_of(self.best_rate(), FRAME).max(FRAME_BYTES_MIN);
                usize::try_from(bytes).unwrap_or(usize::MAX).min(limit)
            }
        }
    }

    /// Nothing waits for the window.
    pub(super) fn idle(&mut self) {
        self.limited = false;
    }

    /// A frame went out; `in_flight` bytes are under way with it. `fresh`: its channel, and where it ends there, unless
    /// any of it was sent before.
    pub(super) fn sent(&mut self, bytes: u64, in_flight: u64, fresh: Option<(ChannelId, u64)>, now: Moment) {
        let Some(least) = self.trip.least() else { return };
        // Doubling needs no more than this; following a rate, a little more, or a new burst would queue.
        let span = match self.phase {
            Phase::Start { .. } => least + self.queue() / 2,
            Phase::Cruise { .. } => (least + self.queue()) * 15 / 16,
        };
        self.pacer.sent(bytes, self.allowed(), span, now);
        if let Some((channel, end)) = fresh {
            self.probes.mark(channel, end, in_flight, self.limited, least / 64, now);
        }
    }

    /// The nonce of a PING that is to be sent now, with `in_flight` bytes under way.
    pub(super) fn take_ping(&mut self, in_flight: u64, now: Moment) -> Option<u64> {
        self.probes.ping(in_flight, self.limited, now)
    }

    /// Whether [`Self::take_ping`] has one.
    pub(super) fn has_ping(&self, now: Moment) -> bool {
        self.probes.has_ping(now)
    }

    /// When pacing lets the next frame go, if that is what it waits for.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.pacer.deadline()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Moment) {
        self.pacer.tick(now);
    }

    // ---- what comes back

    /// The peer has everything of a channel before `next`, `news` bytes more than it said before.
    pub(super) fn acked(&mut self, channel: ChannelId, news: u64, next: u64, now: Moment) {
        if let Some(probe) = self.probes.acked(channel, news, next, now) {
            self.sample(probe, now);
        }
    }

    /// A PONG came; returns whether its PING was the window's.
    pub(super) fn pong(&mut self, nonce: u64, now: Moment) -> bool {
        if let Some(probe) = self.probes.pong(nonce) {
            self.sample(probe, now);
        }
        Probes::is_own(nonce)
    }

    /// A round trip of a PING that was not the window's.
    pub(super) fn round_trip(&mut self, trip: Duration, now: Moment) {
        self.trip.observe(trip, now);
    }

    /// Channels have moved: what comes back now may have gone another way.
    pub(super) fn forget_probes(&mut self) {
        self.probes.forget();
    }

    fn sample(&mut self, probe: Probe, now: Moment) {
        let trip = now.since(probe.sent).max(Duration::from_micros(1));
        // With far more under way than is allowed now, it waited for what an earlier window let go.
        if probe.in_flight / 2 > self.allowed() {
            self.trip.prolong(now);
        }
        let least = self.trip.observe(trip, now);
        let rate = rate_of(probe.in_flight, trip);
        self.turn.best_rate = self.turn.best_rate.max(rate);
        self.turn.least = Some(self.turn.least.map_or(trip, |known| known.min(trip)));
        self.turn.limited |= probe.limited;
        if self.cut.is_some_and(|cut| probe.in_flight <= cut.size + cut.size / 8) {
            let known = self.turn.least_since_cut;
            self.turn.least_since_cut = Some(known.map_or(trip, |known| known.min(trip)));
        }
        if let Phase::Start { late } = self.phase {
            self.start(rate, trip, least, late);
        }
        let turn = least.max(TURN_MIN);
        let turn = if matches!(self.phase, Phase::Start { .. }) { turn / 2 } else { turn };
        if now.since(self.turn.began) >= turn {
            self.end_turn(least, now);
        }
    }

    /// A sample while the window doubles.
    fn start(&mut self, rate: u64, trip: Duration, least: Duration, late: u8) {
        let late = if trip.saturating_sub(least) > START_QUEUE && !self.flaw.is(Mutant::WindowIgnoresDelay) {
            late.saturating_add(1)
        } else {
            0
        };
        self.phase = Phase::Start { late };
        if late == 0 && !self.flaw.is(Mutant::WindowNeverOpens) {
            self.size = self.size.max(bytes_of(rate, least * 2 + queue_of(rate)));
        }
        // A connection below that is starting itself makes bytes wait too, but its rate doubles.
        let before = self.rates.iter().rev().nth(1);
        let follows = before.is_none_or(|before| rate > before + before / 4);
        if late >= LATE_SAMPLES && !follows {
            self.note_rate(self.turn.best_rate);
            self.phase = Phase::CRUISE;
            self.resize(least);
        }
    }

    fn note_rate(&mut self, rate: u64) {
        self.rates.push_back(rate);
        if self.rates.len() > RATES {
            self.rates.pop_front();
        }
    }

    fn best_rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or_default()
    }

    /// Time that bulk may wait at the rate that is known.
    fn queue(&self) -> Duration {
        queue_of(self.best_rate())
    }

    /// Time that it waits only if something is wrong.
    fn queue_max(&self) -> Duration {
        QUEUE_MAX.max(self.queue() * 2)
    }

    fn end_turn(&mut self, least: Duration, now: Moment) {
        let turn = std::mem::replace(&mut self.turn, Turn::new(now));
        let Some(trip) = turn.least else { return };
        let waited = trip.saturating_sub(least);
        match self.phase {
            Phase::Start { .. } => self.note_rate(turn.best_rate),
            Phase::Cruise { step, empty, late, draining } => {
                let late = if waited > self.queue_max() { late + 1 } else { 0 };
                if late >= LATE_TURNS {
                    self.shrink(&turn, trip, least, now);
                    return;
                }
                if late == 0 {
                    self.cut = None;
                }
                let before = self.best_rate();
                let follows = turn.best_rate > before + before / 128;
                if turn.limited || follows {
                    self.note_rate(turn.best_rate);
                }
                let drain = !draining && self.trip.take_drain(now);
                let is_empty = turn.limited && !drain && (follows || waited < self.queue() * 3 / 4);
                let empty = match (is_empty, late) {
                    (true, _) => (empty + 1).min(EMPTY_TURNS_MAX),
                    (false, 0) => 0,
                    (false, _) => empty,
                };
                self.phase = Phase::Cruise { step: (step + 1) % PROBE_TURNS, empty, late, draining: drain };
                self.resize(least);
            }
        }
    }

    /// Every sample of a turn waited too long.
    fn shrink(&mut self, turn: &Turn, trip: Duration, least: Duration, now: Moment) {
        if let (Some(cut), Some(since)) = (self.cut, turn.least_since_cut)
            && self.size > self.floor
            && since.saturating_sub(least) > cut.trip.saturating_sub(least) * 3 / 4
        {
            self.trip.adopt(since, now);
            self.cut = None;
            return;
        }
        self.rates.clear();
        self.note_rate(turn.best_rate);
        self.phase = Phase::CRUISE;
        self.resize(least);
        self.cut = Some(Cut { trip, size: self.allowed() });
    }

    /// Cruise: the window that belongs to what is known.
    fn resize(&mut self, least: Duration) {
        let Phase::Cruise { step, draining, empty, .. } = self.phase else { return };
        let queue = self.queue();
        let probe = if step == 0 { queue } else { Duration::ZERO };
        let climb = least * u32::from(empty) / 64;
        let span = if draining { least * 7 / 8 } else { least + queue + probe + climb };
        self.size = bytes_of(self.best_rate(), span);
    }
}

/// The slower, the longer, by the square root. Of two ends that send to each other and see the sum of both queues, the one
/// that has less so gets more.
fn queue_of(rate: u64) -> Duration {
    let (least, most) = QUEUE_RANGE;
    let times_1024 = (QUEUE_RATE.saturating_mul(1 << 20) / rate.max(1)).isqrt();
    let micros = u128::from(times_1024) * QUEUE.as_micros() / 1024;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).clamp(least, most)
}

/// Bytes a second.
fn rate_of(bytes: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / span.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// Bytes that `rate` delivers in `span`.
fn bytes_of(rate: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(rate) * span.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionConfig;

    const BULK: ChannelId = ChannelId(1);

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A window that has cruised at 1 MB/s and 100 ms for 5 s.
    fn cruising() -> Window {
        let mut window = Window::new(at(0), SessionConfig::default().flaw());
        window.round_trip(ms(100), at(0));
        window.phase = Phase::CRUISE;
        window.note_rate(1_000_000);
        window.resize(ms(100));
        for turn in 0..25 {
            answered(&mut window, 100_000, true, ms(100), at(turn * 200 + 100));
        }
        window
    }

    /// A PING that was sent with `in_flight` under way comes back.
    fn answered(window: &mut Window, in_flight: u64, limited: bool, trip: Duration, now: Moment) {
        let sent = Moment::from_origin(now.since_origin() - trip);
        window.limited = limited;
        let nonce = window.take_ping(in_flight, sent).unwrap_or_else(|| panic!("no PING is due at {sent:?}"));
        assert!(window.pong(nonce, now));
    }

    #[test]
    fn the_queue_is_4_ms_at_100_mbit_and_follows_the_root_of_the_rate_within_its_bounds() {
        for (rate, micros) in [
            (12_500_000, 4000),
            (50_000_000, 2000),
            (1_250_000_000, 2000),
            (3_125_000, 8000),
            (347_223, 23_999),
            (32_000, 24_000),
            (0, 24_000),
        ] {
            let queue = u64::try_from(queue_of(rate).as_micros()).unwrap();
            assert!(queue.abs_diff(micros) <= 20, "{rate}: {queue}");
        }
    }

    #[test]
    fn a_window_is_open_below_its_size_and_never_below_four_frames() {
        let mut window = Window::new(at(0), SessionConfig::default().flaw());
        for (in_flight, open) in [(0, true), (START_BYTES - 1, true), (START_BYTES, false)] {
            assert_eq!(window.is_open(in_flight, 1024, at(0)), open, "{in_flight}");
        }
        window.phase = Phase::CRUISE;
        window.resize(ms(100));
        assert_eq!(window.size, 0);
        for (in_flight, open) in [(0, true), (4095, true), (4096, false)] {
            assert_eq!(window.is_open(in_flight, 1024, at(0)), open, "{in_flight}");
        }
    }

    #[test]
    fn samples_of_a_sender_that_has_little_to_send_leave_the_rate() {
        let mut window = cruising();
        let before = window.best_rate();
        for turn in 60..100 {
            answered(&mut window, 5_000, false, ms(101), at(turn * 200));
        }
        assert_eq!(window.best_rate(), before);
    }

    #[test]
    fn one_late_turn_changes_nothing_and_two_forget_the_older_rates() {
        let mut window = cruising();
        let before = window.best_rate();
        answered(&mut window, 100_000, true, ms(300), at(5500));
        assert_eq!(window.best_rate(), before);
        answered(&mut window, 100_000, true, ms(400), at(5900));
        assert_eq!(window.best_rate(), 250_000);
    }

    #[test]
    fn delay_that_does_not_fall_with_the_window_is_the_way_itself() {
        let mut window = cruising();
        window.is_open(0, 100, at(5000));
        for turn in 0..8 {
            let in_flight = window.allowed();
            answered(&mut window, in_flight, true, ms(300), at(5500 + turn * 400));
        }
        assert_eq!(window.trip.least(), Some(ms(300)));
    }

    #[test]
    fn a_ping_of_the_path_itself_is_not_the_windows() {
        let mut window = cruising();
        assert!(!window.pong(7, at(6000)));
    }

    #[test]
    fn an_acknowledgement_counts_only_when_it_came_at_once() {
        use crate::session::ack::ACK_BYTES;
        for (news, counts) in [(ACK_BYTES - 1, false), (ACK_BYTES, true), (ACK_BYTES + 1, true)] {
            let mut window = cruising();
            window.sent(16_384, 50_000, Some((BULK, 16_384)), at(6000));
            window.turn = Turn::new(at(6030));
            window.acked(BULK, news, 70_000, at(6050));
            assert_eq!(window.turn.least.is_some(), counts, "{news}");
        }
    }
}
