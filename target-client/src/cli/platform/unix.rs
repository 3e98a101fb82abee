//! Shells on Unix: a pty or three pipes, a process group of their own, and the account switch.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use pty_process::{OwnedWritePty, Size};
use rc_proto::wire::shell::{ShellStart, Terminal, WindowSize};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};

use crate::cli::services::{Account, ServiceError};

/// The character that ends input on a terminal.
const END_OF_TRANSMISSION: u8 = 4;
/// Search path of a shell that inherits none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Standard input of a running shell, and the group that signals go to.
pub(crate) struct ShellInput {
    writer: Writer,
    group: Option<Pid>,
}

enum Writer {
    /// The writing half, and the terminal itself for questions about its foreground.
    Terminal(OwnedWritePty, OwnedFd),
    Pipe(ChildStdin),
    Ended,
}

/// A running shell. Dropping it kills the child; [`ShellInput::hang_up`] reaches the whole group.
pub(crate) struct ShellProcess {
    pub(crate) input: ShellInput,
    pub(crate) output: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) error_output: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) child: Child,
}

impl ShellInput {
    /// Writes bytes of standard input; bytes behind the end are dropped, as a closed pipe would.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.writer {
            Writer::Terminal(pty, _) => pty.write_all(bytes).await,
            Writer::Pipe(pipe) => pipe.write_all(bytes).await,
            Writer::Ended => Ok(()),
        }
    }

    /// Ends standard input.
    pub(crate) async fn end(&mut self) -> std::io::Result<()> {
        match &mut self.writer {
            Writer::Terminal(pty, _) => pty.write_all(&[END_OF_TRANSMISSION]).await,
            Writer::Pipe(_) | Writer::Ended => {
                self.writer = Writer::Ended;
                Ok(())
            }
        }
    }

    /// Tells the terminal its new size.
    pub(crate) fn resize(&self, size: WindowSize) {
        if let Writer::Terminal(pty, _) = &self.writer
            && let Err(error) = pty.resize(Size::new(size.rows, size.columns))
        {
            tracing::debug!(%error, "the terminal does not take its new size");
        }
    }

    /// Sends the signal named `name` to the foreground of the terminal, or to the command's group.
    pub(crate) fn signal(&self, name: &str) {
        let Some(signal) = signal_by_name(name) else {
            tracing::debug!(name, "signal is not known here");
            return;
        };
        let foreground = match &self.writer {
            Writer::Terminal(_, terminal) => rustix::termios::tcgetpgrp(terminal).ok(),
            Writer::Pipe(_) | Writer::Ended => None,
        };
        self.send(foreground.or(self.group), signal);
    }

    /// Ends the whole group, as a terminal does that goes away.
    pub(crate) fn hang_up(&self) {
        self.send(self.group, Signal::HUP);
        self.send(self.group, Signal::CONT);
    }

    /// Kills what did not end by itself.
    pub(crate) fn kill(&self) {
        self.send(self.group, Signal::KILL);
    }

    fn send(&self, group: Option<Pid>, signal: Signal) {
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::debug!(%error, ?signal, "the shell's group does not take the signal");
        }
    }
}

/// The name, without `SIG`, of the signal that ended a process.
pub(crate) fn signal_of(status: ExitStatus) -> Option<String> {
    let number = status.signal()?;
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    Some(known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned()))
}

/// The signals that a Controller may send, and those that commonly end a process.
const SIGNALS: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TSTP", Signal::TSTP),
    ("CONT", Signal::CONT),
    ("ALRM", Signal::ALARM),
    ("PIPE", Signal::PIPE),
    ("ABRT", Signal::ABORT),
    ("SEGV", Signal::SEGV),
];

