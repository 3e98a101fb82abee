//! M: health probes, in virtual time and against real services, seen through answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rc_proto::Moment;
use rc_traffic_manager::decide::EndpointIndex;
use rc_traffic_manager::decide::EndpointStatus::{Degraded, Online};
use rc_traffic_manager::monitor::{
    Driver, Monitor, MonitorAction, MonitorEvent, NetworkProber, ProbeAsk, ProbeFailure, Report, Watch,
};
use rc_transport::{BootClock, Clock, Resolver, ResolverConfig};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fake::{Act, Fake, Speaks};
use crate::stage::{Backend, Stage, endpoint, profile, simple};

const E1: &str = "203.0.113.1";
const E2: &str = "203.0.113.2";

/// Who probes.
enum Prober {
    /// Nobody: time goes on as the test says, and the fake's script is asked directly.
    Virtual {
        monitor: Box<Monitor>,
        now: Moment,
        rng: Box<StdRng>,
    },
    Real {
        _stop: DropGuard,
    },
}

/// `p` with `e1`, which a fake stands for, and `e2`, which always answers.
struct Probed {
    stage: Stage,
    fake: Fake,
    prober: Prober,
    events: Arc<Mutex<Vec<MonitorEvent>>>,
}

/// The probes of a profile over HTTP; with sockets an interval is a second.
fn http(backend: Backend, more: &str) -> String {
    let pace = if backend == Backend::Pure { "" } else { "interval = \"1s\"\ntimeout = \"1s\"\n" };
    format!("protocol = \"HTTP\"\nprobe_path = \"/x?y=1\"\n{pace}{more}")
}

fn probed_profile(name: &str, probes: &str) -> String {
    format!("[[profile]]\nname = \"{name}.tm.test\"\nmethod = \"Priority\"\n{probes}\n")
}

fn text(fake: &Fake, probes: &str, own: &str) -> String {
    probed_profile("p", probes)
        + &endpoint("p", "e1", E1, &format!("probe_address = \"{}\"\n{own}", fake.address))
        + &endpoint("p", "e2", E2, "always_serve = true")
}

impl Probed {
    fn start(backend: Backend, fake: Fake, text: &str) -> Self {
        let stage = Stage::new(backend, text);
        let events = Arc::new(Mutex::new(Vec::new()));
        let watches: Vec<Watch> = stage.config.endpoints.iter().map(|endpoint| endpoint.watch).collect();
        let mut rng = StdRng::seed_from_u64(7);
        let Some(runtime) = stage.runtime() else {
            let now = Moment::from_origin(Duration::from_secs(1000));
            let monitor = Box::new(Monitor::new(&watches, 100, now, &mut rng));
            stage.latest.observe(monitor.observed());
            return Self {
                stage,
                fake,
                prober: Prober::Virtual { monitor, now, rng: Box::new(rng) },
                events,
            };
        };
        let monitor = Monitor::new(&watches, 100, BootClock.now(), &mut rng);
        let targets = stage.config.endpoints.iter().map(|endpoint| endpoint.target.clone()).collect();
        let stop = CancellationToken::new();
        let told = Arc::clone(&events);
        runtime.block_on(async {
            let resolver = Resolver::new(ResolverConfig::default());
            let prober = NetworkProber::new(None, resolver, BootClock, targets).unwrap();
            let (sender, mut receiver) = mpsc::channel(1000);
            let (driver, _) = Driver::new(monitor, prober, BootClock, stage.latest.clone(), sender);
            tokio::spawn(driver.run(stop.clone()));
            tokio::spawn(async move {
                while let Some(event) = receiver.recv().await {
                    told.lock().unwrap().push(event);
                }
            });
        });
        Self { stage, fake, prober: Prober::Real { _stop: stop.drop_guard() }, events }
    }

    /// HTTP probes that tolerate so many failures, of a fake with this script.
    fn scripted(backend: Backend, tolerated: u8, first: &[Act], then: Act) -> Self {
        let fake = Fake::new(Speaks::Http, first, then);
        let text = text(&fake, &http(backend, &format!("tolerated_failures = {tolerated}")), "");
        Self::start(backend, fake, &text)
    }

