//! When this broker stops, and when each path has to move.
//!
//! ```text
//! Serving --request--> Draining{deadline} --no path left, or deadline--> over
//! ```

use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::wire::PathId;

/// Of the time to the deadline, the part in which paths start to move; the rest is for the moves themselves.
const SPREAD_SHARE: u32 = 2;

/// Whether the broker serves or is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Takes everything.
    #[default]
    Serving,
    /// Takes no new session.
    Draining {
        /// When it stops at the latest.
        deadline: Moment,
    },
}

impl Phase {
    /// Whether new sessions are taken.
    pub fn is_accepting(self) -> bool {
        match self {
            Self::Serving => true,
            Self::Draining { .. } => false,
        }
    }

    /// Milliseconds until it stops, while it drains.
    pub fn deadline_ms(self, now: Moment) -> Option<u32> {
        match self {
            Self::Serving => None,
            Self::Draining { deadline } => {
                Some(u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX))
            }
        }
    }

    /// Whether the deadline is over.
    pub fn is_past(self, now: Moment) -> bool {
        match self {
            Self::Serving => false,
            Self::Draining { deadline } => now >= deadline,
        }
    }

    /// Whether it may stop now.
    pub fn is_over(self, open_paths: usize, now: Moment) -> bool {
        match self {
            Self::Serving => false,
            Self::Draining { .. } => open_paths == 0 || self.is_past(now),
        }
    }
}

/// Gives each path its slot for moving, in ms from now: evenly over `spread` (at most half of the time to the
/// deadline), in an order drawn at random.
pub fn slots(
    paths: &[PathId],
    deadline: Duration,
    spread: Duration,
    rng: &mut impl Rng,
) -> Vec<(PathId, u32)> {
    let window = spread.min(deadline / SPREAD_SHARE);
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let count = u64::try_from(paths.len().max(1)).unwrap_or(u64::MAX);
    let mut order: Vec<PathId> = paths.to_vec();
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
        .into_iter()
        .zip(0_u64..)
        .map(|(path, index)| {
            (path, u32::try_from(window_ms.saturating_mul(index) / count).unwrap_or(u32::MAX))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn paths(count: u8) -> Vec<PathId> {
        (0..count).map(|n| PathId([n; 16])).collect()
    }

    #[test]
    fn slots_spread_evenly_over_half_the_time_at_most() {
        let mut rng = SmallRng::seed_from_u64(1);
        let spread = slots(&paths(100), Duration::from_secs(60), Duration::from_secs(60), &mut rng);
        let times: Vec<_> = spread.iter().map(|(_, ms)| *ms).collect();
        assert_eq!(times.first(), Some(&0));
        assert_eq!(times.last(), Some(&29_700));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 300));
        let mut ids: Vec<_> = spread.iter().map(|(path, _)| *path).collect();
        assert_ne!(ids, paths(100));
        ids.sort();
        assert_eq!(ids, paths(100));
    }

    #[test]
    fn a_single_path_moves_at_once_and_none_need_no_slot() {
        let mut rng = SmallRng::seed_from_u64(1);
        let spread = Duration::from_secs(30);
        assert_eq!(slots(&paths(1), spread, spread, &mut rng), [(PathId([0; 16]), 0)]);
        assert_eq!(slots(&[], spread, spread, &mut rng), []);
    }

    #[test]
    fn a_draining_broker_stops_with_its_last_path_or_at_the_deadline() {
        let now = Moment::ORIGIN;
        let deadline = now + Duration::from_secs(60);
        let draining = Phase::Draining { deadline };
        assert!(!Phase::Serving.is_over(0, now));
        assert!(draining.is_over(0, now));
        assert!(!draining.is_over(1, now + Duration::from_millis(59_999)));
        assert!(draining.is_over(1, deadline));
        assert_eq!(draining.deadline_ms(now), Some(60_000));
        assert!(!draining.is_accepting());
    }
}
