//! Which brokers an open is tried through, one after the other, and with which failure it ends.
//!
//! ```text
//! named route -> the Target here -> where it was announced -> (directory) -> ask every peer -> parked -> failure
//! ```
//! Announcements and answers are hints: a wrong one costs a round trip, never correctness. Only the ingress runs a
//! search; it is driven by the task of the Controller's leg.

use rc_proto::Moment;
use rc_proto::wire::codes::{PathFailure, Purpose, RegistrationRole};
use rc_proto::wire::{BrokerId, limits};

/// Times that an invite over a link of this broker is tried again after the link was lost.
const LOCAL_TRIES_MAX: u32 = 3;

/// A broker that said that it holds the Target, or of which that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub broker: BrokerId,
    /// Role of the registration there.
    pub role: RegistrationRole,
    /// Round trip from here over that broker to the Target, in µs.
    pub cost_us: u32,
}

/// What the search sees of the broker at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Whether the Target is registered here.
    pub is_here: bool,
    /// Peers with a live link.
    pub peers_linked: usize,
    /// Whether the mesh is so large that a directory is consulted before everybody is asked.
    pub has_directory: bool,
    /// Whether more than half of the mesh is linked.
    pub is_mesh_healthy: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Invite the Target over its link here.
    InviteHere,
    /// Open along these brokers.
    Along(Vec<BrokerId>),
    /// Ask those that keep the directory's entry.
    Consult,
    /// Ask every peer.
    Locate,
    /// Wait for a registration or an announcement until then.
    Park(Moment),
    /// Give up.
    Fail(PathFailure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    /// The answer is not here yet, or the race that asked ended without it.
    Pending,
    Yes {
        unknown: usize,
    },
}

/// The search of one open.
#[derive(Debug)]
pub struct Search {
    purpose: Purpose,
    named: Option<Vec<BrokerId>>,
    avoid: Vec<BrokerId>,
    candidates: Vec<Candidate>,
    tried: Vec<BrokerId>,
    local_tries: u32,
    /// The Target's link here does not help.
    is_local_over: bool,
    asked: Asked,
    park_until: Moment,
    failure: Option<PathFailure>,
    /// The Target is at a broker that drains: it will be elsewhere in a moment.
    is_moving: bool,
    was_consulted: bool,
}

impl Search {
    /// A search that parks until `park_until` at the latest. An empty `route` asks to locate, and so does one over a
    /// broker to avoid.
    pub fn new(purpose: Purpose, route: Vec<BrokerId>, avoid: Vec<BrokerId>, park_until: Moment) -> Self {
        let is_usable = !route.is_empty() && !route.iter().any(|broker| avoid.contains(broker));
        Self {
            purpose,
            named: is_usable.then_some(route),
            avoid,
            candidates: Vec::new(),
            tried: Vec::new(),
            local_tries: 0,
            is_local_over: false,
            asked: Asked::No,
            park_until,
            failure: None,
            is_moving: false,
            was_consulted: false,
        }
    }

    /// Where the Target was announced, or said to be.
    pub fn add_candidates(&mut self, found: impl IntoIterator<Item = Candidate>) {
        for candidate in found {
            let known = self.candidates.iter().any(|other| other.broker == candidate.broker);
            if !known && !self.tried.contains(&candidate.broker) && !self.avoid.contains(&candidate.broker) {
                self.candidates.push(candidate);
            }
        }
        self.candidates.sort_by_key(|candidate| (candidate.role.0, candidate.cost_us));
    }

