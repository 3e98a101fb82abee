//! Faults of the network itself, between real hosts.

use std::time::{Duration, Instant};

use rc_tests::{eventually_async, ms};
use serde_json::Value;

use crate::found::Found;
use crate::program;
use crate::way::{BROKERS, CONTROLLER, TARGET, Way, broker_on};

const GAP_MAX: Duration = ms(5_000);
const ROAM_GAP_MAX: Duration = ms(3_000);
const PATIENCE: Duration = ms(40_000);
const ISOLATED_MAX: Duration = ms(4_000);
const FORGOTTEN_MAX: Duration = ms(65_000);

pub(crate) async fn run(found: &Found) -> anyhow::Result<()> {
    let mut way = Way::start().await?;
    let [first, last, third] = BROKERS;
    without_udp(&mut way, found).await?;
    host_vanishes(&mut way, first, found).await?;
    isolated(&mut way, first, [last, third], found).await?;
    split_views(&mut way, third, [first, last], found).await?;
    new_address(&mut way, found).await?;
    half_open(&mut way, found).await?;
    let Way { input, mut controller, .. } = way;
    let proof = input.finish(PATIENCE).await?;
    controller.kill().await?;
    found.note(
        "not_a_byte_is_lost_repeated_or_altered_by_any_fault_of_the_network",
        proof.is_exact(),
        proof.to_string(),
    );
    Ok(())
}

async fn without_udp(way: &mut Way, found: &Found) -> anyhow::Result<()> {
    way.input.mark();
    way.network.drop_udp()?;
    let gap = way.input.passes(way.input.written() + 400, PATIENCE).await?;
    found.note(
        "a_network_without_udp_carries_everything",
        gap <= ms(1_000),
        format!("gap {} ms", gap.as_millis()),
    );
    Ok(())
}

/// The gap of a fault, which is undone afterwards.
async fn gap_of(way: &mut Way, fault: impl Fn(&Way, bool) -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    way.input.mark();
    fault(way, true)?;
    let gap = way.input.passes(way.input.written(), PATIENCE).await;
    fault(way, false)?;
    way.settled().await?;
    Ok(gap?)
}

async fn host_vanishes(way: &mut Way, host: &str, found: &Found) -> anyhow::Result<()> {
    let gap = gap_of(way, |way, on| Ok(way.network.unplug(host, on)?)).await;
    let outcome = gap.map(|gap| (gap <= GAP_MAX, format!("gap {} ms", gap.as_millis())));
    found.step("a_host_that_vanishes_without_a_word_is_left", outcome);
    Ok(())
}

fn cut_both(way: &Way, one: &str, other: &str, on: bool) -> anyhow::Result<()> {
    way.network.cut(one, other, on)?;
    Ok(way.network.cut(other, one, on)?)
}

async fn isolated(way: &mut Way, host: &str, others: [&str; 2], found: &Found) -> anyhow::Result<()> {
    way.input.mark();
    for other in others {
        cut_both(way, host, other, true)?;
    }
    let began = Instant::now();
    let knows = {
        let way = &*way;
        eventually_async(PATIENCE, || async {
            way.status_of(host).await.pointer("/mesh/healthy") == Some(&Value::Bool(false))
        })
        .await
    };
    let told = began.elapsed();
    let gap = way.input.passes(way.input.written(), PATIENCE).await;
    for other in others {
        cut_both(way, host, other, false)?;
    }
    way.settled().await?;
    let outcome = gap.map_err(anyhow::Error::from).map(|gap| {
        let measured = format!("known after {} ms, gap {} ms", told.as_millis(), gap.as_millis());
        (knows && told <= ISOLATED_MAX && gap <= GAP_MAX, measured)
    });
    found.step("a_broker_that_is_cut_off_from_the_mesh_knows_it", outcome);
    Ok(())
}

/// One broker is cut from the two others; a Target comes up behind it; once healed it is found.
async fn split_views(way: &mut Way, alone: &str, others: [&str; 2], found: &Found) -> anyhow::Result<()> {
    for other in others {
        cut_both(way, alone, other, true)?;
    }
    let program = way.network.host(TARGET)?.program(&program());
    let _moved = way.deployment.launch_target("pc-18", &[broker_on(alone)?], &program).await?;
    for other in others {
        cut_both(way, alone, other, false)?;
    }
    let began = Instant::now();
    let on = way.network.host(CONTROLLER)?.program(&crate::program());
    let brokers = [broker_on(BROKERS[0])?];
    let deployment = &way.deployment;
    let reached = eventually_async(PATIENCE, || async {
        let verb = ["ping", "pc-18", "--count", "1"];
        let Ok(mut command) = deployment.controller_command("carol", &brokers, "pc-18", &on, &verb) else {
            return false;
        };
        command.output().await.is_ok_and(|output| output.status.success())
    })
    .await;
    let took = began.elapsed();
    way.settled().await?;
    let measured = format!("reached {} ms after the network healed", took.as_millis());
    // A broker that was down is dialled again within seconds, and then a session has to open.
    found.note(
        "brokers_that_disagreed_about_a_target_find_it_once_they_are_linked",
        reached && took <= ms(10_000),
        measured,
    );
    Ok(())
}

async fn new_address(way: &mut Way, found: &Found) -> anyhow::Result<()> {
    way.input.mark();
    way.network.readdress(CONTROLLER)?;
    let gap = way.input.passes(way.input.written(), PATIENCE).await;
    let outcome = gap
        .map_err(anyhow::Error::from)
        .map(|gap| (gap <= ROAM_GAP_MAX, format!("gap {} ms", gap.as_millis())));
    found.step("a_controller_with_a_new_address_goes_on", outcome);
    way.settled().await
}

/// A Target that vanishes while nothing is said is forgotten, with its descriptors.
async fn half_open(way: &mut Way, found: &Found) -> anyhow::Result<()> {
    let [_, last, _] = BROKERS;
    let registrations = |status: &Value| status.pointer("/usage/registrations").and_then(Value::as_u64);
    let before = registrations(&way.status_of(last).await);
    let program = way.network.host(BROKERS[2])?.program(&program());
    let idle = way.deployment.launch_target("pc-19", &[broker_on(last)?], &program).await?;
    let with_it = registrations(&way.status_of(last).await);
    // Nothing that it says arrives any more, its FIN included.
    cut_both(way, BROKERS[2], last, true)?;
    drop(idle);
    let began = Instant::now();
    let this = &*way;
    let forgotten = eventually_async(FORGOTTEN_MAX + PATIENCE, || async {
        registrations(&this.status_of(last).await) == before
    })
    .await;
    let took = began.elapsed();
    cut_both(way, BROKERS[2], last, false)?;
    way.settled().await?;
    let holds = with_it > before && forgotten && took <= FORGOTTEN_MAX;
    found.note(
        "a_peer_that_is_gone_without_a_word_is_forgotten",
        holds,
        format!("after {:.1} s", took.as_secs_f64()),
    );
    Ok(())
}
