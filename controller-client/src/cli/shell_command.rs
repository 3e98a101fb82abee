//! `shell`: a session, its shell channel, and the exit status of the remote command.

use std::io::IsTerminal;

use rc_client::OpenOptions;
use rc_daemon::cli::CommonArgs;
use rc_daemon::output::notice;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::ServiceName;
use rc_proto::wire::codes::Class;
use rc_proto::wire::shell::ShellExit;

use super::arguments::ShellArgs;
use super::session::{Running, open};
use super::shell::{Local, ShellEnd, ShellError, run as run_shell, start};
use super::standard::StandardInput;

/// A command that a signal killed exits with this plus the signal's number where it is known, as shells do.
const SIGNAL_BASE: u8 = 128;

pub(super) async fn run(common: &CommonArgs, arguments: &ShellArgs) -> Result<ExitStatus, Failure> {
    let service: ServiceName =
        "shell".parse().map_err(|error| Failure::new(ExitStatus::Internal, error, "shell", ""))?;
    let command = (!arguments.command.is_empty()).then(|| arguments.command.join(" "));
    let at_terminal = std::io::stdin().is_terminal();
    let want_terminal = at_terminal && (command.is_none() || arguments.terminal);
    let running = Running::start(common, &arguments.ticket)?;
    let connecting = async {
        let session = running.connect(&arguments.target).await?;
        let channel = open(&session, &service, OpenOptions::default().class(Class::INPUT)).await?;
        Ok::<_, Failure>((session, channel))
    };
    let (session, channel) = tokio::select! {
        opened = connecting => opened?,
        Ok(()) = tokio::signal::ctrl_c() => return Ok(ExitStatus::Interrupted),
    };
    let local =
        Local { input: StandardInput::new(), output: tokio::io::stdout(), errors: tokio::io::stderr() };
    let end = run_shell(channel, start(command, want_terminal), local).await;
    let end = match end {
        Ok(ShellEnd::Lost) | Err(ShellError::Channel(_)) => {
            let ended = tokio::time::timeout(std::time::Duration::from_millis(200), session.ended()).await;
            let why =
                ended.map_or_else(|_| "the shell ended without a status".to_owned(), |end| end.to_string());
            Err(Failure::new(ExitStatus::SessionLost, why, &arguments.target, ""))
        }
        Ok(end) => Ok(end),
        Err(error) => Err(Failure::from_error(ExitStatus::Internal, error)),
    };
    running.stop().await;
    match end? {
        ShellEnd::Exit(exit) => exit_status(&exit),
        ShellEnd::Escaped => {
            notice("Connection ended.");
            Ok(ExitStatus::Ok)
        }
        ShellEnd::Lost => Ok(ExitStatus::SessionLost),
    }
}

fn exit_status(exit: &ShellExit) -> Result<ExitStatus, Failure> {
    if let Some(failure) = &exit.failure {
        return Err(Failure::new(ExitStatus::Refused, failure, "on the target", ""));
    }
    if let Some(signal) = &exit.signal {
        notice(&format!("The command was ended by signal {signal}."));
        let number = match signal.as_str() {
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
        };
        return Ok(ExitStatus::Remote(SIGNAL_BASE + number));
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
