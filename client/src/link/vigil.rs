//! Notices that this machine slept, or that its own address changed: then a link may be dead without a word. Pure.

use std::net::IpAddr;
use std::time::Duration;

use rc_proto::Moment;

/// Between two looks while a session lives, and while none does.
const LOOK_IN_SESSION: Duration = Duration::from_secs(1);
const LOOK_IDLE: Duration = Duration::from_secs(5);
/// A look that comes later than this was slept through: timers fire late on a busy machine, but not by this much.
const SLEPT_MIN: Duration = Duration::from_secs(5);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing new.
    Calm,
    /// The machine slept about this long.
    Slept(Duration),
    /// The address that it uses towards the broker is another one.
    Moved { from: IpAddr, to: IpAddr },
}

/// Looks after one link.
#[derive(Debug)]
pub(super) struct Vigil {
    source: Option<IpAddr>,
    next: Moment,
}

impl Vigil {
    pub(super) fn new(source: Option<IpAddr>, now: Moment) -> Self {
        Self { source, next: now + LOOK_IN_SESSION }
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Moment {
        self.next
    }

    /// Looks: `source` is the address that this machine uses towards the broker now; without a route there is none, and
    /// that alone says nothing.
    pub(super) fn look(&mut self, source: Option<IpAddr>, in_session: bool, now: Moment) -> Finding {
        let late = now.since(self.next);
        self.next = now + if in_session { LOOK_IN_SESSION } else { LOOK_IDLE };
        match (self.source, source) {
            (Some(from), Some(to)) if from != to => {
                self.source = source;
                return Finding::Moved { from, to };
            }
            (None, Some(_)) => self.source = source,
            (Some(_) | None, _) => {}
        }
        if late >= SLEPT_MIN { Finding::Slept(late) } else { Finding::Calm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const AWAY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)));

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn another_source_address_is_a_move_and_the_lack_of_one_is_not() {
        let mut vigil = Vigil::new(HOME, at(0));
        assert_eq!(vigil.look(HOME, true, at(1000)), Finding::Calm);
        assert_eq!(vigil.look(None, true, at(2000)), Finding::Calm);
        let moved = Finding::Moved { from: HOME.unwrap(), to: AWAY.unwrap() };
        assert_eq!(vigil.look(AWAY, true, at(3000)), moved);
        assert_eq!(vigil.look(AWAY, true, at(4000)), Finding::Calm);
    }

    #[test]
    fn a_link_that_began_without_a_known_source_takes_the_first_for_its_own() {
        let mut vigil = Vigil::new(None, at(0));
        assert_eq!(vigil.look(HOME, true, at(1000)), Finding::Calm);
        assert!(matches!(vigil.look(AWAY, true, at(2000)), Finding::Moved { .. }));
    }

    #[test]
    fn a_look_that_is_five_seconds_late_was_slept_through() {
        for (late, slept) in [(4999, false), (5000, true), (7_200_000, true)] {
            let mut vigil = Vigil::new(HOME, at(0));
            let found = vigil.look(HOME, true, at(1000 + late));
            let expected = if slept { Finding::Slept(Duration::from_millis(late)) } else { Finding::Calm };
            assert_eq!(found, expected, "{late}");
        }
    }

    #[test]
    fn the_looks_are_a_second_apart_in_session_and_five_when_idle() {
        let mut vigil = Vigil::new(HOME, at(0));
        assert_eq!(vigil.due(), at(1000));
        vigil.look(HOME, false, at(1000));
        assert_eq!(vigil.due(), at(6000));
        vigil.look(HOME, true, at(6000));
        assert_eq!(vigil.due(), at(7000));
    }
}
