//! Bytes end to end through no broker, one and two: `sink` (to the Target) and `echo` (both ways at once), each on one
//! bulk channel. Both endpoints are in this process, brokers are processes of their own, nothing is delayed.
//!
//! Without a broker the session runs over end-to-end TLS over one TCP connection: what the layers above the brokers
//! cost. Ratios within one run count; absolute figures belong to the machine.
//!
//! ```text
//! cargo bench -p rc-tests --bench throughput -- [--mib N] [--rounds N] [--json]
//! ```

#![expect(clippy::indexing_slicing, reason = "a read is never longer than its buffer")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rc_client::{Channel, ClientConfig, OpenOptions, SessionHandle, direct};
use rc_controller_client::{Controller, FixedTicket};
use rc_proto::wire::{BrokerId, EndpointId, Role, ServiceName};
use rc_target_client::{Target, TargetConfig};
use rc_tests::NodeProgram;
use rc_tests::addresses::LoopbackBlock;
use rc_tests::lab::{BrokerPlace, Deployment, Report};
use rc_transport::{Credentials, EndToEnd};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TARGET: &str = "pc-17";
const BLOCK_BYTES: usize = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(10);
const SERVICES: [&str; 2] = ["sink", "echo"];

/// Throughput through no broker, one and two.
#[derive(Debug, Parser)]
struct Arguments {
    /// Size of each transfer, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    mib: u32,
    /// Transfers of each kind; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
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
    let deployment = bring_up().await?;
    let ways = [
        Session::direct(&deployment).await.context("without a broker")?,
        Session::through(&deployment, "one", broker(0)?, broker(0)?).await.context("one broker")?,
        Session::through(&deployment, "two", broker(1)?, broker(0)?).await.context("two brokers")?,
    ];
    let columns = ["service", ">brokers", ">Mbit/s each way", ">of no broker"];
    let mut report = Report::new("throughput", arguments.json, &columns);
    for service in SERVICES {
        // Rounds of the ways alternate, so that the machine's moods hit all alike.
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..arguments.rounds {
            for (way, rates) in ways.iter().zip(&mut rates) {
                rates.push(way.transfer(service, u64::from(arguments.mib) << 20).await?);
            }
        }
        let medians = rates.map(median);
        for (brokers, rate) in medians.into_iter().enumerate() {
            let ratio = rate / medians[0];
            let cells =
                [service.to_owned(), brokers.to_string(), format!("{rate:.0}"), format!("{ratio:.2}")];
            let fields =
                json!({ "service": service, "brokers": brokers, "mbit_per_s": rate, "ratio": ratio });
            report.row(cells, fields);
        }
    }
    Ok(report.finish())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn broker(number: usize) -> anyhow::Result<BrokerId> {
    Ok(BrokerId::new("here", &format!("broker-{number}"))?)
}

async fn bring_up() -> anyhow::Result<Deployment> {
    let mut block = LoopbackBlock::claim(&mut StdRng::from_os_rng())?;
    let mut places = Vec::new();
    for number in 0..2 {
        places.push(BrokerPlace {
            broker: broker(number)?,
            listen: block.next_address().context("a loopback block has many addresses")?,
            program: NodeProgram::new(env!("CARGO_BIN_EXE_rc-node")),
        });
    }
    Ok(Deployment::start(places).await?)
}

/// A session, and what keeps it up.
struct Session {
    handle: Handle,
    _ends: Vec<Box<dyn std::any::Any>>,
}

enum Handle {
    Direct(SessionHandle),
    Through(rc_controller_client::Session),
}

impl Session {
    async fn direct(deployment: &Deployment) -> anyhow::Result<Self> {
        let load = |config: ClientConfig| Credentials::load(&config.credentials);
        let alice = load(deployment.client_config(Role::Controller, "alice-direct", &broker(0)?)?)?;
        let pc = load(deployment.client_config(Role::Target, "pc-direct", &broker(0)?)?)?;
        let target_id = pc.spiffe_id().clone();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let accepting = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let stream = EndToEnd::server(&pc, stream).await?;
            anyhow::Ok(direct::accept(stream, id("alice-direct")?, DEADLINE).await?)
        };
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = EndToEnd::client(&alice, stream, &target_id).await?;
            anyhow::Ok(direct::connect(stream, id("pc-direct")?, DEADLINE).await?)
        };
        let ((target, mut offers), controller) = tokio::try_join!(accepting, connecting)?;
        tokio::spawn(async move {
            while let Some(offer) = offers.next().await {
                let service = offer.service().clone();
                if let Ok(channel) = offer.accept() {
                    tokio::spawn(serve(service, channel));
                }
            }
        });
        Ok(Self { handle: Handle::Direct(controller), _ends: vec![Box::new(target)] })
    }

    /// The Controller is at `near`, the Target at `far`.
    async fn through(
        deployment: &Deployment,
        way: &str,
        near: BrokerId,
        far: BrokerId,
    ) -> anyhow::Result<Self> {
        let target_id = format!("{TARGET}-{way}");
        let config = deployment.client_config(Role::Target, &target_id, &far)?;
        let target = Target::start(TargetConfig::new(config, [deployment.ticket_keys()]))?;
        target.registered().await?;
        let offers = target.clone();
        tokio::spawn(async move {
            while let Some(offer) = offers.next_offer().await {
                let service = offer.service().clone();
                if let Ok(channel) = offer.accept() {
                    tokio::spawn(serve(service, channel));
                }
            }
        });
        let config = deployment.client_config(Role::Controller, &format!("alice-{way}"), &near)?;
        let ticket = FixedTicket::new(&deployment.ticket(&config, &target_id)?)?;
        let controller = Controller::start(config)?;
        let session = controller.connect(&target_id.parse()?, ticket).await?;
        let hops: Vec<usize> = session.paths().iter().map(|path| path.hops.len()).collect();
        let expected = if near == far { 1 } else { 2 };
        ensure!(hops == [expected], "the path leads through {hops:?} brokers instead of {expected}");
        let ends: Vec<Box<dyn std::any::Any>> = vec![Box::new(target), Box::new(controller)];
        Ok(Self { handle: Handle::Through(session), _ends: ends })
    }

    async fn open(&self, service: &ServiceName) -> anyhow::Result<Channel> {
        let options = OpenOptions::default().deadline(DEADLINE);
        Ok(match &self.handle {
            Handle::Direct(session) => session.open(service, options).await?,
            Handle::Through(session) => session.open(service, options).await?,
        })
    }

    /// Sends `total` bytes; for `echo` they come back at the same time. Mbit/s each way.
    async fn transfer(&self, service: &str, total: u64) -> anyhow::Result<f64> {
        let channel = self.open(&service.parse()?).await?;
        let (mut from_target, mut to_target) = tokio::io::split(channel);
        let began = Instant::now();
        let sending = async {
            let block = vec![0x5A; BLOCK_BYTES];
            let mut left = total;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
                to_target.write_all(&block[..count]).await?;
                left -= count as u64;
            }
            to_target.shutdown().await
        };
        let receiving = async {
            let mut buffer = vec![0; BLOCK_BYTES];
            let mut received = 0;
            loop {
                match from_target.read(&mut buffer).await? {
                    0 => return Ok(received),
                    count => received += count as u64,
                }
            }
        };
        let ((), received) = tokio::try_join!(sending, receiving)?;
        let took = began.elapsed();
        let expected = if service == "echo" { total } else { 8 };
        ensure!(received == expected, "{received} bytes came back instead of {expected}");
        Ok(total as f64 * 8e-6 / took.as_secs_f64())
    }
}

fn id(text: &str) -> anyhow::Result<EndpointId> {
    Ok(text.parse()?)
}

/// `echo` sends everything back, `sink` the number of bytes.
async fn serve(service: ServiceName, mut channel: Channel) -> std::io::Result<()> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut total = 0_u64;
    let echoes = service.as_str() == "echo";
    loop {
        let count = channel.read(&mut buffer).await?;
        total += count as u64;
        if count == 0 {
            break;
        }
        if echoes {
            channel.write_all(&buffer[..count]).await?;
        }
    }
    if !echoes {
        channel.write_all(&total.to_be_bytes()).await?;
    }
    channel.shutdown().await
}
