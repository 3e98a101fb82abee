//! Whether one of the workers that carry the data is stuck.
//!
//! A worker that is neither parked nor makes progress for [`STUCK_AFTER`] is. Looks are taken from outside the workers,
//! every [`LOOK_EVERY`]; one that comes late itself, after a suspend or for want of a processor, proves nothing, and
//! everything is judged anew from it on.

use std::time::Duration;

use rc_proto::Moment;

/// Distance of two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A worker without progress for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);
/// A look that is later than this proves nothing.
const LATE: Duration = Duration::from_millis(200);

/// One worker at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Changes whenever the worker has finished something.
    pub progress: (Duration, u64),
    /// Whether it waits for work.
    pub is_parked: bool,
}

/// What is remembered between looks.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Each worker as it was seen last, and since when it is like that.
    seen: Vec<(Worker, Moment)>,
    looked_at: Option<Moment>,
}

impl Watchdog {
    /// Takes a look at all workers; the first that is stuck.
    pub fn handle_look(&mut self, workers: &[Worker], now: Moment) -> Option<usize> {
        let is_late = self.looked_at.is_none_or(|last| now.since(last) > LOOK_EVERY + LATE);
        self.looked_at = Some(now);
        if is_late || self.seen.len() != workers.len() {
            self.seen = workers.iter().map(|worker| (*worker, now)).collect();
            return None;
        }
        for ((seen, since), worker) in self.seen.iter_mut().zip(workers) {
            if worker.is_parked || worker.progress != seen.progress {
                (*seen, *since) = (*worker, now);
            }
        }
        self.seen.iter().position(|(_, since)| now.since(*since) >= STUCK_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn worker(progress: u64, is_parked: bool) -> Worker {
        Worker { progress: (Duration::ZERO, progress), is_parked }
    }

    /// Looks on time from 0 on; when a worker was found stuck.
    fn watch(until_ms: u64, workers: impl Fn(u64) -> [Worker; 2]) -> Option<(u64, usize)> {
        let mut watchdog = Watchdog::default();
        (0..=until_ms / 250)
            .map(|look| look * 250)
            .find_map(|ms| watchdog.handle_look(&workers(ms), at(ms)).map(|stuck| (ms, stuck)))
    }

    #[test]
    fn a_worker_without_progress_is_stuck_after_two_seconds() {
        let found = watch(10_000, |ms| [worker(ms, false), worker(ms.min(1_000), false)]);
        assert_eq!(found, Some((3_000, 1)));
    }

    #[test]
    fn workers_that_wait_or_are_busy_are_not_stuck() {
        assert_eq!(watch(60_000, |ms| [worker(7, true), worker(ms, false)]), None);
        assert_eq!(watch(60_000, |ms| [worker(ms / 2_000, false), worker(ms / 1_999, false)]), None);
    }

    #[test]
    fn a_late_look_proves_nothing() {
        let mut watchdog = Watchdog::default();
        let stuck = [worker(7, false)];
        for look in 0..=7 {
            assert_eq!(watchdog.handle_look(&stuck, at(look * 250)), None);
        }
        assert_eq!(watchdog.handle_look(&stuck, at(60_000)), None);
        for look in 1..=7 {
            assert_eq!(watchdog.handle_look(&stuck, at(60_000 + look * 250)), None);
        }
        assert_eq!(watchdog.handle_look(&stuck, at(62_000)), Some(0));
    }
}
