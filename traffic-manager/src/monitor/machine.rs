//! All endpoints together: whose turn it is, and what changed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;

use super::endpoint::{EndpointMonitor, EndpointView, LastKnown, Overdue, Watch, random_part};
use super::outcome::{ProbeFailure, Report};
use crate::decide::{EndpointIndex, Health};

/// The first probes of all endpoints are spread over this much for each endpoint, and at most over its interval.
const FIRST_PROBE_SPREAD: Duration = Duration::from_millis(1);

/// One probe; never used for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId {
    /// Whom it is sent to.
    pub endpoint: EndpointIndex,
    number: u64,
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorAction {
    /// Start this probe and report its outcome.
    Start {
        /// Which.
        probe: ProbeId,
        /// How long it may take; the machine ends it then.
        timeout: Duration,
    },
    /// This probe's outcome is of no interest any more.
    Abandon {
        /// Which.
        probe: ProbeId,
    },
}

/// An endpoint's health changed in a way that changes answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorEvent {
    /// Whose.
    pub endpoint: EndpointIndex,
    /// Its health before.
    pub before: Health,
    /// Its health now.
    pub after: Health,
    /// What made it worse, if a probe failed.
    pub failure: Option<ProbeFailure>,
}

/// The health of all endpoints.
#[derive(Debug)]
pub struct Monitor {
    endpoints: Vec<EndpointMonitor>,
    timers: BTreeSet<(Moment, EndpointIndex)>,
    queue: VecDeque<EndpointIndex>,
    in_flight: usize,
    in_flight_max: usize,
    last_probe: u64,
    actions: VecDeque<MonitorAction>,
    events: VecDeque<MonitorEvent>,
}

impl Monitor {
    /// Watches the endpoints, each by its index. At most `in_flight_max` probes, at least one, are in flight at once.
    pub fn new(watches: &[Watch], in_flight_max: usize, now: Moment, rng: &mut impl Rng) -> Self {
        let count = u32::try_from(watches.len()).unwrap_or(u32::MAX);
        let spread = FIRST_PROBE_SPREAD.saturating_mul(count);
        let first = |watch: &Watch, rng: &mut _| match watch {
            Watch::Probed(plan) => now + random_part(spread.min(plan.interval), rng),
            Watch::Fixed(_) => now,
        };
        let endpoints: Vec<_> =
            watches.iter().map(|watch| EndpointMonitor::new(*watch, first(watch, rng), now)).collect();
        let timers = endpoints.iter().enumerate();
        let timers =
            timers.filter_map(|(at, endpoint)| Some((endpoint.timer()?, EndpointIndex(at)))).collect();
        Self {
            endpoints,
            timers,
            queue: VecDeque::new(),
            in_flight: 0,
            in_flight_max: in_flight_max.max(1),
            last_probe: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Goes on from what was known of an endpoint before. To be called before anything else is.
    pub fn resume(&mut self, index: EndpointIndex, known: &LastKnown) {
        if let Some(endpoint) = self.endpoints.get_mut(index.0) {
            endpoint.resume(known);
        }
    }

    /// Stops probing an endpoint, or goes on with it at once. Its state stays as it is.
    pub fn pause(&mut self, index: EndpointIndex, is_paused: bool, now: Moment) {
        let Some(endpoint) = self.endpoints.get_mut(index.0) else { return };
        if let Some(timer) = endpoint.timer() {
            self.timers.remove(&(timer, index));
        }
        if let Some(number) = endpoint.probe_in_flight() {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.actions.push_back(MonitorAction::Abandon { probe: ProbeId { endpoint: index, number } });
        }
        endpoint.pause(is_paused, now);
        if let Some(timer) = endpoint.timer() {
            self.timers.insert((timer, index));
        }
        self.start_queued(now);
    }

    /// When [`Self::handle_timeout`] is next wanted.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.first().map(|(moment, _)| *moment)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<MonitorAction> {
        self.actions.pop_front()
    }

    /// The next thing that changed.
    pub fn poll_event(&mut self) -> Option<MonitorEvent> {
        self.events.pop_front()
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Moment, rng: &mut impl Rng) {
        while let Some((moment, index)) = self.timers.first().copied() {
            if moment > now {
                break;
            }
            self.timers.remove(&(moment, index));
            self.expired(index, now, rng);
        }
        self.start_queued(now);
    }

    /// A probe ended. The outcome of an abandoned one is ignored.
    pub fn handle_outcome(
        &mut self,
        probe: ProbeId,
        outcome: Result<Report, ProbeFailure>,
        now: Moment,
        rng: &mut impl Rng,
    ) {
        let Some(endpoint) = self.endpoints.get(probe.endpoint.0) else { return };
        if endpoint.probe_in_flight() != Some(probe.number) {
            return;
        }
        self.change(probe.endpoint, |endpoint| endpoint.ended(outcome, now, rng));
        self.start_queued(now);
    }

    /// The health of all endpoints now, by their index.
    pub fn observed(&self) -> Vec<Health> {
        self.endpoints.iter().map(|endpoint| endpoint.view().health).collect()
    }

    /// What is known of each endpoint, by its index.
    pub fn views(&self) -> impl Iterator<Item = &EndpointView> {
        self.endpoints.iter().map(EndpointMonitor::view)
    }

    fn expired(&mut self, index: EndpointIndex, now: Moment, rng: &mut impl Rng) {
        let Some(endpoint) = self.endpoints.get_mut(index.0) else { return };
        if endpoint.queue_if_due(now) {
            self.queue.push_back(index);
            return;
        }
        let (Some(number), overdue) = (endpoint.probe_in_flight(), endpoint.overdue(now)) else { return };
        match overdue {
            Overdue::No => return,
            Overdue::Yes => self.change(index, |endpoint| endpoint.timed_out(now, rng)),
            Overdue::WeStalled => self.change(index, |endpoint| endpoint.void(now, rng)),
        }
        self.actions.push_back(MonitorAction::Abandon { probe: ProbeId { endpoint: index, number } });
    }

    /// Ends the probe in flight of one endpoint by `end`, and says what changed.
    fn change(&mut self, index: EndpointIndex, end: impl FnOnce(&mut EndpointMonitor)) {
        let Some(endpoint) = self.endpoints.get_mut(index.0) else { return };
        let before = endpoint.view().health;
        if let Some(timer) = endpoint.timer() {
            self.timers.remove(&(timer, index));
        }
        end(endpoint);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(timer) = endpoint.timer() {
            self.timers.insert((timer, index));
        }
        let EndpointView { health: after, last_failure, .. } = endpoint.view();
        // The load changes with nearly every answer.
        if (Health { load: before.load, ..*after }) != before {
            let (after, failure) = (*after, last_failure.clone());
            self.events.push_back(MonitorEvent { endpoint: index, before, after, failure });
        }
    }

    fn start_queued(&mut self, now: Moment) {
        while self.in_flight < self.in_flight_max {
            let Some(index) = self.queue.pop_front() else { return };
            let Some(endpoint) = self.endpoints.get_mut(index.0) else { continue };
            let number = self.last_probe + 1;
            let Some(timeout) = endpoint.start(number, now) else { continue };
            if let Some(timer) = endpoint.timer() {
                self.timers.insert((timer, index));
            }
            self.last_probe = number;
            self.in_flight += 1;
            self.actions
                .push_back(MonitorAction::Start { probe: ProbeId { endpoint: index, number }, timeout });
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
