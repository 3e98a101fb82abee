//! Moving away from a broker that is about to stop: the link elsewhere first, then leave. Tried again until it is done or
//! the broker stops; without another broker, stay.

use std::time::Duration;

use rc_proto::Moment;
use rc_proto::select::{Backoff, Trigger};
use rc_proto::wire::BrokerId;

use super::keeper::{HoldEnd, Keeper};
use super::linker::Rejection;
use super::reserve::Wanted;

/// Longest wait before the first attempt: a broker whose sessions have moved waits 3 s for its idle Targets.
const SMEAR_MAX: Duration = Duration::from_secs(2);
/// First and longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A move that is not done yet.
#[derive(Debug)]
pub(super) struct Leaving {
    until: Moment,
    next: Moment,
    backoff: Backoff,
}

impl Leaving {
    /// The broker stops `left` after `now`; the first attempt is due after `smear`, at most [`SMEAR_MAX`] and half of
    /// what is left.
    pub(super) fn new(now: Moment, left: Duration, smear: Duration) -> Self {
        let next = now + smear.min(SMEAR_MAX).min(left / 2);
        Self { until: now + left, next, backoff: Backoff::new(RETRY_FIRST, RETRY_MAX) }
    }

    /// When the next attempt is due; `None` when the broker will have stopped by then.
    pub(super) fn due(&self) -> Option<Moment> {
        Some(self.next).filter(|next| *next <= self.until)
    }
}

impl Keeper {
    /// One attempt to stand elsewhere. A failed one leaves the pin where it is and says when the next is due.
    pub(super) async fn try_to_leave(&mut self, broker: &BrokerId, leaving: &mut Leaving) -> Option<HoldEnd> {
        if let Some(second) = self.reserve.take(Wanted::Lasting).await {
            let to = self.promote(second, "the second link serves, the pinned broker stops", Duration::ZERO);
            return Some(HoldEnd::Moved(Box::new(to)));
        }
        let mut avoid = vec![broker.clone()];
        avoid.extend(self.shunned.iter().cloned());
        let rejection = match self.locator.locate(Trigger::Drain, &avoid).await {
            Ok(located) => match self.establish(located).await {
                Ok(to) => return Some(HoldEnd::Moved(Box::new(to))),
                Err(rejection) => rejection,
            },
            Err(error) => {
                tracing::warn!(%broker, %error, "the pinned broker drains and there is no other yet");
                self.shunned.clear();
                Rejection::Failed(String::new())
            }
        };
        let slot = rejection.slot();
        if let Rejection::Superseded(by) = rejection {
            return Some(HoldEnd::Superseded(by));
        }
        if let Some(to) = self.try_alternates(Trigger::Drain, &avoid).await {
            return Some(HoldEnd::Moved(Box::new(to)));
        }
        let pause = match slot {
            Some(slot) => slot,
            None => RETRY_FIRST + leaving.backoff.next_delay(&mut rand::rng()),
        };
        leaving.next = self.linker.reach.now() + pause;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_stops_is_left_within_two_seconds_and_half_of_its_time() {
        let (now, minute) = (Moment::ORIGIN, Duration::from_secs(60));
        let due = |left, smear| Leaving::new(now, left, smear).due().unwrap();
        assert_eq!(due(minute, Duration::ZERO), now);
        assert_eq!(due(minute, Duration::from_millis(1500)), now + Duration::from_millis(1500));
        assert_eq!(due(minute, minute), now + Duration::from_secs(2));
        assert_eq!(due(Duration::from_secs(1), minute), now + Duration::from_millis(500));
    }
}
