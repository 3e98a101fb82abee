//! Spreads frames over time, so that acknowledgements which come together do not become a queue in front of the line.

use std::time::Duration;

use crate::Moment;

/// Time worth of bytes that may go at once: what a late timer may cost, and what input may wait for on top.
const BURST: Duration = Duration::from_millis(5);

/// The pace of one path's bulk.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// Time that what was sent takes at the pace, as of a moment.
    owed: Option<(Moment, Duration)>,
    wake: Option<Moment>,
}

impl Pacer {
    /// `bytes` were sent at a pace of `window` a `span`.
    pub(super) fn sent(&mut self, bytes: u64, window: u64, span: Duration, now: Moment) {
        let micros = u128::from(bytes) * span.as_micros() / u128::from(window.max(1));
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(span);
        self.owed = Some((now, self.owed(now) + cost));
    }

    fn owed(&self, now: Moment) -> Duration {
        self.owed.map_or(Duration::ZERO, |(at, owed)| owed.saturating_sub(now.since(at)))
    }

    /// Whether a frame may go now; if not, [`Self::deadline`] says when.
    pub(super) fn is_open(&mut self, now: Moment) -> bool {
        let wait = self.owed(now).saturating_sub(BURST);
        self.wake = (!wait.is_zero()).then(|| now + wait);
        wait.is_zero()
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.wake
    }

    /// The deadline was noticed: whoever may send looks by itself.
    pub(super) fn tick(&mut self, now: Moment) {
        self.wake = self.wake.filter(|at| *at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_pace() {
        let mut pacer = Pacer::default();
        let span = Duration::from_millis(100);
        for (ms, open, wake) in
            [(0, true, None), (0, true, None), (0, true, None), (0, false, Some(at(1))), (1, true, None)]
        {
            assert_eq!(pacer.is_open(at(ms)), open);
            assert_eq!(pacer.deadline(), wake);
            if open {
                pacer.sent(2_000, 100_000, span, at(ms));
            }
        }
    }

    #[test]
    fn a_deadline_that_was_noticed_is_no_deadline_any_more() {
        let mut pacer = Pacer::default();
        pacer.sent(9_000, 100_000, Duration::from_millis(100), at(0));
        assert!(!pacer.is_open(at(0)));
        pacer.tick(at(3));
        assert_eq!(pacer.deadline(), Some(at(4)));
        pacer.tick(at(4));
        assert_eq!(pacer.deadline(), None);
    }
}
