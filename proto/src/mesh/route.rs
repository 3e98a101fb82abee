//! The cheapest path over one to three brokers, and when moving a session to it pays.
//!
//! The cost of a path is what the Controller measured to the first broker, plus the mesh's round trips, plus what
//! the Target measured to the last, plus 2 ms and the load for each broker. Both ends on one broker is allowed, and
//! so is a third broker between two where the matrix says that the detour is faster.

use std::collections::BTreeSet;
use std::time::Duration;

use super::matrix::Matrix;
use crate::Moment;
use crate::wire::BrokerId;

/// Brokers of each side that are looked at, the nearest.
pub const BROKERS_PER_SIDE_MAX: usize = 5;
/// Brokers that may stand in between; more are not looked at.
pub const BETWEEN_MAX: usize = 64;
/// Routes that a ranking names.
pub const ROUTES_MAX: usize = 8;
/// What each broker of a path costs.
pub const BROKER_COST: Duration = Duration::from_millis(2);
/// What a fully loaded broker costs more than an idle one.
pub const LOAD_COST: Duration = Duration::from_millis(10);

/// Brokers from the Controller to the Target, one to three, and what the path costs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Route {
    /// Round trip with everything added; lower is better, and compared first.
    pub cost: Duration,
    /// From the Controller's broker to the Target's.
    pub brokers: Vec<BrokerId>,
}

impl Route {
    /// The broker that the Controller dials.
    pub fn ingress(&self) -> Option<&BrokerId> {
        self.brokers.first()
    }

    /// The broker that holds the Target.
    pub fn egress(&self) -> Option<&BrokerId> {
        self.brokers.last()
    }

    /// The brokers after the ingress, as OpenPath names them. None when both ends are on one broker: an empty route
    /// means locate, and that looks at the ingress first.
    pub fn after_ingress(&self) -> &[BrokerId] {
        self.brokers.get(1..).unwrap_or_default()
    }
}

/// What is known of both ends.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// Broker and score that the Controller measured.
    pub controller: &'a [(BrokerId, Duration)],
    /// Broker and score that the Target measured, where it is or would register.
    pub target: &'a [(BrokerId, Duration)],
    /// Brokers that no route may touch.
    pub avoid: &'a [BrokerId],
}

impl RouteRequest<'_> {
    /// The cheapest route; `None` when no pair has a known cost. `load` tells a broker's load per mille.
    pub fn cheapest(&self, matrix: &Matrix, load: impl Fn(&BrokerId) -> u16, now: Moment) -> Option<Route> {
        self.ranked(matrix, load, now).into_iter().next()
    }

    /// The [`ROUTES_MAX`] cheapest routes, cheapest first; of each pair of ends the cheapest way between them.
    pub fn ranked(&self, matrix: &Matrix, load: impl Fn(&BrokerId) -> u16, now: Moment) -> Vec<Route> {
        let between = self.usable(matrix.brokers(now)).take(BETWEEN_MAX).collect::<Vec<_>>();
        let hop = |broker: &BrokerId| BROKER_COST + LOAD_COST * u32::from(load(broker).min(1000)) / 1000;
        let mut routes = Vec::new();
        for (first, to_first) in self.nearest(self.controller) {
            for (last, to_last) in self.nearest(self.target) {
                let ends = *to_first + *to_last + hop(first);
                if first == last {
                    routes.push(Route { cost: ends, brokers: vec![first.clone()] });
                    continue;
                }
                let ends = ends + hop(last);
                let direct = matrix.round_trip(first, last, now).map(|mesh| (ends + mesh, None));
                let detours = between.iter().filter(|middle| *middle != first && *middle != last);
                let detours = detours.filter_map(|middle| {
                    let mesh =
                        matrix.round_trip(first, middle, now)? + matrix.round_trip(middle, last, now)?;
                    Some((ends + mesh + hop(middle), Some(middle)))
                });
                if let Some((cost, middle)) = direct.into_iter().chain(detours).min() {
                    let brokers = [Some(first), middle, Some(last)].into_iter().flatten().cloned().collect();
                    routes.push(Route { cost, brokers });
                }
            }
        }
        routes.sort_unstable();
        routes.truncate(ROUTES_MAX);
        routes
    }

    fn usable(&self, brokers: Vec<BrokerId>) -> impl Iterator<Item = BrokerId> {
        brokers.into_iter().filter(|broker| !self.avoid.contains(broker))
    }

    fn nearest<'s>(&self, side: &'s [(BrokerId, Duration)]) -> Vec<&'s (BrokerId, Duration)> {
        let mut side: Vec<_> = side.iter().filter(|(broker, _)| !self.avoid.contains(broker)).collect();
        side.sort_by_key(|(broker, score)| (*score, broker));
        let mut seen = BTreeSet::new();
        side.retain(|(broker, _)| seen.insert(broker));
        side.truncate(BROKERS_PER_SIDE_MAX);
        side
    }
}

/// How much better a route must be, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MovePolicy {
    /// The first move after a session's start: more than 10 ms and 10 %, twice running.
    First,
    /// Later moves: 10 ms and a third, three times running, ten minutes after the last.
    Later,
}

const FIRST_GAIN_MIN: Duration = Duration::from_millis(10);
const FIRST_ROUNDS: u32 = 2;
const LATER_ROUNDS: u32 = 3;
const LATER_DWELL: Duration = Duration::from_secs(10 * 60);

/// Decides when a session moves to a better route.
#[derive(Debug, Clone)]
pub struct PathMove {
    policy: MovePolicy,
    since: Moment,
    rounds: u32,
}

impl PathMove {
    /// A session whose first path was opened at `now`.
    pub fn new(now: Moment) -> Self {
        Self { policy: MovePolicy::First, since: now, rounds: 0 }
    }

    /// Costs were compared. Says whether to hand over now.
    pub fn handle_round(&mut self, current: Duration, best: Duration, now: Moment) -> bool {
        let gain = current.saturating_sub(best);
        let (pays, rounds, rested) = match self.policy {
            MovePolicy::First => (gain > FIRST_GAIN_MIN.max(current / 10), FIRST_ROUNDS, true),
            MovePolicy::Later => {
                let pays = gain >= FIRST_GAIN_MIN && best.saturating_mul(3) <= current.saturating_mul(2);
                (pays, LATER_ROUNDS, now.since(self.since) >= LATER_DWELL)
            }
        };
        self.rounds = if pays { self.rounds.saturating_add(1) } else { 0 };
        self.rounds >= rounds && rested
    }

    /// The session has moved, for this or any other reason.
    pub fn handle_moved(&mut self, now: Moment) {
        *self = Self { policy: MovePolicy::Later, since: now, rounds: 0 };
    }
}
