//! The rows of the monitor, in virtual time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::decide::EndpointStatus::{self, CheckingEndpoint, Degraded, Disabled, Online, Unmonitored};
use crate::monitor::ProbePlan;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);
const ONLY: EndpointIndex = EndpointIndex(0);

fn plan(tolerated_failures: u8) -> Watch {
    Watch::Probed(ProbePlan { interval: INTERVAL, timeout: TIMEOUT, tolerated_failures, flap_limit: 0 })
}

fn report() -> Report {
    Report { load: 10, ..Report::answered(Duration::from_millis(3)) }
}

fn refused() -> Result<Report, ProbeFailure> {
    Err(ProbeFailure::Unreachable { reason: "connection refused".to_owned() })
}

/// A monitor in virtual time whose probes the test answers.
struct Lab {
    monitor: Monitor,
    now: Moment,
    rng: StdRng,
    started: Vec<(Moment, ProbeId)>,
    abandoned: Vec<ProbeId>,
}

impl Lab {
    fn new(watches: &[Watch]) -> Self {
        Self::with_limit(watches, 100)
    }

    fn with_limit(watches: &[Watch], in_flight_max: usize) -> Self {
        let (mut rng, now) = (StdRng::seed_from_u64(7), Moment::from_origin(Duration::from_secs(1000)));
        let monitor = Monitor::new(watches, in_flight_max, now, &mut rng);
        Self { monitor, now, rng, started: Vec::new(), abandoned: Vec::new() }
    }

    fn drain(&mut self) {
        while let Some(action) = self.monitor.poll_action() {
            match action {
                MonitorAction::Start { probe, timeout } => {
                    assert_eq!(timeout, TIMEOUT);
                    self.started.push((self.now, probe));
                }
                MonitorAction::Abandon { probe } => self.abandoned.push(probe),
            }
        }
    }

    /// Goes on to the next timer.
    fn step(&mut self) {
        self.now = self.now.max(self.monitor.poll_timeout().unwrap());
        self.monitor.handle_timeout(self.now, &mut self.rng);
        self.drain();
    }

    /// Goes on to the next probe and ends it with `outcome`.
    fn probe(&mut self, outcome: Result<Report, ProbeFailure>) {
        let before = self.started.len();
        while self.started.len() == before {
            self.step();
        }
        let probe = self.started.last().unwrap().1;
        self.monitor.handle_outcome(probe, outcome, self.now, &mut self.rng);
        self.drain();
    }

    fn status(&self, index: EndpointIndex) -> EndpointStatus {
        self.monitor.observed()[index.0].status
    }
}

#[test]
fn m_17_the_endpoint_turns_degraded_at_the_failure_after_the_tolerated_ones() {
    let mut lab = Lab::new(&[plan(3)]);
    lab.probe(Ok(report()));
    assert_eq!(lab.status(ONLY), Online);
    for _ in 0..3 {
        lab.probe(refused());
        assert_eq!(lab.status(ONLY), Online);
    }
    lab.probe(refused());
    assert_eq!(lab.status(ONLY), Degraded);
}

#[test]
fn m_18_with_no_failure_tolerated_the_first_one_degrades() {
    let mut lab = Lab::new(&[plan(0)]);
    lab.probe(Ok(report()));
    lab.probe(refused());
    assert_eq!(lab.status(ONLY), Degraded);
    assert_eq!(lab.started.len(), 2);
}

#[test]
fn m_19_a_success_in_between_resets_the_count() {
    let mut lab = Lab::new(&[plan(3)]);
    for outcome in [0, 0, 0, 1, 0, 0, 0] {
        lab.probe(if outcome == 1 { Ok(report()) } else { refused() });
        assert_ne!(lab.status(ONLY), Degraded);
    }
    lab.probe(refused());
    assert_eq!(lab.status(ONLY), Degraded);
}

#[test]
fn m_20_and_m_21_a_degraded_endpoint_is_probed_on_and_one_success_brings_it_back() {
    let mut lab = Lab::new(&[plan(0)]);
    for _ in 0..5 {
        lab.probe(refused());
        assert_eq!(lab.status(ONLY), Degraded);
    }
    lab.probe(Ok(report()));
    assert_eq!(lab.status(ONLY), Online);
}

#[test]
fn m_22_an_answer_behind_the_timeout_is_a_failure_and_is_ignored() {
    let mut lab = Lab::new(&[plan(0)]);
    lab.step();
    let (began, probe) = lab.started[0];
    lab.step();
    assert_eq!((lab.now, lab.abandoned.clone()), (began + TIMEOUT, vec![probe]));
    assert_eq!(lab.status(ONLY), Degraded);
    lab.monitor.handle_outcome(probe, Ok(report()), lab.now, &mut lab.rng);
    assert_eq!(lab.status(ONLY), Degraded);
}

