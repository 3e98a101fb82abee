//! When this broker stops, when each path has to move, and who is told that a broker on its path stops.
//!
//! ```text
//! Serving --request, or a worker that is stuck--> Draining{deadline} --may_stop--> over
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::wire::{BrokerId, EndpointId, PathId};

use super::paths::{Part, PathRequest};

/// Of the time to the deadline, the part in which paths start to move; the rest is for the moves themselves.
const SPREAD_SHARE: u32 = 2;
/// How long a broker without paths waits for idle Targets to register elsewhere, when there is an elsewhere.
const IDLE_MOVE_MAX: Duration = Duration::from_secs(3);
/// How long after a path broke its session may still come back: a Target keeps a detached session for so long.
pub const SESSION_KEPT: Duration = Duration::from_secs(150);
/// Slots that one Drain carries; more go into further ones.
pub const SLOTS_PER_DRAIN_MAX: usize = 1_000;

/// Why a broker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainCause {
    /// An operator, or whoever runs the process, asked for it.
    Request,
    /// One of its workers is stuck.
    StuckWorker,
}

impl DrainCause {
    /// As events and `status` name it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::StuckWorker => "stuck-worker",
        }
    }
}

/// Whether the broker serves or is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Takes everything.
    #[default]
    Serving,
    /// Takes no new session.
    Draining {
        /// When it stops at the latest.
        deadline: Moment,
        /// Why.
        cause: DrainCause,
    },
}

/// What a draining broker still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// Paths open or opening.
    pub paths: usize,
    /// Registrations.
    pub registrations: usize,
    /// Whether another broker takes what leaves here.
    pub has_alternate: bool,
    /// Whether a path broke lately, so that its session may come back.
    pub broke_lately: bool,
}

impl Phase {
    /// Whether new sessions are taken.
    pub fn is_accepting(self) -> bool {
        match self {
            Self::Serving => true,
            Self::Draining { .. } => false,
        }
    }

    /// Milliseconds until it stops, while it drains.
    pub fn deadline_ms(self, now: Moment) -> Option<u32> {
        match self {
            Self::Serving => None,
            Self::Draining { deadline, .. } => {
                Some(u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX))
            }
        }
    }

    /// Why it drains.
    pub fn cause(self) -> Option<DrainCause> {
        match self {
            Self::Serving => None,
            Self::Draining { cause, .. } => Some(cause),
        }
    }

    /// Whether it may stop now. `empty_since` is when the last path went, unless there is one.
    ///
    /// With another broker to go to, the last path is the end, but for a moment in which idle Targets move. Without
    /// one, sessions that lost their path may come back only here, up to the deadline.
    pub fn may_stop(self, remains: Remains, empty_since: Option<Moment>, now: Moment) -> bool {
        let Self::Draining { deadline, .. } = self else { return false };
        if now >= deadline {
            return true;
        }
        let Some(empty_since) = empty_since.filter(|_| remains.paths == 0) else { return false };
        if remains.has_alternate {
            remains.registrations == 0 || now >= empty_since + IDLE_MOVE_MAX
        } else {
            !remains.broke_lately
        }
    }
}

/// Who has to hear that a broker on its path stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hearer {
    /// The Controller, over its control links here.
    Controller(EndpointId),
    /// The Target, over its control links here.
    Target(EndpointId),
    /// The next broker on the way to one of them.
    Peer(BrokerId),
}

/// The slots that each hearer is told when this broker itself stops. `paths` are all paths here, each with the broker
/// that it leads to.
pub fn own_hearers(
    paths: &[(PathRequest, Option<BrokerId>)],
    slots: &BTreeMap<PathId, u32>,
) -> BTreeMap<Hearer, Vec<(PathId, u32)>> {
    let mut hearers: BTreeMap<Hearer, Vec<(PathId, u32)>> = BTreeMap::new();
    for (request, to) in paths {
        let slot = (request.path, slots.get(&request.path).copied().unwrap_or(0));
        let near = request.from.clone().map(Hearer::Peer);
        let far = to.clone().map(Hearer::Peer);
        let ends = [Hearer::Controller(request.controller.clone()), Hearer::Target(request.target.clone())];
        for hearer in ends.into_iter().chain(near).chain(far) {
            hearers.entry(hearer).or_default().push(slot);
        }
    }
    hearers
}

