//! `status`, `events` and `disconnect`: what a long-lived endpoint answers on its admin socket, and how its own command
//! line asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::admin::{
    AdminClient, AdminError, AdminHandler, AdminServer, Answer, Reply, Request, Responder, default_path,
};
use rc_daemon::output::{Output, Table};
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::SessionId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::event::Events;
use crate::status::SessionStatus;

/// Commands on the socket.
const COMMANDS: &[&str] = &["status", "events", "disconnect"];
/// How long the command line waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What the socket shows and ends.
pub trait Administered: Send + Sync + 'static {
    /// The endpoint as it is now, as JSON.
    fn status(&self) -> Value;
    /// Its sessions.
    fn sessions(&self) -> Vec<SessionStatus>;
    /// Follows its events.
    fn events(&self) -> Events;
    /// Ends a session at once; false when there is none of that id.
    fn disconnect(&self, session: SessionId) -> bool;
}

struct Handler<A>(A);

impl<A: Administered> AdminHandler for Handler<A> {
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a> {
        Box::pin(async move {
            match request.command.as_str() {
                "status" => Ok(self.0.status()),
                "events" => {
                    let mut events = self.0.events();
                    while let Some(event) = events.next().await {
                        responder.send(&event).await?;
                    }
                    Ok(Value::Null)
                }
                "disconnect" => self.disconnect(&request.args),
                unknown => Err(AdminError::unknown_command(unknown, COMMANDS)),
            }
        })
    }
}

impl<A: Administered> Handler<A> {
    /// Ends the sessions that `args.session` names: an id, the unique beginning of one, or `all`.
    fn disconnect(&self, args: &Value) -> Result<Value, AdminError> {
        let Some(wanted) = args.get("session").and_then(Value::as_str).filter(|wanted| !wanted.is_empty())
        else {
            return Err(AdminError::bad_request("name a session: an id from status, its beginning, or all"));
        };
        let running: Vec<SessionId> = self.0.sessions().into_iter().map(|session| session.session).collect();
        let matching: Vec<SessionId> = running
            .into_iter()
            .filter(|session| wanted == "all" || session.to_string().starts_with(wanted))
            .collect();
        if wanted != "all" && matching.len() > 1 {
            return Err(AdminError::bad_request(format!(
                "{wanted} is the beginning of {} sessions: write more of the id",
                matching.len()
            )));
        }
        if wanted != "all" && matching.is_empty() {
            return Err(AdminError::not_found(format!("no session {wanted}: `status` lists those that run")));
        }
        let ended: Vec<String> = matching
            .into_iter()
            .filter(|session| self.0.disconnect(*session))
            .map(|session| session.to_string())
            .collect();
        Ok(json!({ "disconnected": ended }))
    }
}

/// Answers on `path` until `stop` is cancelled; the future that is returned does the serving.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(
    path: &Path,
    endpoint: impl Administered,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let server = AdminServer::bind(path)?;
    Ok(server.serve(Arc::new(Handler(endpoint)), stop))
}

/// Where the one instance of a long-lived `binary` listens by default.
pub fn socket_of(binary: &str) -> PathBuf {
    default_path(binary)
}

/// Where this process listens when several of a `binary` may run at once.
pub fn socket_of_this_process(binary: &str) -> PathBuf {
    default_path(&format!("{binary}-{}", std::process::id()))
}

/// The sockets of every process of a `binary` that may run several times, sorted.
pub fn sockets_of_every_process(binary: &str) -> Vec<PathBuf> {
    let sample = default_path(binary);
    let prefix = format!("{binary}-");
    let Some(entries) = sample.parent().and_then(|directory| std::fs::read_dir(directory).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&prefix) && name.ends_with(".sock")
        })
        .collect();
    found.sort();
    found
}

/// Removes a socket that nothing answers on, and its lock file.
pub fn remove_stale(socket: &Path) {
    let mut lock = socket.as_os_str().to_owned();
    lock.push(".lock");
    for file in [socket, Path::new(&lock)] {
        if let Err(error) = std::fs::remove_file(file) {
            tracing::debug!(%error, file = %file.display(), "not removed");
        }
    }
}

