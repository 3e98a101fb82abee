//! Opens a path as a Controller, joins one as a Target, up to end-to-end TLS. The `ClientHello` leaves right behind
//! OpenPath: the end-to-end handshake does not wait for the path to be there.

use std::time::Duration;

use rc_proto::identity::SpiffeId;
use rc_proto::wire::codes::{Lane, Purpose};
use rc_proto::wire::message::{Invite, JoinPath, Message, OpenPath, PathOpened};
use rc_proto::wire::{BrokerId, EndpointId, Ext, InstanceId, PathId};
use rc_transport::{EndToEnd, EndToEndError, Leg, LegError, MessageStream, PathIo, PathRefused, Peer};

use crate::error::{AttachError, PathError};
use crate::limits::retry_slot;
use crate::link::{BrokerContact, dial_leg};
use crate::proven_path::ProvenPath;
use crate::reach::Reach;
use crate::session::PathFacts;
use crate::status::{HopStatus, whole_ms};

/// What a Controller asks of a broker.
#[derive(Debug, Clone)]
pub(crate) struct PathRequest {
    pub(crate) target: EndpointId,
    pub(crate) target_id: SpiffeId,
    pub(crate) ticket: String,
    pub(crate) purpose: Purpose,
    pub(crate) lane: Lane,
    /// The one instance of the Target that is wanted.
    pub(crate) instance: Option<InstanceId>,
    /// The brokers behind the first one, the Target's last; empty means locate.
    pub(crate) route: Vec<BrokerId>,
    /// Brokers not to use.
    pub(crate) avoid: Vec<BrokerId>,
}

impl PathRequest {
    /// For the first path of a session.
    pub(crate) fn first(target: &EndpointId, target_id: SpiffeId, ticket: String) -> Self {
        Self {
            target: target.clone(),
            target_id,
            ticket,
            purpose: Purpose::NEW,
            lane: Lane::INTERACTIVE,
            instance: None,
            route: Vec::new(),
            avoid: Vec::new(),
        }
    }
}

/// Why there is no end-to-end stream: the path's fault or the other end's.
#[derive(Debug)]
pub(crate) enum PathFault {
    Path(PathError),
    /// Something on the way altered the bytes; another path may carry them whole.
    Altered(PathError),
    Attach(AttachError),
}

impl std::fmt::Display for PathFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(error) | Self::Altered(error) => error.fmt(f),
            Self::Attach(error) => error.fmt(f),
        }
    }
}

/// Opens a path through `contact` and proves the Target at its other end.
pub(crate) async fn open_path(
    reach: &Reach,
    contact: &BrokerContact,
    request: &PathRequest,
    deadline: Duration,
) -> Result<(ProvenPath, PathFacts), PathFault> {
    let began = reach.now();
    let broker = &contact.broker;
    let left = || deadline.saturating_sub(reach.now().since(began));
    let opening = async {
        if let Some(leg) = reach.pool.take(broker, began) {
            match open_over(reach, leg, broker, request, left()).await {
                // It had ended while it waited.
                Err(PathFault::Path(PathError::Leg { reason, .. })) => {
                    tracing::debug!(%broker, reason, "a leg that waited is of no use");
                }
                opened => return opened,
            }
        }
        let leg = dial_leg(reach, contact)
            .await
            .map_err(|reason| PathFault::Path(PathError::Dial { broker: broker.clone(), reason }))?;
        open_over(reach, leg, broker, request, left()).await
    };
    match tokio::time::timeout(deadline, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(PathFault::Path(PathError::Deadline {
            broker: broker.clone(),
            target: request.target.clone(),
            waited: deadline,
        })),
    }
}

/// The same over a leg that is there.
async fn open_over(
    reach: &Reach,
    leg: Leg,
    broker: &BrokerId,
    request: &PathRequest,
    left: Duration,
) -> Result<(ProvenPath, PathFacts), PathFault> {
    let first_round_trip = leg.handshake_round_trip();
    let path = PathId(rand::random());
    let open = open_message(path, request, left);
    let mut messages = MessageStream::over(leg);
    messages.send(&open).await.map_err(|error| leg_fault(broker, &error))?;
    let io = messages.into_path();
    let stream = EndToEnd::client(&reach.credentials(), io, &request.target_id)
        .await
        .map_err(|error| end_to_end_fault(error, broker, &request.target))?;
    let stream = ProvenPath::new(stream);
    let mut facts = facts(path, request.lane, stream.io().opened());
    facts.first_round_trip_us = u32::try_from(first_round_trip.as_micros()).ok();
    Ok((stream, facts))
}

fn open_message(path_id: PathId, request: &PathRequest, left: Duration) -> Message {
    let open = OpenPath {
        path_id,
        target: request.target.clone(),
        ticket: request.ticket.clone(),
        purpose: request.purpose,
        lane: request.lane,
        instance: request.instance,
        route: request.route.clone(),
        avoid: request.avoid.clone(),
        deadline_ms: u32::try_from(whole_ms(left)).unwrap_or(u32::MAX),
        ext: Ext::none(),
    };
    open.into()
}

/// A path to a proven Controller.
pub(crate) struct JoinedPath {
    pub(crate) stream: ProvenPath,
    pub(crate) facts: PathFacts,
    /// What the handshake left of the time for its ATTACH.
    pub(crate) attach_left: Duration,
}