#[test]
fn m_23_a_fault_is_noticed_within_interval_times_tolerated_plus_one_plus_timeout() {
    for seed in 0..50 {
        let mut lab = Lab::new(&[plan(3)]);
        lab.rng = StdRng::seed_from_u64(seed);
        lab.probe(Ok(report()));
        // The fault comes the moment after the answer; every later probe hangs.
        let fault = lab.now;
        while lab.status(ONLY) != Degraded {
            lab.step();
        }
        let bound = INTERVAL * 4 + TIMEOUT;
        let took = lab.now.since(fault);
        assert!(took <= bound && took > bound - INTERVAL, "seed {seed}: {took:?}");
    }
}

#[test]
fn s_04_an_endpoint_is_checking_until_its_first_probe_says_something() {
    let mut lab = Lab::new(&[plan(1)]);
    assert_eq!(lab.status(ONLY), CheckingEndpoint);
    lab.probe(refused());
    assert_eq!(lab.status(ONLY), CheckingEndpoint);
    lab.probe(refused());
    assert_eq!(lab.status(ONLY), Degraded);
}

#[test]
fn s_07_and_s_10_endpoints_with_a_fixed_state_are_not_probed() {
    let mut lab = Lab::new(&[Watch::Fixed(Disabled), plan(0), Watch::Fixed(Unmonitored)]);
    for _ in 0..10 {
        lab.probe(refused());
    }
    assert!(lab.started.iter().all(|(_, probe)| probe.endpoint == EndpointIndex(1)));
    assert_eq!((lab.status(ONLY), lab.status(EndpointIndex(2))), (Disabled, Unmonitored));
    assert_eq!(Lab::new(&[Watch::Fixed(Disabled)]).monitor.poll_timeout(), None);
}

#[test]
fn probes_start_at_most_an_interval_and_at_least_nine_tenths_of_it_apart() {
    let mut lab = Lab::new(&[plan(3)]);
    for _ in 0..100 {
        lab.probe(Ok(report()));
    }
    let gaps: Vec<Duration> = lab.started.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert!(gaps.iter().all(|gap| *gap <= INTERVAL && *gap >= INTERVAL * 9 / 10));
    assert!(gaps.iter().any(|gap| *gap != gaps[0]));
}

#[test]
fn an_endpoint_never_has_two_probes_in_flight() {
    let slow = ProbePlan { interval: INTERVAL, timeout: TIMEOUT, tolerated_failures: 1, flap_limit: 0 };
    let mut lab = Lab::new(&[Watch::Probed(slow); 20]);
    let mut open = BTreeSet::new();
    for round in 0..400 {
        let (seen, gone) = (lab.started.len(), lab.abandoned.len());
        lab.step();
        for probe in &lab.abandoned[gone..] {
            assert!(open.remove(probe));
        }
        for (_, probe) in &lab.started[seen..] {
            assert!(!open.iter().any(|other: &ProbeId| other.endpoint == probe.endpoint));
            open.insert(*probe);
        }
        // Every third probe is answered, the others hang.
        if round % 3 == 0
            && let Some(probe) = open.pop_first()
        {
            lab.monitor.handle_outcome(probe, Ok(report()), lab.now, &mut lab.rng);
            lab.drain();
        }
    }
    assert!(lab.started.len() > 60);
}

#[test]
fn no_more_probes_than_allowed_are_in_flight_and_all_get_their_turn() {
    let mut lab = Lab::with_limit(&[plan(0); 10], 3);
    for _ in 0..20 {
        lab.step();
        assert!(lab.started.len() - lab.abandoned.len() <= 3);
    }
    let probed: BTreeSet<EndpointIndex> = lab.started.iter().map(|(_, probe)| probe.endpoint).collect();
    assert_eq!(probed.len(), 10);
}

#[test]
fn a_deadline_that_we_slept_over_says_nothing_about_the_endpoint() {
    let mut lab = Lab::new(&[plan(0)]);
    lab.probe(Ok(report()));
    lab.step();
    assert_eq!(lab.started.len(), 2);
    lab.now = lab.now + TIMEOUT + Duration::from_secs(60);
    lab.step();
    assert_eq!((lab.status(ONLY), lab.abandoned.len()), (Online, 1));
    assert_eq!(lab.started.len(), 3);
}

