//! Many sessions at once: what the loss, the drain and the rolling restart of brokers does to all of them.

use std::time::{Duration, Instant};

use rc_proto::wire::BrokerId;
use rc_tests::crowd::Crowd;
use rc_tests::lab::Samples;
use rc_tests::{Mesh, ms};

use crate::found::Found;
use crate::program;

const SESSIONS: usize = 60;
const BACK_MAX: Duration = ms(10_000);
const HERD_BACK_MAX: Duration = ms(30_000);
const PATIENCE: Duration = ms(60_000);
const DRAIN_GAP_MAX: Duration = ms(3_000);
/// The longest that a draining broker may take to end.
const DRAINED_MAX: Duration = ms(30_000);

pub(crate) async fn run(found: &Found) -> anyhow::Result<()> {
    let mut mesh = Mesh::builder(program())
        .region("us", 2)
        .region("in", 2)
        .rtt("us", "us", ms(20))
        .rtt("in", "in", ms(20))
        .rtt("us", "in", ms(40))
        .broker_setting("drain.spread=2s")
        .broker_setting("drain.deadline=20s")
        .start()
        .await?;
    let crowd = Crowd::start(&mesh, "us", "in", SESSIONS).await?;
    one_killed(&mut mesh, &crowd, found).await?;
    one_drained(&mut mesh, &crowd, found).await?;
    all_restarted(&mut mesh, &crowd, found).await?;
    half_killed(&mut mesh, &crowd, found).await?;
    let outcome = crowd.finish().await;
    let outcome = outcome.map(|bytes| (true, format!("{SESSIONS} sessions, {bytes} B, all exact")));
    found.step("no_session_of_many_loses_a_byte_or_ends", outcome);
    Ok(())
}

/// The broker that most sessions cross.
fn busiest(mesh: &Mesh, crowd: &Crowd) -> anyhow::Result<BrokerId> {
    let found = mesh.brokers().map(|(broker, _)| broker).max_by_key(|broker| crowd.crossing(broker));
    found.cloned().ok_or_else(|| anyhow::anyhow!("there is no broker"))
}

fn gaps(gaps: Vec<Duration>) -> (Duration, String) {
    let samples: Samples = gaps.into_iter().collect();
    let [half, nearly, max] =
        [samples.median(), samples.percentile(99), samples.max()].map(|gap| gap.as_millis());
    (samples.max(), format!("gap p50 {half} ms, p99 {nearly} ms, max {max} ms"))
}

async fn one_killed(mesh: &mut Mesh, crowd: &Crowd, found: &Found) -> anyhow::Result<()> {
    let broker = busiest(mesh, crowd)?;
    let crossing = crowd.crossing(&broker);
    crowd.mark();
    mesh.kill_broker(&broker).await;
    let (max, measured) = gaps(crowd.passes(PATIENCE).await?);
    let measured = format!("{crossing} of {SESSIONS} sessions on it; {measured}");
    found.note(
        "every_session_of_a_killed_broker_is_back_within_ten_seconds",
        max <= BACK_MAX && crossing > 0,
        measured,
    );
    mesh.restart_broker(&broker).await?;
    Ok(mesh.converged(PATIENCE).await?)
}

async fn one_drained(mesh: &mut Mesh, crowd: &Crowd, found: &Found) -> anyhow::Result<()> {
    let broker = busiest(mesh, crowd)?;
    let crossing = crowd.crossing(&broker);
    crowd.mark();
    let began = Instant::now();
    mesh.roll_broker(&broker, DRAINED_MAX).await?;
    let took = began.elapsed();
    let (max, measured) = gaps(crowd.passes(PATIENCE).await?);
    let measured =
        format!("{crossing} sessions on it; {measured}; up again after {:.1} s", took.as_secs_f64());
    found.note(
        "a_drained_broker_hands_over_every_session_and_ends",
        max <= DRAIN_GAP_MAX && crossing > 0,
        measured,
    );
    Ok(mesh.converged(PATIENCE).await?)
}

async fn all_restarted(mesh: &mut Mesh, crowd: &Crowd, found: &Found) -> anyhow::Result<()> {
    let brokers: Vec<BrokerId> = mesh.brokers().map(|(broker, _)| broker.clone()).collect();
    crowd.mark();
    for broker in &brokers {
        mesh.roll_broker(broker, DRAINED_MAX).await?;
        mesh.converged(PATIENCE).await?;
    }
    let (max, measured) = gaps(crowd.passes(PATIENCE).await?);
    let measured = format!("{} brokers, {SESSIONS} sessions; {measured}", brokers.len());
    found.note("a_rolling_restart_of_every_broker_loses_no_session", max <= DRAIN_GAP_MAX, measured);
    Ok(())
}

async fn half_killed(mesh: &mut Mesh, crowd: &Crowd, found: &Found) -> anyhow::Result<()> {
    let first = busiest(mesh, crowd)?;
    let second = mesh.brokers().map(|(broker, _)| broker).find(|broker| broker.region() != first.region());
    let second = second.cloned().ok_or_else(|| anyhow::anyhow!("there is one region"))?;
    crowd.mark();
    mesh.kill_broker(&first).await;
    mesh.kill_broker(&second).await;
    let (max, measured) = gaps(crowd.passes(PATIENCE).await?);
    found.note("the_loss_of_half_the_brokers_brings_every_session_back", max <= HERD_BACK_MAX, measured);
    mesh.restart_broker(&first).await?;
    mesh.restart_broker(&second).await?;
    Ok(mesh.converged(PATIENCE).await?)
}
