//! Real processes under test: started with their output in a file, waited for by their ready-file, signalled by
//! pid, and never left behind.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::eventually::eventually;

/// How long a process may take until it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// Which program runs as a node: a binary and the arguments in front of the node's own.
#[derive(Debug, Clone)]
pub struct NodeProgram {
    /// The executable.
    pub executable: PathBuf,
    /// Arguments in front of the node kind, for example the demo's hidden first argument.
    pub arguments: Vec<String>,
}

impl NodeProgram {
    /// `executable` takes the node kind as its first argument, as `rc-node` does.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        Self { executable: executable.into(), arguments: Vec::new() }
    }

    /// This very executable, re-executed with `hidden` in front.
    ///
    /// # Errors
    /// When the operating system does not tell the executable's path.
    pub fn this_executable(hidden: &str) -> io::Result<Self> {
        Ok(Self { executable: std::env::current_exe()?, arguments: vec![hidden.to_owned()] })
    }

    /// The program and its own arguments as words of a shell.
    pub fn line(&self) -> String {
        let executable = self.executable.display().to_string();
        std::iter::once(executable).chain(self.arguments.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    /// A command that runs node `kind` with `arguments`.
    pub fn command(&self, kind: &str, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments).arg(kind).args(arguments);
        command.env_remove("RUST_LOG").kill_on_drop(true);
        command
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    name: String,
    child: Child,
    /// Its standard input, open for as long as the node may run: waiting for a child closes what it still holds.
    _leash: Option<ChildStdin>,
    log: PathBuf,
}

/// Why a node did not come up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It could not be started at all.
    #[error("cannot start {name}: {source}")]
    Start {
        /// Which node.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It ended, or did not write its ready-file in time.
    #[error("{name} is not ready after {READY_DEADLINE:?}; its log {log} ends with:\n{tail}")]
    NotReady {
        /// Which node.
        name: String,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

impl Node {
    /// Starts `command` with its standard output and error appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Start { name: name.to_owned(), source };
        let out = File::options().create(true).append(true).open(log).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        command.env(crate::node::LEASH, "1").stdin(Stdio::piped()).stdout(out).stderr(errors);
        let mut child = command.spawn().map_err(failed)?;
        let leash = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, _leash: leash, log: log.to_owned() })
    }

    /// Waits for the node's ready-file and returns what it says.
    ///
    /// # Errors
    /// When the node ends or the file is not there within 20 s.
    pub async fn ready(&mut self, ready_file: &Path) -> Result<serde_json::Value, NodeError> {
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        while tokio::time::Instant::now() < deadline {
            if let Ok(text) = std::fs::read(ready_file)
                && let Ok(value) = serde_json::from_slice(&text)
            {
                return Ok(value);
            }
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(NodeError::NotReady { name: self.name.clone(), log: self.log.clone(), tail: tail(&self.log) })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends `signal`; true when the process was there to take it.
    pub fn signal(&self, signal: Signal) -> bool {
        self.child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) {
        drop(self.child.kill().await);
    }

    /// Sends SIGTERM and waits until it has ended; the exit code, or `None` when `limit` passed first.
    pub async fn terminate(&mut self, limit: Duration) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait(limit).await
    }

    /// Waits until it has ended; the exit code, or `None` when `limit` passed first.
    pub async fn wait(&mut self, limit: Duration) -> Option<i32> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(Ok(status)) => status.code().or(Some(-1)),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its log contains `text`.
    pub async fn logs(&self, text: &str, limit: Duration) -> bool {
        eventually(limit, || self.log().contains(text)).await
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}