/// The slots that each hearer is told when `peer` says that these paths have to move, because it stops or because a
/// broker behind it does. The word goes on along each path, away from `peer`; what does not cross `peer` is left out.
pub fn hearers_behind(
    peer: &BrokerId,
    slots: &[(PathId, u32)],
    paths: &[(PathRequest, Option<BrokerId>)],
) -> BTreeMap<Hearer, Vec<(PathId, u32)>> {
    let slots: BTreeMap<PathId, u32> = slots.iter().copied().collect();
    let mut hearers: BTreeMap<Hearer, Vec<(PathId, u32)>> = BTreeMap::new();
    for (request, to) in paths {
        let Some(slot) = slots.get(&request.path) else { continue };
        let hearer = if to.as_ref() == Some(peer) {
            match (request.part, &request.from) {
                (Part::Transit, Some(from)) => Hearer::Peer(from.clone()),
                (Part::Ingress, _) | (Part::Transit, None) => Hearer::Controller(request.controller.clone()),
            }
        } else if request.from.as_ref() == Some(peer) {
            match to {
                Some(next) => Hearer::Peer(next.clone()),
                None => Hearer::Target(request.target.clone()),
            }
        } else {
            continue;
        };
        hearers.entry(hearer).or_default().push((request.path, *slot));
    }
    hearers
}

