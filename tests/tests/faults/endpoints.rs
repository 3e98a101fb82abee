//! What one endpoint or one file can do to a broker and to other sessions.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rc_client::OpenOptions;
use rc_controller_client::{Controller, Session, TicketFile};
use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::Class;
use rc_tests::endpoints::service;
use rc_tests::load::{Load, Pace};
use rc_tests::stage::echo;
use rc_tests::{ControllerNode, Mesh, TargetNode, eventually, eventually_async, ms};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::found::Found;
use crate::program;

const TARGET: &str = "pc-17";
const PATIENCE: Duration = ms(40_000);
const CALM_GAP_MAX: Duration = ms(500);
/// A writer that could write nothing for so long is blocked.
const BLOCKED: Duration = ms(1_000);
/// What a reader that has stopped may make everybody hold: both endpoints' buffers of both directions.
const HELD_BYTES_MAX: u64 = 40 << 20;
const BROKER_GROWTH_MAX_BYTES: u64 = 8 << 20;
/// A processor that is there a tenth of the time.
const RUNNING: Duration = ms(10);
const HALTED: Duration = ms(90);
const STARVED: Duration = ms(8_000);

/// Two brokers, a Target, and a session that must not notice anything.
struct Small {
    mesh: Mesh,
    target: TargetNode,
    alice: ControllerNode,
    controller: Controller,
    session: Session,
    neighbour: Load,
}

pub(crate) async fn run(found: &Found) -> anyhow::Result<()> {
    let mesh = Mesh::builder(program())
        .region("us", 1)
        .region("in", 1)
        .rtt("us", "us", ms(10))
        .rtt("in", "in", ms(10))
        .rtt("us", "in", ms(40))
        // Each broker lists itself, the other, and a name that leads to both.
        .broker_setting("mesh.seeds=[\"broker-1.us.mesh.test:{port}\", \"broker-1.in.mesh.test:{port}\", \"brokers.mesh.test:{port}\"]")
        .start()
        .await?;
    let target = mesh.target("in", TARGET).start(&mesh).await?;
    let alice = mesh.controller("us", "alice")?;
    let (controller, session) = connect(&mesh, &alice, TARGET).await?;
    let neighbour = echo(&session, Class::INPUT, Pace::INPUT, 1).await?;
    neighbour.flows(ms(1_000), CALM_GAP_MAX, PATIENCE).await?;
    let mut small = Small { mesh, target, alice, controller, session, neighbour };
    found.step("a_broker_that_is_told_to_dial_itself_does_not", loops(&small).await);
    found.step("a_reader_that_stops_stalls_its_own_channel_only", slow_reader(&small).await);
    found.step("two_processes_of_one_controller_have_a_session_each", two_controllers(&small).await);
    found.step("a_cloned_target_takes_new_sessions_and_no_running_one", clone(&small).await);
    found.step("a_starved_broker_is_not_taken_for_a_dead_one", starved(&small).await);
    found.step("files_that_cannot_be_used_change_nothing", broken_files(&mut small).await);
    let Small { session, controller, neighbour, .. } = small;
    let proof = neighbour.finish(PATIENCE).await?;
    session.close().await?;
    controller.shutdown().await;
    found.note("a_neighbour_of_all_this_loses_no_byte", proof.is_exact(), proof.to_string());
    Ok(())
}

async fn connect(mesh: &Mesh, node: &ControllerNode, target: &str) -> anyhow::Result<(Controller, Session)> {
    let controller = Controller::start(node.client_config())?;
    let ticket = mesh.ticket(node, target, &["*"])?;
    let session = controller.connect(&target.parse()?, TicketFile(ticket)).await?;
    Ok((controller, session))
}

async fn loops(small: &Small) -> anyhow::Result<(bool, String)> {
    let mut counts = Vec::new();
    for (_, node) in small.mesh.brokers() {
        let (items, answer) = node.ask("links").await.context("the broker answers")?;
        let listed = if items.is_empty() { answer.as_array().cloned().unwrap_or_default() } else { items };
        let text = Value::Array(listed.clone()).to_string();
        let links =
            listed.iter().filter(|link| link.get("role").and_then(Value::as_str) == Some("broker")).count();
        ensure!(!listed.is_empty(), "no links are told: {text}");
        counts.push(links);
    }
    let measured = format!("mesh links of each broker: {counts:?}");
    Ok((counts.iter().all(|count| *count == 1), measured))
}

async fn slow_reader(small: &Small) -> anyhow::Result<(bool, String)> {
    let memory = || broker_memory(&small.mesh);
    let before = memory();
    let channel = small.session.open(&service("echo")?, OpenOptions::default().class(Class::BULK)).await?;
    let (mut reading, mut writing) = tokio::io::split(channel);
    let block = vec![7; 64 << 10];
    let mut written = 0_u64;
    small.neighbour.mark();
    while let Ok(wrote) = tokio::time::timeout(BLOCKED, writing.write(&block)).await {
        written += wrote? as u64;
        ensure!(written <= 4 * HELD_BYTES_MAX, "{written} bytes were taken and nobody read one");
    }
    let growth = memory().saturating_sub(before);
    let gap = small.neighbour.longest_gap();
    let reader = async {
        let mut total = 0_u64;
        let mut buffer = vec![0; 64 << 10];
        while total < written {
            match reading.read(&mut buffer).await? {
                0 => break,
                count => total += count as u64,
            }
        }
        anyhow::Ok(total)
    };
    let read = tokio::time::timeout(PATIENCE, reader).await.context("what was written comes back")??;
    let measured = format!(
        "writer blocked after {} MiB, brokers grew by {} KiB, neighbour's gap {} ms",
        written >> 20,
        growth >> 10,
        gap.as_millis()
    );
    let holds = written <= HELD_BYTES_MAX && read == written && growth <= BROKER_GROWTH_MAX_BYTES;
    Ok((holds && gap <= CALM_GAP_MAX + BLOCKED, measured))
}

