//! The `rc-broker` binary as an operator meets it.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rc_daemon::admin::AdminClient;
use rc_daemon::ready::Ready;
use rc_proto::identity::ticket::{DenyClaims, TicketKeys};
use support::{World, eventually};

struct Site {
    dir: tempfile::TempDir,
    config: PathBuf,
    ready: PathBuf,
}

fn site(world: &World, listen: &str) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let files = world.ca.issue(&world.ca.id("broker/in/b1"), &["b1.mesh.test"]);
    let mut keys = TicketKeys::default();
    keys.insert(world.signer.kid().clone(), world.signer.public_key()).unwrap();
    std::fs::write(dir.path().join("keys.json"), keys.to_json()).unwrap();
    let config = dir.path().join("broker.toml");
    let text = format!(
        "[credentials]\ncertificate = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n[tickets]\nkeys = \"keys.json\"\n\
         [listen]\naddresses = [\"{listen}\"]\n[admin]\nsocket = \"admin.sock\"\n",
        files.certificate.display(),
        files.key.display(),
        files.ca.display(),
    );
    std::fs::write(&config, text).unwrap();
    let ready = dir.path().join("ready.json");
    Site { dir, config, ready }
}

fn command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rc-broker"));
    command.args(arguments).arg("--config").arg(&site.config).env_remove("RC_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ask(site: &Site, arguments: &[&str]) -> Output {
    command(site, arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn started(site: &Site) -> (Child, Ready) {
    let ready_file = site.ready.display().to_string();
    let child = command(site, &["run", "--ready-file", &ready_file]).spawn().unwrap();
    eventually("the broker is ready", || site.ready.exists()).await;
    let ready = Ready::read(&site.ready).unwrap();
    (child, ready)
}

fn code_and_line(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn it_runs_answers_its_command_line_and_ends_when_it_drained() {
    let world = World::new();
    let site = site(&world, "127.0.0.1:0");
    let (mut child, ready) = started(&site).await;
    let address = ready.listen["broker"][0];
    assert_ne!(address.port(), 0);
    let status = json(&ask(&site, &["status", "--json"]));
    assert_eq!(status["id"], "in/b1");
    assert_eq!(status["mesh"]["linked"], 0);
    assert_eq!(status["advertised"][0], format!("b1.mesh.test:{}", address.port()));
    assert!(ask(&site, &["links"]).status.success());
    assert!(ask(&site, &["paths"]).status.success());
    assert!(ask(&site, &["registrations"]).status.success());
    assert!(ask(&site, &["scores", "--json"]).status.success());
    assert!(ask(&site, &["scores", "--forget"]).status.success());
    let events = String::from_utf8(ask(&site, &["events", "--json"]).stdout).unwrap();
    assert!(events.contains("broker.started"), "{events}");
    let (code, line) = code_and_line(&ask(&site, &["disconnect", "nobody"]));
    assert_eq!(code, Some(6), "{line}");
    let (code, line) = code_and_line(&ask(&site, &["run"]));
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("already running"), "{line}");
    let drained = json(&ask(&site, &["drain", "--json"]));
    assert_eq!(drained["accepting"], false);
    assert_eq!(drained["drain_cause"], "request");
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!site.ready.exists());
    let (code, line) = code_and_line(&ask(&site, &["status"]));
    assert_eq!(code, Some(3), "{line}");
}

#[tokio::test]
async fn a_terminated_broker_drains_and_exits_with_success() {
    let world = World::new();
    let site = site(&world, "127.0.0.1:0");
    let (mut child, _) = started(&site).await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_broker_with_a_stuck_worker_drains_and_ends_with_an_error() {
    let world = World::new();
    let site = site(&world, "127.0.0.1:0");
    let (child, _) = started(&site).await;
    let mut client = AdminClient::connect(&site.dir.path().join("admin.sock")).await.unwrap();
    let blocked = serde_json::json!({ "for_ms": 60_000 });
    client.call("block-worker", blocked, Duration::from_secs(5)).await.unwrap();
    let began = Instant::now();
    assert_eq!(exit_code(child).await, Some(1));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_list_of_revoked_tickets_is_taken_when_it_appears_and_a_bad_one_stops_the_start() {
    let world = World::new();
    let site = site(&world, "127.0.0.1:0");
    let list = site.dir.path().join("deny.jws");
    let text = std::fs::read_to_string(&site.config).unwrap();
    std::fs::write(&site.config, text.replace("[listen]", "deny = \"deny.jws\"\n[listen]")).unwrap();
    let (child, _) = started(&site).await;
    let claims = DenyClaims { number: 1, iat: 1, jti: [].into(), sub: [].into() };
    std::fs::write(&list, world.signer.sign_deny_list(&claims).unwrap()).unwrap();
    eventually("the list is taken", || {
        String::from_utf8_lossy(&ask(&site, &["events", "--json"]).stdout).contains("tickets.denied")
    })
    .await;
    assert!(ask(&site, &["drain"]).status.success());
    assert_eq!(exit_code(child).await, Some(0));
    let other = World::new().signer.sign_deny_list(&claims).unwrap();
    for bad in [other.as_str(), "no list"] {
        std::fs::write(&list, bad).unwrap();
        for verb in ["check-config", "run"] {
            let (code, line) = code_and_line(&ask(&site, &[verb]));
            assert_eq!(code, Some(2), "{line}");
            assert!(line.contains("deny.jws"), "{line}");
        }
    }
}

async fn exit_code(mut child: Child) -> Option<i32> {
    tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap().code()
}

#[test]
fn each_bad_start_has_one_clear_line_and_exit_code_2() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = site(&world, &taken.local_addr().unwrap().to_string());
    let (code, line) = code_and_line(&ask(&busy, &["run", "--log", "off"]));
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("cannot listen at") && line.lines().count() == 1, "{line}");

    let good = site(&world, "127.0.0.1:0");
    let set = |assignment: &str| {
        let output = command(&good, &["check-config"]).arg("--set").arg(assignment).output().unwrap();
        code_and_line(&output)
    };
    let (code, line) = set("listen.adresses=[]");
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("did you mean"), "{line}");
    let (code, line) = set("identity.region=us");
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("in/b1"), "{line}");
    let controller = world.ca.issue(&world.ca.id("controller/alice"), &[]);
    let certificate = format!("credentials.certificate={}", controller.certificate.display());
    let key = format!("credentials.key={}", controller.key.display());
    let output =
        command(&good, &["check-config"]).args(["--set", &certificate, "--set", &key]).output().unwrap();
    let (code, line) = code_and_line(&output);
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("not a broker"), "{line}");
    exposed_key(&good, &world);
    let checked = json(&ask(&good, &["check-config", "--json"]));
    assert_eq!((&checked["ok"], &checked["broker"]), (&true.into(), &"in/b1".into()));
    let printed = ask(&good, &["run", "--print-config"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("[listen]"));
    drop(good.dir);
}

fn exposed_key(site: &Site, world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let files = world.ca.issue(&world.ca.id("broker/in/b1"), &[]);
    let mode = |mode| std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let set = |name: &str, path: &Path| format!("credentials.{name}={}", path.display());
    let output = command(site, &["check-config"])
        .args(["--set", &set("certificate", &files.certificate), "--set", &set("key", &files.key)])
        .output()
        .unwrap();
    let (code, line) = code_and_line(&output);
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("chmod 600"), "{line}");
}
