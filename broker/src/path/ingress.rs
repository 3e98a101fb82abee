//! An OpenPath at the broker that the Controller dialled: limits, ticket, and the search for the Target.

use std::time::Duration;

use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::OpenPath;
use rc_proto::wire::{BrokerId, EndpointId};
use rc_transport::Leg;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::early::EarlyBytes;
use super::far::{AttemptFault, FarEnd, OpenContext, along, invite, open_deadline};
use super::opening::{
    PathGuard, Refusal, Stopped, judge_ticket, refuse, refuse_new_while_draining, splice, too_much_early,
    while_near_lives,
};
use crate::core::paths::{Part, PathRequest};
use crate::core::registry::{Found, ParkId, Registration, Settled};
use crate::core::routing::check_named_route;
use crate::core::search::{Candidate, Search, Step, View};
use crate::links::{ControlHandle, SharedNode};
use crate::mesh::hedge_after;
use crate::node::{lock, millis};

/// Time for a control link that takes no more messages to leave the registry.
const LEAVING: Duration = Duration::from_millis(50);
/// Attempts of one open at a time.
const ATTEMPTS_MAX: usize = 3;

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
        .and_then(|guard| EarlyBytes::new(behind).map(|early| (guard, early)).map_err(|_| too_much_early()));
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
        return Err(Refusal { retry_after_ms: millis(slot), ..refusal });
    }
    judge_ticket(node, &node.controller_id(controller), &near.peer().certificate, open)?;
    check_named_route(&node.own.id, &open.route)
        .map_err(|code| Refusal::new(code, "the route is too long or leads back"))?;
    refuse_new_while_draining(node, open)
}

/// A watch for the Target, taken back when the search ends.
struct Watch {
    node: SharedNode,
    target: EndpointId,
    park: ParkId,
    woken: oneshot::Receiver<()>,
    /// The receiver has given its one answer.
    is_woken: bool,
}

impl Watch {
    fn was_woken(&mut self) -> bool {
        self.is_woken || !matches!(self.woken.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.node.presence.unpark(&self.target, self.park));
    }
}