    /// Every peer was asked; `unknown` of them did not answer in time.
    pub fn located(&mut self, found: impl IntoIterator<Item = Candidate>, unknown: usize) {
        self.asked = Asked::Yes { unknown };
        // An answer is fresher than the attempt that an announcement led to: that broker gets another one, last.
        let (again, first): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|candidate| self.tried.contains(&candidate.broker));
        self.add_candidates(first);
        let again = again.into_iter().filter(|candidate| !self.avoid.contains(&candidate.broker));
        self.candidates.extend(again);
    }

    /// The mesh is to be asked now, beside an attempt that is slow; `false` when it was asked already.
    pub fn begin_locate(&mut self) -> bool {
        let is_first = self.asked == Asked::No;
        if is_first {
            self.asked = Asked::Pending;
        }
        is_first
    }

    /// A registration or an announcement came while this open was parked: what was tried may hold now.
    pub fn woken(&mut self) {
        self.tried.clear();
        self.asked = Asked::No;
        self.was_consulted = false;
    }

    /// An attempt through another broker failed.
    pub fn attempt_failed(&mut self, code: PathFailure) {
        match code {
            PathFailure::NOT_HERE | PathFailure::NOT_FOUND => {}
            PathFailure::DRAINING => self.is_moving = true,
            _ => self.failure = Some(code),
        }
    }

    /// The invite over a link here failed; `None` when the link was lost, which a registration may mend.
    pub fn invite_failed(&mut self, code: Option<PathFailure>) {
        self.is_local_over |= code.is_some();
        self.failure = code.or(self.failure);
    }

    /// What to do next.
    pub fn next(&mut self, view: View, now: Moment) -> Step {
        if let Some(route) = self.named.take() {
            // A longer route may fail at its first broker, which says nothing of the last.
            if let [only] = route.as_slice() {
                self.tried.push(only.clone());
            }
            return Step::Along(route);
        }
        if view.is_here && self.local_tries < LOCAL_TRIES_MAX && !self.is_local_over {
            self.local_tries += 1;
            return Step::InviteHere;
        }
        if let Some(route) = self.next_candidate() {
            return Step::Along(route);
        }
        // There is no time left to ask.
        if self.failure == Some(PathFailure::TIMEOUT) {
            return Step::Fail(PathFailure::TIMEOUT);
        }
        if view.has_directory && !std::mem::replace(&mut self.was_consulted, true) {
            return Step::Consult;
        }
        match self.asked {
            Asked::No | Asked::Pending if view.peers_linked > 0 => return Step::Locate,
            Asked::No | Asked::Pending => self.asked = Asked::Yes { unknown: 0 },
            Asked::Yes { .. } => {}
        }
        // One broker's word is not final while another one may hold the Target; now nobody is left.
        if let Some(code) = self.failure {
            return Step::Fail(code);
        }
        let is_partial = matches!(self.asked, Asked::Yes { unknown } if unknown > 0);
        if !view.is_mesh_healthy && !self.is_moving {
            return Step::Fail(PathFailure::ISOLATED);
        }
        if is_partial && self.purpose == Purpose::RESUME {
            return Step::Fail(PathFailure::PARTIAL);
        }
        if now < self.park_until {
            return Step::Park(self.park_until);
        }
        Step::Fail(match (self.is_moving, is_partial) {
            (true, _) => PathFailure::DRAINING,
            (false, true) => PathFailure::PARTIAL,
            (false, false) => PathFailure::NOT_FOUND,
        })
    }

    /// The next broker that said it holds the Target: for a second attempt beside a slow one.
    pub fn next_candidate(&mut self) -> Option<Vec<BrokerId>> {
        if self.candidates.is_empty() {
            return None;
        }
        let candidate = self.candidates.remove(0);
        self.tried.push(candidate.broker.clone());
        Some(vec![candidate.broker])
    }

    /// The farthest moment that an open may be parked to: the open's own deadline, ten seconds at most.
    pub fn park_limit(now: Moment, deadline: Moment, configured: std::time::Duration) -> Moment {
        deadline.min(now + configured.min(limits::PARK_MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEALTHY: View =
        View { is_here: false, peers_linked: 2, has_directory: false, is_mesh_healthy: true };
    const ALONE: View = View { peers_linked: 0, ..HEALTHY };

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn broker(name: &str) -> BrokerId {
        format!("r/{name}").parse().unwrap()
    }

    fn candidate(name: &str, role: RegistrationRole, cost_us: u32) -> Candidate {
        Candidate { broker: broker(name), role, cost_us }
    }

    fn search(purpose: Purpose, route: &[&str]) -> Search {
        Search::new(purpose, route.iter().map(|n| broker(n)).collect(), Vec::new(), at(10_000))
    }

    const P: RegistrationRole = RegistrationRole::PRIMARY;
    const S: RegistrationRole = RegistrationRole::STANDBY;

    #[test]
    fn a_target_that_is_here_is_invited_here() {
        let mut search = search(Purpose::NEW, &[]);
        assert_eq!(search.next(View { is_here: true, ..HEALTHY }, at(0)), Step::InviteHere);
    }

    #[test]
    fn a_named_route_comes_first_and_falls_back_to_locate() {
        let mut search = search(Purpose::RESUME, &["b", "c"]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b"), broker("c")]));
        search.attempt_failed(PathFailure::NOT_HERE);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
    }

    #[test]
    fn positives_are_tried_by_role_then_cost_each_once() {
        let mut search = search(Purpose::NEW, &[]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
        search.located([candidate("s", S, 1), candidate("far", P, 9), candidate("near", P, 2)], 0);
        for name in ["near", "far", "s"] {
            assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker(name)]));
            search.attempt_failed(PathFailure::NOT_HERE);
        }
        assert_eq!(search.next(HEALTHY, at(0)), Step::Park(at(10_000)));
    }

    #[test]
    fn the_directory_of_a_large_mesh_is_consulted_once_before_everybody_is_asked() {
        let large = View { has_directory: true, peers_linked: 59, ..HEALTHY };
        let mut search = search(Purpose::NEW, &[]);
        assert_eq!(search.next(large, at(0)), Step::Consult);
        search.add_candidates([candidate("b", P, 1)]);
        assert_eq!(search.next(large, at(0)), Step::Along(vec![broker("b")]));
        search.attempt_failed(PathFailure::NOT_HERE);
        assert_eq!(search.next(large, at(0)), Step::Locate);
        search.located([], 0);
        assert_eq!(search.next(large, at(0)), Step::Park(at(10_000)));
        search.woken();
        assert_eq!(search.next(large, at(0)), Step::Consult);
    }

    #[test]
    fn a_wrong_announcement_costs_one_attempt_and_then_every_peer_is_asked() {
        let mut search = search(Purpose::NEW, &[]);
        search.add_candidates([candidate("b", P, 1)]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b")]));
        search.attempt_failed(PathFailure::NOT_HERE);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
        search.located([candidate("b", P, 1), candidate("c", P, 2)], 0);
        for name in ["c", "b"] {
            assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker(name)]));
            search.attempt_failed(PathFailure::NOT_HERE);
        }
        assert_eq!(search.next(HEALTHY, at(0)), Step::Park(at(10_000)));
    }

    #[test]
    fn a_longer_route_that_fails_leaves_its_last_broker_to_the_announcements() {
        let mut search = search(Purpose::RESUME, &["b", "c"]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b"), broker("c")]));
        search.attempt_failed(PathFailure::NOT_HERE);
        search.add_candidates([candidate("c", P, 1)]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("c")]));
    }

    #[test]
    fn an_absent_target_is_not_found_at_the_end_of_its_park() {
        for view in [HEALTHY, ALONE] {
            let mut search = search(Purpose::NEW, &[]);
            if view == HEALTHY {
                assert_eq!(search.next(view, at(0)), Step::Locate);
                search.located([], 0);
            }
            assert_eq!(search.next(view, at(0)), Step::Park(at(10_000)));
            assert_eq!(search.next(view, at(9_999)), Step::Park(at(10_000)));
            assert_eq!(search.next(view, at(10_000)), Step::Fail(PathFailure::NOT_FOUND));
        }
    }

    #[test]
    fn a_silent_peer_makes_it_partial_at_once_for_a_resume() {
        let mut resume = search(Purpose::RESUME, &[]);
        assert_eq!(resume.next(HEALTHY, at(0)), Step::Locate);
        resume.located([], 1);
        assert_eq!(resume.next(HEALTHY, at(0)), Step::Fail(PathFailure::PARTIAL));
        let mut new = search(Purpose::NEW, &[]);
        assert_eq!(new.next(HEALTHY, at(0)), Step::Locate);
        new.located([], 1);
        assert_eq!(new.next(HEALTHY, at(0)), Step::Park(at(10_000)));
        assert_eq!(new.next(HEALTHY, at(10_000)), Step::Fail(PathFailure::PARTIAL));
    }

    #[test]
    fn an_isolated_broker_says_so_at_once_but_serves_its_own_targets() {
        let isolated = View { is_mesh_healthy: false, ..ALONE };
        assert_eq!(search(Purpose::NEW, &[]).next(isolated, at(0)), Step::Fail(PathFailure::ISOLATED));
        let here = View { is_here: true, ..isolated };
        assert_eq!(search(Purpose::NEW, &[]).next(here, at(0)), Step::InviteHere);
    }

    #[test]
    fn a_registration_wakes_a_parked_open() {
        let mut search = search(Purpose::NEW, &[]);
        assert_eq!(search.next(ALONE, at(0)), Step::Park(at(10_000)));
        search.woken();
        assert_eq!(search.next(View { is_here: true, ..ALONE }, at(5)), Step::InviteHere);
        search.invite_failed(None);
        assert_eq!(search.next(ALONE, at(6)), Step::Park(at(10_000)));
        search.woken();
        search.add_candidates([candidate("b", P, 1)]);
        assert_eq!(search.next(HEALTHY, at(7)), Step::Along(vec![broker("b")]));
    }

    #[test]
    fn a_hard_failure_is_reported_rather_than_parked() {
        for code in [PathFailure::BUSY, PathFailure::UNAUTHORIZED] {
            let mut search = search(Purpose::NEW, &[]);
            search.add_candidates([candidate("b", P, 1)]);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b")]));
            search.attempt_failed(code);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
            search.located([], 0);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Fail(code));
        }
    }

    #[test]
    fn a_target_at_a_draining_broker_is_waited_for_elsewhere() {
        for (purpose, unknown) in [(Purpose::NEW, 0), (Purpose::HANDOVER, 1)] {
            let mut search = search(purpose, &["b"]);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b")]));
            search.attempt_failed(PathFailure::DRAINING);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
            search.located([], unknown);
            assert_eq!(search.next(HEALTHY, at(0)), Step::Park(at(10_000)));
            search.woken();
            search.add_candidates([candidate("c", P, 1)]);
            assert_eq!(search.next(HEALTHY, at(5)), Step::Along(vec![broker("c")]));
            search.attempt_failed(PathFailure::NOT_HERE);
            assert_eq!(search.next(HEALTHY, at(10_000)), Step::Locate);
            search.located([], 0);
            assert_eq!(search.next(HEALTHY, at(10_000)), Step::Fail(PathFailure::DRAINING));
        }
    }

    #[test]
    fn a_route_over_a_broker_to_avoid_is_not_taken() {
        let route = vec![broker("b"), broker("c")];
        let mut search = Search::new(Purpose::RESUME, route, vec![broker("c")], at(100));
        assert_eq!(search.next(HEALTHY, at(0)), Step::Locate);
    }

    #[test]
    fn a_hard_failure_from_a_stale_announcement_does_not_hide_the_target() {
        let mut here = search(Purpose::NEW, &["b"]);
        assert_eq!(here.next(HEALTHY, at(0)), Step::Along(vec![broker("b")]));
        here.attempt_failed(PathFailure::UNAUTHORIZED);
        assert_eq!(here.next(View { is_here: true, ..HEALTHY }, at(0)), Step::InviteHere);
        here.invite_failed(Some(PathFailure::BUSY));
        assert_eq!(here.next(View { is_here: true, ..HEALTHY }, at(0)), Step::Locate);
        here.located([candidate("c", P, 1)], 0);
        assert_eq!(here.next(HEALTHY, at(0)), Step::Along(vec![broker("c")]));
    }

    #[test]
    fn a_timeout_leaves_no_time_to_ask() {
        let mut search = search(Purpose::NEW, &["b"]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("b")]));
        search.attempt_failed(PathFailure::TIMEOUT);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Fail(PathFailure::TIMEOUT));
    }

    #[test]
    fn brokers_to_avoid_are_never_candidates() {
        let mut search = Search::new(Purpose::RESUME, Vec::new(), vec![broker("b")], at(100));
        search.add_candidates([candidate("b", P, 1), candidate("c", S, 5)]);
        assert_eq!(search.next(HEALTHY, at(0)), Step::Along(vec![broker("c")]));
        assert_eq!(search.next_candidate(), None);
    }

    #[test]
    fn an_open_parks_for_ten_seconds_at_most() {
        let s = Duration::from_secs;
        assert_eq!(Search::park_limit(at(0), at(3_000), s(10)), at(3_000));
        assert_eq!(Search::park_limit(at(0), at(60_000), s(10)), at(10_000));
        assert_eq!(Search::park_limit(at(0), at(60_000), s(99)), at(10_000));
        assert_eq!(Search::park_limit(at(0), at(60_000), s(2)), at(2_000));
    }
}