    /// Virtual time goes on to the next timer; real time goes on by itself.
    fn step(&mut self) {
        let Prober::Virtual { monitor, now, rng } = &mut self.prober else {
            std::thread::sleep(Duration::from_millis(5));
            return;
        };
        *now = (*now).max(monitor.poll_timeout().unwrap());
        monitor.handle_timeout(*now, rng);
        while let Some(action) = monitor.poll_action() {
            let MonitorAction::Start { probe, .. } = action else { continue };
            let outcome = match self.fake.shared.next(String::new()) {
                Act::Ok => Ok(Report::answered(Duration::from_millis(3))),
                Act::Hang => continue,
                Act::Status(status) => Err(ProbeFailure::Status { status }),
                Act::Drop => Err(ProbeFailure::Unreachable { reason: "refused".to_owned() }),
            };
            monitor.handle_outcome(probe, outcome, *now, rng);
        }
        while let Some(event) = monitor.poll_event() {
            self.events.lock().unwrap().push(event);
        }
        self.stage.latest.observe(monitor.observed());
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = std::time::Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < crate::stage::DEADLINE, "{what} did not come true");
            self.step();
        }
    }

    /// Goes on until so many probes came: the outcomes of all but the last are known then.
    fn until_seen(&mut self, count: usize) {
        self.until("that many probes", |probed| probed.fake.seen() >= count);
    }

    fn was_degraded(&self) -> bool {
        self.events
            .lock()
            .unwrap()
            .iter()
            .any(|event| event.endpoint == EndpointIndex(0) && event.after.status == Degraded)
    }

    /// Whether the first probe leaves `e1` in the answers.
    fn stays(mut self) -> bool {
        self.until("a verdict", |probed| matches!(probed.stage.status("e1"), Online | Degraded));
        let is_online = self.stage.status("e1") == Online;
        assert_eq!(self.stage.one("p"), if is_online { E1 } else { E2 });
        is_online
    }
}

/// Whether a real fake that does this stays in the answers.
fn stays(backend: Backend, speaks: Speaks, act: Act, probes: &str) -> bool {
    let fake = Fake::new(speaks, &[], act);
    let text = text(&fake, probes, "");
    Probed::start(backend, fake, &text).stays()
}

const ONCE: &str = "tolerated_failures = 0\ninterval = \"5s\"\ntimeout = \"5s\"\n";

fn over_http(more: &str) -> String {
    format!("protocol = \"HTTP\"\nprobe_path = \"/x\"\n{ONCE}{more}")
}

fn over_https() -> String {
    format!("protocol = \"HTTPS\"\nprobe_path = \"/x\"\n{ONCE}")
}

fn over_tcp() -> String {
    format!("protocol = \"TCP\"\n{ONCE}")
}

pub(crate) fn m_01(backend: Backend) {
    let fake = Fake::new(Speaks::Http, &[], Act::Ok);
    // The port is the profile's; the address is that of the endpoint.
    let probes = over_http(&format!("probe_port = {}\n", fake.address.port()));
    let text = probed_profile("p", &probes)
        + &endpoint("p", "e1", "127.0.0.1", "")
        + &endpoint("p", "e2", E2, "always_serve = true");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until_seen(1);
    assert!(probed.fake.heads()[0].starts_with("GET /x HTTP/1.1\r\n"), "{:?}", probed.fake.heads());
    probed.until("an answer", |probed| probed.stage.status("e1") == Online);
    assert_eq!(probed.stage.one("p"), "127.0.0.1");
}

pub(crate) fn m_02(backend: Backend) {
    assert!(stays(backend, Speaks::Http, Act::Ok, &over_http("")));
    assert!(!stays(backend, Speaks::Http, Act::Status(204), &over_http("")));
}

pub(crate) fn m_03(backend: Backend) {
    for status in [301, 302] {
        let fake = Fake::new(Speaks::Http, &[], Act::Status(status));
        let text = text(&fake, &http(backend, "tolerated_failures = 0\n"), "");
        let mut probed = Probed::start(backend, fake, &text);
        probed.until_seen(2);
        assert!(probed.fake.heads().iter().all(|head| head.starts_with("GET /x?y=1 ")), "not followed");
        probed.until("leaving", |probed| probed.stage.one("p") == E2);
    }
}

