//! When a channel's receiver owes its peer an acknowledgement: at 64 KiB, 25 ms, half a window of new credit or
//! FIN; at once for interactive classes; and again on each bind. At most one is pending, built when a path can
//! take it.

use std::time::Duration;

use crate::Moment;

/// Received bytes that make an acknowledgement due.
pub(super) const ACK_BYTES: u64 = 64 * 1024;
/// Longest time that received bytes wait for their acknowledgement.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// What was told to the peer and what is owed.
#[derive(Debug, Default)]
pub(super) struct AckSchedule {
    told_next: u64,
    told_max: u64,
    /// When the first byte came that was not acknowledged.
    since: Option<Moment>,
    due: bool,
}

impl AckSchedule {
    pub(super) fn new(initial_credit: u64) -> Self {
        Self { told_max: initial_credit, ..Self::default() }
    }

    /// DATA came and the next position wanted is now `next`; `at_once` skips the delay.
    pub(super) fn received(&mut self, next: u64, at_once: bool, now: Moment) {
        self.since.get_or_insert(now);
        self.due |= at_once || next.saturating_sub(self.told_next) >= ACK_BYTES;
    }

    /// Received bytes that the peer was not told of, when `next` is wanted.
    pub(super) fn untold(&self, next: u64) -> u64 {
        if self.since.is_some() { next.saturating_sub(self.told_next) } else { 0 }
    }

    /// What waits is told with the next transmission.
    pub(super) fn hasten(&mut self) {
        self.due |= self.since.is_some();
    }

    /// `grantable` could be granted out of a window of `window` bytes.
    pub(super) fn credit(&mut self, grantable: u64, window: u64) {
        self.due |= grantable.saturating_sub(self.told_max) >= (window / 2).max(1);
    }

    /// The channel has got another path.
    pub(super) fn repeat(&mut self) {
        self.due = true;
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Moment) {
        self.due = self.is_due(now);
    }

    /// Whether an acknowledgement is to be sent with the next transmission.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.due || self.since.is_some_and(|since| now.since(since) >= ACK_DELAY)
    }

    /// Whether anything at all waits to be told.
    pub(super) fn is_pending(&self) -> bool {
        self.due || self.since.is_some()
    }

    /// When [`Self::is_due`] turns true by time alone.
    pub(super) fn deadline(&self) -> Option<Moment> {
        if self.due { None } else { self.since.map(|since| since + ACK_DELAY) }
    }

    /// The peer was told.
    pub(super) fn told(&mut self, next: u64, max: u64) {
        *self = Self { told_next: next, told_max: max, since: None, due: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn an_ack_waits_25_ms_or_64_kib() {
        for (next, ms, due) in [
            (ACK_BYTES - 1, 24, false),
            (ACK_BYTES - 1, 25, true),
            (ACK_BYTES, 0, true),
            (ACK_BYTES + 1, 0, true),
        ] {
            let mut ack = AckSchedule::new(0);
            ack.received(next, false, at(0));
            assert_eq!(ack.is_due(at(ms)), due, "{next} bytes, {ms} ms");
        }
    }

    #[test]
    fn half_a_window_of_new_credit_makes_an_ack_due() {
        for (grantable, due) in [(149, false), (150, true), (151, true)] {
            let mut ack = AckSchedule::new(100);
            ack.credit(grantable, 100);
            assert_eq!(ack.is_due(at(0)), due, "{grantable}");
        }
    }

    #[test]
    fn what_was_told_is_not_owed_until_the_next_bind() {
        let mut ack = AckSchedule::new(0);
        ack.received(1, true, at(0));
        ack.told(1, 10);
        assert!(!ack.is_pending());
        assert_eq!(ack.deadline(), None);
        ack.repeat();
        assert!(ack.is_due(at(0)));
    }
}
