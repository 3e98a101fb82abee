//! How often something may happen; pure.

use std::time::Duration;

use rc_proto::Moment;

/// A bucket that `count` things fill and that empties evenly over `span`.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    count: u32,
    span: Duration,
    /// When the bucket will be empty if nothing more comes.
    empty_at: Moment,
}

impl RateLimit {
    /// `count` at once, and `count` in each `span` in the long run.
    pub(crate) fn new(count: u32, span: Duration) -> Self {
        Self { count, span, empty_at: Moment::ORIGIN }
    }

    /// Takes one, if one more is allowed at `now`.
    pub(crate) fn take(&mut self, now: Moment) -> bool {
        let Some(each) = self.span.checked_div(self.count) else { return false };
        let filled = self.empty_at.max(now) + each;
        if filled.since(now) > self.span {
            return false;
        }
        self.empty_at = filled;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn as_many_as_the_limit_pass_at_once_and_no_more() {
        for limit in [1, 9, 10, 30] {
            let mut rate = RateLimit::new(limit, Duration::from_secs(1));
            let passed = (0..limit + 2).filter(|_| rate.take(at(5000))).count();
            assert_eq!(passed, usize::try_from(limit).unwrap());
        }
    }

    #[test]
    fn what_was_taken_comes_back_evenly() {
        let mut rate = RateLimit::new(10, Duration::from_secs(1));
        while rate.take(at(0)) {}
        assert!(!rate.take(at(99)));
        assert!(rate.take(at(100)));
        assert!(!rate.take(at(101)));
        let passed = (0..20).filter(|_| rate.take(at(60_000))).count();
        assert_eq!(passed, 10);
    }

    #[test]
    fn a_limit_of_zero_lets_nothing_pass() {
        assert!(!RateLimit::new(0, Duration::from_secs(1)).take(at(0)));
    }
}
