//! An OpenPath at the broker that the Controller dialled: limits, ticket, and the search for the Target.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::EndpointId;
use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::OpenPath;
use rc_transport::Leg;
use tokio::time::{Instant, timeout_at};

use super::early::EarlyBytes;
use super::far::{FarEnd, OpenContext, open_deadline};
use super::opening::{
    PathGuard, Refusal, Stopped, judge_ticket, refuse, refuse_new_while_draining, splice, too_much_early,
    while_near_lives,
};
use super::race::{Attempt, attempts};
use super::watch::{Look, Watch};
use crate::core::directory::Wanted;
use crate::core::paths::{Part, PathRequest};
use crate::core::registry::Settled;
use crate::core::routing::check_named_route;
use crate::core::search::{Search, Step, View};
use crate::links::SharedNode;
use crate::node::{lock, millis_up};

/// Time for a control link that takes no more messages to leave the registry.
const LEAVING: Duration = Duration::from_millis(50);

pub(super) async fn serve(
    node: SharedNode,
    controller: EndpointId,
    mut near: Leg,
    behind: Vec<u8>,
    open: OpenPath,
) {
    let path_id = open.path_id;
    let request = PathRequest {
        path: path_id,
        controller: controller.clone(),
        target: open.target.clone(),
        purpose: open.purpose,
        lane: open.lane,
        part: Part::Ingress,
        from: None,
    };
    let admitted = admit(&node, &controller, &near, &open)
        .and_then(|()| PathGuard::begin(&node, request.clone(), near.peer().certificate.clone()))
        .and_then(|guard| {
            let early = EarlyBytes::new(behind, Arc::clone(&guard.handle.meter));
            Ok((guard, early.map_err(|_| too_much_early())?))
        });
    let (guard, early) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&node, near, path_id, refusal).await,
    };
    let context = OpenContext {
        node: SharedNode::clone(&node),
        origin: node.own.id.clone(),
        controller,
        certificate: near.peer().certificate.clone(),
        early: early.view(),
        deadline: open_deadline(open.deadline_ms, node.timers.open),
        open,
    };
    match while_near_lives(&mut near, &early, &guard, Box::pin(find(context))).await {
        Ok(far) => splice(&node, near, &early, far, guard, request),
        Err(Stopped::NearClosed) => {}
        Err(Stopped::Refused(refusal)) => {
            drop(guard);
            refuse(&node, near, path_id, refusal).await;
        }
    }
}

/// Everything that is judged before anything is spent on the open.
fn admit(node: &SharedNode, controller: &EndpointId, near: &Leg, open: &OpenPath) -> Result<(), Refusal> {
    let known = [Purpose::NEW, Purpose::RESUME, Purpose::HANDOVER, Purpose::STANDBY];
    if !known.contains(&open.purpose) {
        return Err(Refusal::new(PathFailure::VERSION, format_args!("purpose {} is unknown", open.purpose)));
    }
    let admitted = lock(&node.admission).admit_open(controller, open.purpose, node.now());
    if let Err(slot) = admitted {
        let refusal = Refusal::new(PathFailure::RETRY_AFTER, "more opens than are admitted now");
        return Err(Refusal { retry_after_ms: millis_up(slot), ..refusal });
    }
    judge_ticket(node, &node.controller_id(controller), &near.peer().certificate, open)?;
    check_named_route(&node.own.id, &open.route)
        .map_err(|code| Refusal::new(code, "the route is too long or leads back"))?;
    refuse_new_while_draining(node, open)
}

/// Runs the search to a far end or a failure. The watch stays installed from the first look-up on, so a registration
/// that comes at any moment is seen.
async fn find(context: OpenContext) -> Result<FarEnd, Refusal> {
    let node = SharedNode::clone(&context.node);
    let mut search = begin_search(&context);
    let mut watch: Option<Watch> = None;
    loop {
        if watch.as_mut().is_some_and(Watch::was_woken) {
            watch = None;
            search.woken();
        }
        let registration = match Watch::look(&context, &mut watch, &mut search) {
            Look::Here(registration) => Some(registration),
            Look::Elsewhere => None,
            Look::Full => return Err(busy()),
        };
        let now = node.now();
        let view = View {
            is_here: registration.is_some(),
            peers_linked: node.mesh.linked_count(),
            has_directory: node.mesh.has_directory(),
            is_mesh_healthy: node.mesh.is_healthy(now),
        };
        match (search.next(view, now), registration) {
            (Step::InviteHere, Some(registration)) => {
                let hints = node.presence.hints(&context.open.target, context.open.instance);
                search.add_candidates(node.mesh.candidates(&hints));
                if let Some(far) =
                    attempts(&context, &mut search, &mut watch, Attempt::Here(registration)).await
                {
                    return Ok(far);
                }
            }
            (Step::InviteHere, None) => {}
            (Step::Along(route), _) => {
                if let Some(far) = attempts(&context, &mut search, &mut watch, Attempt::Along(route)).await {
                    return Ok(far);
                }
            }
            (Step::Consult, _) => {
                let wanted = Wanted::Open(context.open.instance);
                let places = node.mesh.consult(&node, &context.open.target, wanted).await;
                search.add_candidates(node.mesh.candidates_at(&places));
            }
            (Step::Locate, _) => {
                let open = &context.open;
                let located = node.mesh.locate(&node, &open.target, open.instance, open.purpose).await;
                search.located(located.found, located.unknown.len());
            }
            (Step::Park(until), _) => {
                let wait = until.since(now);
                match &mut watch {
                    Some(watch) => park(&context, watch, wait).await?,
                    // The Target's link here is on its way out: look again when it is gone.
                    None => tokio::time::sleep(wait.min(LEAVING)).await,
                }
            }
            (Step::Fail(code), _) => return Err(Refusal::new(code, "no broker reached the target")),
        }
    }
}

fn begin_search(context: &OpenContext) -> Search {
    let (node, open) = (&context.node, &context.open);
    let now = node.now();
    let deadline = now + context.deadline.saturating_duration_since(Instant::now());
    let park_until = Search::park_limit(now, deadline, node.timers.park);
    Search::new(open.purpose, open.route.clone(), open.avoid.clone(), park_until)
}

fn busy() -> Refusal {
    Refusal::new(PathFailure::BUSY, "as many opens wait as may")
}

/// Waits until the Target comes or the time is over; both lead back into the search.
async fn park(context: &OpenContext, watch: &mut Watch, wait: Duration) -> Result<(), Refusal> {
    let node = &context.node;
    match watch.settle() {
        Settled::Waiting => {}
        Settled::Woken => return Ok(()),
        Settled::Full => return Err(busy()),
    }
    if !lock(&node.admission).begin_park(&context.controller) {
        return Err(busy());
    }
    // The guard gives the place back also when the Controller leaves meanwhile.
    let _place = ParkPlace { node, controller: &context.controller };
    // Woken or over: the search looks again either way.
    timeout_at(Instant::now() + wait, watch.woken()).await.unwrap_or_default();
    Ok(())
}

struct ParkPlace<'n> {
    node: &'n SharedNode,
    controller: &'n EndpointId,
}

impl Drop for ParkPlace<'_> {
    fn drop(&mut self) {
        lock(&self.node.admission).end_park(self.controller);
    }
}
