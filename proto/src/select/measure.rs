//! Probing one broker: five probes 50 ± 10 ms apart, each at most 300 ms; a lost one counts 300 ms.
//!
//! The first sample on a connection pays for what is cold (slow start, ARP, a sleeping radio), so it is dropped:
//! a [`Warmth::Cold`] measurement sends one probe more and forgets its answer. After a race the probe that
//! completed the attempt was that first one: use [`Warmth::Warm`].
//!
//! Driver, per broker:
//! ```text
//! while let Some(nonce) = m.poll_probe(now, &mut rng) { send Ping { nonce } }
//! Pong   → if let Some(sample) = m.handle_pong(nonce, now) { standings.add_sample(&broker, sample) }
//! timer  → for sample in m.handle_timeout(now) { standings.add_sample(&broker, sample) }
//! done   → m.is_finished(), or the race's window closed: m.close()
//! ```

use std::time::Duration;

use rand::Rng;

use super::score::Sample;
use crate::Moment;

/// Probes that count.
pub const PROBES: u8 = 5;
/// Shortest and longest distance of two probes, in ms.
const DISTANCE_MS: std::ops::RangeInclusive<u64> = 40..=60;
/// After this a probe is lost, and counts this much.
pub const PROBE_MAX: Duration = Duration::from_millis(300);

/// Whether the connection has carried a probe already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// It has not, or not lately: the first sample is dropped.
    Cold,
    /// It has: every sample counts.
    Warm,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    nonce: u64,
    sent: Moment,
    counts: bool,
}

/// Probes of one broker; see the module.
#[derive(Debug, Clone)]
pub struct Measurement {
    left: u8,
    first_is_dropped: bool,
    next: Moment,
    outstanding: Vec<Outstanding>,
}

impl Measurement {
    /// A measurement whose first probe is due at `now`.
    pub fn new(warmth: Warmth, now: Moment) -> Self {
        let first_is_dropped = warmth == Warmth::Cold;
        Self {
            left: PROBES + u8::from(first_is_dropped),
            first_is_dropped,
            next: now,
            outstanding: Vec::new(),
        }
    }

    /// The nonce of the probe to send now, if one is due. Call it until it says `None`.
    pub fn poll_probe(&mut self, now: Moment, rng: &mut impl Rng) -> Option<u64> {
        if self.left == 0 || now < self.next {
            return None;
        }
        let counts = !std::mem::take(&mut self.first_is_dropped);
        self.left -= 1;
        self.next = now + Duration::from_millis(rng.random_range(DISTANCE_MS));
        let nonce = rng.random();
        self.outstanding.push(Outstanding { nonce, sent: now, counts });
        Some(nonce)
    }

    /// A Pong came. `None` when its probe was not sent by this measurement, is lost already, or does not count.
    pub fn handle_pong(&mut self, nonce: u64, now: Moment) -> Option<Sample> {
        let place = self.outstanding.iter().position(|probe| probe.nonce == nonce)?;
        let probe = self.outstanding.swap_remove(place);
        let round_trip = now.since(probe.sent);
        let lost = round_trip >= PROBE_MAX;
        probe.counts.then_some(Sample { round_trip: round_trip.min(PROBE_MAX), at: now, lost })
    }

    /// The samples of the probes that are lost by now.
    pub fn handle_timeout(&mut self, now: Moment) -> Vec<Sample> {
        let mut lost = Vec::new();
        self.outstanding.retain(|probe| {
            let waits = now < probe.sent + PROBE_MAX;
            if !waits && probe.counts {
                lost.push(Sample { round_trip: PROBE_MAX, at: now, lost: true });
            }
            waits
        });
        lost
    }

    /// When to call [`Self::poll_probe`] or [`Self::handle_timeout`] next; `None` when finished.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let next = (self.left > 0).then_some(self.next);
        self.outstanding.iter().map(|probe| probe.sent + PROBE_MAX).chain(next).min()
    }

    /// Whether every probe was sent and is answered or lost.
    pub fn is_finished(&self) -> bool {
        self.left == 0 && self.outstanding.is_empty()
    }

    /// Ends it now. Probes on their way count neither as answered nor as lost.
    pub fn close(&mut self) {
        self.left = 0;
        self.outstanding.clear();
    }
}