pub(crate) fn m_04(backend: Backend) {
    let wide = over_http("expected_status = [\"200-299\", \"301-301\"]\n");
    assert!(stays(backend, Speaks::Http, Act::Status(301), &wide));
    assert!(stays(backend, Speaks::Http, Act::Status(204), &wide));
    assert!(!stays(backend, Speaks::Http, Act::Status(302), &wide));
}

/// A stage with one plain profile, for configurations that are refused.
fn plain(backend: Backend) -> Stage {
    Stage::new(backend, &simple("Priority", "", &["", ""]))
}

fn with_probes(probes: &str) -> String {
    probed_profile("p", probes) + &endpoint("p", "e1", E1, "")
}

pub(crate) fn m_05(backend: Backend) {
    let ranges = |count: usize| {
        let texts: Vec<String> =
            (0..count).map(|n| format!("\"{}-{}\"", 200 + 10 * n, 205 + 10 * n)).collect();
        with_probes(&over_http(&format!("expected_status = [{}]\n", texts.join(", "))))
    };
    let mut stage = plain(backend);
    stage.refuses(&ranges(9), "there are 9 ranges");
    stage.reload(&ranges(8)).unwrap();
}

pub(crate) fn m_06(backend: Backend) {
    // The fake's body is no text of anything.
    assert!(stays(backend, Speaks::Http, Act::Ok, &over_http("")));
}

pub(crate) fn m_07(backend: Backend) {
    assert!(stays(backend, Speaks::Https, Act::Ok, &over_https()), "unknown authority, other name");
    assert!(stays(backend, Speaks::HttpsExpired, Act::Ok, &over_https()), "expired");
}

pub(crate) fn m_08(backend: Backend) {
    assert!(!stays(backend, Speaks::Http, Act::Ok, &over_https()));
}

pub(crate) fn m_09(backend: Backend) {
    assert!(!stays(backend, Speaks::HttpsWithClientCertificate, Act::Ok, &over_https()));
}

pub(crate) fn m_10(backend: Backend) {
    assert!(stays(backend, Speaks::Tcp, Act::Ok, &over_tcp()));
}

pub(crate) fn m_11(backend: Backend) {
    let fake = Fake::new(Speaks::Tcp, &[], Act::Ok);
    let text = text(&fake, &over_tcp(), "");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until("the probe's end", |probed| probed.fake.ended() >= 1);
    assert!(probed.stays());
}

pub(crate) fn m_12(backend: Backend) {
    let fake = Fake::new(Speaks::Tcp, &[], Act::Ok);
    // Nobody listens at a port that was just let go.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = probed_profile("p", &over_tcp())
        + &endpoint("p", "e1", E1, &format!("probe_address = \"{closed}\""))
        + &endpoint("p", "e2", E2, "always_serve = true");
    assert!(!Probed::start(backend, fake, &text).stays());
}

pub(crate) fn m_13(backend: Backend) {
    let mut stage = plain(backend);
    for protocol in ["HTTP", "HTTPS"] {
        stage.refuses(&with_probes(&format!("protocol = \"{protocol}\"")), "need a path");
    }
    stage.refuses(&with_probes("protocol = \"TCP\"\nprobe_path = \"/\""), "only HTTP and HTTPS");
}

/// What a strict configuration with these probes says; the endpoint is public.
fn strict(probes: &str) -> String {
    probed_profile("p", &format!("protocol = \"TCP\"\n{probes}"))
        + &endpoint("p", "e1", "8.8.8.8", "")
        + "[azure]\nstrict = true\n"
}

fn plan(stage: &Stage) -> (u64, u64, u8) {
    let Watch::Probed(plan) = stage.config.endpoints[0].watch else { panic!("it is probed") };
    (plan.interval.as_secs(), plan.timeout.as_secs(), plan.tolerated_failures)
}

pub(crate) fn m_14(backend: Backend) {
    let mut stage = plain(backend);
    stage.refuses(&strict("interval = \"20s\"\ntimeout = \"5s\""), "Azure does not probe every 20000 ms");
    for (probes, interval) in [("", 30), ("interval = \"30s\"", 30), ("interval = \"10s\"", 10)] {
        stage.reload(&strict(probes)).unwrap();
        assert_eq!(plan(&stage).0, interval);
    }
    stage.reload(&with_probes("protocol = \"TCP\"\ninterval = \"1s\"")).unwrap();
}

