//! How long a cold start takes: `rc-controller connect` from process start to the first byte that the Target's service
//! sends, and a Controller from the DNS name to its pinned broker.
//!
//! Distances are made by the harness's delay relays, in which the TCP handshake takes no time. Ends with 1 when a bound
//! is broken: 1 s and 6 round trips of the whole way; the race winner's handshake, 600 ms and 1 round trip.
//!
//! ```text
//! cargo bench -p rc-tests --bench connect -- [--rounds N] [--json]
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rc_controller_client::{Choice, Controller};
use rc_tests::lab::{Report, Samples};
use rc_tests::{ControllerNode, Mesh, NodeProgram, ms};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TARGET: &str = "pc-17";
const SERVICE: &str = "tcp:greeter";
const GREETING: &[u8] = b"hello";
const CONNECT_BASE: Duration = ms(1000);
const CONNECT_ROUND_TRIPS: u32 = 6;
const PIN_BASE: Duration = ms(600);
/// After this a connect has failed.
const DEADLINE: Duration = ms(30_000);

/// Cold starts against their bounds.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cold starts of each kind in each deployment.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A deployment with the Controller in one region and the Target in another, or in the same.
struct Way {
    name: &'static str,
    brokers: &'static [(&'static str, usize)],
    /// Where Controller and Target are.
    ends: (&'static str, &'static str),
    /// From an endpoint to a broker of its own region.
    near: Duration,
    /// Between the regions.
    far: Duration,
}

impl Way {
    /// From the Controller to the Target and back.
    fn whole(&self) -> Duration {
        let between = if self.ends.0 == self.ends.1 { Duration::ZERO } else { self.far };
        self.near * 2 + between
    }
}

const WAYS: &[Way] = &[
    Way { name: "1 broker, near", brokers: &[("in", 1)], ends: ("in", "in"), near: ms(2), far: ms(0) },
    Way { name: "1 broker, 40 ms", brokers: &[("in", 1)], ends: ("in", "in"), near: ms(20), far: ms(0) },
    Way { name: "1 broker, 220 ms", brokers: &[("in", 1)], ends: ("in", "in"), near: ms(110), far: ms(0) },
    Way {
        name: "2 brokers, 40 ms",
        brokers: &[("in", 1), ("us", 1)],
        ends: ("us", "in"),
        near: ms(2),
        far: ms(36),
    },
    Way {
        name: "2 brokers, 220 ms",
        brokers: &[("in", 1), ("us", 1)],
        ends: ("us", "in"),
        near: ms(2),
        far: ms(220),
    },
    Way {
        name: "2 of 4 brokers, 220 ms",
        brokers: &[("in", 2), ("us", 2)],
        ends: ("us", "in"),
        near: ms(2),
        far: ms(220),
    },
];

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let columns = ["way", ">whole way ms", "measured", ">rounds", ">median ms", ">max ms", ">bound ms"];
    let mut report = Report::new("connect", arguments.json, &columns);
    let greeter = greeter().await?;
    for way in WAYS {
        let mesh = bring_up(way).await.with_context(|| way.name)?;
        let target = mesh.target(way.ends.1, TARGET).tcp("greeter", greeter).start(&mesh).await?;
        let alice = mesh.controller(way.ends.0, "alice")?;
        let (mut bytes, mut pins, mut pin_bound) = (Vec::new(), Vec::new(), Duration::MAX);
        for round in 0..arguments.rounds {
            let ticket = mesh.ticket(&alice, TARGET, &[SERVICE])?;
            bytes.push(first_byte(&alice, &ticket).await.with_context(|| format!("{} {round}", way.name))?);
            let pin = pin(&alice).await.with_context(|| format!("{} {round}", way.name))?;
            report.require(pin.took <= pin.bound, format!("{}: pinned in {pin:?}", way.name));
            pins.push(pin.took);
            pin_bound = pin_bound.min(pin.bound);
        }
        drop(target);
        let bound = CONNECT_BASE + CONNECT_ROUND_TRIPS * way.whole();
        let bytes: Samples = bytes.into_iter().collect();
        report.require(bytes.max() <= bound, format!("{}: first byte in {:?}", way.name, bytes.max()));
        tell(&mut report, way, "connect to first byte", &bytes, bound);
        tell(&mut report, way, "DNS name to pin", &pins.into_iter().collect(), pin_bound);
    }
    Ok(report.finish())
}

async fn bring_up(way: &Way) -> anyhow::Result<Mesh> {
    let mut builder = Mesh::builder(NodeProgram::new(env!("CARGO_BIN_EXE_rc-node")));
    for (region, count) in way.brokers {
        builder = builder.region(region, *count).rtt(region, region, way.near);
    }
    Ok(builder.rtt("in", "us", way.far).start().await?)
}

/// A server that speaks first, as ssh does.
async fn greeter() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(GREETING).await?;
                stream.read_to_end(&mut Vec::new()).await
            });
        }
    });
    Ok(address)
}

/// From the start of the process to the first byte on its standard output.
async fn first_byte(alice: &ControllerNode, ticket: &Path) -> anyhow::Result<Duration> {
    let mut command = alice.command(&["connect", TARGET, SERVICE], ticket);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn()?;
    let mut byte = [0];
    let out = child.stdout.as_mut().context("its output is piped")?;
    let read = tokio::time::timeout(DEADLINE, out.read(&mut byte)).await;
    let took = began.elapsed();
    if !matches!(read, Ok(Ok(1))) {
        child.start_kill()?;
        let output = child.wait_with_output().await?;
        anyhow::bail!("no byte came: {}", String::from_utf8_lossy(&output.stderr));
    }
    drop(child.stdin.take());
    let status = child.wait().await?;
    ensure!(status.success(), "the command ended with {status}");
    Ok(took)
}

#[derive(Debug)]
struct Pin {
    took: Duration,
    bound: Duration,
}

/// From the name to the pinned broker, inside this process, with the bound that the record of the choice gives.
async fn pin(alice: &ControllerNode) -> anyhow::Result<Pin> {
    let began = Instant::now();
    let controller = Controller::start(alice.client_config())?;
    controller.pinned().await?;
    let took = began.elapsed();
    let choice = controller.status().choice.context("a choice leaves a record")?;
    controller.shutdown().await;
    let (winner, round_trip) = winner_and_round_trip(&choice).context("the record tells times")?;
    Ok(Pin { took, bound: winner + PIN_BASE + round_trip })
}

/// The quickest handshake of the race, and the round trip to the chosen broker.
fn winner_and_round_trip(choice: &Choice) -> Option<(Duration, Duration)> {
    let winner = choice.dialled.iter().filter_map(|dial| dial.took).min()?;
    let chosen = choice.brokers.iter().find(|row| Some(&row.broker) == choice.chosen.as_ref())?;
    Some((winner, chosen.median?))
}

fn tell(report: &mut Report, way: &Way, measured: &str, samples: &Samples, bound: Duration) {
    let in_ms = |span: Duration| span.as_secs_f64() * 1e3;
    let text = |span: Duration| format!("{:.0}", in_ms(span));
    let cells = [
        way.name.to_owned(),
        text(way.whole()),
        measured.to_owned(),
        samples.count().to_string(),
        text(samples.median()),
        text(samples.max()),
        text(bound),
    ];
    let fields = json!({
        "way": way.name,
        "whole_way_ms": in_ms(way.whole()),
        "measured": measured,
        "rounds": samples.count(),
        "median_ms": in_ms(samples.median()),
        "max_ms": in_ms(samples.max()),
        "bound_ms": in_ms(bound),
    });
    report.row(cells, fields);
}
