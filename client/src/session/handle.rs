//! What an application holds of a session.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::{Class, EndCode, ResetCode};
use rc_proto::wire::{ChannelId, EndpointId, ServiceName, SessionId};
use tokio::sync::mpsc;

use super::channel::Channel;
use super::core::SessionCore;
use super::state::Offered;
use super::waits::Fate;
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

/// Held by every handle and channel of a session; when the last is gone, the session ends.
pub(crate) struct Owner {
    core: Arc<SessionCore>,
}

impl Owner {
    pub(super) fn of(core: Arc<SessionCore>) -> Arc<Self> {
        let owner = Arc::new(Self { core });
        owner.core.set_owner(Arc::downgrade(&owner));
        owner
    }

    pub(super) fn core(&self) -> &SessionCore {
        &self.core
    }

    pub(super) fn shared_core(&self) -> Arc<SessionCore> {
        Arc::clone(&self.core)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.end(EndCode::DONE, "");
    }
}

/// A live session; cheap to clone. When the last handle and the last channel are dropped, the session ends.
#[derive(Clone)]
pub struct SessionHandle {
    owner: Arc<Owner>,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle")
            .field("id", &self.id())
            .field("peer", self.peer())
            .finish_non_exhaustive()
    }
}

/// Withdraws an open whose future is dropped before the answer.
struct Asking<'a> {
    core: &'a SessionCore,
    id: ChannelId,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.core.reset_channel(self.id, ResetCode::CANCELLED, "");
        }
    }
}

impl SessionHandle {
    pub(super) fn new(owner: Arc<Owner>) -> Self {
        Self { owner }
    }

    /// A further handle, while any lives.
    pub(crate) fn of(core: &SessionCore) -> Option<Self> {
        core.owner().map(Self::new)
    }

    pub(super) fn core(&self) -> &SessionCore {
        self.owner.core()
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.core().session_id()
    }

    /// The other endpoint.
    pub fn peer(&self) -> &EndpointId {
        self.core().peer()
    }

    /// Opens a channel and waits for the answer. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// When the peer says no, or the session ends first.
    pub async fn open(&self, service: &ServiceName, options: OpenOptions) -> Result<Channel, OpenError> {
        let core = self.core();
        let id = core.open_channel(service, options.class)?;
        let mut asking = Asking { core, id, answered: false };
        let answer = poll_fn(|context| core.poll_fate(id, &Fate::Asked, context));
        let fate = match options.deadline {
            None => answer.await,
            Some(waited) => tokio::time::timeout(waited, answer)
                .await
                .map_err(|_| OpenError::Deadline { service: service.clone(), waited })?,
        };
        asking.answered = true;
        if let Some(end) = core.ended().borrow().clone() {
            return Err(OpenError::SessionEnded { service: service.clone(), end });
        }
        match fate {
            Fate::Opened | Fate::Closed | Fate::Asked | Fate::Offered => {
                Ok(Channel::new(Arc::clone(&self.owner), id, service.clone(), options.class))
            }
            Fate::Reset { code, message } => {
                core.release_channel(id);
                Err(open_error(service.clone(), code, message))
            }
        }
    }

    /// Round trip to the peer, through the session itself.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn ping(&self) -> Result<Duration, SessionEnd> {
        let core = self.core();
        let mut before = None;
        let answer = poll_fn(|context| core.poll_ping(&mut before, context));
        tokio::select! {
            biased;
            round_trip = answer => Ok(round_trip),
            end = ended(core) => Err(end),
        }
    }

    /// The session as it is now.
    pub fn status(&self) -> SessionStatus {
        self.core().status()
    }

    pub(crate) fn shared_core(&self) -> Arc<SessionCore> {
        self.owner.shared_core()
    }

    /// Ends the session once everything that was shut down is delivered. Channels that are still held keep it alive
    /// until they are done.
    ///
    /// # Errors
    /// When it ended in another way.
    pub async fn close(&self) -> Result<(), SessionEnd> {
        self.core().end(EndCode::DONE, "");
        let end = self.ended().await;
        if end.is_clean() { Ok(()) } else { Err(end) }
    }

    /// Ends the session at once, whatever is still on its way.
    pub fn disconnect(&self, code: EndCode, message: &str) {
        self.core().disconnect(code, message);
    }

    /// Waits until the session ends, however it does.
    pub async fn ended(&self) -> SessionEnd {
        ended(self.core()).await
    }

    /// Whether the session has ended.
    pub fn is_over(&self) -> bool {
        self.core().ended().borrow().is_some()
    }
}

