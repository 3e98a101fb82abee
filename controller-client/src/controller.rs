//! A Controller process: its pinned broker, and the sessions it starts.

use std::sync::Arc;

use rc_client::{
    ClientConfig, Endpoint, EndpointStatus, Events, LocateError, PinStatus, ProbeError, ProbeReport,
    SetupError, TicketRenewal,
};
use rc_proto::wire::codes::Purpose;
use rc_proto::wire::{EndpointId, Role, SessionId};
use rc_transport::BoxFuture;

use crate::error::ConnectError;
use crate::session::Session;
use crate::ticket_source::{TicketRequest, TicketSource, TicketSourceError};

/// Finds a broker, keeps a control link to it, and starts sessions through it.
///
/// Cloning gives another handle. The pin is kept across sessions until [`Controller::shutdown`] or the last handle is
/// dropped.
#[derive(Debug, Clone)]
pub struct Controller {
    endpoint: Endpoint,
}

/// A Controller as it is now.
pub type ControllerStatus = EndpointStatus;

impl Controller {
    /// Reads the credentials and begins to look for a broker. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the credentials or the settings cannot be used.
    pub fn start(config: ClientConfig) -> Result<Self, SetupError> {
        Endpoint::start(config, Role::Controller).map(|endpoint| Self { endpoint })
    }

    /// Starts a session with `target`, with a ticket from `tickets`. Waits for a broker when none is pinned yet.
    ///
    /// The session goes on over other brokers when the ones that carry it die. `tickets` is asked again, for a
    /// [`Purpose::RESUME`], well before the ticket in use ends and when the Target does not take it any more.
    ///
    /// # Errors
    /// When there is no ticket, no broker, no path, or the Target refuses.
    pub async fn connect(
        &self,
        target: &EndpointId,
        tickets: impl TicketSource,
    ) -> Result<Session, ConnectError> {
        let target_id = self.endpoint.target_id(target);
        let request =
            TicketRequest { controller: self.endpoint.id(), target: target_id, purpose: Purpose::NEW };
        let ticket = tickets.ticket(request.clone()).await?;
        let request = TicketRequest { purpose: Purpose::RESUME, ..request };
        let further = Arc::new(Further { tickets, request });
        let handle = self.endpoint.start_session(target, ticket, further).await?;
        Ok(Session::new(handle, self.endpoint.clone()))
    }

    /// Resolves, races and measures once with `config`, and tells which broker would be chosen and why; uses none.
    ///
    /// # Errors
    /// When the settings cannot be used, or no broker answers.
    pub async fn probe(config: ClientConfig) -> Result<ProbeReport, ProbeError> {
        rc_client::probe(config, Role::Controller).await
    }

    /// Waits for the pinned broker.
    ///
    /// # Errors
    /// When none is found within the time for a race.
    pub async fn pinned(&self) -> Result<PinStatus, LocateError> {
        self.endpoint.pinned().await
    }

    /// Ends a session at once; false when there is none of that id.
    pub fn disconnect(&self, session: SessionId) -> bool {
        self.endpoint.disconnect(session, "ended at the controller")
    }

    /// The Controller as it is now.
    pub fn status(&self) -> ControllerStatus {
        self.endpoint.status()
    }

    /// Follows what happens, from now on.
    pub fn events(&self) -> Events {
        self.endpoint.events()
    }

    /// Ends every session and the control link, and waits for them.
    pub async fn shutdown(&self) {
        self.endpoint.shutdown().await;
    }
}

/// The tickets of a session that runs.
struct Further<S> {
    tickets: S,
    request: TicketRequest,
}

impl<S: TicketSource> TicketRenewal for Further<S> {
    fn renew(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async {
            let ticket = self.tickets.ticket(self.request.clone()).await;
            ticket.map_err(|error: TicketSourceError| error.to_string())
        })
    }
}
