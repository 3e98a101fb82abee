//! What a Target offers: each service takes one accepted channel and runs until either side is done.
//!
//! The names on the wire are `shell`, `echo`, `sink`, `tcp:<name>` and `pipe:<name>`; what stands behind a name is
//! this Target's configuration and never comes from the peer.

mod account;
mod pipe;
mod shell;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;

use rc_proto::wire::ServiceName;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use account::Account;

/// A channel as a service sees it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Ends when the channel of a service is of no use any more, however busy the service is elsewhere.
pub(crate) type Lost = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What stands behind one service name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    /// An interactive shell or one command, as this process's own user or as `run_as`.
    Shell {
        /// The account to switch to.
        run_as: Option<String>,
    },
    /// A TCP connection to one fixed address.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// One configured command with the channel as its standard input and output.
    Pipe {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Every byte comes back.
    Echo,
    /// Every byte is counted and hashed; the answer at the end is `<bytes> <sha256>`.
    Sink,
}

/// Why a service ended other than well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The address behind a `tcp:` service did not answer.
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        /// Configured host.
        host: String,
        /// Configured port.
        port: u16,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The command behind a service cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The peer spoke something else than the service does.
    #[error("the controller broke the shell protocol: {0}")]
    Protocol(String),
    /// The command ended with a failure.
    #[error("{program} ended with {status}")]
    Failed {
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// The channel was reset or its session ended.
    #[error("the channel was lost")]
    Lost,
    /// The channel or the local end broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The services of this Target by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceTable(BTreeMap<ServiceName, Service>);

impl ServiceTable {
    /// Offers `service` under `name`; false when the name is taken.
    pub(crate) fn offer(&mut self, name: ServiceName, service: Service) -> bool {
        let free = !self.0.contains_key(&name);
        if free {
            self.0.insert(name, service);
        }
        free
    }

    /// What stands behind `name`.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.0.get(name)
    }

    /// Every name, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.keys()
    }
}

impl Service {
    /// Runs the service over one channel.
    ///
    /// # Errors
    /// When the local end cannot be reached or started, or either end breaks.
    pub(crate) async fn run(&self, channel: impl Stream, lost: Lost) -> Result<(), ServiceError> {
        match self {
            // A shell hangs its processes up before it ends.
            Self::Shell { run_as } => shell::run(channel, lost, run_as.as_deref()).await,
            Self::Tcp { host, port } => unless_lost(stream::tcp(channel, host, *port), lost).await,
            Self::Pipe { command } => unless_lost(pipe::run(channel, command), lost).await,
            Self::Echo => unless_lost(stream::echo(channel), lost).await,
            Self::Sink => unless_lost(stream::sink(channel), lost).await,
        }
    }
}

async fn unless_lost(
    work: impl Future<Output = Result<(), ServiceError>>,
    lost: Lost,
) -> Result<(), ServiceError> {
    tokio::select! {
        ended = work => ended,
        () = lost => Err(ServiceError::Lost),
    }
}

/// Parses `host:port`, `[v6]:port` or a socket address.
pub(crate) fn parse_host_port(text: &str) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host_holds = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']);
    host_holds.then_some(())?;
    Some((host.to_owned(), port.parse().ok().filter(|port| *port != 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(parse_host_port("127.0.0.1:22"), Some(("127.0.0.1".to_owned(), 22)));
        assert_eq!(parse_host_port("[::1]:22"), Some(("::1".to_owned(), 22)));
        assert_eq!(parse_host_port("db.internal:5432"), Some(("db.internal".to_owned(), 5432)));
        for refused in ["", ":22", "host", "host:0", "host:70000", "::1:22", "http://x:80"] {
            assert_eq!(parse_host_port(refused), None, "{refused:?}");
        }
    }
}
