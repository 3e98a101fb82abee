//! What bad input gets: one clear line and an exit code at the client, one event where it was refused, nothing else
//! disturbed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use rc_certs::{Flaw, LeafRequest, RevokeRequest, TicketRequest};
use rc_proto::wire::Role;
use rc_tests::endpoints::ticket_request;
use rc_tests::{ControllerNode, Mesh, TargetNode, ms};

use crate::support::{one_region, run, stderr, stdout};

/// A deployment of one broker with one Target, and a Controller.
struct Small {
    mesh: Mesh,
    _target: TargetNode,
    alice: ControllerNode,
}

async fn small() -> Small {
    let mesh = one_region(1).await;
    let target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    Small { mesh, _target: target, alice }
}

/// One line on standard error that names `words`, and the exit code.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("rc-controller: ")).collect();
    assert_eq!(lines.len(), 1, "one clear line is expected: {text}");
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is missing in {:?}", lines[0]);
    }
}

impl Small {
    fn ticket_of(&self, change: impl FnOnce(&mut TicketRequest)) -> PathBuf {
        let mut request = ticket_request(&self.alice, "pc-1", &["*"]).unwrap();
        change(&mut request);
        self.write_ticket(&self.mesh.authority().mint_ticket(&request).unwrap())
    }

    fn write_ticket(&self, text: &str) -> PathBuf {
        let path = self.mesh.directory().join(format!("bad-{}.ticket", rand_suffix()));
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn ping(&self, ticket: &Path) -> Output {
        run(&self.alice, &["ping", "pc-1", "--count", "1"], ticket).await
    }

    /// Whoever was refused disturbed nobody: a good ticket works.
    async fn still_works(&self) {
        let ticket = self.mesh.ticket(&self.alice, "pc-1", &["*"]).unwrap();
        let output = self.ping(&ticket).await;
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

fn rand_suffix() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_for_another_target_is_refused() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-2", &["*"]).unwrap();
    refused(&small.ping(&ticket).await, 5, &["ticket"]);
    small.still_works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_another_controller_is_refused() {
    let small = small().await;
    let bob = small.mesh.controller("in", "bob").unwrap();
    let ticket = small.mesh.ticket(&bob, "pc-1", &["*"]).unwrap();
    refused(&small.ping(&ticket).await, 5, &["ticket"]);
    small.still_works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_ticket_is_refused() {
    let small = small().await;
    let ticket = small.ticket_of(|request| {
        request.starts_at = Some(SystemTime::now() - Duration::from_secs(7200));
        request.start_by = Duration::from_secs(60);
        request.life = Duration::from_secs(3600);
    });
    refused(&small.ping(&ticket).await, 5, &["ticket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_whose_start_has_passed_starts_no_session() {
    let small = small().await;
    let ticket = small.ticket_of(|request| {
        request.starts_at = Some(SystemTime::now() - Duration::from_secs(1200));
        request.start_by = Duration::from_secs(60);
    });
    refused(&small.ping(&ticket).await, 5, &["ticket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_is_not_valid_yet_is_refused() {
    let small = small().await;
    let ticket = small.ticket_of(|request| {
        request.starts_at = Some(SystemTime::now() + Duration::from_secs(600));
    });
    refused(&small.ping(&ticket).await, 5, &["clock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_starts_one_session_only() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-1", &["*"]).unwrap();
    let first = small.ping(&ticket).await;
    assert!(first.status.success(), "{}", stderr(&first));
    refused(&small.ping(&ticket).await, 5, &["ticket", "used"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_flipped_ticket_is_refused() {
    let small = small().await;
    let good = small.mesh.ticket(&small.alice, "pc-1", &["*"]).unwrap();
    let text = std::fs::read_to_string(good).unwrap();
    let position = text.rfind('.').unwrap() + 20;
    let flipped: String = text
        .char_indices()
        .map(|(index, c)| if index == position { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    refused(&small.ping(&small.write_ticket(&flipped)).await, 5, &["ticket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_an_unknown_key_is_refused() {
    let small = small().await;
    // Brokers and targets read the key set when they start: this key came later.
    let kid = small.mesh.authority().add_ticket_key(None).unwrap();
    let ticket = small.ticket_of(|request| request.kid = Some(kid));
    refused(&small.ping(&ticket).await, 5, &["ticket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_that_is_no_ticket_is_refused_before_it_is_sent() {
    let small = small().await;
    refused(&small.ping(&small.write_ticket("hello")).await, 2, &["ticket"]);
    refused(&small.ping(Path::new("/no/such/ticket")).await, 2, &["/no/such/ticket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_target_is_waited_for_and_then_not_found() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-9", &["*"]).unwrap();
    let begin = std::time::Instant::now();
    refused(&run(&small.alice, &["ping", "pc-9", "--count", "1"], &ticket).await, 6, &["pc-9"]);
    let waited = begin.elapsed();
    assert!(waited >= ms(8000) && waited < ms(14_000), "parked to the deadline, not {waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_target_gets_the_same_line_as_an_unknown_one() {
    let Small { mesh, mut _target, alice } = small().await;
    _target.node_mut().kill().await;
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let offline = run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await;
    refused(&offline, 6, &["pc-1"]);
    let ticket = mesh.ticket(&alice, "pc-9", &["*"]).unwrap();
    let unknown = run(&alice, &["ping", "pc-9", "--count", "1"], &ticket).await;
    assert_eq!(stderr(&unknown).replace("pc-9", "pc-1"), stderr(&offline));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_offered_is_not_found() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-1", &["*"]).unwrap();
    let output = run(&small.alice, &["connect", "pc-1", "tcp:nothing"], &ticket).await;
    refused(&output, 6, &["tcp:nothing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_the_ticket_does_not_permit_is_refused() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-1", &["echo"]).unwrap();
    let output = run(&small.alice, &["connect", "pc-1", "sink"], &ticket).await;
    refused(&output, 5, &["sink"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_beyond_the_targets_rate_is_told_to_try_later() {
    let mesh = one_region(1).await;
    let target = mesh.target("in", "pc-1").set("limits.attaches_per_minute=1");
    let _target = target.start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let first = run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await;
    assert!(first.status.success(), "{}", stderr(&first));
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    refused(&run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await, 5, &["in a minute"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_without_a_terminal_is_a_refusal() {
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").set("consent.policy=ask").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let output = run(&alice, &["connect", "pc-1", "echo"], &ticket).await;
    refused(&output, 5, &["consent"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_controller_is_refused() {
    let mesh = one_region(1).await;
    let alice = mesh.controller("in", "alice").unwrap();
    mesh.authority().revoke(&RevokeRequest::Certificate(alice.certificate().to_owned())).unwrap();
    let mut mesh = mesh;
    let broker = mesh.layout().brokers().next().unwrap().clone();
    mesh.restart_broker(&broker).await.unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let output = run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await;
    refused(&output, 2, &["certificate"]);
}

/// Controllers whose certificate has a flaw. Those that this side can see are refused before anything is sent.
async fn with_flawed_controller(
    issue: impl FnOnce(&Mesh) -> rc_certs::IssuedFiles,
    code: i32,
    words: &[&str],
) {
    let mesh = one_region(1).await;
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let flawed = issue(&mesh);
    let output = alice
        .command(&["ping", "pc-1", "--count", "1"], &ticket)
        .args(["--set", &format!("credentials.certificate={}", flawed.certificate.display())])
        .args(["--set", &format!("credentials.key={}", flawed.key.display())])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    refused(&output, code, words);
}

fn mallory() -> LeafRequest {
    LeafRequest::new(Role::Controller, "mallory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_named_with_its_remedy() {
    let issue = |mesh: &Mesh| {
        let start = SystemTime::now() - Duration::from_secs(3600);
        mesh.authority().issue(&mallory().starts_at(start).life(Duration::from_secs(60))).unwrap()
    };
    with_flawed_controller(issue, 2, &["mallory", "renew"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_valid_yet_points_to_the_clock() {
    let issue = |mesh: &Mesh| {
        let start = SystemTime::now() + Duration::from_secs(3600);
        mesh.authority().issue(&mallory().starts_at(start)).unwrap()
    };
    with_flawed_controller(issue, 2, &["clock"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_role_is_refused() {
    let issue = |mesh: &Mesh| mesh.authority().issue(&LeafRequest::new(Role::Target, "mallory")).unwrap();
    with_flawed_controller(issue, 2, &["controller"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_two_uri_names_is_refused() {
    let issue = |mesh: &Mesh| mesh.authority().issue_flawed(&mallory(), Flaw::TwoUriNames).unwrap();
    with_flawed_controller(issue, 2, &["URI"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_the_wrong_key_usage_is_refused() {
    let issue = |mesh: &Mesh| mesh.authority().issue_flawed(&mallory(), Flaw::KeyUsage).unwrap();
    with_flawed_controller(issue, 2, &["client authentication"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused_on_either_side() {
    let mesh = one_region(1).await;
    let other = rc_certs::Authority::create(&mesh.directory().join("other"), mesh.authority().trust_domain())
        .unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let stranger = other.issue(&mallory()).unwrap();
    let output = alice
        .command(&["ping", "pc-1", "--count", "1"], &ticket)
        .args(["--set", &format!("credentials.certificate={}", stranger.certificate.display())])
        .args(["--set", &format!("credentials.key={}", stranger.key.display())])
        .args(["--set", &format!("credentials.ca={}", other.ca_file().display())])
        .args(["--set", &format!("credentials.crl={}", other.crl_file().display())])
        .output()
        .await
        .unwrap();
    refused(&output, 3, &["certificate"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let issue = |mesh: &Mesh| {
        let files = mesh.authority().issue(&mallory()).unwrap();
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
        files
    };
    with_flawed_controller(issue, 2, &["mallory", "chmod"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_key_is_named() {
    let issue = |mesh: &Mesh| {
        let files = mesh.authority().issue(&mallory()).unwrap();
        std::fs::remove_file(&files.key).unwrap();
        files
    };
    with_flawed_controller(issue, 2, &["mallory.key"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let mut mesh = one_region(1).await;
    let broker = mesh.layout().brokers().next().unwrap().clone();
    let config = mesh.broker(&broker).unwrap().config().display().to_string();
    let socket = format!("admin.socket={}", mesh.directory().join("second.sock").display());
    let arguments = ["run", "--config", &config, "--set", &socket].map(ToOwned::to_owned);
    let output = crate::support::program().command("broker", &arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    assert!(mesh.broker_mut(&broker).unwrap().node_mut().is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_brokers_down_the_name_is_unreachable() {
    let Small { mut mesh, _target, alice } = small().await;
    let broker = mesh.layout().brokers().next().unwrap().clone();
    mesh.kill_broker(&broker).await;
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    refused(&run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await, 3, &["brokers.mesh.test"]);
}

/// A DNS server that answers every question with the same bytes behind the question's id, or not at all.
async fn dns_stub(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..count]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

/// The question with the answer bit and a response code.
fn with_code(question: &[u8], code: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = (answer[3] & 0xf0) | code;
    answer
}

async fn with_dns(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static, words: &[&str]) {
    let small = small().await;
    let stub = dns_stub(answer).await;
    let ticket = small.mesh.ticket(&small.alice, "pc-1", &["*"]).unwrap();
    let begin = std::time::Instant::now();
    let output = small
        .alice
        .command(&["ping", "pc-1", "--count", "1"], &ticket)
        .args(["--set", &format!("brokers.name_servers={stub}")])
        .output()
        .await
        .unwrap();
    refused(&output, 3, words);
    assert!(begin.elapsed() < ms(15_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_exist_says_so() {
    with_dns(|question| Some(with_code(question, 3)), &["brokers.mesh.test", "does not exist"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_dns_server_says_so() {
    with_dns(|question| Some(with_code(question, 2)), &["brokers.mesh.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_dns_answer_says_so() {
    with_dns(|question| Some(with_code(question, 0)), &["brokers.mesh.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_dns_server_says_so() {
    with_dns(|_| None, &["brokers.mesh.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_garbage_dns_answer_says_so() {
    with_dns(|question| Some([&question[..2], &[0xff; 40]].concat()), &["brokers.mesh.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancers_bare_connect_is_counted_and_not_logged() {
    let mesh = one_region(1).await;
    let broker = mesh.layout().brokers().next().unwrap().clone();
    let address = mesh.address("in", &broker).unwrap();
    let silent = |status: &serde_json::Value| status["counters"]["connections_silent"].as_u64().unwrap();
    let before = silent(&mesh.broker(&broker).unwrap().ask("status").await.unwrap().1);
    for _ in 0..5 {
        drop(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let counted = || async {
        let status = mesh.broker(&broker).unwrap().ask("status").await;
        status.is_some_and(|(_, status)| silent(&status) >= before + 5)
    };
    assert!(rc_tests::eventually_async(ms(5000), counted).await);
    let log = mesh.broker(&broker).unwrap().node().log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_configuration_key_is_refused_with_its_place() {
    let small = small().await;
    let ticket = small.mesh.ticket(&small.alice, "pc-1", &["*"]).unwrap();
    let output = small
        .alice
        .command(&["ping", "pc-1"], &ticket)
        .args(["--set", "brokers.prot=1"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("brokers.prot"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_ticket_starts_no_session() {
    let mesh = one_region(1).await;
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let authority = mesh.authority().dir().display().to_string();
    let arguments =
        ["revoke", "--ticket", &ticket.display().to_string(), "--dir", &authority].map(ToOwned::to_owned);
    let revoked = crate::support::program().command("certs", &arguments).output().await.unwrap();
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    let denied = format!("tickets.deny={}", mesh.authority().deny_list_file().display());
    let _target = mesh.target("in", "pc-1").set(&denied).start(&mesh).await.unwrap();
    refused(&run(&alice, &["ping", "pc-1", "--count", "1"], &ticket).await, 5, &["revoked"]);
    let good = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let output = run(&alice, &["ping", "pc-1", "--count", "1"], &good).await;
    assert!(output.status.success(), "{}", stderr(&output));
}
