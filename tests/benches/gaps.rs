//! How long the application of a session gets no byte when a broker of its path is killed, frozen or drained, and how
//! long many sessions take to come back: real processes, round trips of 20 ms from each endpoint to its brokers and
//! 100 ms between the regions, 20 B each 50 ms and 1 MB/s both ways, every byte compared.
//!
//! Ends with 1 when a percentile is over its target or a byte is wrong.
//!
//! ```text
//! cargo bench -p rc-tests --bench gaps -- [--kills N] [--freezes N] [--handovers N] [--sessions N] [--rolling N] [--json]
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rc_proto::wire::BrokerId;
use rc_tests::crowd::Crowd;
use rc_tests::lab::{Report, Samples};
use rc_tests::stage::{FAR, NEAR, Place, Stage, whole_way};
use rc_tests::{Mesh, NodeProgram, ms};
use serde_json::json;

const KILL_P50: Duration = ms(500);
const KILL_P99: Duration = ms(1_000);
const FREEZE_P50: Duration = ms(2_200);
const FREEZE_P99: Duration = ms(3_500);
const HANDOVER_P99: Duration = ms(100);
const BACK_MAX: Duration = ms(10_000);
/// How often each broker is restarted while many sessions run.
const ROUNDS: usize = 2;
const PATIENCE: Duration = ms(60_000);

/// Gaps against their targets.
#[derive(Debug, Parser)]
struct Arguments {
    /// Brokers of the path killed, the Controller's and the Target's in turn.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// The same frozen.
    #[arg(long, default_value_t = 100)]
    freezes: usize,
    /// The same drained.
    #[arg(long, default_value_t = 100)]
    handovers: usize,
    /// Sessions of which the busiest broker is killed; 0 leaves this out.
    #[arg(long, default_value_t = 1_000)]
    sessions: usize,
    /// Sessions under which four brokers are restarted in turn, twice; 0 leaves this out.
    #[arg(long, default_value_t = 100)]
    rolling: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let columns = ["fault", ">times", ">p50 ms", ">p99 ms", ">max ms", ">p50 / target", ">p99 / target"];
    let mut report = Report::new("gaps", arguments.json, &columns);
    one_session(arguments, &mut report).await?;
    if arguments.sessions > 0 {
        storm(arguments.sessions, &mut report).await?;
    }
    if arguments.rolling > 0 {
        rolling(arguments.rolling, &mut report).await?;
    }
    Ok(report.finish())
}

async fn one_session(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    if arguments.kills + arguments.freezes + arguments.handovers == 0 {
        return Ok(());
    }
    let mut stage = Stage::start(Stage::deployment(program())).await?;
    let place = |number: usize| if number.is_multiple_of(2) { Place::First } else { Place::Last };
    let mut kills = Vec::new();
    for number in 0..arguments.kills {
        kills.push(stage.kill(place(number), PATIENCE).await?);
    }
    tell(report, "kill -9", &kills.into_iter().collect(), Some(KILL_P50), Some(KILL_P99));
    let mut freezes = Vec::new();
    for number in 0..arguments.freezes {
        freezes.push(stage.freeze(place(number), PATIENCE).await?);
    }
    tell(report, "freeze", &freezes.into_iter().collect(), Some(FREEZE_P50), Some(FREEZE_P99));
    let mut handovers = Vec::new();
    for number in 0..arguments.handovers {
        handovers.push(stage.hand_over(place(number), PATIENCE).await?);
    }
    let bound = HANDOVER_P99 + whole_way();
    tell(report, "drain", &handovers.into_iter().collect(), None, Some(bound));
    // Fails when a byte is lost, repeated or altered.
    stage.finish().await?;
    Ok(())
}

async fn deployment() -> anyhow::Result<Mesh> {
    let builder = Mesh::builder(program()).region("us", 2).region("in", 2);
    Ok(builder.rtt("us", "us", NEAR).rtt("in", "in", NEAR).rtt("us", "in", FAR).start().await?)
}

async fn storm(sessions: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut mesh = deployment().await?;
    let crowd = Crowd::start(&mesh, "us", "in", sessions).await?;
    let busiest =
        mesh.brokers().map(|(broker, _)| broker.clone()).max_by_key(|broker| crowd.crossing(broker));
    let Some(broker) = busiest else { return Ok(()) };
    let name = format!("kill -9 under {} of {sessions} sessions", crowd.crossing(&broker));
    crowd.mark();
    mesh.kill_broker(&broker).await;
    let gaps: Samples = crowd.passes(PATIENCE).await?.into_iter().collect();
    report.require(gaps.max() <= BACK_MAX, format!("{name}: all back after {:?}", gaps.max()));
    tell(report, &name, &gaps, None, Some(BACK_MAX));
    crowd.finish().await?;
    Ok(())
}

async fn rolling(sessions: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut mesh = deployment().await?;
    let crowd = Crowd::start(&mesh, "us", "in", sessions).await?;
    let brokers: Vec<BrokerId> = mesh.brokers().map(|(broker, _)| broker.clone()).collect();
    crowd.mark();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for broker in &brokers {
            mesh.roll_broker(broker, PATIENCE + PATIENCE).await?;
            mesh.converged(PATIENCE).await?;
        }
    }
    let gaps: Samples = crowd.passes(PATIENCE).await?.into_iter().collect();
    let name = format!(
        "rolling restart, {} brokers, {ROUNDS} times, {sessions} sessions, {:.0} s",
        brokers.len(),
        began.elapsed().as_secs_f64()
    );
    tell(report, &name, &gaps, None, None);
    // Fails when a session is lost.
    crowd.finish().await?;
    Ok(())
}

fn tell(report: &mut Report, fault: &str, gaps: &Samples, half: Option<Duration>, nearly: Option<Duration>) {
    if gaps.count() == 0 {
        return;
    }
    let in_ms = |span: Duration| span.as_secs_f64() * 1e3;
    let ratio = |measured: Duration, target: Option<Duration>| {
        target.map(|target| measured.as_secs_f64() / target.as_secs_f64())
    };
    let (p50, p99) = (gaps.median(), gaps.percentile(99));
    for (name, measured, target) in [("p50", p50, half), ("p99", p99, nearly)] {
        let holds = target.is_none_or(|target| measured <= target);
        report.require(holds, format!("{fault}: {name} {measured:?}, target {target:?}"));
    }
    let text = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let cells = [
        fault.to_owned(),
        gaps.count().to_string(),
        format!("{:.0}", in_ms(p50)),
        format!("{:.0}", in_ms(p99)),
        format!("{:.0}", in_ms(gaps.max())),
        text(ratio(p50, half)),
        text(ratio(p99, nearly)),
    ];
    let fields = json!({
        "fault": fault,
        "times": gaps.count(),
        "p50_ms": in_ms(p50),
        "p99_ms": in_ms(p99),
        "max_ms": in_ms(gaps.max()),
        "p50_ratio": ratio(p50, half),
        "p99_ratio": ratio(p99, nearly),
    });
    report.row(cells, fields);
}

/// The node program that cargo built for this benchmark.
fn program() -> NodeProgram {
    NodeProgram::new(env!("CARGO_BIN_EXE_rc-node"))
}