/// Asks the endpoint behind `path` for its status.
///
/// # Errors
/// When nothing answers there.
pub async fn ask_status(path: &Path) -> Result<Value, Failure> {
    let mut client = AdminClient::connect(path).await?;
    let (_, status) = client.call("status", Value::Null, ANSWER_DEADLINE).await?;
    Ok(status)
}

/// Prints events until the endpoint ends.
///
/// # Errors
/// When nothing answers there, or standard output is closed.
pub async fn print_events(path: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(path).await?;
    let mut replies = client.stream("events", Value::Null).await?;
    while let Reply::Item(event) = replies.next().await? {
        if output.is_json() {
            output.json(&event)?;
        } else {
            output.line(event_line(&event))?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// Ends sessions of the endpoint behind `path` and says which.
///
/// # Errors
/// When nothing answers there, or no such session runs.
pub async fn disconnect(path: &Path, session: &str, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(path).await?;
    let (_, answer) = client.call("disconnect", json!({ "session": session }), ANSWER_DEADLINE).await?;
    let mut table = Table::new(&["disconnected"]);
    for ended in answer.get("disconnected").and_then(Value::as_array).into_iter().flatten() {
        table.row([ended.as_str().unwrap_or_default()]);
    }
    output.answer(&answer, &table)?;
    Ok(ExitStatus::Ok)
}

/// An event as `name key=value …`.
fn event_line(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten();
    let mut line = event.get("event").and_then(Value::as_str).unwrap_or("event").to_owned();
    for (key, value) in fields.filter(|(key, _)| *key != "event") {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        line.push_str(&format!("  {key}={text}"));
    }
    line
}

/// The sessions of a status as a table: who, for how long, over which brokers, what is open, bytes.
pub fn session_table(sessions: &[Value]) -> Table {
    let mut table =
        Table::new(&["session", "peer", "age", "brokers", "open", "sent", "received", "last move"]);
    for session in sessions {
        let text = |key: &str| session.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |key: &str| session.get(key).and_then(Value::as_u64).unwrap_or_default();
        let joined = |key: &str, inner: &[&str]| {
            let items = session.get(key).and_then(Value::as_array).into_iter().flatten();
            let names = items.map(|item| {
                inner.iter().fold(item.clone(), |value, key| match value.get(key) {
                    Some(Value::Array(list)) => list.first().cloned().unwrap_or_default(),
                    Some(found) => found.clone(),
                    None => Value::Null,
                })
            });
            names.filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect::<Vec<_>>().join(" ")
        };
        let age = Duration::from_secs(number("age_ms") / 1000);
        table.row([
            text("session"),
            text("peer"),
            format!("{age:?}"),
            joined("paths", &["hops", "broker"]),
            joined("channels", &["service"]),
            number("sent_bytes").to_string(),
            number("received_bytes").to_string(),
            last_move(session),
        ]);
    }
    table
}

/// The live paths of the sessions of a status: which brokers, in the order of the way, and how far the peer is.
pub fn path_table(sessions: &[Value]) -> Table {
    let mut table = Table::new(&["session", "path", "epoch", "lane", "brokers", "round trip ms", "state"]);
    for session in sessions {
        let id = session.get("session").and_then(Value::as_str).unwrap_or_default();
        for path in session.get("paths").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| path.get(key).and_then(Value::as_str).unwrap_or("-");
            let hops = path.get("hops").and_then(Value::as_array).into_iter().flatten();
            let brokers: Vec<&str> =
                hops.filter_map(|hop| hop.get("broker").and_then(Value::as_str)).collect();
            let epoch = path.get("epoch").and_then(Value::as_u64);
            let round_trip = path.get("round_trip_us").and_then(Value::as_f64);
            table.row([
                beginning(id).to_owned(),
                beginning(text("path")).to_owned(),
                epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string()),
                text("lane").to_owned(),
                brokers.join(" \u{2192} "),
                round_trip.map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us / 1000.0)),
                path_state(path).to_owned(),
            ]);
        }
    }
    table
}

