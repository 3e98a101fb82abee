//! The `rc-traffic-manager` command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::config::{ConfigSources, Override, Settings};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_daemon::log::{self, DefaultLevel};
use rc_daemon::output::{self, Output, Table};
use rc_daemon::{ExitStatus, Failure};
use serde_json::json;

use crate::config::{self, BINARY, Config, KNOBS};
use crate::{admin, running};

const EXAMPLES: &str = "\
Examples:
  rc-traffic-manager check-config --config tm.toml
  rc-traffic-manager run --config tm.toml --set 'listen.dns=127.0.0.1:5353'
  rc-traffic-manager status
  rc-traffic-manager events --follow --json";

/// Answers DNS queries with the addresses of healthy brokers
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
    /// Probe the endpoints and answer DNS until stopped
    Run {
        /// Print the effective configuration and its sources, and end
        #[arg(long)]
        print_config: bool,
        /// Write this file once DNS is served, with the real addresses; it is removed at the end
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Check the configuration and say everything that is wrong with it
    CheckConfig,
    /// Show the profiles, the state of their endpoints and the count of queries
    Status {
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
        let configured = || config::admin_socket(&mut config::load(common).reader());
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
            let settings = run_settings(common, ready_file.as_ref());
            if *print_config {
                output.text(&settings.print())?;
                return Ok(ExitStatus::Ok);
            }
            runtime()?.block_on(Box::pin(running::run(config::read(&settings)?)))
        }
        Verb::CheckConfig => check_config(&config::read(&config::load(common))?, output),
        Verb::Status { socket } => runtime()?.block_on(admin::show_status(&socket.path(common), output)),
        Verb::Events { follow, socket } => {
            runtime()?.block_on(admin::show_events(&socket.path(common), *follow, output))
        }
        Verb::Version => rc_daemon::cli::version(BINARY, output),
        Verb::Completions(completions) => completions.run(Arguments::command(), output),
        Verb::Man(man) => man.run(Arguments::command(), output),
    }
}

fn run_settings(common: &CommonArgs, ready_file: Option<&PathBuf>) -> Settings {
    let sources: ConfigSources = common.config_sources(BINARY);
    let sources = match ready_file {
        Some(path) => sources.overriding(Override::new("--ready-file", "ready.file", path.to_string_lossy())),
        None => sources,
    };
    Settings::load(sources, KNOBS)
}

fn check_config(config: &Config, output: Output) -> Result<ExitStatus, Failure> {
    let mut table = Table::new(&["PROFILE", "METHOD", ">TTL s", ">ENDPOINTS"]);
    let mut profiles = Vec::new();
    for profile in config.zones.profiles() {
        let (name, method) = (profile.name.to_string(), profile.method.name());
        let (ttl, count) = (profile.ttl.seconds(), profile.endpoints().len());
        table.row([name.clone(), method.to_owned(), ttl.to_string(), count.to_string()]);
        profiles.push(json!({ "profile": name, "method": method, "ttl": ttl, "endpoints": count }));
    }
    output.answer(&json!({ "ok": true, "profiles": profiles }), &table)?;
    Ok(ExitStatus::Ok)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(ExitStatus::Internal, error, "starting the runtime", "see the limits of this user")
    })
}
