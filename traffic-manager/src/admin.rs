//! What the admin socket answers, and what the command line makes of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::admin::{AdminClient, AdminError, AdminHandler, Answer, Reply, Request, Responder};
use rc_daemon::events::EventLog;
use rc_daemon::output::{Output, Table};
use rc_daemon::{ExitStatus, Failure};
use rc_transport::{BootClock, Clock};
use serde_json::{Value, json};

use crate::config::EndpointConfig;
use crate::decide::{EndpointIndex, Profile};
use crate::monitor::{EndpointView, LatestSnapshot, MonitorHandle};
use crate::server::Counters;
use crate::zone::Zones;

/// Commands on the socket.
const COMMANDS: &[&str] = &["status", "events"];
/// How long the command line waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What there is, and does not change while the process runs.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) zones: Arc<Zones>,
    pub(crate) endpoints: Vec<EndpointConfig>,
    pub(crate) counters: Arc<Counters>,
}

impl Inventory {
    /// An endpoint and the profile that it belongs to.
    pub(crate) fn endpoint(&self, index: EndpointIndex) -> Option<(&Profile, &EndpointConfig)> {
        let endpoint = self.endpoints.get(index.0)?;
        Some((self.zones.profile(endpoint.profile)?, endpoint))
    }
}

/// Answers the admin socket.
#[derive(Debug)]
pub(crate) struct Administration {
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) snapshot: LatestSnapshot,
    pub(crate) monitor: MonitorHandle,
    pub(crate) events: EventLog,
}

impl AdminHandler for Administration {
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a> {
        Box::pin(async move {
            match request.command.as_str() {
                "status" => self.status(responder).await,
                "events" => self.events.serve(&request.args, responder).await,
                unknown => Err(AdminError::unknown_command(unknown, COMMANDS)),
            }
        })
    }
}

impl Administration {
    /// One item for each profile, then the server as a whole.
    async fn status(&self, responder: &mut Responder) -> Result<Value, AdminError> {
        let (views, snapshot) = (self.monitor.views().await, self.snapshot.load());
        for (position, profile) in self.inventory.zones.profiles().iter().enumerate() {
            let endpoints: Vec<Value> =
                profile.endpoints().iter().map(|endpoint| endpoint_json(endpoint, &views)).collect();
            let item = json!({
                "profile": profile.name,
                "status": snapshot.profile(position).name(),
                "method": profile.method.name(),
                "ttl": profile.ttl.seconds(),
                "answers": self.inventory.counters.profile(position),
                "endpoints": endpoints,
            });
            responder.send(&item).await?;
        }
        Ok(json!({ "listen": self.inventory.listen, "queries": self.inventory.counters.view() }))
    }
}

fn endpoint_json(endpoint: &crate::decide::Endpoint, views: &[EndpointView]) -> Value {
    let address = endpoint.target.to_string();
    let Some(view) = views.get(endpoint.index.0) else {
        return json!({ "endpoint": endpoint.name, "address": address });
    };
    let since = BootClock.now().since(view.since);
    json!({
        "endpoint": endpoint.name,
        "address": address,
        "status": view.health.status.name(),
        "accepting": view.health.accepting,
        "mesh_healthy": view.health.mesh_healthy,
        "since_ms": u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        "failures": view.failures,
        "report": view.report,
        "cause": view.last_failure.as_ref().map(|failure| failure.label()),
        "reason": view.last_failure.as_ref().map(ToString::to_string),
    })
}

/// `status`: asks the running process and shows its answer.
pub(crate) async fn show_status(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let (profiles, server) = client.call("status", Value::Null, ANSWER_DEADLINE).await?;
    if output.is_json() {
        output.json(&json!({ "server": server, "profiles": profiles }))?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = Table::new(&[
        "PROFILE",
        "METHOD / ENDPOINT",
        "ADDRESS",
        "STATE",
        ">SINCE s",
        ">PROBE ms",
        ">LOAD ‰",
        "REASON",
    ]);
    for profile in &profiles {
        let heading =
            [text(profile, "profile"), text(profile, "method"), String::new(), text(profile, "status")];
        table.row(heading);
        for endpoint in profile.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            table.row(endpoint_row(endpoint));
        }
    }
    output.text(&table.render())?;
    let queries = server.get("queries").cloned().unwrap_or_default();
    output.line(format!(
        "{} queries: {} answered, {} negative, {} refused, {} faulty, {} truncated",
        text(&queries, "queries"),
        text(&queries, "answers"),
        text(&queries, "negatives"),
        text(&queries, "refusals"),
        text(&queries, "errors"),
        text(&queries, "truncations"),
    ))?;
    Ok(ExitStatus::Ok)
}

fn endpoint_row(endpoint: &Value) -> [String; 8] {
    let is = |key: &str| endpoint.get(key).and_then(Value::as_bool) != Some(false);
    let state = match (is("accepting"), is("mesh_healthy")) {
        (false, _) => format!("{}, draining", text(endpoint, "status")),
        (true, false) => format!("{}, little mesh", text(endpoint, "status")),
        (true, true) => text(endpoint, "status"),
    };
    let report = endpoint.get("report").cloned().unwrap_or_default();
    let since_s = endpoint
        .get("since_ms")
        .and_then(Value::as_u64)
        .map_or_else(String::new, |ms| (ms / 1000).to_string());
    [
        String::new(),
        text(endpoint, "endpoint"),
        text(endpoint, "address"),
        state,
        since_s,
        text(&report, "took"),
        text(&report, "load"),
        text(endpoint, "reason"),
    ]
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// `events`: prints what happened, and with `follow` what happens.
pub(crate) async fn show_events(socket: &Path, follow: bool, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let mut replies = client.stream("events", json!({ "follow": follow })).await?;
    while let Reply::Item(event) = replies.next().await? {
        if output.is_json() {
            output.json(&event)?;
        } else {
            let fields = event.get("fields").cloned().unwrap_or_default();
            output.line(format!(
                "{} {} {} {fields}",
                text(&event, "unix_ms"),
                text(&event, "severity"),
                text(&event, "kind")
            ))?;
        }
    }
    Ok(ExitStatus::Ok)
}
