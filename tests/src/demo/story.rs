//! The steps of the demo, in order. Each shows what it found and fails when it is not what it should be.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rc_client::{BrokerPlaces, ClientConfig, OpenOptions, PathStatus, StaticBroker};
use rc_controller_client::{Controller, Session, TicketFile};
use rc_daemon::output::Table;
use rc_proto::wire::codes::Class;
use rc_proto::wire::{BrokerId, Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Arguments;
use super::output::Show;
use crate::endpoints::{ControllerNode, TargetNode, service};
use crate::mesh::Mesh;
use crate::process::NodeProgram;

/// Round trip between the two regions.
const FAR: Duration = Duration::from_millis(220);
/// Round trips that are measured for each figure.
const PINGS: usize = 9;
/// The Target's id.
const TARGET: &str = "pc-17";

/// Tells the whole story.
pub(super) async fn tell(arguments: &Arguments, program: NodeProgram, show: &Show) -> anyhow::Result<()> {
    let mesh = bring_up(arguments, program, show).await?;
    show_names(&mesh, show).await?;
    show.step("A target in India registers; a controller in the USA looks for a broker");
    let target = mesh.target("in", TARGET).pipe("sha256", &["sha256sum"]).start(&mesh).await?;
    let alice = mesh.controller("us", "alice")?;
    show_choices(&mesh, &target, &alice, show).await?;
    let ticket = mesh.ticket(&alice, TARGET, &["*"])?;

    show.step("The controller opens a session");
    let begin = Instant::now();
    let controller = Controller::start(alice.client_config())?;
    let session = controller.connect(&TARGET.parse()?, TicketFile(ticket)).await?;
    let paths = session.paths();
    show_path(&paths, begin.elapsed(), show);
    ensure!(paths.iter().any(|path| path.hops.len() == 2), "the path does not lead through two brokers");

    run_command(&mesh, &alice, show).await?;
    send_file(&session, arguments.file_mib, show).await?;
    let two = round_trips(&session).await?;
    session.close().await?;
    controller.shutdown().await;
    let one = through_one_broker(&mesh, &alice, &target).await?;
    show_latency(&one, &two, show);
    if arguments.keep {
        keep(&mesh, &alice, show).await?;
    }
    show.step("Done: everything shown held");
    Ok(())
}

async fn bring_up(arguments: &Arguments, program: NodeProgram, show: &Show) -> anyhow::Result<Mesh> {
    show.step("Four brokers and two DNS servers start, 220 ms apart");
    let mut builder = Mesh::builder(program)
        .broker("in", "broker-in-3")
        .broker("in", "broker-in-4")
        .broker("us", "broker-us-1")
        .broker("us", "broker-us-2")
        .rtt("in", "us", FAR);
    if let Some(directory) = &arguments.directory {
        builder = builder.directory(directory);
    }
    let mesh = builder.start().await?;
    let mut table = Table::new(&["broker", "pid", "seen from India at", "seen from the USA at"]);
    let mut brokers = Vec::new();
    for (broker, node) in mesh.brokers() {
        let at = |region: &str| {
            mesh.address(region, broker).map(|address| address.to_string()).unwrap_or_default()
        };
        let pid = node.node().pid().unwrap_or_default();
        table.row([broker.to_string(), pid.to_string(), at("in"), at("us")]);
        brokers.push(json!({ "broker": broker, "pid": pid, "in": at("in"), "us": at("us") }));
    }
    show.table("brokers", json!({ "brokers": brokers, "directory": mesh.directory() }), &table);
    Ok(mesh)
}

/// What the DNS server of each region answers.
async fn show_names(mesh: &Mesh, show: &Show) -> anyhow::Result<()> {
    show.step("Each region's DNS server answers the service name with healthy brokers");
    for region in ["in", "us"] {
        let server = mesh.name_server(region).context("the region has a DNS server")?;
        let (addresses, ttl) = crate::demo::names::resolve(server).await?;
        ensure!(!addresses.is_empty(), "DNS in {region} answers with no broker");
        let named: Vec<String> = addresses
            .iter()
            .map(|address| {
                let broker = mesh
                    .layout()
                    .brokers()
                    .find(|broker| mesh.address(region, broker).is_some_and(|seen| seen.ip() == *address));
                broker.map_or_else(|| address.to_string(), |broker| format!("{address} ({broker})"))
            })
            .collect();
        let line = format!("{region}: brokers.mesh.test  TTL {} s  {}", ttl.as_secs(), named.join("  "));
        let fields = json!({ "region": region, "ttl_s": ttl.as_secs(), "addresses": named });
        show.found("dns", fields, &line);
    }
    Ok(())
}

/// The race, the measurements and the pin of each side.
async fn show_choices(
    mesh: &Mesh,
    target: &TargetNode,
    alice: &ControllerNode,
    show: &Show,
) -> anyhow::Result<()> {
    let status = target.status().await.context("the target answers on its admin socket")?;
    let pin = status.pointer("/pin/broker").and_then(Value::as_str).unwrap_or("-").to_owned();
    ensure!(pin.starts_with("in/"), "the target in India is pinned to {pin}");
    let leaf = mesh.authority().issue(&rc_certs::LeafRequest::new(Role::Target, "probe").replacing())?;
    let sides = [
        ("target", "in", Role::Target, mesh.client_config("in", &leaf)?),
        ("controller", "us", Role::Controller, alice.client_config()),
    ];
    for (side, region, role, config) in sides {
        let report = rc_client::probe(config, role).await?;
        show.text(
            "choice",
            json!({ "side": side, "region": region, "report": report }),
            &format!("As seen by the {side} in {region}:\n{}", report.choice.table()),
        );
    }
    show.found(
        "pinned",
        json!({ "side": "target", "broker": pin }),
        &format!("The target is registered at {pin}."),
    );
    Ok(())
}

fn show_path(paths: &[PathStatus], took: Duration, show: &Show) {
    for path in paths {
        let mut words = vec!["controller".to_owned()];
        if let Some(us) = path.first_round_trip_us {
            words.push(format!("—{}→", in_ms(u64::from(us))));
        }
        for hop in &path.hops {
            words.push(hop.broker.to_string());
            words.push(format!("—{}→", in_ms(u64::from(hop.next_round_trip_us))));
        }
        words.push("target".to_owned());
        let fields = json!({ "path": path, "open_ms": took.as_millis() });
        show.found(
            "path",
            fields,
            &format!("{}   open after {:.0} ms", words.join(" "), took.as_secs_f64() * 1e3),
        );
    }
}

fn in_ms(microseconds: u64) -> String {
    if microseconds == 0 {
        return "?".to_owned();
    }
    let tenths = microseconds / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

/// One command on the Target, through the real command line.
async fn run_command(mesh: &Mesh, alice: &ControllerNode, show: &Show) -> anyhow::Result<()> {
    show.step("rc-controller shell pc-17 -- uname -srm; id -un; exit 7");
    let ticket = mesh.ticket(alice, TARGET, &["shell"])?;
    let output = alice
        .command(&["shell", TARGET, "--", "uname -srm; id -un; exit 7"], &ticket)
        .stdin(Stdio::null())
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = output.status.code();
    show.text("shell", json!({ "output": text, "status": status }), &text);
    show.found("exit", json!({ "status": status }), &format!("exit status {}", status.unwrap_or(-1)));
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(status == Some(7), "the command's exit status did not come back: {errors}");
    Ok(())
}

/// A file to the Target's sink, hashed at both ends.
async fn send_file(session: &Session, mib: u32, show: &Show) -> anyhow::Result<()> {
    show.step(&format!("A file of {mib} MiB goes to the target"));
    let channel = session.open(&service("sink")?, OpenOptions::default().class(Class::BULK)).await?;
    let (mut from_target, mut to_target) = tokio::io::split(channel);
    let bar = progress(u64::from(mib) << 20, show.for_people());
    let mut hash = Sha256::new();
    let begin = Instant::now();
    let mut block = vec![0_u8; 1 << 20];
    for number in 0..mib {
        fill(&mut block, number);
        hash.update(&block);
        to_target.write_all(&block).await?;
        bar.inc(block.len() as u64);
    }
    to_target.shutdown().await?;
    let mut answer = String::new();
    from_target.read_to_string(&mut answer).await?;
    let took = begin.elapsed();
    bar.finish_and_clear();
    let here = format!("{} {}", u64::from(mib) << 20, hex(&hash.finalize()));
    let there = answer.trim().to_owned();
    let rate = f64::from(mib) * 8.389 / took.as_secs_f64();
    show.found("sent", json!({ "sha256": here, "mbit_per_s": rate }), &format!("sent      {here}"));
    show.found("received", json!({ "sha256": there }), &format!("received  {there}   {rate:.0} Mbit/s"));
    ensure!(here == there, "the hashes differ");
    Ok(())
}

/// Bytes that differ from block to block.
pub(super) fn fill(block: &mut [u8], number: u32) {
    let mut state = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in block.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for (byte, random) in chunk.iter_mut().zip(state.to_le_bytes()) {
            *byte = random;
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn progress(total: u64, visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template("  {bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Round trips through the session, sorted, in ms.
async fn round_trips(session: &Session) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        samples.push(session.ping().await?.as_secs_f64() * 1e3);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples)
}

/// The same from a Controller that dials the Target's own broker across the ocean.
async fn through_one_broker(
    mesh: &Mesh,
    alice: &ControllerNode,
    target: &TargetNode,
) -> anyhow::Result<Vec<f64>> {
    let status = target.status().await.context("the target answers on its admin socket")?;
    let pin = status.pointer("/pin/broker").and_then(Value::as_str).context("the target is pinned")?;
    let broker: BrokerId = pin.parse()?;
    let address = mesh.address("us", &broker).context("the broker is seen from the USA")?;
    let config = alice.client_config();
    let brokers = BrokerPlaces {
        names: Vec::new(),
        addresses: vec![StaticBroker { broker, address }],
        ..config.brokers.clone()
    };
    let controller = Controller::start(ClientConfig { brokers, ..config })?;
    let ticket = mesh.ticket(alice, TARGET, &["echo"])?;
    let session = controller.connect(&TARGET.parse()?, TicketFile(ticket)).await?;
    ensure!(
        session.paths().iter().all(|path| path.hops.len() == 1),
        "the path leads through more than one broker"
    );
    let samples = round_trips(&session).await?;
    session.close().await?;
    controller.shutdown().await;
    Ok(samples)
}

fn show_latency(one: &[f64], two: &[f64], show: &Show) {
    show.step("Round trips controller ↔ target, end to end");
    let mut table = Table::new(&["through", ">min ms", ">median ms", ">max ms"]);
    let row = |name: &str, samples: &[f64]| {
        let at = |index: usize| samples.get(index).copied().unwrap_or_default();
        let last = samples.len().saturating_sub(1);
        [name.to_owned(), format!("{:.1}", at(0)), format!("{:.1}", at(last / 2)), format!("{:.1}", at(last))]
    };
    table.row(row("one broker", one));
    table.row(row("two brokers", two));
    show.table("latency", json!({ "one_broker_ms": one, "two_brokers_ms": two }), &table);
}

/// Leaves everything up until Ctrl-C.
async fn keep(mesh: &Mesh, alice: &ControllerNode, show: &Show) -> anyhow::Result<()> {
    show.step("Left up; try these in another terminal, end with Ctrl-C");
    let command = format!(
        "{} --ticket-command '{} certs ticket --dir {} --controller-cert {} --target {TARGET} --perm \"*\"'",
        alice.command_line_without_ticket(&["shell", TARGET]),
        mesh.program().line(),
        mesh.authority().dir().display(),
        alice.certificate().display(),
    );
    show.found("try", json!({ "command": command }), &command);
    let probe = alice.command_line_without_ticket(&["probe"]);
    show.found("try", json!({ "command": probe }), &probe);
    for (broker, node) in mesh.brokers() {
        let status = format!("{} broker status --config {}", mesh.program().line(), node.config().display());
        show.found("try", json!({ "broker": broker, "command": status }), &status);
    }
    std::future::pending().await
}
