//! The whole program: configuration, probes, DNS, admin socket, signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use rc_daemon::ready::Ready;
use rc_transport::testing::TestCa;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

use crate::fake_broker::{FakeBroker, Mode, SERVICE, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_rc-traffic-manager");
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn configuration(ca: &TestCa, dir: &Path, brokers: &[&FakeBroker]) -> PathBuf {
    let files = ca.issue(&ca.id("traffic-manager/tm-1"), &[]);
    let mut text = format!(
        r#"
[credentials]
certificate = {:?}
key = {:?}
ca = {:?}
crl = {:?}
[listen]
dns = ["127.0.0.1:0"]
responses_per_second = 0
[admin]
socket = {:?}
[ready]
file = "ready.json"
[[zone]]
name = "mesh.test"
[[profile]]
name = "{SERVICE}"
ttl = 1
max_return = 4
interval = "200ms"
timeout = "200ms"
tolerated_failures = 1
"#,
        files.certificate,
        files.key,
        files.ca,
        files.crl.unwrap(),
        dir.join("admin/tm.sock"),
    );
    for (at, broker) in brokers.iter().enumerate() {
        text.push_str(&format!(
            "[[endpoint]]\nprofile = \"{SERVICE}\"\nname = \"e{at}\"\naddress = \"203.0.113.{at}\"\nprobe_address = \"{}\"\n",
            broker.address
        ));
    }
    let file = dir.join("tm.toml");
    std::fs::write(&file, text).unwrap();
    file
}

pub(crate) async fn start(config: &Path) -> (Child, SocketAddr) {
    let child = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(config)
        .kill_on_drop(true)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = config.with_file_name("ready.json");
    eventually(SOON, async || Ready::read(&ready).is_ok(), |is_ready| *is_ready).await;
    let ready = Ready::read(&ready).unwrap();
    assert_eq!(Some(ready.pid), child.id());
    (child, ready.listen["dns"][0])
}

/// The last numbers of the answered addresses, sorted.
pub(crate) async fn answered(server: SocketAddr) -> Vec<u8> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(format!("{SERVICE}.")).unwrap(), RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
    let mut bytes = [0; 1500];
    let length = tokio::time::timeout(SOON, socket.recv(&mut bytes)).await.unwrap().unwrap();
    let answer = Message::from_vec(&bytes[..length]).unwrap();
    let mut found: Vec<u8> = answer
        .answers
        .iter()
        .map(|record| match record.data.ip_addr().unwrap() {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(address) => panic!("{address}"),
        })
        .collect();
    found.sort_unstable();
    found
}

pub(crate) async fn ask(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY).args(arguments).arg("--config").arg(config).output().await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_a_frozen_broker_leaves_dns_and_comes_back_and_the_process_ends_cleanly() {
    let ca = TestCa::new("mesh.test");
    let brokers = [FakeBroker::start(&ca, "in/broker-3").await, FakeBroker::start(&ca, "in/broker-4").await];
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(&ca, dir.path(), &[&brokers[0], &brokers[1]]);
    let (mut child, server) = start(&config).await;
    assert_eq!(answered(server).await, [0, 1], "both are being checked");
    let (_, text) = ask(&config, &["status"]).await;
    assert!(text.contains("203.0.113.0") && text.contains(SERVICE), "{text}");

    brokers[0].set(Mode::Frozen);
    eventually(SOON, async || answered(server).await, |found| *found == [1]).await;
    let (_, text) = ask(&config, &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let endpoints = &status["profiles"][0]["endpoints"];
    assert_eq!((&endpoints[0]["status"], &endpoints[0]["cause"]), (&"Degraded".into(), &"timeout".into()));
    assert_eq!((&endpoints[1]["status"], &endpoints[1]["report"]["load"]), (&"Online".into(), &125.into()));
    brokers[1].set(Mode::Stuck);
    eventually(SOON, async || answered(server).await, |found| *found == [0, 1]).await;

    brokers[0].set(Mode::Healthy);
    eventually(SOON, async || answered(server).await, |found| *found == [0]).await;
    let (_, events) = ask(&config, &["events", "--json"]).await;
    let changes = events.lines().filter(|line| line.contains("endpoint.health")).count();
    assert!(changes >= 4 && events.contains("dns.serving"), "{events}");

    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(SOON, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(!dir.path().join("ready.json").exists());
    assert_eq!(ask(&config, &["status"]).await.0, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_a_wrong_role_and_a_wrong_configuration_are_said_in_one_line_each() {
    let ca = TestCa::new("mesh.test");
    let broker = FakeBroker::start(&ca, "in/broker-3").await;
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(&ca, dir.path(), &[&broker]);
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let wrong = ca.issue(&ca.id("controller/c-1"), &[]);
    for (set, expected) in [
        (vec![format!("listen.dns={taken}")], "cannot listen on"),
        (
            vec![
                format!("credentials.certificate={}", wrong.certificate.display()),
                format!("credentials.key={}", wrong.key.display()),
            ],
            "the certificate is of role controller",
        ),
        (vec!["listen.dsn=127.0.0.1:0".to_owned()], "did you mean listen.dns?"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(&config).args(["--log", "error"]);
        for assignment in &set {
            command.args(["--set", assignment]);
        }
        let output = tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.lines().count() == 1 && text.contains(expected), "{text}");
    }
}
