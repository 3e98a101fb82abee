//! The Target's way to a session: an invite, a leg, the end-to-end handshake, and the ATTACH that it has to judge.

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::KeyThumbprint;
use rc_proto::wire::codes::{AttachKind, Denial, EndCode, Refusal};
use rc_proto::wire::frame::{Attach, Refused};
use rc_proto::wire::message::Invite;
use rc_proto::wire::{EndpointId, Epoch, PathId, ServiceName, SessionId};

use crate::endpoint::Endpoint;
use crate::link::BrokerContact;
use crate::path::{JoinedPath, join_path, peer_of};
use crate::proven_path::ProvenPath;
use crate::session::{OfferQueue, PathFacts, SessionHandle, Unread, admit, read_attach, refuse};

/// A broker says that a Controller waits.
#[derive(Debug, Clone)]
pub struct Invitation(Invite);

impl Invitation {
    /// The path.
    pub fn path(&self) -> PathId {
        self.0.path_id
    }

    /// Who asks, as the broker says; the end-to-end handshake proves it.
    pub fn controller(&self) -> &EndpointId {
        &self.0.controller
    }
}

/// Why an invitation did not become a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path of {controller} was not joined: {reason}")]
pub struct JoinError {
    /// Who asked, as the broker says.
    pub controller: EndpointId,
    /// What happened.
    pub reason: String,
}

/// A Controller that is proven end to end and asks for a session: judge its ticket, then admit or refuse it. Dropping
/// it closes the path without a word.
pub struct Joined {
    controller: SpiffeId,
    controller_id: EndpointId,
    key: KeyThumbprint,
    attach: Attach,
    stream: ProvenPath,
    early: Vec<u8>,
    facts: PathFacts,
    endpoint: Endpoint,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("controller", &self.controller).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Target: the next invitation; `None` once the endpoint has stopped. Dropping the future loses nothing.
    pub async fn next_invitation(&self) -> Option<Invitation> {
        self.next_invite_message().await.map(Invitation)
    }

    /// Target: joins the path, proves the Controller and reads what it asks for.
    ///
    /// # Errors
    /// When the path is not there, or the other end is no Controller that speaks the protocol.
    pub async fn join(&self, invitation: &Invitation) -> Result<Joined, JoinError> {
        let invite = &invitation.0;
        let failed = |reason: String| JoinError { controller: invite.controller.clone(), reason };
        let links = self.links().borrow().clone();
        let link = links.iter().find(|held| held.contact.broker == invite.broker);
        let answered = link.and_then(|held| held.contact.answered);
        let contact = BrokerContact::of_invite(invite, answered);
        let JoinedPath { mut stream, facts, attach_left } =
            join_path(self.reach(), &contact, invite).await.map_err(failed)?;
        let peer = peer_of(&stream).clone();
        let Some(controller_id) = peer.id.endpoint_id() else {
            return Err(failed(format!("{} is no controller", peer.id)));
        };
        let (attach, early) = match read_attach(&mut stream, &controller_id, attach_left).await {
            Ok(read) => read,
            Err(Unread::Failed(error)) => return Err(failed(error.to_string())),
            Err(Unread::Version(error)) => {
                refuse(stream, &Refused::new(Refusal::VERSION, self.instance())).await;
                return Err(failed(error.to_string()));
            }
        };
        let key = KeyThumbprint(peer.certificate.key_thumbprint);
        let facts = PathFacts { peer_key: Some(key), ..facts };
        let endpoint = self.clone();
        Ok(Joined { controller: peer.id, controller_id, key, attach, stream, early, facts, endpoint })
    }
}

impl Joined {
    /// Who asks, as its certificate proved.
    pub fn controller(&self) -> &SpiffeId {
        &self.controller
    }

    /// The same as an id.
    pub fn controller_id(&self) -> &EndpointId {
        &self.controller_id
    }

    /// The thumbprint of the key in its certificate.
    pub fn key(&self) -> &KeyThumbprint {
        &self.key
    }

    /// The ticket that it presents, as compact JWS.
    pub fn ticket(&self) -> &str {
        &self.attach.ticket
    }

    /// The session that it wants.
    pub fn session(&self) -> SessionId {
        self.attach.session
    }

    /// Whether it wants a session that starts now, rather than one that goes on.
    pub fn is_new(&self) -> bool {
        self.attach.kind == AttachKind::NEW
    }

    /// Says no to the ticket.
    pub async fn deny(self, denial: Denial, reason: &str) {
        let refused = Refused { reason: cut(reason), ..Refused::denied(denial, self.endpoint.instance()) };
        refuse(self.stream, &refused).await;
    }

    /// Says that the session has ended.
    pub async fn refuse_ended(self, code: EndCode) {
        let refused = Refused::ended(code, self.endpoint.instance());
        refuse(self.stream, &refused).await;
    }

    /// Says that there is no such session here.
    pub async fn refuse_unknown(self) {
        let refused = Refused::new(Refusal::UNKNOWN_SESSION, self.endpoint.instance());
        refuse(self.stream, &refused).await;
    }

    /// Starts the session. `permits` says what its ticket allows; at most `offers_max` channels wait for the
    /// application at once.
    ///
    /// # Errors
    /// When the request does not hold by the protocol's own rules.
    pub fn admit(
        self,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
        offers_max: usize,
    ) -> Result<(SessionHandle, OfferQueue), Unfit> {
        let Self { controller_id, attach, stream, early, facts, endpoint, .. } = self;
        let (setup, controller) = (endpoint.setup(), controller_id.clone());
        match admit(setup, controller, &attach, permits, stream, early, facts, offers_max) {
            Ok((handle, offers)) => {
                endpoint.adopt(&handle);
                Ok((handle, offers))
            }
            Err((stream, refused)) => {
                Err(Unfit { controller: controller_id, stream: Box::new(stream), refused })
            }
        }
    }

    /// Gives the path to a session that runs: the same Controller resumes it, hands it over, or keeps the path ready.
    /// `permits` says what the ticket of this request allows; it replaces what an earlier one allowed.
    ///
    /// # Errors
    /// When the request does not hold by the protocol's own rules.
    pub fn resume(
        self,
        session: &SessionHandle,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
    ) -> Result<Epoch, Unfit> {
        let Self { controller_id, attach, stream, early, facts, .. } = self;
        session.accept_path(stream, &attach, permits, early, facts).map_err(|(stream, refused)| Unfit {
            controller: controller_id,
            stream: Box::new(stream),
            refused,
        })
    }
}

/// A request that does not hold by the protocol's own rules: tell its Controller so.
pub struct Unfit {
    controller: EndpointId,
    stream: Box<ProvenPath>,
    refused: Box<Refused>,
}

impl std::fmt::Debug for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unfit").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl Unfit {
    /// Writes the refusal and closes the path; what it was.
    pub async fn tell(self) -> JoinError {
        refuse(*self.stream, &self.refused).await;
        JoinError { controller: self.controller, reason: self.refused.code.to_string() }
    }
}

/// A reason as the wire takes it.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(rc_proto::wire::limits::TEXT_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}
