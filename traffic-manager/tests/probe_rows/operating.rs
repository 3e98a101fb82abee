//! What an operator does to the running program: change its configuration, restart it, order and ask.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rc_transport::testing::TestCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake_broker::{FakeBroker, Mode, SERVICE, eventually};
use crate::process::{SOON, answered, ask, configuration, start};

struct Lab {
    /// Its files are those of the configuration.
    _ca: TestCa,
    brokers: [FakeBroker; 2],
    dir: tempfile::TempDir,
    config: std::path::PathBuf,
}

impl Lab {
    async fn new() -> Self {
        let ca = TestCa::new("mesh.test");
        let brokers =
            [FakeBroker::start(&ca, "in/broker-3").await, FakeBroker::start(&ca, "in/broker-4").await];
        let dir = tempfile::tempdir().unwrap();
        let config = configuration(&ca, dir.path(), &[&brokers[0], &brokers[1]]);
        Self { _ca: ca, brokers, dir, config }
    }

    fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }
}

fn signal(child: &tokio::process::Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

async fn becomes(server: SocketAddr, expected: &[u8]) {
    eventually(SOON, async || answered(server).await, |found| *found == expected).await;
}

/// Asks all the time and counts; [`answered`] panics when an answer is missing or malformed.
fn ask_all_the_time(server: SocketAddr, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let count = AtomicUsize::new(0);
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            assert!(!answered(server).await.is_empty());
            count.fetch_add(1, Ordering::Relaxed);
        }
        count.into_inner()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn l_14_a_changed_file_is_served_soon_and_no_query_fails_meanwhile() {
    let lab = Lab::new().await;
    let (child, server) = start(&lab.config).await;
    becomes(server, &[0, 1]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking = ask_all_the_time(server, Arc::clone(&stop));
    for (from, to) in [("203.0.113.1", "203.0.113.9"), ("203.0.113.9", "203.0.113.1")] {
        lab.change(from, to);
        let last = if to.ends_with('9') { 9 } else { 1 };
        becomes(server, &[0, last]).await;
    }
    lab.change("203.0.113.1", "203.0.113.7");
    signal(&child, rustix::process::Signal::HUP);
    becomes(server, &[0, 7]).await;
    lab.change("203.0.113.7", "203.0.113.8");
    assert_eq!(
        ask(&lab.config, &["reload"]).await,
        (Some(0), "1 profiles, 2 endpoints are served\n".to_owned())
    );
    assert_eq!(answered(server).await, [0, 8], "once the command has ended");
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_what_runs_and_says_everything_that_is_wrong() {
    let lab = Lab::new().await;
    let (_child, server) = start(&lab.config).await;
    becomes(server, &[0, 1]).await;
    lab.change("ttl = 1", "ttl = -1\nunheard_of = 7");
    let refused = async || {
        let (_, events) = ask(&lab.config, &["events", "--json"]).await;
        events.lines().find(|line| line.contains("config.refused")).map(ToOwned::to_owned)
    };
    eventually(SOON, &refused, Option::is_some).await;
    let event = refused().await.unwrap();
    assert!(event.contains("ttl") && event.contains("unheard_of"), "{event}");
    assert_eq!(answered(server).await, [0, 1]);
    assert_eq!(ask(&lab.config, &["reload"]).await.0, Some(5));
    lab.change("ttl = -1\nunheard_of = 7", "ttl = 3");
    eventually(
        SOON,
        async || ask(&lab.config, &["status", "--json"]).await.1,
        |text| serde_json::from_str::<serde_json::Value>(text).unwrap()["profiles"][0]["ttl"] == 3,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f49_a_restarted_process_serves_the_last_known_state_at_once() {
    let lab = Lab::new().await;
    let (mut child, server) = start(&lab.config).await;
    lab.brokers[0].set(Mode::Frozen);
    becomes(server, &[1]).await;
    let state = lab.dir.path().join("admin/tm.state.json");
    let is_saved = async || std::fs::read_to_string(&state).unwrap_or_default();
    eventually(SOON, is_saved, |text| text.contains("Degraded") && text.contains("Online")).await;
    // Killed, so that nothing is tidied up at the end.
    child.kill().await.unwrap();
    std::fs::remove_file(lab.config.with_file_name("ready.json")).unwrap();
    // Nobody answers the new process's probes: what it answers is what was known.
    lab.brokers[1].set(Mode::Frozen);
    let (_child, server) = start(&lab.config).await;
    assert_eq!(answered(server).await, [1], "neither both nor none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_holds_over_the_configuration_and_over_a_restart() {
    let lab = Lab::new().await;
    let (mut child, server) = start(&lab.config).await;
    becomes(server, &[0, 1]).await;
    for state in ["drain", "disabled"] {
        let (code, _) = ask(&lab.config, &["set", "endpoint", SERVICE, "e0", state]).await;
        assert_eq!((code, answered(server).await), (Some(0), vec![1]), "{state}");
    }
    lab.change("ttl = 1", "ttl = 2");
    assert_eq!(ask(&lab.config, &["reload"]).await.0, Some(0));
    assert_eq!(answered(server).await, [1]);
    let state = lab.dir.path().join("admin/tm.state.json");
    let is_saved = async || std::fs::read_to_string(&state).unwrap_or_default();
    eventually(SOON, is_saved, |text| text.contains("disabled")).await;
    child.kill().await.unwrap();
    std::fs::remove_file(lab.config.with_file_name("ready.json")).unwrap();
    let (_child, server) = start(&lab.config).await;
    assert_eq!(answered(server).await, [1]);
    let (_, text) = ask(&lab.config, &["explain", SERVICE, "--from", "198.51.100.7"]).await;
    assert!(text.contains("203.0.113.1") && !text.contains("203.0.113.0"), "{text}");
    assert_eq!(ask(&lab.config, &["set", "endpoint", SERVICE, "e0", "enabled"]).await.0, Some(0));
    becomes(server, &[0, 1]).await;
    assert_eq!(ask(&lab.config, &["set", "endpoint", SERVICE, "e7", "drain"]).await.0, Some(6));
    assert_eq!(ask(&lab.config, &["explain", "nosuch.mesh.test", "--from", "::1"]).await.0, Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_queries_and_endpoints_on_a_listener_of_their_own() {
    let lab = Lab::new().await;
    let text = std::fs::read_to_string(&lab.config).unwrap();
    std::fs::write(&lab.config, format!("[metrics]\naddresses = [\"127.0.0.1:0\"]\n{text}")).unwrap();
    let (_child, server) = start(&lab.config).await;
    becomes(server, &[0, 1]).await;
    let listener = metrics_address(&lab.config);
    eventually(
        SOON,
        async || metrics(listener).await,
        |text| text.contains("rc_traffic_manager_endpoints{status=\"Online\"} 2"),
    )
    .await;
    let text = metrics(listener).await;
    assert!(text.contains("rc_traffic_manager_queries_total{outcome=\"answer\"} "), "{text}");
    assert!(text.contains("rc_traffic_manager_limited_responses_total 0"), "{text}");
}

fn metrics_address(config: &Path) -> SocketAddr {
    let ready = rc_daemon::ready::Ready::read(&config.with_file_name("ready.json")).unwrap();
    ready.listen["metrics"][0]
}

async fn metrics(listener: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(listener).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
