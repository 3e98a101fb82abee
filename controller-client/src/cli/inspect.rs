//! Commands that look: `probe`, `ping`, `status`, `disconnect`, `check-config`.

use rc_client::cli::{admin, failure};
use rc_daemon::cli::CommonArgs;
use rc_daemon::output::{Output, Table};
use rc_daemon::{ExitStatus, Failure};
use serde_json::{Value, json};

use super::BINARY;
use super::arguments::PingArgs;
use super::session::{Running, with_controller_until_interrupted};
use super::settings;
use crate::controller::Controller;

pub(super) fn check_config(common: &CommonArgs, print: bool) -> Result<ExitStatus, Failure> {
    let settings = settings::load(common, None);
    let output = common.output();
    if print {
        output.text(&settings.print())?;
        return Ok(ExitStatus::Ok);
    }
    settings::read(&settings)?;
    output.answer(&json!({ "ok": true }), Table::new(&["configuration"]).row(["ok"]))?;
    Ok(ExitStatus::Ok)
}

/// Resolves, races, measures, and explains the choice.
pub(super) async fn probe(common: &CommonArgs, name: Option<&str>) -> Result<ExitStatus, Failure> {
    let config = settings::read(&settings::load(common, name))?;
    let report = Controller::probe(config.client).await.map_err(|error| failure(error.kind(), error))?;
    let output = common.output();
    if output.is_json() {
        output.json(&report)?;
    } else {
        let mut names = Table::new(&["name", ">ttl s", "addresses", "failures"]);
        for name in &report.names {
            let addresses: Vec<String> = name.addresses.iter().map(ToString::to_string).collect();
            let ttl = name.ttl_s.map_or_else(|| "-".to_owned(), |ttl| ttl.to_string());
            names.row([name.name.clone(), ttl, addresses.join(" "), name.failures.join("; ")]);
        }
        output.text(&names.render())?;
        output.text(&report.choice.table())?;
    }
    Ok(ExitStatus::Ok)
}

/// Round trips through the session itself.
pub(super) async fn ping(common: &CommonArgs, arguments: &PingArgs) -> Result<ExitStatus, Failure> {
    with_controller_until_interrupted(common, &arguments.ticket, async |running| {
        measure(common.output(), running, arguments).await
    })
    .await
}

async fn measure(output: Output, running: &Running, arguments: &PingArgs) -> Result<ExitStatus, Failure> {
    let session = running.connect(&arguments.target).await?;
    let mut samples_ms = Vec::new();
    for number in 1..=arguments.count {
        let took = session
            .ping()
            .await
            .map_err(|end| Failure::from_error(ExitStatus::SessionLost, end))?
            .as_secs_f64()
            * 1000.0;
        samples_ms.push(took);
        if !output.is_json() {
            output.line(format!("{number}: {took:.1} ms"))?;
        }
    }
    samples_ms.sort_by(f64::total_cmp);
    let at = |index: usize| samples_ms.get(index).copied().unwrap_or_default();
    let (min, median, max) = (at(0), at(samples_ms.len() / 2), at(samples_ms.len().saturating_sub(1)));
    let paths = session.paths();
    let mut table = Table::new(&["target", "min ms", "median ms", "max ms", "brokers"]);
    let brokers: Vec<&str> =
        paths.iter().flat_map(|path| &path.hops).map(|hop| hop.broker.as_str()).collect();
    table.row([
        arguments.target.to_string(),
        format!("{min:.1}"),
        format!("{median:.1}"),
        format!("{max:.1}"),
        brokers.join(" "),
    ]);
    let value = json!({
        "target": arguments.target, "min_ms": min, "median_ms": median, "max_ms": max,
        "samples_ms": samples_ms, "paths": paths,
    });
    output.answer(&value, &table)?;
    Ok(ExitStatus::Ok)
}

/// Every running controller of this user.
pub(super) async fn status(output: Output) -> Result<ExitStatus, Failure> {
    let mut found = Vec::new();
    for socket in admin::sockets_of_every_process(BINARY) {
        match admin::ask_status(&socket).await {
            Ok(status) => found.push((socket, status)),
            // A socket that a killed process left behind answers nobody, now or later.
            Err(failure) if failure.status() == ExitStatus::Unreachable => admin::remove_stale(&socket),
            Err(failure) => tracing::debug!(%failure, "a controller does not answer"),
        }
    }
    if output.is_json() {
        let all: Vec<Value> =
            found.iter().map(|(socket, status)| json!({ "socket": socket, "status": status })).collect();
        output.json(&json!({ "controllers": all }))?;
        return Ok(ExitStatus::Ok);
    }
    if found.is_empty() {
        output.line("No controller runs.")?;
        return Ok(ExitStatus::Ok);
    }
    let mut controllers = Table::new(&["controller", "broker", "socket"]);
    let mut sessions = Vec::new();
    for (socket, status) in &found {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("-").to_owned();
        let broker = status.get("pin").and_then(|pin| pin.get("broker"));
        controllers.row([text(status.get("id")), text(broker), socket.display().to_string()]);
        sessions.extend(status.get("sessions").and_then(Value::as_array).into_iter().flatten().cloned());
    }
    output.text(&controllers.render())?;
    output.text(&admin::session_table(&sessions).render())?;
    Ok(ExitStatus::Ok)
}

/// Ends a session in whichever running controller has it.
pub(super) async fn disconnect(session: &str, output: Output) -> Result<ExitStatus, Failure> {
    let mut last = Failure::new(ExitStatus::NotFound, "no controller runs", BINARY, "nothing is to be ended");
    let mut ended = None;
    for socket in admin::sockets_of_every_process(BINARY) {
        match admin::disconnect(&socket, session, output).await {
            Ok(status) => ended = Some(status),
            Err(failure) => last = failure,
        }
    }
    ended.ok_or(last)
}
