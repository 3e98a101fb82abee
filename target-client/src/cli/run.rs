//! `rc-target run`: registers, serves offers, and shows who is in control.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rc_client::cli::{admin, failure};
use rc_client::{Events, SessionStatus};
use rc_daemon::output::notice;
use rc_daemon::ready::{Ready, ReadyFile};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::SessionId;
use rc_proto::wire::codes::ResetCode;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::BINARY;
use super::consent::{Consent, Verdict};
use super::services::ServiceTable;
use super::settings::RunConfig;
use crate::offer::Offer;
use crate::target::Target;

/// How long services and sessions may take to end after a stop was asked for.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long a service's last output may take to be acknowledged before its failure is told.
const DELIVERY_MAX: Duration = Duration::from_secs(10);

struct AdministeredTarget(Target);

impl admin::Administered for AdministeredTarget {
    fn status(&self) -> Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }
    fn sessions(&self) -> Vec<SessionStatus> {
        self.0.sessions()
    }
    fn events(&self) -> Events {
        self.0.events()
    }
    fn disconnect(&self, session: SessionId) -> bool {
        self.0.disconnect(session)
    }
}

/// Runs until SIGTERM or Ctrl-C.
pub(super) async fn run(config: RunConfig) -> Result<ExitStatus, Failure> {
    let shutdown = Shutdown::new();
    let _signals = shutdown
        .on_signals()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    let target = Target::start(config.target).map_err(|error| failure(error.kind(), error))?;
    let tasks = TaskTracker::new();
    let socket = config.admin_socket.unwrap_or_else(|| admin::socket_of(BINARY));
    let serving = admin::serve(&socket, AdministeredTarget(target.clone()), shutdown.graceful().clone())?;
    tasks.spawn(serving);
    tasks.spawn(follow_events(target.events(), shutdown.clone()));
    let ready = tasks.spawn(announce_ready(target.clone(), config.ready_file, socket));

    let services = Arc::new(config.services);
    let consent = Consent::new(config.consent);
    let serving = TaskTracker::new();
    loop {
        let offer = tokio::select! {
            () = shutdown.graceful().cancelled() => break,
            offer = target.next_offer() => offer,
        };
        let Some(offer) = offer else { break };
        serving.spawn(serve(offer, Arc::clone(&services), consent.clone()));
    }
    ready.abort();
    let ended = async {
        target.shutdown().await;
        serving.close();
        serving.wait().await;
        shutdown.request(rc_daemon::shutdown::StopCause::Request);
        tasks.close();
        tasks.wait().await;
    };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(STOP_DEADLINE) => tracing::warn!("not everything ended in time"),
    }
    Ok(shutdown.exit_status())
}

/// Writes the ready-file once the registration stands; holds it until it is aborted.
async fn announce_ready(target: Target, ready_file: Option<PathBuf>, socket: PathBuf) {
    let pin = match target.registered().await {
        Ok(pin) => pin,
        Err(error) => {
            tracing::debug!(%error, "never registered");
            return;
        }
    };
    notice(&format!("Registered at {}. Waiting for engineers; end with Ctrl-C.", pin.broker));
    let Some(path) = ready_file else { return };
    match ReadyFile::write(&path, &Ready::new(BINARY).admin(socket)) {
        Ok(_held) => std::future::pending().await,
        Err(error) => tracing::error!(%error, "the ready-file cannot be written"),
    }
}

/// Logs each event once.
async fn follow_events(mut events: Events, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.graceful().cancelled() => return,
            event = events.next() => match event {
                Some(event) => tracing::info!(event = %serde_json::to_string(&event).unwrap_or_default()),
                None => return,
            }
        }
    }
}

/// One offer from the question to the end of its service.
async fn serve(offer: Offer, services: Arc<ServiceTable>, consent: Consent) {
    let Some(service) = services.service(offer.service()) else {
        offer.refuse_unknown_service();
        return;
    };
    match consent.ask(&offer).await {
        Verdict::Yes => {}
        Verdict::No(reason) => {
            offer.refuse(reason);
            return;
        }
        Verdict::Withdrawn => return,
    }
    let (who, what, session) = (offer.controller().clone(), offer.service().clone(), offer.session());
    let mut channel = match offer.accept() {
        Ok(channel) => channel,
        Err(end) => {
            tracing::debug!(%end, "the offer went away");
            return;
        }
    };
    let short: String = session.to_string().chars().take(8).collect();
    notice(&format!("▶ {who} is in control: {what}. End it with: {BINARY} disconnect {short}"));
    let lost = Box::pin(channel.lost());
    match service.run(&mut channel, lost).await {
        Ok(()) => notice(&format!("■ {who} has left: {what}.")),
        Err(error) => {
            notice(&format!("■ {who} has left: {what} ({error})."));
            // The last output comes before the news that the service failed.
            if tokio::time::timeout(DELIVERY_MAX, channel.delivered()).await.is_err() {
                tracing::debug!(%what, "the last output was not acknowledged");
            }
            channel.reset(ResetCode::SERVICE_FAILED, &error.to_string());
        }
    }
}
