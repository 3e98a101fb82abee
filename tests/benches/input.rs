//! What a saturating bulk transfer adds to the latency of input in the same session, over a real line: two hosts with
//! a broker each, network namespaces, every packet delayed (NFQUEUE), the rate limited by a token bucket.
//!
//! Needs `unshare` with user namespaces (no right on the machine), iproute2 and iptables; without them it says `SKIP`.
//! Ends with 1 when the 99th percentile of input's round trip grows by more than 30 ms, or when bulk leaves more than a
//! fifth of the line unused.
//!
//! ```text
//! cargo bench -p rc-tests --bench input -- [--rtt-ms N] [--mbit N] [--queue-kib N] [--congestion NAME]
//!                                          [--channels N] [--seconds N] [--samples FILE] [--json]
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rc_client::{BrokerPlaces, Channel, ClientConfig, CredentialFiles, OpenOptions};
use rc_controller_client::{Controller, FixedTicket, Session};
use rc_proto::wire::codes::Class;
use rc_proto::wire::{BrokerId, Role};
use rc_tests::lab::{self, BrokerPlace, Deployment, Network, Report, Samples};
use rc_tests::{NodeProgram, ms};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

const TARGET: &str = "pc-17";
const PORT: u16 = 7443;
/// Two hosts and what is at each: the Controller, and the Target.
const HOSTS: [&str; 2] = ["us", "in"];
const ADDED_MAX: Duration = ms(30);
/// Bulk that takes less than this part of the line, in percent, does not saturate it.
const SATURATED_PERCENT: u32 = 80;
/// One input record, about a mouse event with its header.
const RECORD_BYTES: usize = 16;
const RECORD_INTERVAL: Duration = ms(10);
/// Until the bulk transfer has found the line's rate, and input alone its window.
const WARM_UP: Duration = ms(5000);

/// Input's latency beside a bulk transfer.
#[derive(Debug, Parser)]
struct Arguments {
    /// Round trip between the two hosts, in ms.
    #[arg(long, default_value_t = 220)]
    rtt_ms: u64,
    /// Rate of each host's line, in Mbit/s.
    #[arg(long, default_value_t = 100)]
    mbit: u32,
    /// Room in front of each line, in KiB.
    #[arg(long, default_value_t = 3072)]
    queue_kib: u32,
    /// TCP congestion control of both hosts, one that is open to every namespace; the system's when it is left out.
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Bulk channels that send to the Target.
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// How long input is measured, without and with the bulk transfer.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Writes every sample to this file, in the order in which they were sent, in µs, as JSON.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// The Controller's part, run on its host.
    #[arg(long, hide = true, value_name = "FILE")]
    controller: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the Controller's part is told.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    broker: BrokerId,
    address: SocketAddr,
    ticket: String,
    channels: u32,
    seconds: u64,
}