/// Runs the search to a far end or a failure. The watch stays installed from the first look-up on, so a registration
/// that comes at any moment is seen.
async fn find(context: OpenContext) -> Result<FarEnd, Refusal> {
    let (node, target) = (SharedNode::clone(&context.node), context.open.target.clone());
    let mut search = begin_search(&context);
    let mut watch: Option<Watch> = None;
    loop {
        if watch.as_mut().is_some_and(Watch::was_woken) {
            watch = None;
            search.woken();
        }
        let registration = if watch.is_some() {
            node.presence.find(&target, context.open.instance)
        } else {
            let (wake, woken) = oneshot::channel();
            match node.presence.find_or_park(&target, context.open.instance, wake) {
                Found::Here(registration) => Some(registration),
                Found::Parked { park, hints } => {
                    search.add_candidates(node.mesh.candidates(&hints));
                    watch = Some(Watch {
                        node: SharedNode::clone(&node),
                        target: target.clone(),
                        park,
                        woken,
                        is_woken: false,
                    });
                    None
                }
                Found::Full => return Err(busy()),
            }
        };
        let now = node.now();
        let view = View {
            is_here: registration.is_some(),
            peers_linked: node.mesh.linked_count(),
            is_mesh_healthy: node.mesh.is_healthy(now),
        };
        match (search.next(view, now), registration) {
            (Step::InviteHere, Some(registration)) => {
                search.add_candidates(
                    node.mesh.candidates(&node.presence.hints(&target, context.open.instance)),
                );
                let first = Attempt::Here(Box::new(registration));
                if let Some(far) = attempts(&context, &mut search, first).await {
                    return Ok(far);
                }
            }
            (Step::InviteHere, None) => {}
            (Step::Along(route), _) => {
                if let Some(far) = attempts(&context, &mut search, Attempt::Along(route)).await {
                    return Ok(far);
                }
            }
            (Step::Locate, _) => {
                let open = &context.open;
                let (found, unknown) = node.mesh.locate(&node, &target, open.instance, open.purpose).await;
                search.located(found, unknown);
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
    match node.presence.settle(&watch.target, watch.park) {
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
    if timeout_at(Instant::now() + wait, &mut watch.woken).await.is_ok() {
        watch.is_woken = true;
    }
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

/// One way to the Target.
enum Attempt {
    /// Over its link here.
    Here(Box<Registration<ControlHandle>>),
    /// Over other brokers.
    Along(Vec<BrokerId>),
}

/// What a task of a race brings.
enum Finding {
    Here(Result<FarEnd, AttemptFault>),
    Along(Result<FarEnd, AttemptFault>),
    Located(Vec<Candidate>, usize),
}

/// Attempts of one open beside each other.
struct Race<'c> {
    context: &'c OpenContext,
    tasks: JoinSet<Finding>,
    /// Attempts that run; a question to the mesh is none.
    running: usize,
    hedge_at: Instant,
}

impl Race<'_> {
    fn start(&mut self, attempt: Attempt) {
        let (context, mesh) = (self.context.clone(), &self.context.node.mesh);
        self.running += 1;
        match attempt {
            Attempt::Here(registration) => {
                self.hedge_at = Instant::now() + hedge_after(registration.cost_us);
                self.tasks
                    .spawn(async move { Finding::Here(Box::pin(invite(&context, *registration)).await) });
            }
            Attempt::Along(route) => {
                self.hedge_at = Instant::now() + mesh.hedge_after(&route);
                self.tasks.spawn(async move { Finding::Along(along_or_direct(context, route).await) });
            }
        }
    }

    /// The first attempt is slow: another one beside it, or a question where else the Target is.
    fn hedge(&mut self, search: &mut Search) {
        if let Some(route) = search.next_candidate() {
            return self.start(Attempt::Along(route));
        }
        self.hedge_at = self.context.deadline + Duration::from_secs(1);
        if search.begin_locate() && self.context.node.mesh.linked_count() > 0 {
            let context = self.context.clone();
            self.tasks.spawn(async move {
                let (node, open) = (&context.node, &context.open);
                let (found, unknown) =
                    node.mesh.locate(node, &open.target, open.instance, open.purpose).await;
                Finding::Located(found, unknown)
            });
        }
    }
}

/// Makes one attempt, and others beside it when it is slow. The first far end wins; the others are closed, which
/// cancels what follows from them.
async fn attempts(context: &OpenContext, search: &mut Search, first: Attempt) -> Option<FarEnd> {
    let mut race = Race { context, tasks: JoinSet::new(), running: 0, hedge_at: context.deadline };
    race.start(first);
    while race.running > 0 {
        tokio::select! {
            biased;
            Some(done) = race.tasks.join_next() => {
                let outcome = match done {
                    Ok(Finding::Located(found, unknown)) => {
                        search.located(found, unknown);
                        race.hedge_at = Instant::now();
                        continue;
                    }
                    Ok(Finding::Here(outcome)) => outcome.map_err(|fault| search.invite_failed(fault.code())),
                    Ok(Finding::Along(outcome)) => outcome.map_err(|fault| {
                        search.attempt_failed(fault.code().unwrap_or(PathFailure::NOT_HERE));
                    }),
                    Err(_) => {
                        search.attempt_failed(PathFailure::INTERNAL);
                        Err(())
                    }
                };
                if let Ok(far) = outcome {
                    return Some(far);
                }
                race.running -= 1;
            }
            () = tokio::time::sleep_until(race.hedge_at), if race.running < ATTEMPTS_MAX => race.hedge(search),
        }
    }
    None
}

/// A located broker is reached over a third one where that is faster, and directly when the detour fails. A route
/// that the Controller named is followed as it is.
async fn along_or_direct(context: OpenContext, route: Vec<BrokerId>) -> Result<FarEnd, AttemptFault> {
    if context.open.route != route {
        let detour = context.node.mesh.with_detour(&context.open.avoid, &route, context.node.now());
        if detour != route
            && let Ok(far) = along(context.clone(), detour).await
        {
            return Ok(far);
        }
    }
    along(context, route).await
}
