//! When to dial again: full jitter over a doubling ceiling, so that a herd that lost one broker spreads out.

use std::time::Duration;

use rand::Rng;

/// Ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(100);
/// Ceiling that the waits grow to.
const CEILING: Duration = Duration::from_secs(5);

/// The back-off of one thing that is dialled; pure.
///
/// It starts over only after [`Self::proven`]: a handshake alone is not service, so a broker that accepts and then
/// drops everybody is not hammered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redial {
    failures: u32,
}

impl Redial {
    /// No failure yet.
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// Notes a failed attempt; returns how long to wait before the next: uniform between zero and
    /// 100 ms · 2ⁿ, at most 5 s.
    pub fn failed(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        rng.random_range(Duration::ZERO..=ceiling)
    }

    /// Real traffic came back: the next failure waits as if it were the first.
    pub fn proven(&mut self) {
        self.failures = 0;
    }

    /// Failures since traffic last came back.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn ceiling(self) -> Duration {
        2_u32.checked_pow(self.failures).map_or(CEILING, |factor| FIRST.saturating_mul(factor).min(CEILING))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_ceiling_doubles_from_100_ms_to_5_s() {
        let mut redial = Redial::new();
        let mut rng = SmallRng::seed_from_u64(1);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(redial.ceiling(), Duration::from_millis(expected));
            assert!(redial.failed(&mut rng) <= Duration::from_millis(expected));
        }
        let mut worn = Redial { failures: u32::MAX };
        assert!(worn.failed(&mut rng) <= CEILING);
    }

    #[test]
    fn waits_spread_over_the_whole_range() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut waits: Vec<_> =
            (0..1000).map(|_| Redial { failures: 9 }.failed(&mut rng).as_millis()).collect();
        waits.sort_unstable();
        assert!(waits[50] < 500, "{}", waits[50]);
        assert!((2000..3000).contains(&waits[500]), "{}", waits[500]);
        assert!(waits[950] > 4500, "{}", waits[950]);
    }

    #[test]
    fn only_traffic_starts_it_over() {
        let mut redial = Redial::new();
        let mut rng = SmallRng::seed_from_u64(3);
        redial.failed(&mut rng);
        redial.failed(&mut rng);
        assert_eq!(redial.failures(), 2);
        redial.proven();
        assert_eq!(redial.ceiling(), FIRST);
    }
}
