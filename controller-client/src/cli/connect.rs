//! `connect`: standard input and output joined to one service; what OpenSSH's `ProxyCommand` runs.

use std::io::ErrorKind;

use rc_client::cli::failure;
use rc_client::{OpenOptions, SessionEnd};
use rc_daemon::cli::CommonArgs;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::codes::Class;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::arguments::ConnectArgs;
use super::session::{Running, open, with_controller_until_interrupted};
use super::standard::StandardInput;

/// Bytes of one read.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) async fn run(common: &CommonArgs, arguments: &ConnectArgs) -> Result<ExitStatus, Failure> {
    with_controller_until_interrupted(common, &arguments.ticket, async |running| {
        join(running, arguments).await.map(|()| ExitStatus::Ok)
    })
    .await
}

async fn join(running: &Running, arguments: &ConnectArgs) -> Result<(), Failure> {
    let session = running.connect(&arguments.target).await?;
    let channel = open(&session, &arguments.service, OpenOptions::default().class(Class::SCREEN)).await?;
    let (mut from_target, mut to_target) = tokio::io::split(channel);
    let sending = async {
        let mut input = StandardInput::new();
        copy(&mut input, &mut to_target).await?;
        to_target.shutdown().await
    };
    let mut output = tokio::io::stdout();
    let receiving = copy(&mut from_target, &mut output);
    tokio::pin!(sending);
    tokio::pin!(receiving);
    let outcome = tokio::select! {
        received = &mut receiving => received,
        sent = &mut sending => match sent {
            Ok(()) => receiving.await,
            Err(error) => Err(error),
        },
    };
    outcome.map_err(|error| broken(&error))
}

/// What a broken channel or local stream means for the exit code.
pub(super) fn broken(error: &std::io::Error) -> Failure {
    if let Some(end) = error.get_ref().and_then(|inner| inner.downcast_ref::<SessionEnd>()) {
        return failure(end.kind(), end);
    }
    let kind = error.kind();
    if kind == ErrorKind::BrokenPipe {
        return Failure::silent(ExitStatus::Ok);
    }
    let status = if kind == ErrorKind::ConnectionReset {
        ExitStatus::Refused
    } else if kind == ErrorKind::ConnectionAborted {
        ExitStatus::SessionLost
    } else {
        ExitStatus::Internal
    };
    Failure::from_error(status, error)
}

/// Copies until the end, passing each read on at once.
async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}
