//! Getting a far end: the Target itself over its control link here, or the next broker.

use std::time::Duration;

use rand::Rng;
use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{CertificateRef, Invite, MeshOpen, OpenPath};
use rc_proto::wire::{BrokerId, EndpointId, Ext, JoinSecret, limits};
use rc_transport::{Leg, MessageStream, PathIo, PathRefused};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::early::EarlyView;
use crate::core::registry::Registration;
use crate::links::{ControlHandle, SharedNode};
use crate::node::{Node, millis};

/// What every attempt of one open needs.
#[derive(Clone)]
pub(super) struct OpenContext {
    pub(super) node: SharedNode,
    pub(super) origin: BrokerId,
    pub(super) controller: EndpointId,
    pub(super) certificate: CertificateRef,
    pub(super) open: OpenPath,
    pub(super) early: EarlyView,
    pub(super) deadline: Instant,
}

impl OpenContext {
    /// Milliseconds left, for the next message.
    pub(super) fn left_ms(&self) -> u32 {
        millis(self.deadline.saturating_duration_since(Instant::now()))
    }
}

/// The leg of a far end.
pub(super) enum FarLeg {
    /// The Target's own.
    Target(Leg),
    /// One to the next broker.
    Mesh(Box<PathIo<Leg>>),
}

/// The other end of a path as this broker sees it.
pub(super) struct FarEnd {
    pub(super) leg: FarLeg,
    /// The brokers from the next one on.
    pub(super) hops: Vec<(BrokerId, u32)>,
    /// The next broker, unless the Target's leg ends here.
    pub(super) to: Option<BrokerId>,
    /// Round trip to it, µs.
    pub(super) cost_us: u32,
    /// How many of the early bytes it has.
    pub(super) early_sent: usize,
    /// Bytes that it sent behind its answer.
    pub(super) behind: Vec<u8>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptFault {
    /// The Target's control link is gone.
    LinkLost,
    /// With this code.
    Failed(PathFailure),
}

impl AttemptFault {
    /// The code that the search is told; `None` when the Target may be back in a moment.
    pub(super) fn code(self) -> Option<PathFailure> {
        match self {
            Self::LinkLost => None,
            Self::Failed(code) => Some(code),
        }
    }
}

/// Takes the pending join back when its open gives up.
struct JoinGuard<'n> {
    node: &'n Node,
    open: &'n OpenPath,
}

impl Drop for JoinGuard<'_> {
    fn drop(&mut self) {
        self.node.presence.forget_join(&self.open.target, self.open.path_id);
    }
}

/// Invites the Target and waits for its leg.
pub(super) async fn invite(
    context: &OpenContext,
    registration: Registration<ControlHandle>,
) -> Result<FarEnd, AttemptFault> {
    let (node, open) = (&context.node, &context.open);
    let join_secret = JoinSecret(rand::rng().random());
    let (handover, joined) = oneshot::channel();
    if !node.presence.expect_join(&open.target, registration.link_id, open.path_id, join_secret, handover) {
        let is_here = node.presence.find(&open.target, open.instance).is_some();
        return Err(if is_here { AttemptFault::Failed(PathFailure::BUSY) } else { AttemptFault::LinkLost });
    }
    let _guard = JoinGuard { node, open };
    let invite = Invite {
        path_id: open.path_id,
        join_secret,
        controller: context.controller.clone(),
        lane: open.lane,
        deadline_ms: context.left_ms(),
        broker: node.own.id.clone(),
        name: node.own.name.clone(),
        addresses: node.own.addresses.clone(),
        ext: Ext::none(),
    };
    if !registration.link.send(invite) {
        return Err(AttemptFault::LinkLost);
    }
    let joined = match timeout_at(context.deadline, joined).await {
        Ok(Ok(joined)) => joined,
        Ok(Err(_)) => return Err(AttemptFault::LinkLost),
        Err(_) => return Err(AttemptFault::Failed(PathFailure::TIMEOUT)),
    };
    Ok(FarEnd {
        leg: FarLeg::Target(joined.leg),
        hops: Vec::new(),
        to: None,
        cost_us: registration.cost_us,
        early_sent: 0,
        behind: joined.behind,
    })
}

