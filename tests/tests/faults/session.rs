//! One session under load, and one fault after another on the same deployment.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use rc_tests::lab::Samples;
use rc_tests::load::{Load, Pace};
use rc_tests::ms;
use rc_tests::stage::{Place, Stage, whole_way};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::found::Found;
use crate::program;

const KILLS: usize = 10;
const FREEZES: usize = 5;
const HANDOVERS: usize = 6;
const CRASHES: usize = 4;
const KILL_GAP_MAX: Duration = ms(3_000);
const FREEZE_GAP_MAX: Duration = ms(5_000);
const HANDOVER_GAP_MAX: Duration = ms(1_000);
const BOTH_GAP_MAX: Duration = ms(6_000);
const RESUME_MAX: Duration = ms(3_000);
/// How long an endpoint is stopped.
const SUSPENDED: Duration = ms(10_000);
/// How long the time without progress may be before the test gives up; bounds are judged apart.
const PATIENCE: Duration = ms(30_000);

pub(crate) async fn run(found: &Found) -> anyhow::Result<()> {
    let mut stage = Stage::start(Stage::deployment(program())).await?;
    kills(&mut stage, found).await?;
    freezes(&mut stage, found).await?;
    handovers(&mut stage, found).await?;
    suspended_target(&mut stage, found).await?;
    suspended_controller(&mut stage, found).await?;
    roams(&mut stage, found).await?;
    crash_loop(&mut stage, found).await?;
    three_at_once(&mut stage, found).await?;

    let outcome = stage.finish().await.map(|proofs| (true, format!("{} and {}", proofs[0], proofs[1])));
    found.step("not_a_byte_is_lost_repeated_or_altered_by_any_of_these_faults", outcome);
    Ok(())
}

/// Alternates between the Controller's broker and the Target's.
fn place(number: usize) -> Place {
    if number.is_multiple_of(2) { Place::First } else { Place::Last }
}

fn gaps(samples: &Samples) -> String {
    let in_ms = |span: Duration| span.as_millis();
    format!(
        "{} times, gap p50 {} ms, max {} ms",
        samples.count(),
        in_ms(samples.median()),
        in_ms(samples.max())
    )
}

async fn kills(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for number in 0..KILLS {
        samples.push(stage.kill(place(number), PATIENCE).await?);
        stage.is_exact_so_far()?;
    }
    let samples: Samples = samples.into_iter().collect();
    found.note("a_killed_broker_stops_a_session_for_moments", samples.max() <= KILL_GAP_MAX, gaps(&samples));
    Ok(())
}

async fn freezes(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for number in 0..FREEZES {
        samples.push(stage.freeze(place(number), PATIENCE).await?);
        stage.is_exact_so_far()?;
    }
    let samples: Samples = samples.into_iter().collect();
    found.note(
        "a_frozen_broker_is_left_and_steals_nothing_when_it_thaws",
        samples.max() <= FREEZE_GAP_MAX,
        gaps(&samples),
    );
    Ok(())
}

async fn handovers(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for number in 0..HANDOVERS {
        samples.push(stage.hand_over(place(number), PATIENCE).await?);
        stage.is_exact_so_far()?;
    }
    let samples: Samples = samples.into_iter().collect();
    let bound = HANDOVER_GAP_MAX + whole_way();
    found.note("a_drained_broker_hands_its_session_over", samples.max() <= bound, gaps(&samples));
    Ok(())
}

/// How long after its wake the load flows again.
async fn resumed(load: &Load, mark: u64) -> anyhow::Result<(bool, String)> {
    let woke = Instant::now();
    load.passes(mark, PATIENCE).await?;
    let took = woke.elapsed();
    Ok((took <= RESUME_MAX, format!("bytes {} ms after the wake", took.as_millis())))
}

async fn suspended_target(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    stage.target.node().signal(Signal::STOP);
    let mark = stage.input.mark();
    tokio::time::sleep(SUSPENDED).await;
    stage.target.node().signal(Signal::CONT);
    found.step("a_target_that_slept_goes_on_where_it_was", resumed(&stage.input, mark).await);
    stage.settled().await
}