pub(crate) fn m_15(backend: Backend) {
    let mut stage = plain(backend);
    for (interval, wrong) in [(30, "4s"), (30, "11s"), (10, "4s"), (10, "10s"), (30, "5500ms")] {
        let text = strict(&format!("interval = \"{interval}s\"\ntimeout = \"{wrong}\""));
        stage.refuses(&text, "Azure does not wait");
    }
    for (interval, right) in [(30, 5), (30, 10), (10, 5), (10, 9)] {
        stage.reload(&strict(&format!("interval = \"{interval}s\"\ntimeout = \"{right}s\""))).unwrap();
        assert_eq!(plan(&stage).1, right);
    }
    for (interval, default) in [(30, 10), (10, 9)] {
        stage.reload(&strict(&format!("interval = \"{interval}s\""))).unwrap();
        assert_eq!(plan(&stage).1, default);
    }
}

pub(crate) fn m_16(backend: Backend) {
    let mut stage = plain(backend);
    assert_eq!(plan(&stage).2, 3);
    stage.refuses(&strict("tolerated_failures = 10"), "out of range");
    for right in [0, 9] {
        stage.reload(&strict(&format!("tolerated_failures = {right}"))).unwrap();
        assert_eq!(plan(&stage).2, right);
    }
}

const S: Act = Act::Ok;
const F: Act = Act::Status(500);

pub(crate) fn m_17(backend: Backend) {
    let mut probed = Probed::scripted(backend, 3, &[S, F, F, F], S);
    probed.until_seen(6);
    assert!(!probed.was_degraded());
    assert_eq!(probed.stage.one("p"), E1);
    let mut probed = Probed::scripted(backend, 3, &[S], F);
    probed.until_seen(4);
    assert!(!probed.was_degraded(), "three outcomes at most are bad");
    probed.until("leaving", |probed| probed.stage.one("p") == E2);
    assert!(probed.fake.seen() <= 6, "{} probes", probed.fake.seen());
}

pub(crate) fn m_18(backend: Backend) {
    let mut probed = Probed::scripted(backend, 0, &[S], F);
    probed.until("leaving", |probed| probed.stage.one("p") == E2);
    assert!(probed.fake.seen() <= 3, "{} probes", probed.fake.seen());
    assert_eq!(probed.events.lock().unwrap().last().map(|event| event.before.status), Some(Online));
}

pub(crate) fn m_19(backend: Backend) {
    let mut probed = Probed::scripted(backend, 3, &[F, F, F, S, F, F, F], S);
    probed.until_seen(9);
    assert!(!probed.was_degraded());
    assert_eq!(probed.stage.one("p"), E1);
}

pub(crate) fn m_20(backend: Backend) {
    let mut probed = Probed::scripted(backend, 0, &[], F);
    probed.until("leaving", |probed| probed.stage.one("p") == E2);
    let before = probed.fake.seen();
    probed.until_seen(before + 2);
    assert_eq!(probed.stage.one("p"), E2);
}

pub(crate) fn m_21(backend: Backend) {
    let mut probed = Probed::scripted(backend, 1, &[F, F, F, F], S);
    probed.until("leaving", |probed| probed.was_degraded());
    probed.until("coming back", |probed| probed.stage.one("p") == E1);
    assert_eq!(probed.stage.status("e1"), Online);
    assert!((5..=6).contains(&probed.fake.seen()), "{} probes", probed.fake.seen());
}

pub(crate) fn m_22(backend: Backend) {
    let mut probed = Probed::scripted(backend, 0, &[S], Act::Hang);
    probed.until_seen(2);
    probed.until("leaving", |probed| probed.stage.one("p") == E2);
}

pub(crate) fn m_23(backend: Backend) {
    if backend != Backend::Pure {
        // The bound itself is exact in virtual time; here the service only has to be gone.
        return m_22(backend);
    }
    for (probes, bound) in [("", 160), ("interval = \"10s\"\ntimeout = \"5s\"\ntolerated_failures = 0\n", 15)]
    {
        let fake = Fake::new(Speaks::Http, &[S], Act::Hang);
        let text = text(&fake, &http(backend, probes), "");
        let mut probed = Probed::start(backend, fake, &text);
        probed.until_seen(1);
        // The fault comes right behind the answer.
        let Prober::Virtual { now: fault, .. } = probed.prober else { panic!("virtual time") };
        probed.until("leaving", |probed| probed.stage.one("p") == E2);
        let Prober::Virtual { now, .. } = probed.prober else { panic!("virtual time") };
        assert!(now.since(fault) <= Duration::from_secs(bound), "{:?}", now.since(fault));
    }
}