/// Joins the path of an invite, and proves that a Controller is at its other end. From the moment that the path is
/// there, the Controller has the time for an attach and no more.
pub(crate) async fn join_path(
    reach: &Reach,
    contact: &BrokerContact,
    invite: &Invite,
) -> Result<JoinedPath, String> {
    let deadline = Duration::from_millis(invite.deadline_ms.into());
    match tokio::time::timeout(deadline, join(reach, contact, invite)).await {
        Ok(joined) => joined,
        Err(_) => Err(format!("the path was not there within {deadline:?}")),
    }
}

async fn join(reach: &Reach, contact: &BrokerContact, invite: &Invite) -> Result<JoinedPath, String> {
    let (io, first_round_trip) = joined_leg(reach, contact, invite).await?;
    let opened = reach.now();
    let limit = reach.timers.attach;
    let credentials = reach.credentials();
    let stream = tokio::time::timeout(limit, EndToEnd::server(&credentials, io))
        .await
        .map_err(|_| format!("no end-to-end handshake within {limit:?}"))?
        .map_err(|error| error.to_string())?;
    let attach_left = limit.saturating_sub(reach.now().since(opened));
    let stream = ProvenPath::new(stream);
    let mut facts = facts(invite.path_id, invite.lane, stream.io().opened());
    if facts.hops.is_empty() {
        facts.hops.push(HopStatus { broker: contact.broker.clone(), next_round_trip_us: 0 });
    }
    facts.first_round_trip_us = u32::try_from(first_round_trip.as_micros()).ok();
    Ok(JoinedPath { stream, facts, attach_left })
}

/// A leg that the broker has joined to the path, and its round trip: one that waited, else a fresh one.
async fn joined_leg(
    reach: &Reach,
    contact: &BrokerContact,
    invite: &Invite,
) -> Result<(PathIo<Leg>, Duration), String> {
    if let Some(leg) = reach.pool.take(&contact.broker, reach.now()) {
        match join_over(leg, contact, invite).await {
            // It had ended while it waited; the secret was not used.
            Err(NotJoined::Ended(reason)) => {
                tracing::debug!(broker = %contact.broker, reason, "a leg that waited is of no use");
            }
            Err(NotJoined::Refused(reason)) => return Err(reason),
            Ok(joined) => return Ok(joined),
        }
    }
    let leg = dial_leg(reach, contact).await?;
    join_over(leg, contact, invite).await.map_err(|not_joined| match not_joined {
        NotJoined::Ended(reason) | NotJoined::Refused(reason) => reason,
    })
}

/// Why a leg was not joined to a path.
enum NotJoined {
    /// It ended before any answer.
    Ended(String),
    Refused(String),
}

async fn join_over(
    leg: Leg,
    contact: &BrokerContact,
    invite: &Invite,
) -> Result<(PathIo<Leg>, Duration), NotJoined> {
    let first_round_trip = leg.handshake_round_trip();
    let mut messages = MessageStream::over(leg);
    let join = JoinPath { path_id: invite.path_id, join_secret: invite.join_secret, ext: Ext::none() };
    messages.send(&join.into()).await.map_err(|error| NotJoined::Ended(error.to_string()))?;
    let mut io = messages.into_path();
    io.wait_opened().await.map_err(|error| match PathRefused::of(&error) {
        Some(PathRefused(failed)) => {
            NotJoined::Refused(format!("{} refused the join: {}", contact.broker, failed.code))
        }
        None => NotJoined::Ended(error.to_string()),
    })?;
    Ok((io, first_round_trip))
}

/// Who is at the other end of a path.
pub(crate) fn peer_of(stream: &ProvenPath) -> &Peer {
    stream.peer()
}

fn facts(path: PathId, lane: Lane, opened: Option<&PathOpened>) -> PathFacts {
    let hops = opened.map(|opened| opened.hops.as_slice()).unwrap_or_default();
    let hop = |(broker, micros): &(BrokerId, u32)| HopStatus {
        broker: broker.clone(),
        next_round_trip_us: *micros,
    };
    PathFacts {
        path: Some(path),
        lane: Some(lane),
        hops: hops.iter().map(hop).collect(),
        first_round_trip_us: None,
        peer_key: None,
    }
}

fn leg_fault(broker: &BrokerId, error: &dyn std::error::Error) -> PathFault {
    PathFault::Path(PathError::Leg { broker: broker.clone(), reason: error.to_string() })
}

fn end_to_end_fault(error: EndToEndError, broker: &BrokerId, target: &EndpointId) -> PathFault {
    match error {
        EndToEndError::PathFailed { failed } => PathFault::Path(PathError::Refused {
            broker: broker.clone(),
            target: target.clone(),
            code: failed.code,
            retry_after: retry_slot(failed.retry_after_ms),
            alternates: failed.alternates,
        }),
        EndToEndError::PathLost { source } => {
            let reason = LegError::of(&source).map_or_else(|| source.to_string(), ToString::to_string);
            PathFault::Path(PathError::Leg { broker: broker.clone(), reason })
        }
        EndToEndError::Tls { .. } => {
            PathFault::Altered(PathError::Leg { broker: broker.clone(), reason: error.to_string() })
        }
        EndToEndError::Certificate(_)
        | EndToEndError::NoCertificate
        | EndToEndError::Refused { .. }
        | EndToEndError::Protocol => {
            PathFault::Attach(AttachError::Handshake { peer: target.to_string(), reason: error.to_string() })
        }
    }
}