#[test]
fn an_event_tells_each_change_of_health_and_nothing_else() {
    let mut lab = Lab::new(&[plan(0)]);
    let draining = Report { accepting: false, ..report() };
    for outcome in [Ok(report()), Ok(report()), Ok(draining), refused(), refused()] {
        lab.probe(outcome);
    }
    let events: Vec<MonitorEvent> = std::iter::from_fn(|| lab.monitor.poll_event()).collect();
    let told: Vec<_> = events.iter().map(|event| (event.after.status, event.after.accepting)).collect();
    assert_eq!(told, [(Online, true), (Online, false), (Degraded, true)]);
    assert_eq!(events[2].failure.as_ref().unwrap().label(), "unreachable");
    assert_eq!((events[2].endpoint, events[2].before), (ONLY, events[1].after));
}

#[test]
fn the_view_keeps_the_last_answer_and_the_failures_since() {
    let mut lab = Lab::new(&[plan(1)]);
    lab.probe(Ok(report()));
    let online_since = lab.now;
    lab.probe(refused());
    let view = lab.monitor.views().next().unwrap().clone();
    assert_eq!((view.failures, view.report, view.since), (1, Some(report()), online_since));
    lab.probe(refused());
    let view = lab.monitor.views().next().unwrap();
    assert_eq!((view.failures, &view.report, view.since), (2, &None, lab.now));
}

#[test]
fn an_endpoint_that_flaps_needs_more_successes_each_time_and_a_calm_one_needs_one() {
    let flapping = ProbePlan { interval: INTERVAL, timeout: TIMEOUT, tolerated_failures: 0, flap_limit: 1 };
    let mut lab = Lab::new(&[Watch::Probed(flapping)]);
    lab.probe(Ok(report()));
    for needed in [1, 2, 4, 8] {
        lab.probe(refused());
        assert_eq!(lab.status(ONLY), Degraded);
        for _ in 1..needed {
            lab.probe(Ok(report()));
            assert_eq!(lab.status(ONLY), Degraded, "{needed} are needed");
        }
        lab.probe(Ok(report()));
        assert_eq!(lab.status(ONLY), Online, "{needed} are enough");
    }
    // Ten minutes later it is calm again.
    for _ in 0..25 {
        lab.probe(Ok(report()));
    }
    lab.probe(refused());
    lab.probe(Ok(report()));
    assert_eq!(lab.status(ONLY), Online);
}

#[test]
fn a_failure_on_the_way_back_of_a_flapping_endpoint_starts_it_again() {
    let flapping = ProbePlan { interval: INTERVAL, timeout: TIMEOUT, tolerated_failures: 0, flap_limit: 1 };
    let mut lab = Lab::new(&[Watch::Probed(flapping)]);
    for outcome in [1, 0, 1, 0, 1, 0, 1] {
        lab.probe(if outcome == 1 { Ok(report()) } else { refused() });
    }
    assert_eq!(lab.status(ONLY), Degraded, "two in a row are needed");
    lab.probe(Ok(report()));
    assert_eq!(lab.status(ONLY), Online);
}

#[test]
fn f49_what_was_known_counts_from_the_first_moment_on_and_probing_goes_on() {
    let (watch, now) = (plan(1), Moment::from_origin(Duration::from_secs(1000)));
    let mut lab = Lab::new(&[watch, watch, Watch::Fixed(Disabled)]);
    for (at, status) in [(0, Degraded), (1, Online), (2, Online)] {
        let known = LastKnown { health: Health::with_status(status), failures: 7, since: now };
        lab.monitor.resume(EndpointIndex(at), &known);
    }
    let status = |lab: &Lab| [0, 1, 2].map(|at| lab.status(EndpointIndex(at)));
    assert_eq!(status(&lab), [Degraded, Online, Disabled]);
    lab.probe(Ok(report()));
    let first = lab.started[0].1.endpoint;
    assert_eq!(lab.status(first), Online);
}

#[test]
fn s_07_a_paused_endpoint_is_not_probed_until_it_goes_on() {
    let mut lab = Lab::new(&[plan(0), plan(0)]);
    while lab.started.len() < 2 {
        lab.step();
    }
    lab.monitor.pause(ONLY, true, lab.now);
    lab.drain();
    assert_eq!(lab.abandoned.iter().map(|probe| probe.endpoint).collect::<Vec<_>>(), [ONLY]);
    for _ in 0..10 {
        lab.probe(Ok(report()));
        assert_eq!(lab.started.last().unwrap().1.endpoint, EndpointIndex(1));
    }
    lab.monitor.pause(ONLY, false, lab.now);
    lab.step();
    assert_eq!(lab.started.last().unwrap().1.endpoint, ONLY, "at once");
}
