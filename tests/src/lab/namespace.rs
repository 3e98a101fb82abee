//! Into a place where namespaces may be made, and commands there.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// Set in the process that [`enter`] starts.
const INSIDE: &str = "RC_LAB";

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program cannot be run.
    #[error("cannot run {command}: {source}")]
    Run {
        /// What was to be run.
        command: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed ({status}): {stderr}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The kernel gives no packet queue.
    #[error("no packets can be delayed (NFQUEUE): {0}")]
    Queue(io::Error),
    /// There is no host of that name.
    #[error("the lab has no host {0:?}")]
    NoSuchHost(String),
}

/// The namespaces of a lab. Root needs none for users, and without it the kernel gives the packet queue a buffer as
/// large as it asks for.
fn unshared() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["--net", "--mount"]
    } else {
        &["--user", "--map-root-user", "--net", "--mount"]
    }
}

/// Replaces this process by itself inside namespaces of its own (network, mount, user), with the same arguments;
/// returns once inside. To be called first in `main`, before any thread is started.
///
/// # Errors
/// When `unshare` is missing or refuses.
pub fn enter() -> Result<(), LabError> {
    if std::env::var_os(INSIDE).is_some() {
        return run("mount", &["-t", "tmpfs", "none", "/run"]);
    }
    let failed = |source| LabError::Run { command: "unshare".to_owned(), source };
    let executable = std::env::current_exe().map_err(failed)?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let source =
        Command::new("unshare").args(unshared()).arg(executable).args(arguments).env(INSIDE, "1").exec();
    Err(failed(source))
}

/// What a lab needs and this machine does not have; `None` when everything is there.
pub fn unavailable() -> Option<String> {
    let probe = "mount -t tmpfs none /run && ip netns add probe && ip link add probe0 type veth \
                 && tc qdisc add dev probe0 root tbf rate 1mbit burst 16k limit 64k \
                 && iptables -t mangle -A FORWARD -j NFQUEUE --queue-num 1";
    let arguments = [unshared(), &["sh", "-c", probe]].concat();
    run("unshare", &arguments).err().map(|error| error.to_string())
}

/// Runs a command to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<(), LabError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Run { command: command(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Failed { command: command(), status: output.status, stderr })
}

/// Runs a line of words.
pub(super) fn run_line(line: &str) -> Result<(), LabError> {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().unwrap_or_default();
    run(program, &words.collect::<Vec<_>>())
}