fn signal_by_name(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// Starts what `start` asks for, as this process's own account or as `run_as`.
pub(crate) fn spawn_shell(start: &ShellStart, run_as: Option<&str>) -> Result<ShellProcess, ServiceError> {
    let account = match run_as {
        None => Account::own(),
        Some(name) => Account::lookup(name).ok_or_else(|| ServiceError::Start {
            program: format!("a shell as {name} (no such account on this machine)"),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?,
    };
    let line = command_line(&account, start.command.as_deref(), run_as.is_some());
    let environment = environment(&account, start.terminal.as_ref());
    let program = account.shell.display().to_string();
    let failed = |source: std::io::Error| ServiceError::Start { program: program.clone(), source };
    match &start.terminal {
        Some(terminal) => spawn_on_terminal(&line, environment, &account.home, terminal.size),
        None => spawn_on_pipes(&line, environment, &account.home),
    }
    .map_err(failed)
}

/// Program and arguments; switching accounts is `setpriv`'s work, which also sets the groups.
fn command_line(account: &Account, command: Option<&str>, switch: bool) -> Vec<OsString> {
    let mut line: Vec<OsString> = Vec::new();
    if switch {
        // Numbers, since an account's group need not have its name.
        let (user, group) = account.ids.map_or_else(
            || (account.name.clone(), account.name.clone()),
            |(user, group)| (user.to_string(), group.to_string()),
        );
        let switched =
            ["setpriv", "--reuid", &user, "--regid", &group, "--init-groups", "--inh-caps=-all", "--"];
        line.extend(switched.into_iter().map(OsString::from));
    }
    line.push(account.shell.clone().into_os_string());
    match command {
        Some(command) => line.extend([OsString::from("-c"), OsString::from(command)]),
        None => line.push(OsString::from("-l")),
    }
    line
}

fn environment(account: &Account, terminal: Option<&Terminal>) -> Vec<(&'static str, OsString)> {
    let inherited =
        |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| OsString::from(default));
    let mut variables = vec![
        ("HOME", account.home.clone().into_os_string()),
        ("USER", OsString::from(&account.name)),
        ("LOGNAME", OsString::from(&account.name)),
        ("SHELL", account.shell.clone().into_os_string()),
        ("PATH", inherited("PATH", DEFAULT_PATH)),
        ("LANG", inherited("LANG", "C.UTF-8")),
    ];
    if let Some(terminal) = terminal {
        variables.push(("TERM", OsString::from(&terminal.kind)));
    }
    variables
}

fn working_directory(home: &Path) -> &Path {
    if home.is_dir() { home } else { Path::new("/") }
}

fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

fn spawn_on_terminal(
    line: &[OsString],
    environment: Vec<(&'static str, OsString)>,
    home: &Path,
    size: WindowSize,
) -> std::io::Result<ShellProcess> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    };
    let (pty, pts) = pty_process::open().map_err(std::io::Error::other)?;
    pty.resize(Size::new(size.rows, size.columns)).map_err(std::io::Error::other)?;
    let child = pty_process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(working_directory(home))
        .kill_on_drop(true)
        .spawn(pts)
        .map_err(io_error)?;
    let group = group_of(&child);
    let terminal = pty.as_fd().try_clone_to_owned()?;
    let (output, input) = pty.into_split();
    Ok(ShellProcess {
        input: ShellInput { writer: Writer::Terminal(input, terminal), group },
        output: Box::new(output),
        error_output: None,
        child,
    })
}

/// The operating system's own error where there is one.
fn io_error(error: pty_process::Error) -> std::io::Error {
    if let pty_process::Error::Io(error) = error { error } else { std::io::Error::other(error) }
}

fn spawn_on_pipes(
    line: &[OsString],
    environment: Vec<(&'static str, OsString)>,
    home: &Path,
) -> std::io::Result<ShellProcess> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(working_directory(home))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = group_of(&child);
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(input), Some(output), Some(errors)) => Ok(ShellProcess {
            input: ShellInput { writer: Writer::Pipe(input), group },
            output: Box::new(output),
            error_output: Some(Box::new(errors)),
            child,
        }),
        _ => Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)),
    }
}
