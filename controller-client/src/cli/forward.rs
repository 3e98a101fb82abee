//! `forward`: a local listener; each connection becomes one channel of one session.

use std::net::SocketAddr;
use std::sync::Arc;

use rc_client::OpenOptions;
use rc_client::cli::failure;
use rc_daemon::cli::CommonArgs;
use rc_daemon::output::{Output, notice};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::ServiceName;
use rc_proto::wire::codes::Class;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::arguments::ForwardArgs;
use super::session::{Running, with_controller};
use crate::session::Session;

/// Connections at once: the channels that a session may have open.
const CONNECTIONS_MAX: usize = 64;
/// Scratch of one direction, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) async fn run(common: &CommonArgs, arguments: &ForwardArgs) -> Result<ExitStatus, Failure> {
    let shutdown = Shutdown::new();
    let _signals = shutdown
        .on_signals()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        let fix = "choose a free port of this machine, or port 0";
        Failure::new(ExitStatus::Usage, format!("cannot listen: {error}"), arguments.listen, fix)
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, arguments.listen, ""))?;
    with_controller(common, &arguments.ticket, async |running| {
        tokio::select! {
            outcome = carry_all(common.output(), running, arguments, listener, address) => outcome,
            () = shutdown.graceful().cancelled() => Ok(shutdown.exit_status()),
        }
    })
    .await
}

async fn carry_all(
    output: Output,
    running: &Running,
    arguments: &ForwardArgs,
    listener: TcpListener,
    address: SocketAddr,
) -> Result<ExitStatus, Failure> {
    let session = running.connect(&arguments.target).await?;
    if output.is_json() {
        output.json(&serde_json::json!({ "listening": address, "service": arguments.service }))?;
    } else {
        notice(&format!(
            "Listening on {address} for {} of {}; end with Ctrl-C.",
            arguments.service, arguments.target
        ));
    }
    tokio::select! {
        end = session.ended() => Err(failure(end.kind(), end)),
        () = accept(listener, &session, &arguments.service) => Ok(ExitStatus::Ok),
    }
}

async fn accept(listener: TcpListener, session: &Session, service: &ServiceName) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((connection, from)) => {
                let (session, service) = (session.clone(), service.clone());
                tasks.spawn(async move {
                    if let Err(error) = carry(connection, &session, &service).await {
                        notice(&format!("connection from {from}: {error}"));
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(
    mut connection: TcpStream,
    session: &Session,
    service: &ServiceName,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    connection.set_nodelay(true)?;
    let mut channel = session.open(service, OpenOptions::default().class(Class::SCREEN)).await?;
    copy_bidirectional_with_sizes(&mut connection, &mut channel, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
