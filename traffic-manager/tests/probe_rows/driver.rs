//! What each way of failing does to an endpoint.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_traffic_manager::decide::EndpointStatus::{self, Degraded, Online};
use rc_traffic_manager::decide::{EndpointIndex, Health};
use rc_traffic_manager::monitor::{
    Driver, EndpointView, LatestSnapshot, Monitor, MonitorEvent, MonitorHandle, NetworkProber, ProbeAsk,
    ProbePlace, ProbePlan, ProbeTarget, Watch,
};
use rc_transport::testing::TestCa;
use rc_transport::{BootClock, Clock, Connector, Credentials, Expectation, Resolver, ResolverConfig, TcpNet};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fake_broker::{FakeBroker, Mode, SERVICE, eventually};

const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(200);
const TOLERATED: u8 = 1;
/// A loaded machine is slow; the bound itself is exact in virtual time.
const SOON: Duration = Duration::from_secs(20);

struct Lab {
    snapshot: LatestSnapshot,
    handle: MonitorHandle,
    events: mpsc::Receiver<MonitorEvent>,
    _stop: DropGuard,
}

impl Lab {
    fn start(credentials: Credentials, broker: &FakeBroker, expect: Expectation) -> Self {
        let plan =
            ProbePlan { interval: INTERVAL, timeout: TIMEOUT, tolerated_failures: TOLERATED, flap_limit: 0 };
        let mut random = SmallRng::seed_from_u64(1);
        let monitor = Monitor::new(&[Watch::Probed(plan)], 8, BootClock.now(), &mut random);
        let connector = Arc::new(Connector::new(Arc::new(credentials), Arc::new(TcpNet)));
        let place = ProbePlace::Address(broker.address);
        let target = ProbeTarget { place, ask: ProbeAsk::Broker(expect), timeout: TIMEOUT };
        let resolver = Resolver::new(ResolverConfig::default());
        let prober = NetworkProber::new(Some(connector), resolver, BootClock, vec![Some(target)]).unwrap();
        let snapshot = LatestSnapshot::default();
        let (sender, events) = mpsc::channel(64);
        let (driver, handle) = Driver::new(monitor, prober, BootClock, snapshot.clone(), sender);
        let stop = CancellationToken::new();
        tokio::spawn(driver.run(stop.clone()));
        Self { snapshot, handle, events, _stop: stop.drop_guard() }
    }

    fn health(&self) -> Health {
        self.snapshot.load().health(EndpointIndex(0))
    }

    async fn view(&self) -> EndpointView {
        self.handle.views().await.remove(0)
    }

    async fn becomes(&self, status: EndpointStatus) {
        eventually(SOON, async || self.health().status, |found| *found == status).await;
    }
}

fn tm(ca: &TestCa) -> Credentials {
    ca.credentials("traffic-manager/tm-1", &[])
}

fn service() -> Expectation {
    Expectation::ServiceName(SERVICE.to_owned())
}

#[tokio::test]
async fn a_broker_that_answers_is_online_with_what_it_says_of_itself() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let mut lab = Lab::start(tm(&ca), &broker, service());
    lab.becomes(Online).await;
    let report = lab.view().await.report.unwrap();
    let broker = report.broker.unwrap();
    assert_eq!((broker.broker.as_str(), report.load, broker.paths), ("in/broker-3", 125, 4));
    assert!(report.accepting && report.mesh_healthy);
    let event = lab.events.recv().await.unwrap();
    assert_eq!((event.before.status, event.after.status), (EndpointStatus::CheckingEndpoint, Online));
}

#[tokio::test]
async fn draining_and_mesh_health_are_known_with_the_next_probe() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let lab = Lab::start(tm(&ca), &broker, Expectation::Broker("in/broker-3".parse().unwrap()));
    lab.becomes(Online).await;
    for (mode, expected) in
        [(Mode::Draining, (false, true)), (Mode::CutOff, (true, false)), (Mode::Healthy, (true, true))]
    {
        broker.set(mode);
        let look = async || (lab.health().accepting, lab.health().mesh_healthy);
        eventually(SOON, look, |found| *found == expected).await;
        assert_eq!(lab.health().status, Online);
    }
}

#[tokio::test]
async fn f3_and_f4_a_frozen_and_a_stuck_broker_are_degraded_and_come_back() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let lab = Lab::start(tm(&ca), &broker, service());
    for mode in [Mode::Frozen, Mode::Stuck] {
        broker.set(Mode::Healthy);
        lab.becomes(Online).await;
        broker.set(mode);
        lab.becomes(Degraded).await;
        let view = lab.view().await;
        assert_eq!(view.last_failure.unwrap().label(), "timeout", "{mode:?}");
        assert!(view.failures > u32::from(TOLERATED) && view.report.is_none());
    }
}

#[tokio::test]
async fn m_12_a_closed_port_is_a_failure() {
    let ca = TestCa::new("mesh.test");
    let mut broker = FakeBroker::start(&ca, "in/broker-3").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    broker.address = free;
    let lab = Lab::start(tm(&ca), &broker, service());
    lab.becomes(Degraded).await;
    assert_eq!(lab.view().await.last_failure.unwrap().label(), "unreachable");
}

#[tokio::test]
async fn an_answer_that_is_not_to_the_probe_is_a_failure() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let lab = Lab::start(tm(&ca), &broker, service());
    for (mode, label) in
        [(Mode::WrongNonce, "misbehaved"), (Mode::OtherMessage, "misbehaved"), (Mode::Closing, "unreachable")]
    {
        broker.set(Mode::Healthy);
        lab.becomes(Online).await;
        broker.set(mode);
        lab.becomes(Degraded).await;
        assert_eq!(lab.view().await.last_failure.unwrap().label(), label, "{mode:?}");
    }
}

#[tokio::test]
async fn f23_another_broker_another_mesh_and_another_service_are_not_trusted() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let others = TestCa::new("mesh.test");
    for (credentials, expect) in [
        (tm(&ca), Expectation::Broker("in/broker-4".parse().unwrap())),
        (tm(&ca), Expectation::ServiceName("other.mesh.test".to_owned())),
        (tm(&others), service()),
    ] {
        let shown = format!("{expect:?}");
        let lab = Lab::start(credentials, &broker, expect);
        lab.becomes(Degraded).await;
        let failure = lab.view().await.last_failure.unwrap();
        assert_eq!(failure.label(), "untrusted", "{shown}: {failure}");
    }
}
