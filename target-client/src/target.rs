//! A Target process: its registration, and the sessions it admits.

use std::sync::Arc;
use std::time::Duration;

use rc_client::{
    Endpoint, EndpointStatus, Events, LocateError, PendingChannel, PinStatus, SessionStatus, SetupError,
};
use rc_proto::wire::{Role, SessionId};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TargetConfig;
use crate::deadlines::Deadlines;
use crate::gate::Gate;
use crate::limits::RateLimit;
use crate::offer::Offer;
use crate::reception::Reception;

/// Span of the limit on ATTACH messages.
const ATTACH_SPAN: Duration = Duration::from_secs(60);

/// Registers at a broker, stays registered, and admits Controllers whose tickets hold.
///
/// Cloning gives another handle. It runs until [`Target::shutdown`] or until the last handle is dropped.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("endpoint", &self.inner.endpoint).finish_non_exhaustive()
    }
}

struct Inner {
    endpoint: Endpoint,
    offers: Mutex<mpsc::Receiver<PendingChannel>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A Target as it is now.
pub type TargetStatus = EndpointStatus;

impl Target {
    /// Reads credentials and ticket keys and begins to register. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a file or a setting cannot be used.
    pub fn start(config: TargetConfig) -> Result<Self, SetupError> {
        let TargetConfig { client, ticket_keys, deny_list, limits } = config;
        let state_dir = client.state_dir.clone();
        let endpoint = Endpoint::start(client, Role::Target)?;
        let gate = Arc::new(Gate::open(endpoint.id(), &ticket_keys, deny_list.as_deref(), state_dir)?);
        let (pass_on, offers) = mpsc::channel(limits.pending_offers.max(1));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let reception = Reception {
            endpoint: endpoint.clone(),
            gate,
            limits,
            offers: pass_on,
            attaches: std::sync::Mutex::new(RateLimit::new(limits.attaches_per_minute, ATTACH_SPAN)),
            deadlines: Deadlines::default(),
            starting: Mutex::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(reception.run());
        let inner = Inner { endpoint, offers: Mutex::new(offers), tasks, stop };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The next channel that a Controller wants; `None` after [`Target::shutdown`]. Dropping the future loses nothing.
    pub async fn next_offer(&self) -> Option<Offer> {
        let mut offers = self.inner.offers.lock().await;
        let pending = tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => None,
            pending = offers.recv() => pending,
        };
        pending.map(|pending| Offer::new(pending, self.inner.endpoint.event_log().clone()))
    }

    /// Waits for the pinned broker.
    ///
    /// # Errors
    /// When none is found within the time for it.
    pub async fn pinned(&self) -> Result<PinStatus, LocateError> {
        self.inner.endpoint.pinned().await
    }

    /// Waits until a broker has confirmed the registration, as long as that takes.
    ///
    /// # Errors
    /// When the Target is shutting down.
    pub async fn registered(&self) -> Result<PinStatus, LocateError> {
        self.inner.endpoint.pinned_at_last().await
    }

    /// The sessions that run now.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.inner.endpoint.sessions()
    }

    /// Ends a session at once; false when there is none of that id.
    pub fn disconnect(&self, session: SessionId) -> bool {
        self.inner.endpoint.disconnect(session, "ended at the target")
    }

    /// The Target as it is now.
    pub fn status(&self) -> TargetStatus {
        self.inner.endpoint.status()
    }

    /// Follows what happens, from now on.
    pub fn events(&self) -> Events {
        self.inner.endpoint.events()
    }

    /// Reads the credential files again; new connections use what they hold from now on.
    ///
    /// # Errors
    /// When they cannot be used; the ones before stay in force.
    pub fn reload_credentials(&self) -> Result<(), SetupError> {
        self.inner.endpoint.reload_credentials()
    }

    /// Ends every session and the registration, and waits for them.
    pub async fn shutdown(&self) {
        self.inner.endpoint.shutdown().await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}
