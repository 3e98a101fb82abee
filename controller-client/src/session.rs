//! A session, from the Controller's side.

use std::time::Duration;

use rc_client::{
    Channel, Endpoint, OpenError, OpenOptions, PathStatus, SessionEnd, SessionHandle, SessionStatus,
};
use rc_proto::wire::{EndpointId, ServiceName, SessionId};

/// A conversation with one Target, protected end to end.
///
/// Cloning gives another handle to the same session. Dropping every handle and channel ends it.
#[derive(Debug, Clone)]
pub struct Session {
    handle: SessionHandle,
    /// Keeps the pin for as long as the session may want another path.
    _endpoint: Endpoint,
}

impl Session {
    pub(crate) fn new(handle: SessionHandle, endpoint: Endpoint) -> Self {
        Self { handle, _endpoint: endpoint }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.handle.id()
    }

    /// Who is controlled.
    pub fn target(&self) -> &EndpointId {
        self.handle.peer()
    }

    /// Opens a channel to `service` and waits for the Target's answer; a person in front of it may take long to give
    /// it. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// When the Target says no, or the session ends first.
    pub async fn open(&self, service: &ServiceName, options: OpenOptions) -> Result<Channel, OpenError> {
        self.handle.open(service, options).await
    }

    /// Round trip to the Target, through the session itself.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn ping(&self) -> Result<Duration, SessionEnd> {
        self.handle.ping().await
    }

    /// The paths that carry the session now, with each hop's round trip. Empty when it ended.
    pub fn paths(&self) -> Vec<PathStatus> {
        self.handle.status().paths
    }

    /// The session as it is now.
    pub fn status(&self) -> SessionStatus {
        self.handle.status()
    }

    /// Ends the session: waits until every channel that was shut down is delivered, and the Target agreed.
    ///
    /// # Errors
    /// When it ended in another way.
    pub async fn close(&self) -> Result<(), SessionEnd> {
        self.handle.close().await
    }

    /// Waits until the session ends, however it does.
    pub async fn ended(&self) -> SessionEnd {
        self.handle.ended().await
    }
}
