//! The least round trip of the last 5 to 10 s.

use std::time::Duration;

use crate::Moment;

/// A minimum is taken over each span, and counts for one more.
const SPAN: Duration = Duration::from_secs(5);
/// Age of a span at which a round trip without a queue is still to be made, if it had none.
const DRAIN_AT: Duration = Duration::from_secs(4);
/// As near to the least as this, a round trip had no queue.
const SAME: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
struct Span {
    began: Moment,
    least: Duration,
    drained: bool,
}

/// The least round trip.
#[derive(Debug, Default)]
pub(super) struct LeastTrip {
    current: Option<Span>,
    previous: Option<Duration>,
}

impl LeastTrip {
    /// Takes a round trip; returns the least.
    pub(super) fn observe(&mut self, trip: Duration, now: Moment) -> Duration {
        match &mut self.current {
            Some(span) if now.since(span.began) < SPAN => span.least = span.least.min(trip),
            Some(_) | None => {
                self.previous = self.current.map(|span| span.least);
                self.current = Some(Span { began: now, least: trip, drained: false });
            }
        }
        self.least().unwrap_or(trip)
    }

    /// The round trips of now have a queue that says nothing: what is known of before stays valid.
    pub(super) fn prolong(&mut self, now: Moment) {
        if let Some(span) = self.current.as_mut() {
            span.began = now;
        }
    }

    pub(super) fn least(&self) -> Option<Duration> {
        [self.current.map(|span| span.least), self.previous].into_iter().flatten().min()
    }

    /// Whether the queue is to be emptied now; says so once a span.
    pub(super) fn take_drain(&mut self, now: Moment) -> bool {
        let (Some(span), Some(previous)) = (self.current.as_mut(), self.previous) else { return false };
        let wanted = !span.drained && now.since(span.began) >= DRAIN_AT && span.least > previous + SAME;
        span.drained |= wanted;
        wanted
    }

    /// From now on `trip` is the least.
    pub(super) fn adopt(&mut self, trip: Duration, now: Moment) {
        self.previous = None;
        self.current = Some(Span { began: now, least: trip, drained: false });
    }
}
