//! The command line's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::exchange::{ReadError, read_line};
use super::{AdminError, Line, REPLY_MAX_BYTES, Request, platform};
use crate::exit::{ExitStatus, Failure};

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum AdminClientError {
    /// Nobody listens.
    #[error("not running: nothing answers on the admin socket ({}): start it, or name its socket", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("the admin socket is not yours ({}): run as the user of the daemon, or as root", .path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {source} ({}): see whether it still runs", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The answer is not in our format.
    #[error("what answers is not our daemon ({}): name the right admin socket", .path.display())]
    NotOurs {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon did not answer in time.
    #[error("no answer within {} ({}): see whether the daemon is stuck", humantime::format_duration(*.deadline), .path.display())]
    Deadline {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        deadline: Duration,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] AdminError),
    /// There is no admin socket on this platform yet.
    #[error("there is no admin socket on this platform")]
    Unsupported,
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let status = match &error {
            AdminClientError::NotRunning { .. } | AdminClientError::NotOurs { .. } => ExitStatus::Unreachable,
            AdminClientError::NotPermitted { .. } => ExitStatus::Refused,
            AdminClientError::Broken { .. } | AdminClientError::Unsupported => ExitStatus::Internal,
            AdminClientError::Deadline { .. } => ExitStatus::Deadline,
            AdminClientError::Refused(refusal) => refusal.exit_status(),
        };
        Self::from_error(status, error)
    }
}

/// A connection to a daemon.
pub struct AdminClient {
    path: PathBuf,
    reader: BufReader<Box<dyn AsyncRead + Send + Sync + Unpin>>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminClient").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// One of possibly many items.
    Item(Value),
    /// The end.
    Done(Value),
}

impl AdminClient {
    /// Connects to the daemon behind `path`.
    ///
    /// # Errors
    /// It does not run, or the socket is not ours to use.
    pub async fn connect(path: &Path) -> Result<Self, AdminClientError> {
        let (reader, writer) = platform::connect(path).await?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(reader), writer })
    }

    /// Asks and waits for the end; gives the items and the final value. After any error but a refusal the connection
    /// is of no further use.
    ///
    /// # Errors
    /// The daemon refuses, breaks off, or does not finish before the deadline.
    pub async fn call(
        &mut self,
        command: &str,
        args: impl Serialize,
        deadline: Duration,
    ) -> Result<(Vec<Value>, Value), AdminClientError> {
        let path = self.path.clone();
        let collected = timeout(deadline, async {
            let mut items = Vec::new();
            let mut replies = self.stream(command, args).await?;
            loop {
                match replies.next().await? {
                    Reply::Item(item) => items.push(item),
                    Reply::Done(value) => return Ok((items, value)),
                }
            }
        });
        collected.await.unwrap_or(Err(AdminClientError::Deadline { path, deadline }))
    }

    /// Asks and reads the answer line by line.
    ///
    /// # Errors
    /// The daemon has closed the connection.
    pub async fn stream(
        &mut self,
        command: &str,
        args: impl Serialize,
    ) -> Result<Replies<'_>, AdminClientError> {
        let args = serde_json::to_value(args).map_err(|error| self.broken(error.into()))?;
        let request = Request { command: command.to_owned(), args };
        let mut line = serde_json::to_vec(&request).map_err(|error| self.broken(error.into()))?;
        line.push(b'\n');
        // A daemon that refused before reading has its answer waiting: a failed write is no reason not to read it.
        let written = self.writer.write_all(&line).await;
        Ok(Replies { client: self, write_error: written.err() })
    }

    fn broken(&self, source: io::Error) -> AdminClientError {
        AdminClientError::Broken { path: self.path.clone(), source }
    }
}

/// The lines of one answer.
#[derive(Debug)]
pub struct Replies<'c> {
    client: &'c mut AdminClient,
    write_error: Option<io::Error>,
}

impl Replies<'_> {
    /// The next line; [`Reply::Done`] is the last.
    ///
    /// # Errors
    /// The daemon refuses or breaks off.
    pub async fn next(&mut self) -> Result<Reply, AdminClientError> {
        let line = match read_line(&mut self.client.reader, REPLY_MAX_BYTES).await {
            Ok(Some(line)) => line,
            Ok(None) => {
                let closed = || io::ErrorKind::UnexpectedEof.into();
                return Err(self.client.broken(self.write_error.take().unwrap_or_else(closed)));
            }
            Err(ReadError::Io(source)) => return Err(self.client.broken(source)),
            Err(ReadError::TooLong) => {
                return Err(AdminClientError::NotOurs { path: self.client.path.clone() });
            }
        };
        match serde_json::from_slice(&line) {
            Ok(Line::Item(item)) => Ok(Reply::Item(item)),
            Ok(Line::Ok(value)) => Ok(Reply::Done(value)),
            Ok(Line::Error(error)) => Err(error.into()),
            Err(_) => Err(AdminClientError::NotOurs { path: self.client.path.clone() }),
        }
    }
}
