//! The flags and subcommands of `rc-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_proto::wire::{EndpointId, ServiceName};

use super::BINARY;

const EXAMPLES: &str = "\
Examples:
  rc-controller shell pc-17 --ticket pc-17.ticket
  rc-controller shell pc-17 --ticket-command ./get-ticket -- uname -a
  rc-controller forward pc-17 tcp:vnc --listen 127.0.0.1:5901
  rc-controller pipe pc-17 backup < disk.img
  ssh -o ProxyCommand='rc-controller connect pc-17 tcp:ssh --ticket pc-17.ticket' pc-17
  rc-controller probe brokers.mesh.example";

/// Takes control of a machine that nobody can dial, through a mesh of brokers
#[derive(Debug, Parser)]
#[command(name = BINARY, version = LONG_VERSION, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES_HELP}\n  255  shell: a failure of ours; any other code is the remote command's"))]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(subcommand)]
    pub(super) command: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a shell or one command on a target, like ssh
    Shell(ShellArgs),
    /// Join standard input and output to a service of a target
    Connect(ConnectArgs),
    /// Listen here and carry each connection to a service of a target
    Forward(ForwardArgs),
    /// Send standard input to a command that the target offers, and print what it answers
    Pipe(PipeArgs),
    /// Measure the round trip to a target, through the session itself
    Ping(PingArgs),
    /// Resolve, race and measure the brokers behind a name, and explain which would be chosen
    Probe {
        /// Service name; those of the configuration when absent
        name: Option<String>,
    },
    /// Show the running controllers of this user, their brokers and sessions
    Status,
    /// Follow what happens in a running controller
    Events {
        /// Its admin socket, as `status` shows it
        socket: PathBuf,
    },
    /// End a session of a running controller
    Disconnect {
        /// A session from `status`, the beginning of its id, or "all"
        session: String,
    },
    /// Check the configuration and say everything that is wrong with it
    CheckConfig {
        /// Print the effective configuration and its sources
        #[arg(long)]
        print: bool,
    },
    /// Print the version and the commit it was built from
    Version,
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages into a directory
    Man(ManArgs),
}

/// Where the ticket of a session comes from.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(super) struct TicketArgs {
    /// File that holds the ticket; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) ticket: Option<PathBuf>,
    /// Command that prints the ticket; run for each session, with `RC_TARGET` set
    #[arg(long, value_name = "COMMAND")]
    pub(super) ticket_command: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    /// Who to control
    pub(super) target: EndpointId,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
    /// Ask for a terminal even when a command is given
    #[arg(short, long)]
    pub(super) terminal: bool,
    /// Command to run instead of a login shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// Who to control
    pub(super) target: EndpointId,
    /// Service such as tcp:ssh
    pub(super) service: ServiceName,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
}

#[derive(Debug, Args)]
pub(super) struct ForwardArgs {
    /// Who to control
    pub(super) target: EndpointId,
    /// Service such as tcp:vnc
    pub(super) service: ServiceName,
    /// Address and port to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: SocketAddr,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
}

#[derive(Debug, Args)]
pub(super) struct PipeArgs {
    /// Who to control
    pub(super) target: EndpointId,
    /// Name of the target's command (its service pipe:NAME); without it the target's sink, which answers with count
    /// and SHA-256 and is compared with what was sent
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
    /// No progress bar
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PingArgs {
    /// Who to reach
    pub(super) target: EndpointId,
    /// How many round trips to measure
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) count: u32,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_command_stands_behind_two_dashes() {
        let arguments =
            Arguments::try_parse_from(["rc-controller", "shell", "pc-17", "--", "ls", "-l"]).unwrap();
        let Verb::Shell(shell) = arguments.command else { panic!("not a shell") };
        assert_eq!(shell.command, ["ls", "-l"]);
    }

    #[test]
    fn a_ticket_comes_from_one_place() {
        let both = ["rc-controller", "ping", "a", "--ticket", "x", "--ticket-command", "y"];
        assert!(Arguments::try_parse_from(both).is_err());
    }

    #[test]
    fn a_target_is_an_id() {
        assert!(Arguments::try_parse_from(["rc-controller", "ping", "PC 17"]).is_err());
    }
}