/// Waits until the session of `core` ends.
pub(crate) async fn ended(core: &SessionCore) -> SessionEnd {
    let mut told = core.ended();
    let end = told.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
    // The sender lives in the core itself, so there is always an answer.
    end.unwrap_or_else(SessionEnd::unknown)
}

fn open_error(service: ServiceName, code: ResetCode, reason: String) -> OpenError {
    match code {
        ResetCode::NO_SUCH_SERVICE => OpenError::NotOffered { service },
        ResetCode::NOT_PERMITTED => OpenError::NotPermitted { service },
        ResetCode::TOO_MANY => OpenError::TooMany { service },
        ResetCode::REFUSED => OpenError::Refused { service, reason },
        other => {
            let reason = if reason.is_empty() { other.to_string() } else { reason };
            OpenError::ServiceFailed { service, reason }
        }
    }
}

/// A channel that the peer opened and nobody has answered yet. Dropping it refuses it.
pub struct PendingChannel {
    owner: Arc<Owner>,
    offered: Offered,
    answered: bool,
}

impl std::fmt::Debug for PendingChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingChannel").field("offered", &self.offered).finish_non_exhaustive()
    }
}

impl PendingChannel {
    /// Who asks.
    pub fn peer(&self) -> &EndpointId {
        self.owner.core().peer()
    }

    /// What is asked for.
    pub fn service(&self) -> &ServiceName {
        &self.offered.service
    }

    /// Its priority.
    pub fn class(&self) -> Class {
        self.offered.class
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.owner.core().session_id()
    }

    /// Its number.
    pub fn channel(&self) -> ChannelId {
        self.offered.channel
    }

    /// Whether the peer still waits.
    pub fn is_wanted(&self) -> bool {
        self.owner.core().is_offered(self.offered.channel)
    }

    /// Waits until the peer withdraws the request or the session ends.
    pub async fn withdrawn(&self) {
        let (core, id) = (self.owner.core(), self.offered.channel);
        poll_fn(|context| core.poll_fate(id, &Fate::Offered, context)).await;
    }

    /// Says yes.
    ///
    /// # Errors
    /// When the session ended or the request was withdrawn.
    pub fn accept(mut self) -> Result<Channel, Withdrawn> {
        self.answered = true;
        let (id, service, class) = (self.offered.channel, self.offered.service.clone(), self.offered.class);
        if !self.owner.core().accept_channel(id) {
            self.owner.core().release_channel(id);
            return Err(Withdrawn { service });
        }
        Ok(Channel::new(Arc::clone(&self.owner), id, service, class))
    }

    /// Says no.
    pub fn refuse(mut self, code: ResetCode, message: &str) {
        self.answered = true;
        self.owner.core().refuse_channel(self.offered.channel, code, message);
    }
}

impl Drop for PendingChannel {
    fn drop(&mut self) {
        if !self.answered {
            self.owner.core().refuse_channel(self.offered.channel, ResetCode::REFUSED, "");
        }
    }
}

/// The peer took its request back, or the session ended, before it was answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request for {service} was withdrawn")]
pub struct Withdrawn {
    /// What was asked for.
    pub service: ServiceName,
}

/// Takes the channels that the peer of one session opens. Cancel-safe.
pub struct OfferQueue {
    receiver: mpsc::Receiver<Offered>,
    core: Arc<SessionCore>,
}

impl std::fmt::Debug for OfferQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfferQueue").finish_non_exhaustive()
    }
}

impl OfferQueue {
    pub(super) fn new(receiver: mpsc::Receiver<Offered>, core: Arc<SessionCore>) -> Self {
        Self { receiver, core }
    }

    /// The next channel that the peer wants; `None` once the session has ended.
    pub async fn next(&mut self) -> Option<PendingChannel> {
        tokio::select! {
            biased;
            offered = self.receiver.recv() => {
                let owner = self.core.owner()?;
                Some(PendingChannel { owner, offered: offered?, answered: false })
            }
            _ = ended(&self.core) => None,
        }
    }
}
