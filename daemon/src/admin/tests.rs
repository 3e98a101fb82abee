//! The admin socket between a server and a client in one process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::unix::{default_path_for, is_trusted};
use super::*;
use crate::events::{Entry, EventLog, Severity};

const DEADLINE: Duration = Duration::from_secs(20);

/// A daemon with one command of each sort.
#[derive(Default)]
struct Daemon {
    events: EventLog,
    /// Told when a handler that never answers has started, and when its future is gone.
    stuck: Arc<Notify>,
    ended: Arc<Notify>,
}

struct TellOnDrop(Arc<Notify>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl AdminHandler for Daemon {
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a> {
        Box::pin(async move {
            match request.command.as_str() {
                "echo" => Ok(request.args),
                "count" => {
                    for number in 0..request.args.as_u64().unwrap_or(0) {
                        responder.send(&number).await?;
                    }
                    Ok(json!("counted"))
                }
                "long" => Ok(Value::String("x".repeat(REPLY_MAX_BYTES))),
                "events" => self.events.serve(&request.args, responder).await,
                "stick" => {
                    let _told = TellOnDrop(Arc::clone(&self.ended));
                    self.stuck.notify_one();
                    std::future::pending().await
                }
                "missing" => Err(AdminError::not_found("no path 7")),
                other => Err(AdminError::unknown_command(other, &["echo", "count"])),
            }
        })
    }
}

struct Site {
    dir: tempfile::TempDir,
    daemon: Arc<Daemon>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = AdminServer::bind(&dir.path().join("run/a.sock")).unwrap();
        let (daemon, stop) = (Arc::new(Daemon::default()), CancellationToken::new());
        let handler: Arc<dyn AdminHandler> = Arc::<Daemon>::clone(&daemon);
        let serving = tokio::spawn(server.serve(handler, stop.clone()));
        Self { dir, daemon, stop, serving }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/a.sock")
    }

    async fn client(&self) -> AdminClient {
        AdminClient::connect(&self.path()).await.unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn exchange(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn an_answer_is_its_items_and_then_its_end() {
    let site = Site::start();
    let mut client = site.client().await;
    let (items, value) = client.call("count", 3, DEADLINE).await.unwrap();
    assert_eq!((items, value), (vec![json!(0), json!(1), json!(2)], json!("counted")));
    let (items, value) = client.call("echo", json!({"a": 1}), DEADLINE).await.unwrap();
    assert_eq!((items, value), (vec![], json!({"a": 1})));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_gives_the_exit_status() {
    let site = Site::start();
    let mut client = site.client().await;
    let error = client.call("missing", (), DEADLINE).await.unwrap_err();
    assert_eq!(error.to_string(), "no path 7");
    assert_eq!(Failure::from(error).status(), ExitStatus::NotFound);
    let error = client.call("dance", (), DEADLINE).await.unwrap_err();
    assert_eq!(error.to_string(), "no command \"dance\": use one of echo, count");
    assert_eq!(Failure::from(error).status(), ExitStatus::Usage);
}

#[tokio::test]
async fn the_socket_is_for_its_user_alone_and_goes_with_the_server() {
    let site = Site::start();
    assert_eq!((mode(&site.path()), mode(site.path().parent().unwrap())), (0o600, 0o700));
    site.stop.cancel();
    site.serving.await.unwrap();
    assert!(!site.dir.path().join("run/a.sock").exists());
}

#[tokio::test]
async fn a_second_daemon_is_told_the_process_id_of_the_first() {
    let site = Site::start();
    let error = AdminServer::bind(&site.path()).unwrap_err();
    let expected = std::process::id();
    assert!(
        matches!(&error, AdminBindError::AlreadyRunning { pid: Some(pid), .. } if *pid == expected),
        "{error}"
    );
    assert!(error.to_string().starts_with(&format!("already running, pid {expected} (")));
    assert_eq!(Failure::from(error).status(), ExitStatus::Usage);
    let (_, value) = site.client().await.call("echo", 1, DEADLINE).await.unwrap();
    assert_eq!(value, 1, "the first one is not disturbed");
}

#[tokio::test]
async fn a_socket_that_answers_is_never_taken_even_without_its_lock() {
    let site = Site::start();
    fs::remove_file(site.dir.path().join("run/a.sock.lock")).unwrap();
    let error = AdminServer::bind(&site.path()).unwrap_err();
    let expected = std::process::id();
    assert!(
        matches!(&error, AdminBindError::AlreadyRunning { pid: Some(pid), .. } if *pid == expected),
        "{error}"
    );
}

#[tokio::test]
async fn the_socket_of_a_crashed_daemon_is_replaced_and_any_other_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(AdminServer::bind(&path).unwrap());
    fs::write(&path, "precious").unwrap();
    let error = AdminServer::bind(&path).unwrap_err();
    assert!(matches!(error, AdminBindError::InTheWay { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_directory_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let error = AdminServer::bind(&dir.path().join("a.sock")).unwrap_err();
    assert!(matches!(error, AdminBindError::UnsafeDirectory { mode: 0o777, .. }), "{error}");
}

#[tokio::test]
async fn a_path_is_as_long_as_the_system_takes_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let name = |length: usize| dir.path().join("s".repeat(length - dir.path().as_os_str().len() - 1));
    let limit = if cfg!(target_os = "linux") { 107 } else { 103 };
    drop(AdminServer::bind(&name(limit)).unwrap());
    let error = AdminServer::bind(&name(limit + 1)).unwrap_err();
    assert!(matches!(error, AdminBindError::PathTooLong { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let error = AdminClient::connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("not running") && error.to_string().contains(path.to_str().unwrap()));
    assert_eq!(Failure::from(error).status(), ExitStatus::Unreachable);
}

#[tokio::test]
async fn a_request_is_as_long_as_the_limit_and_no_longer() {
    let site = Site::start();
    let request = |length: usize| {
        let frame = r#"{"command":"echo","args":""}"#.len();
        let mut line =
            format!(r#"{{"command":"echo","args":"{}"}}"#, "x".repeat(length - frame)).into_bytes();
        assert_eq!(line.len(), length);
        line.push(b'\n');
        line
    };
    assert!(exchange(&site.path(), &request(REQUEST_MAX_BYTES)).await.starts_with(r#"{"ok":"xxx"#));
    let refused = exchange(&site.path(), &request(REQUEST_MAX_BYTES + 1)).await;
    assert_eq!(
        refused,
        "{\"error\":{\"code\":\"bad-request\",\"message\":\"a request is at most 65536 bytes\"}}\n"
    );
}

#[tokio::test]
async fn garbage_is_refused_and_the_connection_goes_on() {
    let site = Site::start();
    let text =
        exchange(&site.path(), b"nonsense\n{\"command\":\"echo\"}\n{\"command\":\"echo\",\"bad\":1}\n").await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["error"]["code"], "bad-request");
    assert_eq!(lines[1], json!({"ok": null}));
    assert_eq!(lines[2]["error"]["code"], "bad-request");
}

#[tokio::test]
async fn an_answer_too_long_for_a_line_becomes_an_error() {
    let site = Site::start();
    let error = site.client().await.call("long", (), DEADLINE).await.unwrap_err();
    assert_eq!(error.to_string(), "the answer is too long for one line");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let site = Site::start();
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        let mut client = site.client().await;
        assert_eq!(client.call("echo", number, DEADLINE).await.unwrap().1, number);
        clients.push(client);
    }
    let error = site.client().await.call("echo", 1, DEADLINE).await.unwrap_err();
    assert!(
        matches!(&error, AdminClientError::Refused(refusal) if refusal.code == AdminError::BUSY),
        "{error}"
    );
    assert_eq!(Failure::from(error).status(), ExitStatus::Refused);
}

#[tokio::test]
async fn events_are_followed_as_they_happen() {
    let site = Site::start();
    site.daemon.events.record(Entry::new(Severity::Info, "first").with("n", 1));
    let mut client = site.client().await;
    let mut replies = client.stream("events", json!({"follow": true})).await.unwrap();
    let Reply::Item(first) = replies.next().await.unwrap() else { panic!("ended") };
    site.daemon.events.record(Entry::new(Severity::Warn, "second"));
    let Reply::Item(second) = replies.next().await.unwrap() else { panic!("ended") };
    assert_eq!((&first["kind"], &first["fields"]["n"]), (&json!("first"), &json!(1)));
    assert_eq!((&second["kind"], &second["seq"]), (&json!("second"), &json!(2)));
}

#[tokio::test]
async fn events_without_follow_end_with_the_last_one() {
    let site = Site::start();
    for _ in 0..3 {
        site.daemon.events.record(Entry::new(Severity::Info, "step"));
    }
    let mut client = site.client().await;
    let (items, _) = client.call("events", json!({"since": 1}), DEADLINE).await.unwrap();
    let numbers: Vec<u64> = items.iter().map(|item| item["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 3]);
    let error = client.call("events", json!({"sinse": 1}), DEADLINE).await.unwrap_err();
    assert_eq!(Failure::from(error).status(), ExitStatus::Usage);
}

#[tokio::test]
async fn a_handler_ends_when_its_asker_leaves() {
    let site = Site::start();
    let mut client = site.client().await;
    let replies = client.stream("stick", ()).await.unwrap();
    site.daemon.stuck.notified().await;
    drop(replies);
    drop(client);
    tokio::time::timeout(DEADLINE, site.daemon.ended.notified()).await.unwrap();
}

#[tokio::test]
async fn a_stuck_handler_does_not_keep_the_daemon_from_stopping() {
    let site = Site::start();
    let mut client = site.client().await;
    let mut replies = client.stream("stick", ()).await.unwrap();
    site.daemon.stuck.notified().await;
    site.stop.cancel();
    let error = replies.next().await.unwrap_err();
    assert!(
        matches!(&error, AdminClientError::Refused(refusal) if refusal.code == AdminError::INTERNAL),
        "{error}"
    );
    tokio::time::timeout(DEADLINE, site.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_runs_into_the_deadline() {
    let site = Site::start();
    let mut client = site.client().await;
    let error = client.call("stick", (), Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().starts_with("no answer within 20ms ("), "{error}");
    assert_eq!(Failure::from(error).status(), ExitStatus::Deadline);
}

#[tokio::test]
async fn what_answers_in_another_language_is_not_our_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut client = AdminClient::connect(&path).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    other.write_all(b"220 hello\n").await.unwrap();
    let error = client.call("status", (), DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdminClientError::NotOurs { .. }), "{error}");
}

#[test]
fn only_the_same_user_and_root_are_trusted() {
    assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
    assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
}

#[test]
fn the_default_path_is_the_systems_for_root_and_the_users_for_others() {
    let run = || Some(PathBuf::from("/run/user/5"));
    assert_eq!(default_path_for("rc-x", 0, run()), PathBuf::from("/run/rc-mesh/rc-x.sock"));
    assert_eq!(default_path_for("rc-x", 5, run()), PathBuf::from("/run/user/5/rc-mesh/rc-x.sock"));
    assert_eq!(default_path_for("rc-x", 5, None), PathBuf::from("/tmp/rc-mesh-5/rc-x.sock"));
}