/// Gives each path its slot for moving, in ms from now: evenly over `spread` (at most half of the time to the
/// deadline), in an order drawn at random.
pub fn slots(
    paths: &[PathId],
    deadline: Duration,
    spread: Duration,
    rng: &mut impl Rng,
) -> Vec<(PathId, u32)> {
    let window = spread.min(deadline / SPREAD_SHARE);
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let count = u64::try_from(paths.len().max(1)).unwrap_or(u64::MAX);
    let mut order: Vec<PathId> = paths.to_vec();
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
        .into_iter()
        .zip(0_u64..)
        .map(|(path, index)| {
            (path, u32::try_from(window_ms.saturating_mul(index) / count).unwrap_or(u32::MAX))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn paths(count: u8) -> Vec<PathId> {
        (0..count).map(|n| PathId([n; 16])).collect()
    }

    #[test]
    fn slots_spread_evenly_over_half_the_time_at_most() {
        let mut rng = SmallRng::seed_from_u64(1);
        let spread = slots(&paths(100), Duration::from_secs(60), Duration::from_secs(60), &mut rng);
        let times: Vec<_> = spread.iter().map(|(_, ms)| *ms).collect();
        assert_eq!(times.first(), Some(&0));
        assert_eq!(times.last(), Some(&29_700));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 300));
        let mut ids: Vec<_> = spread.iter().map(|(path, _)| *path).collect();
        assert_ne!(ids, paths(100));
        ids.sort();
        assert_eq!(ids, paths(100));
    }

    #[test]
    fn a_single_path_moves_at_once_and_none_need_no_slot() {
        let mut rng = SmallRng::seed_from_u64(1);
        let spread = Duration::from_secs(30);
        assert_eq!(slots(&paths(1), spread, spread, &mut rng), [(PathId([0; 16]), 0)]);
        assert_eq!(slots(&[], spread, spread, &mut rng), []);
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    const DRAINING: Phase = Phase::Draining {
        deadline: Moment::from_origin(Duration::from_secs(60)),
        cause: DrainCause::Request,
    };
    const NOTHING: Remains = Remains { paths: 0, registrations: 0, has_alternate: true, broke_lately: false };

    #[test]
    fn a_draining_broker_stops_with_its_last_path_or_at_the_deadline() {
        assert!(!Phase::Serving.may_stop(NOTHING, Some(at(0)), at(90)));
        assert!(DRAINING.may_stop(NOTHING, Some(at(1)), at(1)));
        let one_path = Remains { paths: 1, ..NOTHING };
        assert!(!DRAINING.may_stop(one_path, None, at(59)));
        assert!(DRAINING.may_stop(one_path, None, at(60)));
        assert_eq!(DRAINING.deadline_ms(at(0)), Some(60_000));
        assert!(!DRAINING.is_accepting());
    }

    #[test]
    fn idle_targets_get_a_moment_to_move_when_there_is_an_elsewhere() {
        let idle = Remains { registrations: 1, ..NOTHING };
        assert!(!DRAINING.may_stop(idle, Some(at(10)), at(12)));
        assert!(DRAINING.may_stop(idle, Some(at(10)), at(13)));
        assert!(DRAINING.may_stop(Remains { has_alternate: false, ..idle }, Some(at(10)), at(10)));
    }

    #[test]
    fn without_an_alternate_a_broken_session_may_come_back_up_to_the_deadline() {
        let last = Remains { has_alternate: false, broke_lately: true, ..NOTHING };
        assert!(!DRAINING.may_stop(last, Some(at(1)), at(59)));
        assert!(DRAINING.may_stop(last, Some(at(1)), at(60)));
        assert!(DRAINING.may_stop(Remains { has_alternate: true, ..last }, Some(at(1)), at(1)));
    }

    fn broker(name: &str) -> BrokerId {
        format!("r/{name}").parse().unwrap()
    }

    /// The path as the broker between `from` and `to` knows it.
    fn crossing(number: u8, from: Option<&str>, to: Option<&str>) -> (PathRequest, Option<BrokerId>) {
        let request = PathRequest {
            path: PathId([number; 16]),
            controller: "alice".parse().unwrap(),
            target: "pc-1".parse().unwrap(),
            purpose: rc_proto::wire::codes::Purpose::NEW,
            lane: rc_proto::wire::codes::Lane::INTERACTIVE,
            part: if from.is_some() { Part::Transit } else { Part::Ingress },
            from: from.map(broker),
        };
        (request, to.map(broker))
    }

    #[test]
    fn both_sides_of_every_path_hear_that_a_broker_stops() {
        let slots = [(PathId([1; 16]), 7)].into_iter().collect();
        let told = own_hearers(&[crossing(1, Some("a"), Some("c")), crossing(2, None, None)], &slots);
        let (one, two) = ((PathId([1; 16]), 7), (PathId([2; 16]), 0));
        let expected = [
            (Hearer::Controller("alice".parse().unwrap()), vec![one, two]),
            (Hearer::Target("pc-1".parse().unwrap()), vec![one, two]),
            (Hearer::Peer(broker("a")), vec![one]),
            (Hearer::Peer(broker("c")), vec![one]),
        ];
        assert_eq!(told, expected.into_iter().collect());
    }

    #[test]
    fn the_word_goes_on_along_the_path_away_from_whoever_sent_it() {
        let slots: Vec<_> = (1..=4).map(|number| (PathId([number; 16]), u32::from(number))).collect();
        let paths = [
            crossing(1, Some("a"), Some("c")),
            crossing(2, None, Some("c")),
            crossing(3, Some("c"), None),
            crossing(4, Some("a"), None),
            crossing(5, Some("a"), Some("c")),
        ];
        let told = hearers_behind(&broker("c"), &slots, &paths);
        let expected = [
            (Hearer::Peer(broker("a")), vec![(PathId([1; 16]), 1)]),
            (Hearer::Controller("alice".parse().unwrap()), vec![(PathId([2; 16]), 2)]),
            (Hearer::Target("pc-1".parse().unwrap()), vec![(PathId([3; 16]), 3)]),
        ];
        assert_eq!(told, expected.into_iter().collect());
        let told = hearers_behind(&broker("a"), &slots, &paths);
        let expected = [
            (Hearer::Peer(broker("c")), vec![(PathId([1; 16]), 1)]),
            (Hearer::Target("pc-1".parse().unwrap()), vec![(PathId([4; 16]), 4)]),
        ];
        assert_eq!(told, expected.into_iter().collect());
    }
}
