//! Leaving out what fails, for a while that doubles, and waiting before the next attempt.
//!
//! Three failures in a row or one dead link eject a broker for 5 s·2ⁿ, at most 300 s; never more than half of
//! those known are ejected at a time, since then it is more likely our own network that fails.
//!
//! ```text
//! dial failed   → ejections.handle_failure(&broker, known, now)
//! link died     → ejections.handle_dead_link(&broker, known, now)
//! pong / traffic→ ejections.handle_success(&broker, now)
//! next attempt  → sleep(backoff.next_delay(&mut rng))
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;

use crate::Moment;

/// Failures in a row that eject.
pub const FAILURES_TO_EJECT: u32 = 3;
/// The first ejection.
pub const EJECTION_BASE: Duration = Duration::from_secs(5);
/// The longest ejection; after this long without another one the doubling starts over.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Entries kept; the one whose ejection ends first is forgotten first.
pub const ENTRIES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    failures: u32,
    ejections: u32,
    until: Moment,
}

/// Who is left out until when. The key is a broker id, or an address for what never answered.
#[derive(Debug, Clone)]
pub struct Ejections<K> {
    entries: BTreeMap<K, Entry>,
}

impl<K> Default for Ejections<K> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Ejections<K> {
    /// A dial or a probe round failed. `known` is how many candidates there are. Says whether `key` is ejected now.
    pub fn handle_failure(&mut self, key: &K, known: usize, now: Moment) -> bool {
        let entry = self.entry(key, now);
        entry.failures = entry.failures.saturating_add(1);
        entry.failures >= FAILURES_TO_EJECT && self.eject(key, known, now)
    }

    /// A link that stood has died. Says whether `key` is ejected now.
    pub fn handle_dead_link(&mut self, key: &K, known: usize, now: Moment) -> bool {
        self.entry(key, now).failures = FAILURES_TO_EJECT;
        self.eject(key, known, now)
    }

    /// `key` answered: its failures are no longer in a row, and an ejection ends.
    pub fn handle_success(&mut self, key: &K, now: Moment) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failures = 0;
        if now >= entry.until + EJECTION_MAX {
            self.entries.remove(key);
        } else {
            entry.until = entry.until.min(now);
        }
    }

    /// Whether `key` is left out at `now`.
    pub fn is_ejected(&self, key: &K, now: Moment) -> bool {
        self.entries.get(key).is_some_and(|entry| now < entry.until)
    }

    /// Who is left out at `now`, and for how long yet.
    pub fn ejected(&self, now: Moment) -> impl Iterator<Item = (&K, Duration)> {
        self.entries
            .iter()
            .filter(move |(_, entry)| now < entry.until)
            .map(move |(key, entry)| (key, entry.until.since(now)))
    }

    /// Forgets everything, for example when the network changed.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn entry(&mut self, key: &K, now: Moment) -> &mut Entry {
        if !self.entries.contains_key(key) && self.entries.len() >= ENTRIES_MAX {
            let earliest = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(earliest) = earliest.map(|(key, _)| key.clone()) {
                self.entries.remove(&earliest);
            }
        }
        let entry = self.entries.entry(key.clone()).or_insert(Entry { until: now, ..Entry::default() });
        if now >= entry.until + EJECTION_MAX {
            entry.ejections = 0;
        }
        entry
    }

    fn eject(&mut self, key: &K, known: usize, now: Moment) -> bool {
        let others = self.ejected(now).filter(|(ejected, _)| *ejected != key).count();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if (others + 1) * 2 > known {
            return now < entry.until;
        }
        let factor = 2_u32.checked_pow(entry.ejections).unwrap_or(u32::MAX);
        entry.until = entry.until.max(now + EJECTION_BASE.saturating_mul(factor).min(EJECTION_MAX));
        entry.ejections = entry.ejections.saturating_add(1);
        entry.failures = 0;
        true
    }
}

/// Full-jitter back-off: a random part of a span that doubles to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    limit: Duration,
    attempts: u32,
}

impl Backoff {
    /// After a lost broker, once every ranked one was tried.
    pub const fn reconnect() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }

    /// A back-off whose n-th delay is drawn from `0..=min(limit, base·2ⁿ)`.
    pub const fn new(base: Duration, limit: Duration) -> Self {
        Self { base, limit, attempts: 0 }
    }

    /// The next delay.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let factor = 2_u32.checked_pow(self.attempts).unwrap_or(u32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        rng.random_range(Duration::ZERO..=self.base.saturating_mul(factor).min(self.limit))
    }

    /// Starts over; call it after real traffic, not after a handshake.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Longest spread that a broker may ask for.
pub const RECONNECT_SPREAD_MAX: Duration = Duration::from_secs(60);

/// An idle Target's share of the `reconnect_spread_ms` that its lost broker had announced.
pub fn reconnect_share(spread_ms: u32, rng: &mut impl Rng) -> Duration {
    let spread = Duration::from_millis(spread_ms.into()).min(RECONNECT_SPREAD_MAX);
    rng.random_range(Duration::ZERO..=spread)
}
