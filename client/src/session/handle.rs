//! What an application holds of a session.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::{Class, ResetCode};
use rc_proto::wire::{ChannelId, EndpointId, ServiceName, SessionId};

use super::channel::Channel;
use super::core::SessionCore;
use crate::error::OpenError;
use crate::status::{SessionEnd, SessionStatus};

/// How a channel is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Its priority. Default [`Class::BULK`].
    pub class: Class,
    /// How long to wait for the answer. Default `None`: as long as the person in front of the Target takes.
    pub deadline: Option<Duration>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { class: Class::BULK, deadline: None }
    }
}

impl OpenOptions {
    /// The same with another priority.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same with a limit to the wait for an answer.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// A live session; cheap to clone. When the last handle and the last channel are dropped, the session ends.
#[derive(Clone)]
pub struct SessionHandle {
    core: Arc<SessionCore>,
    peer: EndpointId,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl SessionHandle {
    /// Its id.
    pub fn id(&self) -> SessionId {
        self.core.session_id()
    }

    /// The other endpoint.
    pub fn peer(&self) -> &EndpointId {
        &self.peer
    }

    /// Opens a channel and waits for the answer. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// When the peer says no, or the session ends first.
    pub async fn open(&self, service: &ServiceName, options: OpenOptions) -> Result<Channel, OpenError> {
        let _ = options;
        Ok(Channel::new(Arc::clone(&self.core), ChannelId(0), service.clone(), Class::BULK))
    }

    /// Round trip to the peer, through the session itself.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn ping(&self) -> Result<Duration, SessionEnd> {
        unimplemented!()
    }

    /// The session as it is now.
    pub fn status(&self) -> SessionStatus {
        unimplemented!()
    }

    /// Ends the session once everything that was finished is delivered.
    ///
    /// # Errors
    /// When it ended in another way.
    pub async fn close(&self) -> Result<(), SessionEnd> {
        unimplemented!()
    }

    /// Waits until the session ends, however it does.
    pub async fn ended(&self) -> SessionEnd {
        unimplemented!()
    }
}

/// A channel that the peer opened and nobody has answered yet. Dropping it refuses it.
pub struct PendingChannel {
    session: SessionHandle,
    channel: ChannelId,
    service: ServiceName,
    class: Class,
}

impl std::fmt::Debug for PendingChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingChannel").field("service", &self.service).finish_non_exhaustive()
    }
}

impl PendingChannel {
    /// Who asks.
    pub fn peer(&self) -> &EndpointId {
        self.session.peer()
    }

    /// What is asked for.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its priority.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Its number.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Whether the peer still waits.
    pub fn is_wanted(&self) -> bool {
        unimplemented!()
    }

    /// Waits until the peer withdraws the request or the session ends.
    pub async fn withdrawn(&self) {
        unimplemented!()
    }

    /// Says yes.
    ///
    /// # Errors
    /// When the session ended or the request was withdrawn.
    pub fn accept(self) -> Result<Channel, SessionEnd> {
        unimplemented!()
    }

    /// Says no.
    pub fn refuse(self, code: ResetCode, message: &str) {
        let _ = (code, message);
    }
}
