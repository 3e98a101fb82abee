//! What the admin socket answers, and what the command line makes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::admin::{AdminClient, AdminError, AdminHandler, Answer, Reply, Request, Responder};
use rc_daemon::output::{Output, Table};
use rc_daemon::shutdown::{Shutdown, StopCause};
use rc_daemon::{ExitStatus, Failure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::server::RunningBroker;

/// Commands on the socket.
const COMMANDS: &[&str] =
    &["status", "links", "paths", "registrations", "scores", "disconnect", "events", "drain"];
/// How long the command line waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Answers the admin socket.
#[derive(Debug)]
pub(crate) struct Administration {
    pub(crate) broker: Arc<RunningBroker>,
    pub(crate) shutdown: Shutdown,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScoresArgs {
    forget: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectArgs {
    id: String,
}

impl AdminHandler for Administration {
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a> {
        Box::pin(async move {
            match request.command.as_str() {
                "status" => value(&self.broker.status()),
                "links" => items(responder, &self.broker.links()).await,
                "paths" => items(responder, &self.broker.paths()).await,
                "registrations" => items(responder, &self.broker.registrations()).await,
                "scores" => self.scores(&request.args, responder).await,
                "disconnect" => self.disconnect(&request.args),
                "events" => self.broker.events().serve(&request.args, responder).await,
                "drain" => {
                    self.broker.begin_drain();
                    self.shutdown.request(StopCause::Request);
                    value(&self.broker.status())
                }
                #[cfg(feature = "testing")]
                "block-worker" => Ok(block_worker(&request.args)),
                unknown => Err(AdminError::unknown_command(unknown, COMMANDS)),
            }
        })
    }
}

impl Administration {
    async fn scores(&self, args: &Value, responder: &mut Responder) -> Result<Value, AdminError> {
        let args = Option::<ScoresArgs>::deserialize(args).map_err(AdminError::bad_request)?;
        if args.unwrap_or_default().forget {
            self.broker.forget_scores();
        }
        items(responder, &self.broker.scores()).await
    }

    fn disconnect(&self, args: &Value) -> Result<Value, AdminError> {
        let args = DisconnectArgs::deserialize(args).map_err(AdminError::bad_request)?;
        match self.broker.disconnect(&args.id) {
            0 => Err(AdminError::not_found(format_args!(
                "no path, controller or target {:?} is here: see rc-broker paths and rc-broker links",
                args.id
            ))),
            ended => Ok(json!({ "ended": ended })),
        }
    }
}

/// Blocks one worker for `for_ms`.
#[cfg(feature = "testing")]
fn block_worker(args: &Value) -> Value {
    let for_ms = args.get("for_ms").and_then(Value::as_u64).unwrap_or_default();
    drop(tokio::spawn(async move { std::thread::sleep(Duration::from_millis(for_ms)) }));
    json!({ "for_ms": for_ms })
}

fn value(answer: &impl serde::Serialize) -> Result<Value, AdminError> {
    serde_json::to_value(answer).map_err(|error| AdminError::new(AdminError::INTERNAL, error))
}

async fn items(responder: &mut Responder, items: &[impl serde::Serialize]) -> Result<Value, AdminError> {
    for item in items {
        responder.send(item).await?;
    }
    Ok(json!({ "count": items.len() }))
}

async fn ask(socket: &Path, command: &str, args: Value) -> Result<(Vec<Value>, Value), Failure> {
    let mut client = AdminClient::connect(socket).await?;
    Ok(client.call(command, args, ANSWER_DEADLINE).await?)
}

/// `status`.
pub(crate) async fn show_status(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let (_, status) = ask(socket, "status", Value::Null).await?;
    show_state(&status, output)
}

/// `drain`.
pub(crate) async fn drain(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let (_, status) = ask(socket, "drain", Value::Null).await?;
    show_state(&status, output)
}

fn show_state(status: &Value, output: Output) -> Result<ExitStatus, Failure> {
    let mut table = Table::new(&["WHAT", "VALUE"]);
    let rows = [
        ("broker", "/id"),
        ("listening", "/listening"),
        ("name for others", "/advertised/0"),
        ("addresses for others", "/advertised/1"),
        ("accepting", "/accepting"),
        ("stops in ms", "/drain_deadline_ms"),
        ("stops because of", "/drain_cause"),
        ("load ‰", "/load"),
        ("paths", "/usage/paths"),
        ("registrations", "/usage/registrations"),
        ("control links", "/usage/control_links"),
        ("waiting connections", "/usage/waiting_legs"),
        ("targets tracked", "/usage/tracked_targets"),
        ("tasks", "/usage/tasks"),
        ("bytes held", "/usage/held_bytes"),
        ("peers linked", "/mesh/linked"),
        ("peers known", "/mesh/known"),
        ("mesh healthy", "/mesh/healthy"),
        ("connections", "/counters/connections"),
        ("connections refused", "/counters/connections_refused"),
        ("paths opened", "/counters/paths_opened"),
        ("paths failed", "/counters/paths_failed"),
        ("bytes carried", "/counters/bytes_carried"),
    ];
    for (name, pointer) in rows {
        table.row([name.to_owned(), status.pointer(pointer).map(text_of).unwrap_or_default()]);
    }
    output.answer(status, &table)?;
    Ok(ExitStatus::Ok)
}

/// `links`.
pub(crate) async fn show_links(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let columns = [
        ("ROLE", "role"),
        ("ID", "id"),
        ("REMOTE", "remote"),
        (">RTT µs", "round_trip_us"),
        ("DIALLED", "dialled"),
    ];
    show_items(socket, "links", &columns, output).await
}

/// `paths`.
pub(crate) async fn show_paths(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let columns = [
        ("PATH", "path"),
        ("CONTROLLER", "controller"),
        ("TARGET", "target"),
        ("PURPOSE", "purpose"),
        ("LANE", "lane"),
        ("FROM", "from"),
        ("TO", "to"),
        ("OPEN", "open"),
        (">AGE ms", "age_ms"),
        (">BYTES", "bytes"),
    ];
    show_items(socket, "paths", &columns, output).await
}

/// `registrations`.
pub(crate) async fn show_registrations(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let columns = [
        ("TARGET", "target"),
        ("ROLE", "role"),
        ("INSTANCE", "instance"),
        (">GENERATION", "generation"),
        (">RTT µs", "round_trip_us"),
    ];
    show_items(socket, "registrations", &columns, output).await
}

/// `scores`.
pub(crate) async fn show_scores(socket: &Path, forget: bool, output: Output) -> Result<ExitStatus, Failure> {
    let columns = [
        ("NETWORK", "network"),
        ("BROKER", "broker"),
        (">MEAN µs", "mean_us"),
        (">REPORTS", "reports"),
        (">AGE ms", "age_ms"),
    ];
    show(socket, "scores", json!({ "forget": forget }), &columns, output).await
}

async fn show_items(
    socket: &Path,
    command: &str,
    columns: &[(&str, &str)],
    output: Output,
) -> Result<ExitStatus, Failure> {
    show(socket, command, Value::Null, columns, output).await
}

async fn show(
    socket: &Path,
    command: &str,
    args: Value,
    columns: &[(&str, &str)],
    output: Output,
) -> Result<ExitStatus, Failure> {
    let (items, _) = ask(socket, command, args).await?;
    if output.is_json() {
        for item in &items {
            output.json(item)?;
        }
        return Ok(ExitStatus::Ok);
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(&names);
    for item in &items {
        table.row(columns.iter().map(|(_, key)| item.get(key).map(text_of).unwrap_or_default()));
    }
    output.text(&table.render())?;
    Ok(ExitStatus::Ok)
}

/// `disconnect`.
pub(crate) async fn disconnect(socket: &Path, id: &str, output: Output) -> Result<ExitStatus, Failure> {
    let (_, answer) = ask(socket, "disconnect", json!({ "id": id })).await?;
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.line(format!(
            "ended {} paths and links of {id}",
            answer.get("ended").map(text_of).unwrap_or_default()
        ))?;
    }
    Ok(ExitStatus::Ok)
}

/// `events`: prints what happened, and with `follow` what happens.
pub(crate) async fn show_events(socket: &Path, follow: bool, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let mut replies = client.stream("events", json!({ "follow": follow })).await?;
    while let Reply::Item(event) = replies.next().await? {
        if output.is_json() {
            output.json(&event)?;
            continue;
        }
        let part = |key: &str| event.get(key).map(text_of).unwrap_or_default();
        output.line(format!(
            "{} {} {} {}",
            part("unix_ms"),
            part("severity"),
            part("kind"),
            part("fields")
        ))?;
    }
    Ok(ExitStatus::Ok)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
