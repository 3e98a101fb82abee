//! A channel that a Controller wants, before the application has said yes or no.

use rc_client::{Channel, Event, EventLog, PendingChannel, Withdrawn};
use rc_proto::wire::codes::{Class, ResetCode};
use rc_proto::wire::{ChannelId, EndpointId, ServiceName, SessionId};

/// A Controller asks for a service. The ticket permits it; whether it is given is the application's decision.
///
/// An offer that is dropped is refused.
#[derive(Debug)]
pub struct Offer {
    pending: PendingChannel,
    events: EventLog,
}

impl Offer {
    pub(crate) fn new(pending: PendingChannel, events: EventLog) -> Self {
        Self { pending, events }
    }

    /// Who asks, as the end-to-end handshake proved it.
    pub fn controller(&self) -> &EndpointId {
        self.pending.peer()
    }

    /// What is asked for.
    pub fn service(&self) -> &ServiceName {
        self.pending.service()
    }

    /// The priority that the Controller gave the channel.
    pub fn class(&self) -> Class {
        self.pending.class()
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.pending.session()
    }

    /// The channel's number; with the session it names this offer for good.
    pub fn channel(&self) -> ChannelId {
        self.pending.channel()
    }

    /// Whether the Controller still waits: false once it withdrew the request or the session ended.
    pub fn is_wanted(&self) -> bool {
        self.pending.is_wanted()
    }

    /// Waits until the Controller withdraws the request or the session ends, so that a prompt can be taken away.
    pub async fn withdrawn(&self) {
        self.pending.withdrawn().await;
    }

    /// Says yes.
    ///
    /// # Errors
    /// When the Controller withdrew the request or the session ended in the meantime.
    pub fn accept(self) -> Result<Channel, Withdrawn> {
        let (session, channel, service) = (self.session(), self.channel(), self.service().clone());
        let accepted = self.pending.accept()?;
        self.events.publish(Event::ChannelOpened { session, channel, service });
        Ok(accepted)
    }

    /// Says no; the Controller is shown `reason`, at most 255 bytes of it.
    pub fn refuse(self, reason: &str) {
        self.refuse_with(ResetCode::REFUSED, reason);
    }

    /// Says that there is no such service.
    pub fn refuse_unknown_service(self) {
        self.refuse_with(ResetCode::NO_SUCH_SERVICE, "");
    }

    /// Says that the service exists and could not be started; the Controller is shown `reason`.
    pub fn fail(self, reason: &str) {
        self.refuse_with(ResetCode::SERVICE_FAILED, reason);
    }

    fn refuse_with(self, code: ResetCode, reason: &str) {
        let (session, channel, service) = (self.session(), self.channel(), self.service().clone());
        self.pending.refuse(code, reason);
        self.events.publish(Event::ChannelRefused { session, channel, service, code });
    }
}
