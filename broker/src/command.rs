//! The `rc-broker` command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::config::{Override, Settings};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_daemon::log::{self, DefaultLevel};
use rc_daemon::output;
use rc_daemon::{ExitStatus, Failure};

use crate::config::{self, BINARY};
use crate::{admin, running};

/// How long the process waits for what still runs when everything has been told to end.
const END_MAX: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  rc-broker check-config --config broker.toml
  rc-broker run --config broker.toml --set 'listen.addresses=127.0.0.1:4433'
  rc-broker paths --json
  rc-broker disconnect pc-17
  rc-broker drain";

/// Registers targets, opens paths to them and passes bytes on unread
#[derive(Debug, Parser)]
#[command(name = BINARY, version = LONG_VERSION, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES_HELP}"))]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until stopped; SIGTERM drains first
    Run {
        /// Print the effective configuration and its sources, and end
        #[arg(long)]
        print_config: bool,
        /// Write this file once the broker listens, with the real addresses; it is removed at the end
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Check the configuration and its files, and say everything that is wrong
    CheckConfig,
    /// Show the broker at a glance
    Status(SocketArgs),
    /// Show the links to endpoints and to other brokers
    Links(SocketArgs),
    /// Show the paths
    Paths(SocketArgs),
    /// Show the targets that are registered here
    Registrations(SocketArgs),
    /// Show what endpoints measured to each broker, by network
    Scores {
        /// Forget it all instead
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// End a path, or everything of an endpoint
    Disconnect {
        /// A path's id, or the id of a controller or target
        id: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show what happened
    Events {
        /// Go on with what happens, until Ctrl-C
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Take no new session, let the running ones move, and end
    Drain(SocketArgs),
    /// Print the version and the commit it was built from
    Version,
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages into a directory
    Man(ManArgs),
}

#[derive(Debug, clap::Args)]
struct SocketArgs {
    /// The admin socket of the running process
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The socket that was named, else that of the configuration, however wrong the rest of it may be.
    fn path(&self, common: &CommonArgs) -> PathBuf {
        let configured = || config::admin_socket(&mut settings(common, None).reader());
        self.socket.clone().unwrap_or_else(configured)
    }
}

/// Runs the command line; `arguments` include the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match rc_daemon::cli::parse::<Arguments>(arguments) {
        Ok(arguments) => output::finish(BINARY, dispatch(&arguments)),
        Err(code) => code,
    }
}

fn dispatch(arguments: &Arguments) -> Result<ExitStatus, Failure> {
    let (common, output) = (&arguments.common, arguments.common.output());
    let is_run = matches!(arguments.command, Verb::Run { .. });
    log::init(&common.log_options(if is_run { DefaultLevel::Info } else { DefaultLevel::Warn }))?;
    match &arguments.command {
        Verb::Run { print_config, ready_file } => {
            let settings = settings(common, ready_file.as_ref());
            if *print_config {
                output.text(&settings.print())?;
                return Ok(ExitStatus::Ok);
            }
            let (runtime, config) = (runtime()?, config::read(&settings)?);
            let status = runtime.block_on(Box::pin(running::run(config)));
            // A worker that is stuck is not waited for.
            runtime.shutdown_timeout(END_MAX);
            status
        }
        Verb::CheckConfig => running::check(&config::read(&settings(common, None))?, output),
        Verb::Status(socket) => runtime()?.block_on(admin::show_status(&socket.path(common), output)),
        Verb::Links(socket) => runtime()?.block_on(admin::show_links(&socket.path(common), output)),
        Verb::Paths(socket) => runtime()?.block_on(admin::show_paths(&socket.path(common), output)),
        Verb::Registrations(socket) => {
            runtime()?.block_on(admin::show_registrations(&socket.path(common), output))
        }
        Verb::Scores { forget, socket } => {
            runtime()?.block_on(admin::show_scores(&socket.path(common), *forget, output))
        }
        Verb::Disconnect { id, socket } => {
            runtime()?.block_on(admin::disconnect(&socket.path(common), id, output))
        }
        Verb::Events { follow, socket } => {
            runtime()?.block_on(admin::show_events(&socket.path(common), *follow, output))
        }
        Verb::Drain(socket) => runtime()?.block_on(admin::drain(&socket.path(common), output)),
        Verb::Version => rc_daemon::cli::version(BINARY, output),
        Verb::Completions(completions) => completions.run(Arguments::command(), output),
        Verb::Man(man) => man.run(Arguments::command(), output),
    }
}

fn settings(common: &CommonArgs, ready_file: Option<&PathBuf>) -> Settings {
    let sources = common.config_sources(BINARY);
    config::load(match ready_file {
        Some(path) => sources.overriding(Override::new("--ready-file", "ready.file", path.to_string_lossy())),
        None => sources,
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(ExitStatus::Internal, error, "starting the runtime", "see the limits of this user")
    })
}
