//! What the admin socket answers, and what the command line makes of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rc_daemon::admin::{AdminClient, AdminError, AdminHandler, Answer, Reply, Request, Responder};
use rc_daemon::events::{Entry, EventLog, Severity};
use rc_daemon::output::{Output, Table};
use rc_daemon::{ExitStatus, Failure};
use rc_transport::{BootClock, Clock};
use serde_json::{Value, json};

use crate::decide::{AskedType, Asker, ClientSubnet, Directive, Endpoint, Health, View, explain};
use crate::generation::Current;
use crate::monitor::EndpointView;
use crate::name::DnsName;
use crate::rates::Rates;
use crate::reload::{ReloadHandle, Reloaded};
use crate::zone::{Found, Node};

/// Commands on the socket.
const COMMANDS: &[&str] = &["status", "events", "reload", "explain", "set-endpoint"];
/// How long the command line waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// The same for a reload, which may have files to read.
const RELOAD_DEADLINE: Duration = Duration::from_secs(60);

/// Answers the admin socket.
#[derive(Debug)]
pub(crate) struct Administration {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) current: Current,
    pub(crate) reload: ReloadHandle,
    pub(crate) rates: Rates,
    pub(crate) events: EventLog,
}

/// What `explain` is asked.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainArgs {
    pub(crate) name: String,
    /// Address of whoever asks.
    pub(crate) from: IpAddr,
    /// The network in its client-subnet option.
    pub(crate) subnet: Option<(IpAddr, u8)>,
    /// `A`, `AAAA`, `ANY` or any other type.
    pub(crate) kind: String,
}

/// What `set-endpoint` is asked.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetEndpointArgs {
    pub(crate) profile: String,
    pub(crate) endpoint: String,
    pub(crate) directive: Directive,
}

impl AdminHandler for Administration {
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a> {
        Box::pin(async move {
            match request.command.as_str() {
                "status" => self.status(responder).await,
                "events" => self.events.serve(&request.args, responder).await,
                "reload" => self.reload().await,
                "explain" => self.explain(arguments(request.args)?, responder).await,
                "set-endpoint" => self.set_endpoint(arguments(request.args)?).await,
                unknown => Err(AdminError::unknown_command(unknown, COMMANDS)),
            }
        })
    }
}

fn arguments<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, AdminError> {
    serde_json::from_value(value).map_err(AdminError::bad_request)
}

impl Administration {
    /// One item for each profile, then the server as a whole.
    async fn status(&self, responder: &mut Responder) -> Result<Value, AdminError> {
        let generation = self.current.load();
        let (views, snapshot) = (generation.monitor.views().await, generation.snapshot.load());
        let directives = generation.snapshot.directives();
        for (position, profile) in generation.config.zones.profiles().iter().enumerate() {
            let endpoints = profile.endpoints().iter().map(|endpoint| {
                let directive = directives.of(&profile.name, &endpoint.name);
                endpoint_json(
                    endpoint,
                    views.get(endpoint.index.0),
                    snapshot.health(endpoint.index),
                    directive,
                )
            });
            let item = json!({
                "profile": profile.name,
                "status": snapshot.profile(position).name(),
                "method": profile.method.name(),
                "ttl": profile.ttl.seconds(),
                "answers": generation.counters.profile(position),
                "answers_per_second": self.rates.of(&profile.name),
                "endpoints": endpoints.collect::<Vec<Value>>(),
            });
            responder.send(&item).await?;
        }
        Ok(json!({ "listen": self.listen, "queries": generation.counters.view() }))
    }

    async fn reload(&self) -> Result<Value, AdminError> {
        let reloaded = self.reload.reload().await;
        let reloaded = reloaded.map_err(|reason| AdminError::new(AdminError::REFUSED, reason))?;
        serde_json::to_value(reloaded).map_err(|error| AdminError::new(AdminError::INTERNAL, error))
    }

    /// One item for each step, then the answer.
    async fn explain(&self, args: ExplainArgs, responder: &mut Responder) -> Result<Value, AdminError> {
        let name: DnsName = args.name.parse().map_err(AdminError::bad_request)?;
        let generation = self.current.load();
        let zones = &generation.config.zones;
        let position = match zones.find(&name) {
            Found::Present(_, Node::Profile(position) | Node::Flattened(position)) => *position,
            Found::Present(_, Node::Alias { target, .. }) => {
                let what = format_args!("{name} is an alias of {target}: explain that");
                return Err(AdminError::not_found(what));
            }
            Found::Present(_, Node::Empty | Node::Addresses { .. }) => {
                return Err(AdminError::not_found(format_args!("{name} is no profile: its answer is fixed")));
            }
            Found::Absent(zone) => {
                let what = format_args!("{name} does not exist in the zone {}", zone.apex);
                return Err(AdminError::not_found(what));
            }
            Found::OutOfZone => {
                return Err(AdminError::not_found(format_args!("{name} is in none of the served zones")));
            }
        };
        let (snapshot, maps) = (generation.snapshot.load(), generation.maps());
        let view = View { profiles: zones.profiles(), snapshot: &snapshot, maps: &maps };
        let subnet = args.subnet.map(|(address, source_prefix)| ClientSubnet { address, source_prefix });
        let asker = Asker { asked: asked(&args.kind), source: args.from, subnet };
        let (decision, steps) = explain(&view, position, &asker, &mut rand::rng());
        for step in steps {
            let step =
                serde_json::to_value(step).map_err(|error| AdminError::new(AdminError::INTERNAL, error))?;
            responder.send(&step).await?;
        }
        Ok(
            json!({ "name": name, "answer": decision.answer.to_string(), "scope_prefix": decision.scope_prefix }),
        )
    }

