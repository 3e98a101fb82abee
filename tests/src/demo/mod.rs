//! The demo: a deployment of four brokers in two regions on loopback, and a remote-control session through it.
//!
//! Everything shown is read from the real processes: DNS answers from the region's DNS server, tables from
//! `rc-controller probe`, paths from the session itself.

mod dns;
mod failover;
mod names;
mod output;
mod story;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rc_daemon::ExitStatus;
use rc_daemon::cli::LONG_VERSION;

use crate::process::NodeProgram;

/// The hidden first argument with which the demo executes itself as a node.
const NODE_ARGUMENT: &str = "__node";

/// Brings up brokers, DNS and a target on loopback and controls the target through them
///
/// The deployment has brokers broker-in-3 and broker-in-4 in India, broker-us-1 and broker-us-2 in the USA, 220 ms
/// between the two, a target in India and a controller in the USA. Nothing leaves this machine.
#[derive(Debug, Parser)]
#[command(name = "rc-demo", version = LONG_VERSION, after_help = "\
Examples:
  rc-demo                 run the story and end
  rc-demo --story dns     the six methods of DNS routing, and a broker that leaves DNS and comes back
  rc-demo --story failover  kill, freeze and drain brokers under a running session
  rc-demo --json          the same as one JSON event a line
  rc-demo --keep          leave the deployment up and print commands to try; end with Ctrl-C

Exit codes: 0 everything shown held, 1 something did not, 2 usage, 130 Ctrl-C")]
struct Arguments {
    /// Print each step as a JSON event on a line of its own
    #[arg(long)]
    json: bool,
    /// Which story: the way of a session, DNS, or brokers that fail under a session
    #[arg(long, value_enum, default_value_t = Story::Session)]
    story: Story,
    /// Leave the deployment up afterwards and print the commands to try
    #[arg(long)]
    keep: bool,
    /// Keep configuration, keys and logs in this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Size of the file that is sent, in MiB
    #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    file_mib: u32,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Story {
    /// DNS, the choice of brokers, the path, a command, a file, round trips
    Session,
    /// What each routing method answers to whom, a broker's death leaving DNS, and its return
    Dns,
    /// Brokers are killed, frozen and drained under a file transfer and a shell
    Failover,
}

/// Runs the demo, or the node that the hidden first argument asks for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|first| first == NODE_ARGUMENT) {
        return crate::node::run(arguments.into_iter().skip(2));
    }
    match rc_daemon::cli::parse::<Arguments>(arguments) {
        Ok(arguments) => execute(&arguments),
        Err(code) => code,
    }
}

fn execute(arguments: &Arguments) -> ExitCode {
    let show = output::Show::new(arguments.json);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(interruptible(arguments, &show)));
    match outcome {
        Ok(status) => status.into(),
        Err(error) => {
            show.failed(&error);
            ExitStatus::Internal.into()
        }
    }
}

/// Ctrl-C drops the story, and with it every process it started.
async fn interruptible(arguments: &Arguments, show: &output::Show) -> anyhow::Result<ExitStatus> {
    let program = NodeProgram::this_executable(NODE_ARGUMENT)?;
    tokio::select! {
        outcome = tell(arguments, program, show) => outcome.map(|()| ExitStatus::Ok),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitStatus::Interrupted)
        }
    }
}

async fn tell(arguments: &Arguments, program: NodeProgram, show: &output::Show) -> anyhow::Result<()> {
    match arguments.story {
        Story::Session => Box::pin(story::tell(arguments, program, show)).await,
        Story::Dns => Box::pin(dns::tell(program, show)).await,
        Story::Failover => Box::pin(failover::tell(arguments, program, show)).await,
    }
}