/// What it found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    alone_us: Vec<u64>,
    beside_bulk_us: Vec<u64>,
    bulk_mbit_per_s: f64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(task) = &arguments.controller {
        let task = serde_json::from_slice(&std::fs::read(task)?)?;
        let found = tokio::runtime::Runtime::new()?.block_on(control(task))?;
        serde_json::to_writer(std::io::stdout(), &found)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = lab::unavailable() {
        rc_daemon::output::notice(&format!("SKIP input: {reason}"));
        let required = std::env::var("RC_TESTS").as_deref() == Ok("require");
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    lab::enter()?;
    tokio::runtime::Runtime::new()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let network = network(arguments)?;
    let (deployment, task) = bring_up(&network, arguments).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("task.json");
    std::fs::write(&file, serde_json::to_vec(&task)?)?;
    let found = run_controller(&network, &file).await?;
    drop(deployment);
    if let Some(file) = &arguments.samples {
        std::fs::write(file, serde_json::to_vec(&found)?)?;
    }
    Ok(tell(arguments, &found))
}

fn network(arguments: &Arguments) -> anyhow::Result<Network> {
    let mut builder = Network::builder();
    for host in HOSTS {
        builder = builder.host(host);
    }
    builder = builder
        .rtt(HOSTS[0], HOSTS[1], ms(arguments.rtt_ms))
        .rate(arguments.mbit, arguments.queue_kib.saturating_mul(1024));
    if let Some(control) = &arguments.congestion {
        builder = builder.congestion_control(control);
    }
    Ok(builder.build()?)
}

async fn bring_up(network: &Network, arguments: &Arguments) -> anyhow::Result<(Deployment, Task)> {
    let node = NodeProgram::new(env!("CARGO_BIN_EXE_rc-node"));
    let mut places = Vec::new();
    for host in HOSTS {
        let place = network.host(host)?;
        places.push(BrokerPlace {
            broker: BrokerId::new(host, "broker-1")?,
            listen: SocketAddr::new(place.address(), PORT),
            program: place.program(&node),
        });
    }
    let mut deployment = Deployment::start(places.clone()).await?;
    let [near, far] = places.try_into().ok().context("each host has a broker")?;
    deployment.start_target(TARGET, &far.broker, &far.program).await?;
    let config = deployment.client_config(Role::Controller, "alice", &near.broker)?;
    let task = Task {
        ticket: deployment.ticket(&config, TARGET)?,
        certificate: config.credentials.certificate,
        key: config.credentials.key,
        ca: config.credentials.ca,
        broker: near.broker,
        address: near.listen,
        channels: arguments.channels,
        seconds: arguments.seconds,
    };
    Ok((deployment, task))
}

/// Runs this executable on the Controller's host.
async fn run_controller(network: &Network, task: &Path) -> anyhow::Result<Found> {
    let this = NodeProgram::new(std::env::current_exe()?);
    let program = network.host(HOSTS[0])?.program(&this);
    let mut command = program.command("--controller", &[task.display().to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "the controller ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tell(arguments: &Arguments, found: &Found) -> ExitCode {
    let columns = ["input", ">samples", ">median ms", ">p99 ms", ">max ms", ">added p99 ms", ">bulk Mbit/s"];
    let mut report = Report::new("input", arguments.json, &columns);
    let samples = |micros: &[u64]| micros.iter().copied().map(Duration::from_micros).collect::<Samples>();
    let (alone, beside) = (samples(&found.alone_us), samples(&found.beside_bulk_us));
    let added = beside.percentile(99).saturating_sub(alone.percentile(99));
    report.require(added <= ADDED_MAX, format!("bulk adds {added:?} to input's p99, at most {ADDED_MAX:?}"));
    let bulk = found.bulk_mbit_per_s;
    let enough = f64::from(arguments.mbit * SATURATED_PERCENT) / 100.0;
    report.require(bulk >= enough, format!("bulk takes {bulk:.1} Mbit/s, at least {enough:.0} of the line"));
    let in_ms = |span: Duration| span.as_secs_f64() * 1e3;
    let mut row = |name: &str, samples: &Samples, added: Option<Duration>, bulk: f64| {
        let cells = [
            name.to_owned(),
            samples.count().to_string(),
            format!("{:.1}", in_ms(samples.median())),
            format!("{:.1}", in_ms(samples.percentile(99))),
            format!("{:.1}", in_ms(samples.max())),
            added.map(|added| format!("{:.1}", in_ms(added))).unwrap_or_default(),
            format!("{bulk:.1}"),
        ];
        let fields = json!({
            "input": name,
            "rtt_ms": arguments.rtt_ms,
            "line_mbit_per_s": arguments.mbit,
            "queue_kib": arguments.queue_kib,
            "congestion": arguments.congestion,
            "channels": arguments.channels,
            "samples": samples.count(),
            "median_ms": in_ms(samples.median()),
            "p99_ms": in_ms(samples.percentile(99)),
            "max_ms": in_ms(samples.max()),
            "added_p99_ms": added.map(in_ms),
            "bulk_mbit_per_s": bulk,
        });
        report.row(cells, fields);
    };
    row("alone", &alone, None, 0.0);
    row("beside bulk", &beside, Some(added), found.bulk_mbit_per_s);
    report.finish()
}

// ---- the Controller's part

async fn control(task: Task) -> anyhow::Result<Found> {
    let credentials =
        CredentialFiles { certificate: task.certificate, key: task.key, ca: task.ca, crl: None };
    let mut config = ClientConfig::new(credentials, [] as [&str; 0]);
    let address = rc_client::StaticBroker { broker: task.broker, address: task.address };
    config.brokers = BrokerPlaces { addresses: vec![address], ..config.brokers };
    let controller = Controller::start(config)?;
    let session = controller.connect(&TARGET.parse()?, FixedTicket::new(&task.ticket)?).await?;
    let input = session.open(&"echo".parse()?, OpenOptions::default().class(Class::INPUT)).await?;
    let mut input = Input::over(input);
    let span = Duration::from_secs(task.seconds);
    input.round_trips(WARM_UP).await.context("at first")?;
    let alone_us = input.round_trips(span).await.context("alone")?;
    let sent = Arc::new(AtomicU64::new(0));
    for _ in 0..task.channels {
        let bulk = session.open(&"sink".parse()?, OpenOptions::default().class(Class::BULK)).await?;
        tokio::spawn(flood(bulk, Arc::clone(&sent)));
    }
    input.round_trips(WARM_UP).await.context("while bulk begins")?;
    let (before, began) = (sent.load(Ordering::Relaxed), Instant::now());
    let beside_bulk_us = input.round_trips(span).await.context("beside bulk")?;
    let bulk = sent.load(Ordering::Relaxed) - before;
    let bulk_mbit_per_s = bulk as f64 * 8e-6 / began.elapsed().as_secs_f64();
    end(&controller, &session).await;
    Ok(Found { alone_us, beside_bulk_us, bulk_mbit_per_s })
}

async fn end(controller: &Controller, session: &Session) {
    controller.disconnect(session.id());
    controller.shutdown().await;
}

/// Writes as much as the channel takes.
async fn flood(mut channel: Channel, sent: Arc<AtomicU64>) {
    let block = vec![0x5A; 64 << 10];
    while channel.write_all(&block).await.is_ok() {
        sent.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
}

/// A channel to the Target's echo that carries input records.
struct Input {
    from_target: ReadHalf<Channel>,
    to_target: WriteHalf<Channel>,
    began: Instant,
}

impl Input {
    fn over(channel: Channel) -> Self {
        let (from_target, to_target) = tokio::io::split(channel);
        Self { from_target, to_target, began: Instant::now() }
    }

    /// Sends a record each 10 ms for `span`, whatever comes back meanwhile; each one's round trip in µs.
    async fn round_trips(&mut self, span: Duration) -> anyhow::Result<Vec<u64>> {
        let count = span.as_millis() / RECORD_INTERVAL.as_millis();
        let count = usize::try_from(count)?;
        let Self { from_target, to_target, began } = self;
        let now_us = || u64::try_from(began.elapsed().as_micros());
        let sending = async {
            let mut tick = tokio::time::interval(RECORD_INTERVAL);
            for _ in 0..count {
                tick.tick().await;
                let mut record = [0; RECORD_BYTES];
                record[..8].copy_from_slice(&now_us()?.to_be_bytes());
                to_target.write_all(&record).await?;
            }
            anyhow::Ok(())
        };
        let receiving = async {
            let mut found = Vec::with_capacity(count);
            let mut record = [0; RECORD_BYTES];
            while found.len() < count {
                from_target.read_exact(&mut record).await?;
                let sent = u64::from_be_bytes(*record.first_chunk().context("a record begins with a time")?);
                found.push(now_us()?.saturating_sub(sent));
            }
            anyhow::Ok(found)
        };
        let ((), found) = tokio::try_join!(sending, receiving)?;
        Ok(found)
    }
}