/// A Controller process joined to the Target's echo, with a load through it.
struct Remote {
    child: Child,
    load: Load,
}

impl Remote {
    fn start(mut command: Command, pace: Pace) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let writing = child.stdin.take().context("its input is piped")?;
        let reading = child.stdout.take().context("its output is piped")?;
        Ok(Self { child, load: Load::start(reading, writing, pace, 3) })
    }

    fn signal(&self, signal: Signal) {
        let pid =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        let sent = pid.map(|pid| rustix::process::kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "the controller is there to be signalled");
    }
}

async fn suspended_controller(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let bob = stage.mesh.controller("us", "bob")?;
    let ticket = stage.mesh.ticket(&bob, stage.target.id(), &["echo"])?;
    let remote = Remote::start(bob.command(&["connect", stage.target.id(), "echo"], &ticket), Pace::INPUT)?;
    remote.load.passes(0, PATIENCE).await?;
    remote.signal(Signal::STOP);
    tokio::time::sleep(SUSPENDED).await;
    let mark = remote.load.mark();
    remote.signal(Signal::CONT);
    let outcome = resumed(&remote.load, mark).await;
    let Remote { mut child, load } = remote;
    let proof = load.finish(PATIENCE).await;
    let outcome = outcome.and_then(|(holds, measured)| Ok((holds && proof?.is_exact(), measured)));
    found.step("a_controller_that_slept_goes_on_where_it_was", outcome);
    child.kill().await?;
    stage.settled().await
}

/// Every connection of the Controller is stranded at once, as after a change of its network.
async fn roams(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    stage.mark();
    stage.mesh.roam("us");
    let gap = stage.passes(PATIENCE).await;
    let outcome = gap.map(|gap| (gap <= FREEZE_GAP_MAX, format!("gap {} ms", gap.as_millis())));
    found.step("connections_that_lead_nowhere_any_more_are_replaced", outcome);
    stage.settled().await
}

async fn crash_loop(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let broker = stage.broker_at(Place::First)?;
    let (mut hit, mut samples) = (0, Vec::new());
    for _ in 0..CRASHES {
        let was_on_it = stage.on_the_way().contains(&broker);
        stage.mark();
        stage.mesh.kill_broker(&broker).await;
        samples.push(stage.passes(PATIENCE).await?);
        hit += usize::from(was_on_it);
        stage.mesh.restart_broker(&broker).await?;
        stage.mesh.converged(PATIENCE).await?;
    }
    stage.settled().await?;
    let samples: Samples = samples.into_iter().collect();
    let holds = samples.max() <= KILL_GAP_MAX && hit <= CRASHES / 2;
    let measured = format!("{hit} of {CRASHES} crashes met the session; {}", gaps(&samples));
    found.note("a_broker_that_crashes_again_and_again_is_left_alone", holds, measured);
    Ok(())
}

async fn three_at_once(stage: &mut Stage, found: &Found) -> anyhow::Result<()> {
    let (first, last) = (stage.broker_at(Place::First)?, stage.broker_at(Place::Last)?);
    stage.mark();
    stage.mesh.kill_broker(&first).await;
    if first != last {
        stage.mesh.kill_broker(&last).await;
    }
    if let Some(server) = stage.mesh.name_server_mut("us") {
        server.kill().await;
    }
    let gap = stage.passes(PATIENCE).await;
    let outcome = gap.map(|gap| (gap <= BOTH_GAP_MAX, format!("gap {} ms", gap.as_millis())));
    found.step("both_brokers_of_a_path_and_the_dns_server_may_die_at_once", outcome);
    stage.mesh.restart_name_server("us").await?;
    stage.mesh.restart_broker(&first).await?;
    if first != last {
        stage.mesh.restart_broker(&last).await?;
    }
    stage.settled().await
}
