//! `shell`: a session, its shell channel, and the exit status of the remote command.

use std::io::IsTerminal;
use std::time::Duration;

use rc_client::OpenOptions;
use rc_client::cli::failure;
use rc_daemon::cli::CommonArgs;
use rc_daemon::output::notice;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::ServiceName;
use rc_proto::wire::codes::Class;
use rc_proto::wire::shell::{ShellExit, ShellStart};

use super::arguments::ShellArgs;
use super::session::{Running, open, with_controller};
use super::shell::{Local, ShellEnd, ShellError, run as run_shell, start};
use super::standard::StandardInput;
use crate::session::Session;

/// A command that a signal killed exits with this plus the signal's number where it is known, as shells do.
const SIGNAL_BASE: u8 = 128;
/// How long the end of a session may come behind the end of its channel.
const SESSION_END_WAIT: Duration = Duration::from_millis(200);

pub(super) async fn run(common: &CommonArgs, arguments: &ShellArgs) -> Result<ExitStatus, Failure> {
    let service: ServiceName =
        "shell".parse().map_err(|error| Failure::new(ExitStatus::Internal, error, "shell", ""))?;
    let command = (!arguments.command.is_empty()).then(|| arguments.command.join(" "));
    let at_terminal = std::io::stdin().is_terminal();
    let want_terminal = at_terminal && (command.is_none() || arguments.terminal);
    with_controller(common, &arguments.ticket, async |running| {
        control(running, arguments, &service, start(command, want_terminal)).await
    })
    .await
}

async fn control(
    running: &Running,
    arguments: &ShellArgs,
    service: &ServiceName,
    wanted: ShellStart,
) -> Result<ExitStatus, Failure> {
    let connecting = async {
        let session = running.connect(&arguments.target).await?;
        let channel = open(&session, service, OpenOptions::default().class(Class::INPUT)).await?;
        Ok::<_, Failure>((session, channel))
    };
    let (session, channel) = tokio::select! {
        opened = connecting => opened?,
        Ok(()) = tokio::signal::ctrl_c() => return Ok(ExitStatus::Interrupted),
    };
    let local =
        Local { input: StandardInput::new(), output: tokio::io::stdout(), errors: tokio::io::stderr() };
    let end = run_shell(channel, wanted, local).await;
    match end {
        Ok(ShellEnd::Exit(exit)) => exit_status(&exit),
        Ok(ShellEnd::Escaped) => {
            notice("Connection ended.");
            Ok(ExitStatus::Ok)
        }
        Ok(ShellEnd::Signalled("INT")) => Ok(ExitStatus::Interrupted),
        Ok(ShellEnd::Signalled(name)) => Ok(ExitStatus::Remote(SIGNAL_BASE + signal_number(name))),
        Ok(ShellEnd::Lost) => Err(lost(&session, "the shell ended without a status").await),
        Err(ShellError::Channel(error)) => Err(lost(&session, &error.to_string()).await),
        Err(error @ (ShellError::Local(_) | ShellError::Protocol(_))) => {
            Err(Failure::from_error(ExitStatus::Internal, error))
        }
    }
}

/// Why the shell's channel ended: the session's own words when it ended too.
async fn lost(session: &Session, otherwise: &str) -> Failure {
    match tokio::time::timeout(SESSION_END_WAIT, session.ended()).await {
        Ok(end) => failure(end.kind(), end),
        Err(_still_there) => Failure::from_error(ExitStatus::SessionLost, otherwise),
    }
}

fn signal_number(name: &str) -> u8 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 0,
    }
}

fn exit_status(exit: &ShellExit) -> Result<ExitStatus, Failure> {
    if let Some(failure) = &exit.failure {
        return Err(Failure::new(ExitStatus::Refused, failure, "on the target", ""));
    }
    if let Some(signal) = &exit.signal {
        notice(&format!("The command was ended by signal {signal}."));
        return Ok(ExitStatus::Remote(SIGNAL_BASE + signal_number(signal)));
    }
    Ok(ExitStatus::Remote(exit.status.unwrap_or(u8::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rc_proto::wire::Ext;

    fn exit(status: Option<u8>, signal: Option<&str>, failure: Option<&str>) -> ShellExit {
        ShellExit {
            status,
            signal: signal.map(ToOwned::to_owned),
            failure: failure.map(ToOwned::to_owned),
            ext: Ext::none(),
        }
    }

    #[test]
    fn the_remote_status_is_ours() {
        assert_eq!(exit_status(&exit(Some(7), None, None)).unwrap(), ExitStatus::Remote(7));
        assert_eq!(exit_status(&exit(None, Some("TERM"), None)).unwrap(), ExitStatus::Remote(143));
    }

    #[test]
    fn a_shell_that_never_ran_is_a_failure_with_its_reason() {
        let failure = exit_status(&exit(None, None, Some("no such account"))).unwrap_err();
        assert!(failure.to_string().contains("no such account"));
    }
}