/// Opens along `route`, whose first broker is the next hop. A pooled connection that ends before any answer is
/// replaced by a fresh one, once.
pub(super) async fn along(mut context: OpenContext, route: Vec<BrokerId>) -> Result<FarEnd, AttemptFault> {
    let Some(next) = route.first().cloned() else {
        return Err(AttemptFault::Failed(PathFailure::INTERNAL));
    };
    context.open.route = route;
    let failed = |code| Err(AttemptFault::Failed(code));
    let pooled = context.node.mesh.take_pooled(&context.node, &next);
    if let Some(leg) = pooled {
        match ask(&mut context, &next, leg).await {
            Asked::Opened(far) => return Ok(*far),
            Asked::Refused(code) => return failed(code),
            Asked::Gone => {}
        }
    }
    let dialled = timeout_at(context.deadline, context.node.mesh.dial_leg(&next)).await;
    let leg = match dialled {
        Ok(Some(leg)) => leg,
        Ok(None) => return failed(PathFailure::NOT_HERE),
        Err(_) => return failed(PathFailure::TIMEOUT),
    };
    match ask(&mut context, &next, leg).await {
        Asked::Opened(far) => Ok(*far),
        Asked::Refused(code) => failed(code),
        // The hop is not usable: as good as not there, others may be.
        Asked::Gone => failed(PathFailure::NOT_HERE),
    }
}

enum Asked {
    Opened(Box<FarEnd>),
    Refused(PathFailure),
    /// The connection ended before any answer.
    Gone,
}

async fn ask(context: &mut OpenContext, next: &BrokerId, leg: Leg) -> Asked {
    let deadline = context.deadline;
    match timeout_at(deadline, Box::pin(ask_over(context, next, leg))).await {
        Ok(asked) => asked,
        Err(_) => Asked::Refused(PathFailure::TIMEOUT),
    }
}

async fn ask_over(context: &mut OpenContext, next: &BrokerId, leg: Leg) -> Asked {
    let mut open = context.open.clone();
    open.deadline_ms = context.left_ms();
    let request = MeshOpen {
        origin: context.origin.clone(),
        controller: context.controller.clone(),
        controller_certificate: context.certificate.clone(),
        open,
        ext: Ext::none(),
    };
    let mut stream = MessageStream::over(leg);
    let sent = stream.send(&request.into()).await;
    let mut path = stream.into_path();
    if sent.is_err() {
        return last_answer(&mut path).await;
    }
    let mut early_sent = 0;
    loop {
        let rest = context.early.rest(early_sent);
        if !rest.is_empty() {
            let written = async {
                path.write_all(&rest).await?;
                path.flush().await
            };
            if let Err(error) = written.await {
                return match PathRefused::of(&error) {
                    Some(refused) => Asked::Refused(refused.0.code),
                    None => last_answer(&mut path).await,
                };
            }
            early_sent += rest.len();
        }
        tokio::select! {
            biased;
            answer = path.wait_opened() => match answer {
                Ok(opened) => {
                    let mut hops = opened.hops.clone();
                    hops.truncate(limits::ROUTE_BROKERS_MAX);
                    let cost_us = context.node.mesh.round_trip_us(next);
                    let leg = FarLeg::Mesh(Box::new(path));
                    let to = Some(next.clone());
                    return Asked::Opened(Box::new(FarEnd { leg, hops, to, cost_us, early_sent, behind: Vec::new() }));
                }
                Err(error) => return match PathRefused::of(&error) {
                    Some(refused) => Asked::Refused(refused.0.code),
                    None => Asked::Gone,
                },
            },
            () = context.early.changed() => {}
        }
    }
}

/// A write failed: the refusal that made the peer close may still be there to be read.
async fn last_answer(path: &mut PathIo<Leg>) -> Asked {
    match path.wait_opened().await {
        Err(error) => PathRefused::of(&error).map_or(Asked::Gone, |refused| Asked::Refused(refused.0.code)),
        // It opened the path and is gone.
        Ok(_) => Asked::Gone,
    }
}

/// The time that an open has, bounded by the configuration.
pub(super) fn open_deadline(asked_ms: u32, longest: Duration) -> Instant {
    Instant::now() + Duration::from_millis(asked_ms.into()).min(longest)
}