    async fn set_endpoint(&self, args: SetEndpointArgs) -> Result<Value, AdminError> {
        let name: DnsName = args.profile.parse().map_err(AdminError::bad_request)?;
        let generation = self.current.load();
        let profile = generation.config.zones.profiles().iter().find(|profile| profile.name == name);
        let profile =
            profile.ok_or_else(|| AdminError::not_found(format_args!("there is no profile {name}")))?;
        let done = generation.direct(profile, &args.endpoint, args.directive).await;
        done.ok_or_else(|| {
            AdminError::not_found(format_args!("profile {name} has no endpoint {}", args.endpoint))
        })?;
        let entry = Entry::new(Severity::Info, "endpoint.ordered")
            .with_text("profile", &name)
            .with("endpoint", args.endpoint)
            .with_text("directive", args.directive);
        self.events.record(entry);
        Ok(json!({ "ok": true }))
    }
}

fn asked(kind: &str) -> AskedType {
    match kind {
        "A" => AskedType::A,
        "AAAA" => AskedType::Aaaa,
        "ANY" => AskedType::Any,
        _ => AskedType::Other,
    }
}

fn endpoint_json(
    endpoint: &Endpoint,
    view: Option<&EndpointView>,
    health: Health,
    directive: Option<Directive>,
) -> Value {
    let since = view.map(|view| BootClock.now().since(view.since));
    json!({
        "endpoint": endpoint.name,
        "address": endpoint.target.to_string(),
        "status": health.status.name(),
        "accepting": health.accepting,
        "mesh_healthy": health.mesh_healthy,
        "directive": directive,
        "since_ms": since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        "failures": view.map(|view| view.failures),
        "report": view.map(|view| &view.report),
        "cause": view.and_then(|view| view.last_failure.as_ref()).map(|failure| failure.label()),
        "reason": view.and_then(|view| view.last_failure.as_ref()).map(ToString::to_string),
    })
}

/// `reload`: asks the running process to read its configuration again.
pub(crate) async fn reload(socket: &Path, output: Output) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let (_, answer) = client.call("reload", Value::Null, RELOAD_DEADLINE).await?;
    let reloaded: Reloaded = serde_json::from_value(answer.clone())
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "the answer of the process", ""))?;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(ExitStatus::Ok);
    }
    output.line(format!("{} profiles, {} endpoints are served", reloaded.profiles, reloaded.endpoints))?;
    if !reloaded.needs_restart.is_empty() {
        output.line(format!(
            "changed, and taken in at the next start: {}",
            reloaded.needs_restart.join(", ")
        ))?;
    }
    Ok(ExitStatus::Ok)
}

/// `explain`: why an answer is what it is.
pub(crate) async fn show_explanation(
    socket: &Path,
    args: &ExplainArgs,
    output: Output,
) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let (steps, answer) = client.call("explain", json!(args), ANSWER_DEADLINE).await?;
    if output.is_json() {
        output.json(&json!({ "steps": steps, "result": answer }))?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = Table::new(&["PROFILE", "FOUND"]);
    for step in &steps {
        table.row([text(step, "profile"), text(step, "found")]);
    }
    output.text(&table.render())?;
    output.line(format!(
        "{} {} -> {} (scope /{})",
        text(&answer, "name"),
        args.kind,
        text(&answer, "answer"),
        text(&answer, "scope_prefix")
    ))?;
    Ok(ExitStatus::Ok)
}

/// `set endpoint`: an order about one endpoint.
pub(crate) async fn set_endpoint(
    socket: &Path,
    args: &SetEndpointArgs,
    output: Output,
) -> Result<ExitStatus, Failure> {
    let mut client = AdminClient::connect(socket).await?;
    let (_, answer) = client.call("set-endpoint", json!(args), ANSWER_DEADLINE).await?;
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.line(format!("{} of {}: {}", args.endpoint, args.profile, args.directive))?;
    }
    Ok(ExitStatus::Ok)
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
        ">ANSWERS/s",
        "REASON",
    ]);
    for profile in &profiles {
        let rate = profile.get("answers_per_second").and_then(Value::as_f64).unwrap_or(0.0);
        let (empty, rate) = (String::new, format!("{rate:.1}"));
        let (name, method) = (text(profile, "profile"), text(profile, "method"));
        let status = text(profile, "status");
        table.row([name, method, empty(), status, empty(), empty(), empty(), rate, empty()]);
        for endpoint in profile.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            table.row(endpoint_row(endpoint));
        }
    }
    output.text(&table.render())?;
    let queries = server.get("queries").cloned().unwrap_or_default();
    output.line(format!(
        "{} queries: {} answered, {} negative, {} refused, {} faulty, {} truncated, {} limited",
        text(&queries, "queries"),
        text(&queries, "answers"),
        text(&queries, "negatives"),
        text(&queries, "refusals"),
        text(&queries, "errors"),
        text(&queries, "truncations"),
        text(&queries, "limited"),
    ))?;
    Ok(ExitStatus::Ok)
}

fn endpoint_row(endpoint: &Value) -> [String; 9] {
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
        String::new(),
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
