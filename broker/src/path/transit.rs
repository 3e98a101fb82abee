//! A MeshOpen from another broker: the Target must be here, or the route names the next hop.

use std::sync::Arc;
use std::time::SystemTime;

use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{CertificateRef, MeshOpen, OpenPath};
use rc_proto::wire::{BrokerId, EndpointId};
use rc_transport::Leg;

use super::early::EarlyBytes;
use super::far::{AttemptFault, FarEnd, OpenContext, along, invite, open_deadline};
use super::opening::{
    PathGuard, Refusal, Stopped, judge_ticket, refuse, refuse_new_while_draining, splice, too_much_early,
    while_near_lives,
};
use crate::core::paths::{Part, PathRequest};
use crate::core::routing::{Hop, next_hop};
use crate::links::SharedNode;
use crate::node::Node;

pub(super) async fn serve(
    node: SharedNode,
    peer: BrokerId,
    mut near: Leg,
    behind: Vec<u8>,
    request: MeshOpen,
) {
    let MeshOpen { origin, controller, controller_certificate, open, .. } = request;
    let path_id = open.path_id;
    let path = PathRequest {
        path: path_id,
        controller: controller.clone(),
        target: open.target.clone(),
        purpose: open.purpose,
        lane: open.lane,
        part: Part::Transit,
        from: Some(peer.clone()),
    };
    let admitted = admit(&node, &controller, &controller_certificate, &open)
        .and_then(|()| {
            let hop = next_hop(&node.own.id, &origin, &peer, &open.route);
            hop.map_err(|code| Refusal::new(code, "the route is not ours or leads back"))
        })
        .and_then(|hop| {
            PathGuard::begin(&node, path.clone(), controller_certificate.clone()).map(|guard| (hop, guard))
        })
        .and_then(|(hop, guard)| {
            let early = EarlyBytes::new(behind, Arc::clone(&guard.handle.meter));
            let early = early.map_err(|_| too_much_early())?;
            Ok((hop, guard, early))
        });
    let (hop, guard, early) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&node, near, path_id, refusal).await,
    };
    let context = OpenContext {
        node: SharedNode::clone(&node),
        origin,
        controller,
        certificate: controller_certificate,
        early: early.view(),
        deadline: open_deadline(open.deadline_ms, node.timers.open),
        open,
    };
    match while_near_lives(&mut near, &early, &guard, Box::pin(follow(context, hop))).await {
        Ok(far) => splice(&node, near, &early, far, guard, path),
        Err(Stopped::NearClosed) => {}
        Err(Stopped::Refused(refusal)) => {
            drop(guard);
            refuse(&node, near, path_id, refusal).await;
        }
    }
}

/// What the ingress judged is judged again: its revocation lists may be older than ours.
fn admit(
    node: &Node,
    controller: &EndpointId,
    certificate: &CertificateRef,
    open: &OpenPath,
) -> Result<(), Refusal> {
    let rechecked = node.mesh.credentials().recheck_certificate(certificate, SystemTime::now());
    rechecked.map_err(|fault| {
        Refusal::new(PathFailure::UNAUTHORIZED, format_args!("the controller's certificate {fault}"))
    })?;
    judge_ticket(node, &node.controller_id(controller), certificate, open)?;
    refuse_new_while_draining(node, open)
}

/// Here or onward; a MeshOpen for an absent Target fails at once.
async fn follow(context: OpenContext, hop: Hop) -> Result<FarEnd, Refusal> {
    let outcome = match hop {
        Hop::Here => {
            let open = &context.open;
            match context.node.presence.find(&open.target, open.instance) {
                Some(registration) => invite(&context, registration).await,
                None => Err(AttemptFault::LinkLost),
            }
        }
        Hop::Onward { route, .. } => along(context, route).await,
    };
    outcome.map_err(|fault| match fault {
        AttemptFault::LinkLost => Refusal::new(PathFailure::NOT_HERE, "the target is not here"),
        AttemptFault::Failed(code) => Refusal::new(code, "the next hop failed"),
    })
}
