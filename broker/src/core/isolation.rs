//! A broker that sees half of the mesh or less serves what is here, and advises its Targets to move, spread over
//! [`MOVE_SPREAD`]: not to somewhere, but only to a broker that they measured, that takes them and that sees more.

use std::time::Duration;

use rc_proto::Moment;

/// Over how long Targets leave an isolated broker.
pub const MOVE_SPREAD: Duration = Duration::from_secs(60);
/// What the share of a Target counts in.
pub const SHARES: u16 = 1000;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Half or more of the mesh is out of sight.
    Isolated,
    /// The mesh is in sight again.
    Whole,
}

/// Since when this broker is isolated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Isolation {
    since: Option<Moment>,
}

impl Isolation {
    /// Takes the health of the mesh; says whether that is news.
    pub fn handle_health(&mut self, is_healthy: bool, now: Moment) -> Option<Change> {
        match (is_healthy, self.since) {
            (false, None) => {
                self.since = Some(now);
                Some(Change::Isolated)
            }
            (true, Some(_)) => {
                self.since = None;
                Some(Change::Whole)
            }
            (false, Some(_)) | (true, None) => None,
        }
    }

    /// When a Target whose share of the spread is `share` of [`SHARES`] is to move, from now; `None` while it is to
    /// stay.
    pub fn move_after(&self, share: u16, now: Moment) -> Option<Duration> {
        let slot = MOVE_SPREAD * u32::from(share.min(SHARES)) / u32::from(SHARES);
        self.since.map(|since| slot.saturating_sub(now.since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(s))
    }

    #[test]
    fn targets_are_advised_to_move_spread_over_a_minute_while_the_broker_is_isolated() {
        let mut isolation = Isolation::default();
        assert_eq!(isolation.handle_health(true, at(0)), None);
        assert_eq!(isolation.move_after(500, at(0)), None);
        assert_eq!(isolation.handle_health(false, at(10)), Some(Change::Isolated));
        assert_eq!(isolation.handle_health(false, at(11)), None);
        let advised = |share, now| isolation.move_after(share, at(now)).map(|after| after.as_secs());
        assert_eq!([0, 500, 1_000].map(|share| advised(share, 10)), [Some(0), Some(30), Some(60)]);
        assert_eq!([0, 500, 1_000].map(|share| advised(share, 30)), [Some(0), Some(10), Some(40)]);
        assert_eq!(advised(1_000, 99), Some(0));
        assert_eq!(isolation.handle_health(true, at(99)), Some(Change::Whole));
        assert_eq!(isolation.move_after(0, at(99)), None);
    }
}
