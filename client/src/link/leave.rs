//! Moving away from a broker that is about to stop: the link elsewhere first, then leave. Tried again until it is done or
//! the broker stops; without another broker, stay. An isolated broker that advises its Targets to move is left for one that
//! is linked to more of the mesh, and for no other.

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

/// Why a broker is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It stops.
    Drains,
    /// It sees little of the mesh and advises its Targets to move.
    Isolated,
}

/// A move that is not done yet.
#[derive(Debug)]
pub(super) struct Leaving {
    cause: Cause,
    until: Moment,
    next: Moment,
    backoff: Backoff,
}

impl Leaving {
    /// The broker stops `left` after `now`; the first attempt is due after `smear`, at most [`SMEAR_MAX`] and half of
    /// what is left.
    pub(super) fn new(now: Moment, left: Duration, smear: Duration) -> Self {
        let next = now + smear.min(SMEAR_MAX).min(left / 2);
        let backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        Self { cause: Cause::Drains, until: now + left, next, backoff }
    }

    /// An isolated broker advises to move `after`; one attempt, until it advises again.
    pub(super) fn isolated(now: Moment, after: Duration) -> Self {
        let (next, backoff) = (now + after, Backoff::new(RETRY_FIRST, RETRY_MAX));
        Self { cause: Cause::Isolated, until: next, next, backoff }
    }

    /// Whether an advice is what it follows; a drain is more than that.
    pub(super) fn is_advice(&self) -> bool {
        self.cause == Cause::Isolated
    }

    /// When the next attempt is due; `None` when the broker will have stopped by then.
    pub(super) fn due(&self) -> Option<Moment> {
        Some(self.next).filter(|next| *next <= self.until)
    }
}

impl Keeper {
    /// One attempt to stand elsewhere. A failed one leaves the pin where it is and says when the next is due.
    pub(super) async fn try_to_leave(&mut self, broker: &BrokerId, leaving: &mut Leaving) -> Option<HoldEnd> {
        if leaving.cause == Cause::Isolated {
            // Whoever answers is asked again with the next keep-alive.
            leaving.next = leaving.until + RETRY_FIRST;
            let located = self.locator.dial_better_linked(broker).await?;
            return self.establish(located).await.ok().map(|to| HoldEnd::Moved(Box::new(to)));
        }
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
    fn an_advice_is_followed_once_when_its_time_has_come() {
        let after = Duration::from_secs(30);
        let leaving = Leaving::isolated(Moment::ORIGIN, after);
        assert_eq!((leaving.due(), leaving.is_advice()), (Some(Moment::ORIGIN + after), true));
        assert!(!Leaving::new(Moment::ORIGIN, after, Duration::ZERO).is_advice());
    }

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