fn broker_memory(mesh: &Mesh) -> u64 {
    let resident = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    mesh.brokers().filter_map(|(_, node)| resident(node.node().pid()?)).sum()
}

fn newest_epoch(session: &Session) -> u64 {
    session.paths().iter().map(|path| path.epoch.0).max().unwrap_or_default()
}

async fn two_controllers(small: &Small) -> anyhow::Result<(bool, String)> {
    let (twin, session) = connect(&small.mesh, &small.alice, TARGET).await?;
    let load = echo(&session, Class::INPUT, Pace::INPUT, 9).await?;
    let before = (newest_epoch(&small.session), newest_epoch(&session));
    load.flows(ms(5_000), CALM_GAP_MAX, PATIENCE).await?;
    let after = (newest_epoch(&small.session), newest_epoch(&session));
    let proof = load.finish(PATIENCE).await?;
    session.close().await?;
    twin.shutdown().await;
    let moves = after.0 - before.0 + after.1 - before.1;
    Ok((proof.is_exact() && moves == 0, format!("{moves} changes of path in 5 s, both byte-exact")))
}

async fn session_count(node: &TargetNode) -> usize {
    let status = node.status().await.unwrap_or_default();
    status.get("sessions").and_then(Value::as_array).map_or(0, Vec::len)
}

async fn clone(small: &Small) -> anyhow::Result<(bool, String)> {
    let first = small.mesh.target("in", "pc-18").start(&small.mesh).await?;
    let bob = small.mesh.controller("us", "bob")?;
    let (one, running) = connect(&small.mesh, &bob, "pc-18").await?;
    let load = echo(&running, Class::INPUT, Pace::INPUT, 4).await?;
    load.flows(ms(500), CALM_GAP_MAX, PATIENCE).await?;
    let second = small.mesh.target("in", "pc-18").named("clone").start(&small.mesh).await?;
    load.flows(ms(2_000), CALM_GAP_MAX, PATIENCE).await?;
    let carol = small.mesh.controller("us", "carol")?;
    let (two, new) = connect(&small.mesh, &carol, "pc-18").await?;
    let (at_first, at_second) = (session_count(&first).await, session_count(&second).await);
    new.close().await?;
    let proof = load.finish(PATIENCE).await?;
    running.close().await?;
    one.shutdown().await;
    two.shutdown().await;
    let measured = format!("{at_first} session at the older, {at_second} at the clone, {proof}");
    Ok((at_first == 1 && at_second == 1 && proof.is_exact(), measured))
}

/// The Target's broker gets a tenth of a processor: it runs 10 ms of each 100.
async fn starved(small: &Small) -> anyhow::Result<(bool, String)> {
    let broker = BrokerId::new("in", "broker-1")?;
    let node = small.mesh.broker(&broker).context("there is such a broker")?.node();
    let before = newest_epoch(&small.session);
    small.neighbour.mark();
    let began = Instant::now();
    while began.elapsed() < STARVED {
        node.signal(Signal::STOP);
        tokio::time::sleep(HALTED).await;
        node.signal(Signal::CONT);
        tokio::time::sleep(RUNNING).await;
    }
    let gap = small.neighbour.longest_gap();
    small.neighbour.flows(ms(500), CALM_GAP_MAX, PATIENCE).await?;
    let moves = newest_epoch(&small.session) - before;
    Ok((moves == 0, format!("{moves} new paths in {} s, gap {} ms", STARVED.as_secs(), gap.as_millis())))
}

/// Files of a broker's credentials are replaced by what cannot be used, under load.
async fn broken_files(small: &mut Small) -> anyhow::Result<(bool, String)> {
    let broker = BrokerId::new("us", "broker-1")?;
    let node = small.mesh.broker(&broker).context("there is such a broker")?;
    let text = std::fs::read_to_string(node.config())?;
    let line = text.lines().find_map(|line| line.strip_prefix("certificate = "));
    let file = PathBuf::from(line.context("the configuration names it")?.trim_matches('"'));
    let good = std::fs::read(&file)?;
    small.neighbour.mark();
    let refusals = || async {
        let events = node.events().await;
        events.iter().filter(|event| event.to_string().contains("credentials.refused")).count()
    };
    let mut told = 0;
    for bad in [b"no certificate".as_slice(), b""] {
        std::fs::write(&file, bad)?;
        told += 1;
        let expected = told;
        ensure!(
            eventually_async(PATIENCE, || async { refusals().await >= expected }).await,
            "the broker does not tell that it refuses {bad:?}"
        );
    }
    std::fs::write(&file, &good)?;
    let count = refusals().await;
    let gap = small.neighbour.longest_gap();
    let new = connect(&small.mesh, &small.alice, small.target.id()).await;
    let works = new.is_ok();
    if let Ok((controller, session)) = new {
        session.close().await?;
        controller.shutdown().await;
    }
    let still = eventually(ms(100), || small.neighbour.longest_gap() <= CALM_GAP_MAX).await;
    let measured = format!("{count} refusals told for {told} files, gap {} ms", gap.as_millis());
    Ok((works && still && count == told && gap <= CALM_GAP_MAX, measured))
}