/// What a path is there for.
fn path_state(path: &Value) -> &'static str {
    let is = |key: &str| path.get(key).and_then(Value::as_bool).unwrap_or_default();
    if is("suspect") {
        "suspect"
    } else if is("standby") {
        "stands by"
    } else if is("in_use") {
        "in use"
    } else {
        "kept"
    }
}

/// A session's last change of path: what it was, why, and how long it took.
fn last_move(session: &Value) -> String {
    let Some(moved) = session.get("last_move").filter(|moved| !moved.is_null()) else {
        return "-".to_owned();
    };
    let text = |key: &str| moved.get(key).and_then(Value::as_str);
    let took = moved.get("took_ms").and_then(Value::as_u64).unwrap_or_default();
    let reason = text("reason").map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}{reason} in {took} ms", text("purpose").unwrap_or_default())
}

/// As much of an id as names it for people.
fn beginning(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        sessions: Vec<SessionId>,
        log: crate::event::EventLog,
    }

    impl Administered for Fake {
        fn status(&self) -> Value {
            json!({ "fake": true })
        }
        fn sessions(&self) -> Vec<SessionStatus> {
            let session = |id: &SessionId| SessionStatus {
                session: *id,
                peer: "alice".parse().unwrap(),
                age_ms: 1,
                paths: Vec::new(),
                last_move: None,
                channels: Vec::new(),
                sent_bytes: 0,
                received_bytes: 0,
            };
            self.sessions.iter().map(session).collect()
        }
        fn events(&self) -> Events {
            self.log.follow()
        }
        fn disconnect(&self, session: SessionId) -> bool {
            self.sessions.contains(&session)
        }
    }
    fn handler() -> Handler<Fake> {
        let sessions = vec![SessionId([0x11; 16]), SessionId([0x12; 16])];
        Handler(Fake { sessions, log: crate::event::EventLog::default() })
    }
    #[test]
    fn disconnect_takes_the_unique_beginning_of_an_id() {
        let answer = handler().disconnect(&json!({ "session": "12" })).unwrap();
        assert_eq!(answer, json!({ "disconnected": ["12".repeat(16)] }));
    }

    #[test]
    fn disconnect_refuses_what_is_not_one_session() {
        let code = |wanted: &str| handler().disconnect(&json!({ "session": wanted })).unwrap_err().code;
        assert_eq!(code("1"), AdminError::BAD_REQUEST);
        assert_eq!(code(""), AdminError::BAD_REQUEST);
        assert_eq!(code("ff"), AdminError::NOT_FOUND);
        assert_eq!(handler().disconnect(&Value::Null).unwrap_err().code, AdminError::BAD_REQUEST);
    }

    #[test]
    fn disconnect_all_ends_every_session() {
        let answer = handler().disconnect(&json!({ "session": "all" })).unwrap();
        assert_eq!(answer["disconnected"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn an_event_is_one_line_for_people() {
        let line = event_line(&json!({ "event": "registered", "broker": "in/b-3" }));
        assert_eq!(line, "registered  broker=in/b-3");
    }

    #[test]
    fn a_path_row_names_its_brokers_in_the_order_of_the_way() {
        let session = json!({
            "session": "1122334455667788",
            "paths": [
                { "path": "aabbccddeeff0011", "epoch": 3, "lane": "interactive", "round_trip_us": 41_250,
                  "hops": [{ "broker": "in/b-3" }, { "broker": "us/b-1" }] },
                { "path": null, "epoch": 0, "lane": "bulk", "hops": [], "round_trip_us": null },
            ],
        });
        let text = path_table(&[session]).render();
        for expected in ["11223344 ", "aabbccdd ", "interactive", "in/b-3 \u{2192} us/b-1", "41.2", "bulk"] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn a_session_row_names_its_broker_and_services() {
        let session = json!({
            "session": "11", "peer": "alice", "age_ms": 61_000, "sent_bytes": 5, "received_bytes": 7,
            "paths": [{ "hops": [{ "broker": "in/b-3" }] }], "channels": [{ "service": "shell" }],
        });
        let text = session_table(&[session]).render();
        for expected in ["alice", "61s", "in/b-3", "shell"] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
