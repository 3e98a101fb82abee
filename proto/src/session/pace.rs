//! How fast a path drains while something waits for it, and so how large its frames may be: on a slow path a large
//! frame is time that input waits.

use std::time::Duration;

use crate::Moment;

/// Below this a path is slow, in bytes a second: 1 Mbit/s.
const SLOW_BYTES_PER_SECOND: u64 = 125_000;
/// Largest payload on a slow path.
const SLOW_PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// Time over which a rate is taken.
const SPAN: Duration = Duration::from_secs(1);

/// The pace of one path's sender, measured only while it is the path that limits.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when something has waited without a break, and how many bytes went since.
    waiting: Option<(Moment, u64)>,
    slow: bool,
}

impl Pace {
    /// `bytes` were taken by the path at `now`; `waits` says whether more is left.
    pub(super) fn sent(&mut self, bytes: usize, waits: bool, now: Moment) {
        if let Some((since, sent)) = self.waiting {
            let span = now.since(since);
            if span >= SPAN {
                let allowed = u128::from(SLOW_BYTES_PER_SECOND) * span.as_millis();
                self.slow = u128::from(sent) * 1000 < allowed;
                self.waiting = None;
            }
        }
        let sent = self.waiting.map_or((now, 0), |state| state);
        self.waiting = waits.then_some((sent.0, sent.1 + bytes as u64));
    }

    /// Largest payload of a frame, at most `limit`.
    pub(super) fn payload_max(&self, limit: usize) -> usize {
        if self.slow { limit.min(SLOW_PAYLOAD_BYTES_MAX) } else { limit }
    }
}
