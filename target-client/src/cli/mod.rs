//! The `rc-target` command line.

mod consent;
mod platform;
mod run;
mod services;
mod settings;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rc_client::cli::admin;
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_daemon::log::{self, DefaultLevel};
use rc_daemon::output::{self, Output, Table};
use rc_daemon::{ExitStatus, Failure};
use serde_json::Value;

pub use settings::reference;

/// The program's name.
const BINARY: &str = "rc-target";

const EXAMPLES: &str = "\
Examples:
  rc-target run --config /etc/rc-mesh/rc-target.toml
  rc-target run --set offer.shell=true --set consent.policy=ask
  rc-target status
  rc-target disconnect all";

/// Lets engineers take control of this machine through a mesh of brokers
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
    /// Register at a broker and serve the configured services until stopped
    Run {
        /// Print the effective configuration and its sources, and end
        #[arg(long)]
        print_config: bool,
    },
    /// Check the configuration and say everything that is wrong with it
    CheckConfig,
    /// Show the broker, the registration and who is in control
    Status {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Follow what happens
    Events {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// End a session at once
    Disconnect {
        /// A session from `status`, the beginning of its id, or "all"
        session: String,
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
    /// The admin socket of the running target
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| admin::socket_of(BINARY))
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
    let output = arguments.common.output();
    let level =
        if matches!(arguments.command, Verb::Run { .. }) { DefaultLevel::Info } else { DefaultLevel::Warn };
    log::init(&arguments.common.log_options(level))?;
    match &arguments.command {
        Verb::Run { print_config: true } => {
            output.text(&settings::load(&arguments.common).print())?;
            Ok(ExitStatus::Ok)
        }
        Verb::Run { print_config: false } => {
            let config = settings::read(&settings::load(&arguments.common))?;
            runtime()?.block_on(run::run(config))
        }
        Verb::CheckConfig => {
            let loaded = settings::load(&arguments.common);
            let config = settings::read(&loaded)?;
            let mut table = Table::new(&["offers"]);
            for name in config.services.names() {
                table.row([name.as_str()]);
            }
            let offers: Vec<String> = config.services.names().map(ToString::to_string).collect();
            output.answer(&serde_json::json!({ "ok": true, "offers": offers }), &table)?;
            Ok(ExitStatus::Ok)
        }
        Verb::Status { socket } => {
            let status = runtime()?.block_on(admin::ask_status(&socket.path()))?;
            show_status(&status, output)
        }
        Verb::Events { socket } => runtime()?.block_on(admin::print_events(&socket.path(), output)),
        Verb::Disconnect { session, socket } => {
            runtime()?.block_on(admin::disconnect(&socket.path(), session, output))
        }
        Verb::Version => rc_daemon::cli::version(BINARY, output),
        Verb::Completions(completions) => completions.run(Arguments::command(), output),
        Verb::Man(man) => man.run(Arguments::command(), output),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "starting threads", ""))
}

fn show_status(status: &Value, output: Output) -> Result<ExitStatus, Failure> {
    if output.is_json() {
        output.json(status)?;
        return Ok(ExitStatus::Ok);
    }
    output.text(&link_table(status).render())?;
    let sessions = status.get("sessions").and_then(Value::as_array).cloned().unwrap_or_default();
    if sessions.is_empty() {
        output.line("Nobody is in control.")?;
    } else {
        output.text(&admin::session_table(&sessions).render())?;
        output.text(&admin::path_table(&sessions).render())?;
    }
    Ok(ExitStatus::Ok)
}

/// The control links of a status: which is which, where it goes, what is registered there.
fn link_table(status: &Value) -> Table {
    let mut table = Table::new(&["link", "broker", "address", "registered as", "round trip ms"]);
    for (name, key) in [("primary", "pin"), ("second", "second")] {
        let link = status.get(key).filter(|link| !link.is_null());
        if link.is_none() && key == "second" {
            continue;
        }
        let text =
            |key: &str| link.and_then(|link| link.get(key)).and_then(Value::as_str).unwrap_or("-").to_owned();
        let round_trip = link.and_then(|link| link.get("round_trip_us")).and_then(Value::as_f64);
        table.row([
            name.to_owned(),
            text("broker"),
            text("address"),
            text("role"),
            round_trip.map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us / 1000.0)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_both_links_and_what_is_registered_there() {
        let link = |broker: &str, role: &str| serde_json::json!({ "broker": broker, "address": "192.0.2.7:443", "role": role, "round_trip_us": 21_300 });
        let idle = serde_json::json!({ "pin": link("in/b-1", "primary"), "second": null });
        let text = link_table(&idle).render();
        assert!(text.contains("in/b-1") && text.contains("21.3") && !text.contains("second"), "{text}");
        let in_session =
            serde_json::json!({ "pin": link("in/b-1", "primary"), "second": link("us/b-2", "standby") });
        let text = link_table(&in_session).render();
        for expected in ["primary", "second", "us/b-2", "standby"] {
            assert!(text.contains(expected), "{text}");
        }
        let searching = link_table(&serde_json::json!({ "pin": null, "second": null })).render();
        assert!(searching.contains("primary") && searching.contains('-'), "{searching}");
    }
}
