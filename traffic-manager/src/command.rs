//! The `rc-traffic-manager` command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{CommandFactory, Parser, Subcommand};
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::config::{ConfigSources, Override, Settings};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_daemon::log::{self, DefaultLevel};
use rc_daemon::output::{self, Output, Table};
use rc_daemon::{ExitStatus, Failure};
use serde_json::json;

use crate::admin::{self, ExplainArgs, SetEndpointArgs};
use crate::config::{self, BINARY, Config, KNOBS};
use crate::decide::Directive;
use crate::generation;
use crate::import;
use crate::name::DnsName;
use crate::reload::ConfigSource;
use crate::running;

const EXAMPLES: &str = "\
Examples:
  rc-traffic-manager check-config --config tm.toml
  rc-traffic-manager import profile.json --zone tm.example.org > tm.toml
  rc-traffic-manager run --config tm.toml --set 'listen.dns=127.0.0.1:5353'
  rc-traffic-manager status
  rc-traffic-manager explain brokers.mesh.example --from 203.0.113.7
  rc-traffic-manager set endpoint brokers.mesh.example broker-3 drain
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
    /// Make a configuration of profiles of Azure Traffic Manager, and print it
    Import {
        /// What `az network traffic-manager profile show` prints, or an ARM template; JSON
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The zone that the profiles' names are to be in
        #[arg(long, value_name = "NAME")]
        zone: DnsName,
    },
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
    /// Read the configuration again; when something is wrong with it, the running one stays
    Reload {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show step by step why an asker gets its answer
    Explain {
        /// The name of a profile
        name: String,
        /// The address that the query comes from
        #[arg(long, value_name = "ADDRESS")]
        from: IpAddr,
        /// The client subnet in the query, such as 203.0.113.0/24
        #[arg(long, value_name = "ADDRESS/BITS")]
        subnet: Option<SubnetArg>,
        /// The record type that is asked for
        #[arg(long = "type", value_name = "TYPE", default_value = "A")]
        kind: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Order something that stands above the configuration until it is ordered otherwise
    Set {
        #[command(subcommand)]
        what: Settable,
    },
    /// Print the version and the commit it was built from
    Version,
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages into a directory
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
enum Settable {
    /// Take an endpoint out, put it in, or let it drain
    Endpoint {
        /// The profile that it belongs to
        profile: String,
        /// Its name
        endpoint: String,
        /// disabled: neither used nor probed; enabled: as configured; drain: used only when no other is available
        state: Directive,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

/// A network as it stands in a query.
#[derive(Debug, Clone, Copy)]
struct SubnetArg(IpAddr, u8);

impl FromStr for SubnetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').ok_or("write an address, a slash and a number of bits")?;
        let address: IpAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match bits.parse() {
            Ok(bits) if bits <= most => Ok(Self(address, bits)),
            Ok(_) | Err(_) => Err(format!("{bits} is not a number of bits up to {most}")),
        }
    }
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
            let file = settings.file().map(std::path::Path::to_owned);
            let (common, ready_file) = (common.clone(), ready_file.clone());
            let read = move || Ok(config::read(&run_settings(&common, ready_file.as_ref()))?);
            runtime()?.block_on(Box::pin(running::run(ConfigSource::new(read, file))))
        }
        Verb::CheckConfig => check_config(&config::read(&config::load(common))?, output),
        Verb::Import { files, zone } => import_files(files, zone, output),
        Verb::Status { socket } => runtime()?.block_on(admin::show_status(&socket.path(common), output)),
        Verb::Events { follow, socket } => {
            runtime()?.block_on(admin::show_events(&socket.path(common), *follow, output))
        }
        Verb::Reload { socket } => runtime()?.block_on(admin::reload(&socket.path(common), output)),
        Verb::Explain { name, from, subnet, kind, socket } => {
            let subnet = subnet.map(|SubnetArg(address, prefix)| (address, prefix));
            let kind = kind.to_ascii_uppercase();
            let args = ExplainArgs { name: name.clone(), from: *from, subnet, kind };
            runtime()?.block_on(admin::show_explanation(&socket.path(common), &args, output))
        }
        Verb::Set { what: Settable::Endpoint { profile, endpoint, state, socket } } => {
            let (profile, endpoint) = (profile.clone(), endpoint.clone());
            let args = SetEndpointArgs { profile, endpoint, directive: *state };
            runtime()?.block_on(admin::set_endpoint(&socket.path(common), &args, output))
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

/// Prints the configuration that the files' profiles become; nothing of it when something cannot be carried over.
fn import_files(files: &[PathBuf], zone: &DnsName, output: Output) -> Result<ExitStatus, Failure> {
    let mut documents = Vec::with_capacity(files.len());
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(ExitStatus::Usage, error, file.display(), "name a readable file")
        })?;
        documents.push((file.display().to_string(), text));
    }
    let documents = documents.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let text = import::import(documents, zone).map_err(|problems| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let fix = "correct the files, or write these parts by hand";
        Failure::new(ExitStatus::Usage, texts.join("\n"), "importing profiles of Azure", fix)
    })?;
    output.text(&text)?;
    Ok(ExitStatus::Ok)
}

fn check_config(config: &Config, output: Output) -> Result<ExitStatus, Failure> {
    config.maps.load().map_err(|problems| generation::map_failure(&problems))?;
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