fn header_list(count: usize) -> String {
    let texts: Vec<String> = (1..=count).map(|n| format!("\"X-Header-{n}: value {n}\"")).collect();
    format!("probe_headers = [{}]\n", texts.join(", "))
}

pub(crate) fn m_24(backend: Backend) {
    plain(backend).refuses(&with_probes(&over_http(&header_list(9))), "there are 9 headers");
    let fake = Fake::new(Speaks::Http, &[], Act::Ok);
    let text = text(&fake, &over_http(&header_list(8)), "");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until_seen(1);
    for n in 1..=8 {
        assert!(probed.fake.heads()[0].contains(&format!("\r\nX-Header-{n}: value {n}\r\n")));
    }
}

pub(crate) fn m_25(backend: Backend) {
    let fake = Fake::new(Speaks::Http, &[], Act::Ok);
    let of_profile = over_http("probe_headers = [\"Host: profile.test\", \"X-Kept: yes\"]\n");
    let text = text(&fake, &of_profile, "probe_headers = [\"host: endpoint.test\"]");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until_seen(1);
    let head = probed.fake.heads()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nhost: endpoint.test\r\n") && head.contains("\r\nx-kept: yes\r\n"), "{head}");
    assert_eq!(head.matches("\r\nhost:").count(), 1);
}

pub(crate) fn m_26(backend: Backend) {
    let fake = Fake::new(Speaks::Http, &[], Act::Ok);
    let text = probed_profile("p", &over_http(""))
        + &endpoint("p", "e1", "b1.example.net", &format!("probe_address = \"{}\"", fake.address));
    let mut probed = Probed::start(backend, fake, &text);
    probed.until_seen(1);
    assert!(probed.fake.heads()[0].contains("\r\nHost: b1.example.net\r\n"), "{:?}", probed.fake.heads());
}

pub(crate) fn m_27(backend: Backend) {
    plain(backend)
        .refuses(&with_probes(&over_http("probe_headers = [\"Host: *.example.net\"]\n")), "without *");
}

pub(crate) fn m_28(backend: Backend) {
    let fake = Fake::new(Speaks::Http, &[], Act::Ok);
    let at = format!("probe_address = \"{}\"", fake.address);
    let child = |name: &str, path: &str| {
        probed_profile(name, &over_http("").replace("/x", path))
            + &endpoint(name, &format!("{name}1"), E1, &at)
            + &endpoint(name, &format!("{name}2"), E2, &at)
    };
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@a", "")
        + &endpoint("p", "n2", "@b", "")
        + &child("a", "/a")
        + &child("b", "/b");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until_seen(4);
    let mut paths: Vec<String> =
        probed.fake.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    paths.truncate(4);
    paths.sort();
    assert_eq!(paths, ["/a", "/a", "/b", "/b"]);
    let of = |at: usize| match &probed.stage.config.endpoints[at].target.as_ref().unwrap().ask {
        ProbeAsk::Http(probe) => probe.path.clone(),
        other => panic!("HTTP, not {other:?}"),
    };
    assert_eq!([of(2), of(3), of(4), of(5)], ["/a", "/a", "/b", "/b"]);
}

pub(crate) fn m_31(backend: Backend) {
    let fake = Fake::new(Speaks::Http, &[], F);
    let at = format!("probe_address = \"{}\"", fake.address);
    let text = text(&fake, &http(backend, "tolerated_failures = 0\n"), "")
        + &probed_profile("q", &http(backend, "tolerated_failures = 9\n"))
        + &endpoint("q", "q1", E1, &at)
        + &endpoint("q", "q2", E2, "always_serve = true");
    let mut probed = Probed::start(backend, fake, &text);
    probed.until("leaving", |probed| probed.stage.one("p") == E2);
    probed.until_seen(4);
    assert_eq!(probed.stage.one("q"), E1);
}
