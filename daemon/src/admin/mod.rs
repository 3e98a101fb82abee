//! The admin socket: how a daemon's own command line asks the running daemon.
//!
//! Newline-delimited JSON over a local socket, never TCP. A request is `{"command": …, "args": …}`; the answer is any
//! number of `{"item": …}` lines and then one `{"ok": …}` or `{"error": {"code": …, "message": …}}`. One connection
//! carries one request at a time. Everything is bounded: request size, connections, the time a reader may take.
//!
//! Only the daemon's own user and root may connect: the socket is 0600 in a directory of that user, and the peer's
//! credentials are checked on each connection. On Windows the equivalent is a named pipe with an access control list
//! for the same two; until it exists the calls there answer [`AdminBindError::Unsupported`] and
//! [`AdminClientError::Unsupported`].

mod client;
#[cfg_attr(not(unix), expect(dead_code, reason = "nothing accepts connections there yet"))]
mod exchange;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod unsupported;

#[cfg(unix)]
use unix as platform;
#[cfg(not(unix))]
use unsupported as platform;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::exit::{ExitStatus, Failure};

pub use client::{AdminClient, AdminClientError, Replies, Reply};
pub use exchange::Responder;
pub use platform::{AdminServer, default_path};

/// The longest request line.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// The longest line of an answer.
pub const REPLY_MAX_BYTES: usize = 1 << 20;

/// Connections at a time; one more is answered [`AdminError::BUSY`] and closed.
pub const CONNECTIONS_MAX: usize = 16;

/// A connection without a request for so long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// A reader that takes no byte for so long is cut.
pub const WRITE_MAX: Duration = Duration::from_secs(10);

/// How long a handler may go on after the asker left or the daemon stops.
pub const GRACE: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The command, such as `status`.
    pub command: String,
    /// Its arguments; null when it has none.
    #[serde(default)]
    pub args: Value,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Item(Value),
    Ok(Value),
    Error(AdminError),
}

/// The daemon's refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct AdminError {
    /// A word for programs; the constants of this type, or a command's own.
    pub code: String,
    /// A sentence for people: what, where, what to do.
    pub message: String,
}

impl AdminError {
    /// The request is malformed or its arguments are wrong.
    pub const BAD_REQUEST: &'static str = "bad-request";
    /// This daemon has no such command.
    pub const UNKNOWN_COMMAND: &'static str = "unknown-command";
    /// The thing named by the arguments does not exist.
    pub const NOT_FOUND: &'static str = "not-found";
    /// Too many connections.
    pub const BUSY: &'static str = "busy";
    /// The command exists and is refused now.
    pub const REFUSED: &'static str = "refused";
    /// The daemon failed, or is stopping.
    pub const INTERNAL: &'static str = "internal";
    /// The asker has left; nobody reads this one.
    pub const GONE: &'static str = "gone";

    /// A refusal with its code and message.
    pub fn new(code: &str, message: impl fmt::Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string() }
    }

    /// The arguments are wrong.
    pub fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(Self::BAD_REQUEST, message)
    }

    /// No such command; `known` are those there are.
    pub fn unknown_command(command: &str, known: &[&str]) -> Self {
        Self::new(Self::UNKNOWN_COMMAND, format!("no command {command:?}: use one of {}", known.join(", ")))
    }

    /// The thing does not exist.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Self::NOT_FOUND, message)
    }

    /// The exit status for it.
    pub fn exit_status(&self) -> ExitStatus {
        match self.code.as_str() {
            Self::BAD_REQUEST | Self::UNKNOWN_COMMAND => ExitStatus::Usage,
            Self::NOT_FOUND => ExitStatus::NotFound,
            Self::BUSY | Self::REFUSED => ExitStatus::Refused,
            _ => ExitStatus::Internal,
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::from_error(error.exit_status(), error)
    }
}

/// A future that a handler returns.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, AdminError>> + Send + 'a>>;

/// What answers the requests of a daemon.
pub trait AdminHandler: Send + Sync + 'static {
    /// Answers one request: items through the responder, the final value (or the refusal) as the result. The future is
    /// dropped [`GRACE`] after the asker left or the daemon began to stop.
    fn handle<'a>(&'a self, request: Request, responder: &'a mut Responder) -> Answer<'a>;
}

/// Why the admin socket cannot be made.
#[derive(Debug, Error)]
pub enum AdminBindError {
    /// The daemon runs already.
    #[error("already running{} ({}): stop it first, or set another admin socket", pid_text(*.pid), .path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
        /// The other process, if it is known.
        pid: Option<u32>,
    },
    /// Something else is where the socket should be.
    #[error("a file that is no socket is in the way ({}): remove it, or set another admin socket", .path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the directory of the admin socket is open to others: owner {owner}, mode {mode:03o} ({}): \
        give it to this user with mode 700",
        .directory.display()
    )]
    UnsafeDirectory {
        /// The directory.
        directory: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Socket paths are limited to about a hundred bytes.
    #[error("the path of the admin socket is too long ({}): set a shorter one", .path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot make the admin socket: {source} ({}): set a path that can be written", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no admin socket on this platform yet.
    #[error("there is no admin socket on this platform")]
    Unsupported,
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
}

impl From<AdminBindError> for Failure {
    fn from(error: AdminBindError) -> Self {
        let status = match error {
            AdminBindError::Unsupported => ExitStatus::Internal,
            AdminBindError::AlreadyRunning { .. }
            | AdminBindError::InTheWay { .. }
            | AdminBindError::UnsafeDirectory { .. }
            | AdminBindError::PathTooLong { .. }
            | AdminBindError::Io { .. } => ExitStatus::Usage,
        };
        Self::from_error(status, error)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
