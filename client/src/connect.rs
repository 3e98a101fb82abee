//! The Controller's way to a session: a path through the pinned broker, or through the others that it names, then the
//! end-to-end handshake and ATTACH.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::identity::SpiffeId;
use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::{EndpointId, Role, SessionId};

use crate::endpoint::Endpoint;
use crate::error::{AttachError, LocateError, PathError};
use crate::event::Event;
use crate::failure::FailureKind;
use crate::link::BrokerContact;
use crate::path::{PathFault, PathRequest, open_path};
use crate::proven_path::{PathBreak, ProvenPath};
use crate::session::{Beginning, Mover, PathFacts, SessionHandle, TicketRenewal};

/// First wait before a further attempt; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Brokers that one connect tries after the pinned one.
const ALTERNATES_TRIED_MAX: usize = 4;

/// Why a Controller did not get a session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// No broker could be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// No path to the Target was opened.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The path was there, and the Target refused or is not the one wanted.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl StartError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Locate(error) => error.kind(),
            Self::Path(error) => error.kind(),
            Self::Attach(error) => error.kind(),
        }
    }
}

impl Endpoint {
    /// The SPIFFE id of a Target of this mesh.
    pub fn target_id(&self, target: &EndpointId) -> SpiffeId {
        SpiffeId::endpoint(self.id().trust_domain().clone(), Role::Target, target)
    }

    /// Controller: starts a session with `target`, which goes on over other paths when the first one ends. Further
    /// tickets come from `tickets`.
    ///
    /// # Errors
    /// When there is no broker, no path within the time for one, or the Target refuses.
    pub async fn start_session(
        &self,
        target: &EndpointId,
        ticket: String,
        tickets: Arc<dyn TicketRenewal>,
    ) -> Result<SessionHandle, StartError> {
        let request = PathRequest::first(target, self.target_id(target), ticket.clone());
        let beginning = Beginning::new(self.setup(), SessionId(rand::random()), target.clone());
        let deadline = self.reach().timers.attach;
        let mut first_break = None;
        loop {
            let (stream, facts) = match self.find_path(&request).await {
                Ok(found) => found,
                Err(error) => return Err(first_break.map_or(error, StartError::Attach)),
            };
            let broken = stream.broken();
            let error = match beginning.attach(stream, facts, ticket.clone(), deadline).await {
                Ok(handle) => {
                    self.adopt(&handle);
                    let mover = Mover::new(self, &handle, request, tickets);
                    let stop = self.setup().stop.clone();
                    self.setup().tasks.spawn(async move { stop.run_until_cancelled(mover.run()).await });
                    return Ok(handle);
                }
                Err(error) => explained(error, &broken),
            };
            match (first_break.take(), error) {
                // Another path may carry whole what this one lost or altered; the ticket holds for the same session.
                (None, lost @ AttachError::PathEnded { .. }) => first_break = Some(lost),
                // What the Target says to the second try follows from the first.
                (Some(first), AttachError::Refused { .. }) => return Err(first.into()),
                (_, error) => return Err(error.into()),
            }
        }
    }

    /// Opens a path through the pinned broker; after a refusal that is not final, through the brokers it names, then
    /// through whichever is pinned by then.
    async fn find_path(&self, request: &PathRequest) -> Result<(ProvenPath, PathFacts), StartError> {
        let reach = self.reach();
        let began = reach.now();
        let mut alternates = VecDeque::new();
        let mut tried = Vec::new();
        let mut wait = RETRY_FIRST;
        let mut altered = false;
        loop {
            let contact = match alternates.pop_front() {
                Some(contact) => contact,
                None => self.held().await?.contact.clone(),
            };
            let left = reach.timers.open_path.saturating_sub(reach.now().since(began));
            let error = match open_path(reach, &contact, request, left).await {
                Ok(opened) => return Ok(opened),
                Err(PathFault::Attach(error)) => return Err(error.into()),
                Err(PathFault::Altered(error)) if altered => return Err(error.into()),
                Err(PathFault::Altered(error)) => {
                    altered = true;
                    error
                }
                Err(PathFault::Path(error)) => error,
            };
            tried.push(contact.broker.clone());
            let mut pause = wait;
            if let PathError::Refused { code, retry_after, alternates: named, .. } = &error {
                self.event_log().publish(Event::PathRefused { broker: contact.broker.clone(), code: *code });
                if *code == PathFailure::RETRY_AFTER {
                    pause = *retry_after;
                }
                for (broker, name) in named {
                    if !tried.contains(broker) && tried.len() <= ALTERNATES_TRIED_MAX {
                        tried.push(broker.clone());
                        alternates.push_back(BrokerContact::named(broker, name));
                    }
                }
            }
            let left = reach.timers.open_path.saturating_sub(reach.now().since(began));
            if !error.is_retryable() || left <= pause {
                return Err(error.into());
            }
            if alternates.is_empty() {
                wait *= 2;
                reach.pause(pause).await;
            }
        }
    }
}

/// An end whose meaning the path knows: a refusal by the other end is none that another path helps against.
fn explained(error: AttachError, broken: &PathBreak) -> AttachError {
    match (error, broken.take()) {
        (AttachError::PathEnded { peer, .. }, Some(broken)) if broken.is_retryable() => {
            AttachError::PathEnded { peer, reason: broken.to_string() }
        }
        (AttachError::PathEnded { peer, .. }, Some(broken)) => {
            AttachError::Handshake { peer, reason: broken.to_string() }
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod moving;
#[cfg(test)]
mod tests;
