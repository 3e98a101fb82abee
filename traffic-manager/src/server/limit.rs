//! Response rate limiting: what one network may cost us and, with forged source addresses, a victim.
//!
//! A leaky bucket for each source network (/24 of IPv4, /56 of IPv6) in a table of fixed size. Networks share a bucket
//! when their keyed hashes meet; which do is not to be foreseen. A response that is much longer than its query costs
//! more, so that amplification is what ends first. Beyond the limit every second response, by chance, goes out without records and
//! with TC set, which sends an honest client to TCP and a victim no more than was sent to us; the others are dropped.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets: half a MiB.
const BUCKETS: usize = 1 << 16;
/// How far a bucket may be ahead of its rate: this many seconds of it.
const BURST_NANOSECONDS: u64 = 1_000_000_000;

/// What becomes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// A short one is sent in its place, with TC set.
    Shorten,
    /// Nothing is sent.
    Drop,
}

/// The limiter; all threads share it.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// What one response takes of a bucket, in nanoseconds.
    cost: u64,
    hasher: RandomState,
    /// When each bucket will be empty, in nanoseconds since the start.
    buckets: Box<[AtomicU64]>,
}

impl RateLimit {
    /// At most `per_second` responses to one network.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            cost: BURST_NANOSECONDS / u64::from(per_second.max(1)),
            hasher: RandomState::new(),
            buckets: std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect(),
        }
    }

    /// Judges a response of `sent` bytes to a query of `received` bytes at `now`, in nanoseconds since the start.
    /// `coin` decides which of those beyond the limit are told.
    pub(super) fn judge(
        &self,
        source: IpAddr,
        received: usize,
        sent: usize,
        now: u64,
        coin: bool,
    ) -> Verdict {
        let hash = self.hasher.hash_one(network(source));
        let slot = usize::try_from(hash % (BUCKETS as u64)).unwrap_or(0);
        let Some(bucket) = self.buckets.get(slot) else { return Verdict::Send };
        // Twice as long as the query is free; beyond that it counts for as many responses as it is times longer.
        let weight = u64::try_from(sent / (2 * received.max(1))).unwrap_or(u64::MAX).max(1);
        let full = now + BURST_NANOSECONDS;
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let after = empty_at.max(now) + self.cost.saturating_mul(weight);
            (after <= full).then_some(after)
        });
        match taken {
            Ok(_) => Verdict::Send,
            Err(_) if coin => Verdict::Shorten,
            Err(_) => Verdict::Drop,
        }
    }
}

/// The network that an address belongs to.
fn network(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(address) => u64::from(u32::from(address) >> 8),
        IpAddr::V6(address) => {
            let upper = (Ipv6Addr::to_bits(address) >> 72) & u128::from(u64::MAX);
            u64::try_from(upper).unwrap_or(0) | (1 << 63)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn source(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` responses spread over one second are sent whole.
    fn sent_in_a_second(limit: &RateLimit, from: IpAddr, count: u64, bytes: usize, begin: u64) -> u64 {
        let judged = (0..count).map(|n| limit.judge(from, 40, bytes, begin + n * SECOND / count, false));
        judged.filter(|verdict| *verdict == Verdict::Send).count() as u64
    }

    #[test]
    fn a_network_gets_its_rate_after_a_burst_and_others_are_not_touched() {
        let limit = RateLimit::new(100);
        assert_eq!(sent_in_a_second(&limit, source("198.51.100.7"), 10_000, 60, 0), 199);
        assert_eq!(sent_in_a_second(&limit, source("198.51.100.99"), 10_000, 60, SECOND), 100);
        assert_eq!(sent_in_a_second(&limit, source("203.0.113.7"), 100, 60, SECOND), 100);
    }

    #[test]
    fn long_answers_to_short_queries_use_the_rate_up_sooner() {
        let limit = RateLimit::new(100);
        let from = source("2001:db8:1:2::7");
        sent_in_a_second(&limit, from, 10_000, 60, 0);
        assert_eq!(sent_in_a_second(&limit, from, 10_000, 400, SECOND), 20, "five times as long as is free");
    }

    #[test]
    fn networks_are_a_24_and_a_56() {
        assert_eq!(network(source("198.51.100.7")), network(source("198.51.100.250")));
        assert_ne!(network(source("198.51.100.7")), network(source("198.51.101.7")));
        assert_eq!(network(source("2001:db8:1:200::7")), network(source("2001:db8:1:2ff::1")));
        assert_ne!(network(source("2001:db8:1:200::7")), network(source("2001:db8:1:300::7")));
    }

    #[test]
    fn beyond_the_limit_the_coin_says_which_are_told() {
        let limit = RateLimit::new(1);
        let from = source("198.51.100.7");
        limit.judge(from, 40, 40, 0, true);
        assert_eq!(limit.judge(from, 40, 400, 0, true), Verdict::Shorten);
        assert_eq!(limit.judge(from, 40, 400, 0, false), Verdict::Drop);
    }
}
