//! From a request to the splice: limits, ticket, the far end, PathOpened back, and the pipe in a task of its own.

use rc_daemon::clock::unix_ms;
use rc_daemon::events::Severity;
use rc_proto::identity::SpiffeId;
use rc_proto::wire::codes::{PathEnd, PathFailure, Purpose};
use rc_proto::wire::message::{CertificateRef, Message, OpenPath, PathClosed, PathFailed, PathOpened};
use rc_proto::wire::{BrokerId, Ext, PathId};
use rc_transport::{ControlPeer, Leg};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::early::{EarlyBytes, NearGone};
use super::far::{FarEnd, FarLeg};
use super::table::PathHandle;
use crate::core::paths::{EntryId, PathLimit, PathRequest};
use crate::draining;
use crate::links::SharedNode;
use crate::node::{Node, count};
use crate::relay::{End, PipeEnd, RelayLeg, relay};

/// Time to write a refusal to a peer that may not read.
const REFUSAL_WRITE_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// A refusal on its way to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: PathFailure,
    pub(super) retry_after_ms: u32,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(code: PathFailure, reason: impl std::fmt::Display) -> Self {
        Self { code, retry_after_ms: 0, reason: reason.to_string() }
    }
}

impl From<PathLimit> for Refusal {
    fn from(limit: PathLimit) -> Self {
        Self::new(PathFailure::BUSY, limit)
    }
}

/// Keeps the path in the table until it ends, however its task ends.
pub(super) struct PathGuard {
    node: SharedNode,
    id: EntryId,
    pub(super) handle: PathHandle,
}

impl PathGuard {
    pub(super) fn begin(
        node: &SharedNode,
        request: PathRequest,
        controller: CertificateRef,
    ) -> Result<Self, Refusal> {
        let (id, handle) = node.paths.begin(request, node.now())?;
        handle.set_controller(controller);
        Ok(Self { node: SharedNode::clone(node), id, handle })
    }
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        drop(self.node.paths.end(self.id));
    }
}

/// A draining broker still serves sessions that exist: they may have nowhere else to go. A standby path here would
/// stand by for nothing.
pub(super) fn refuse_new_while_draining(node: &Node, open: &OpenPath) -> Result<(), Refusal> {
    let is_new = matches!(open.purpose, Purpose::NEW | Purpose::STANDBY);
    if is_new && !node.lifetime.phase().is_accepting() {
        return Err(Refusal::new(PathFailure::DRAINING, "this broker drains"));
    }
    Ok(())
}

/// Judges the ticket of an open. The refusal is the same whatever is wrong; the event has the cause.
pub(super) fn judge_ticket(
    node: &Node,
    controller: &SpiffeId,
    certificate: &CertificateRef,
    open: &OpenPath,
) -> Result<(), Refusal> {
    let target = node.target_id(&open.target);
    let now_unix_s = unix_ms() / 1000;
    let judged =
        node.tickets.judge(&open.ticket, controller, certificate.key_thumbprint, &target, now_unix_s);
    judged.map_err(|fault| Refusal::new(PathFailure::UNAUTHORIZED, fault))
}

/// Waits for the far end while the near leg is watched for early bytes and its end.
pub(super) async fn while_near_lives<F>(
    near: &mut Leg,
    early: &EarlyBytes,
    guard: &PathGuard,
    opening: F,
) -> Result<FarEnd, Stopped>
where
    F: Future<Output = Result<FarEnd, Refusal>>,
{
    tokio::select! {
        biased;
        () = guard.handle.stop.cancelled() => {
            Err(Stopped::Refused(Refusal::new(PathFailure::DRAINING, "stopped while it was opened")))
        }
        gone = early.watch(near) => Err(match gone {
            NearGone::Closed => Stopped::NearClosed,
            NearGone::TooMuch => Stopped::Refused(too_much_early()),
        }),
        outcome = opening => outcome.map_err(Stopped::Refused),
    }
}

pub(super) fn too_much_early() -> Refusal {
    Refusal::new(PathFailure::INTERNAL, "more bytes than a ClientHello came before the path was open")
}

/// Why there is no far end.
pub(super) enum Stopped {
    /// Whoever asked has left.
    NearClosed,
    /// With this answer.
    Refused(Refusal),
}

/// Tells whoever asked, in a way that the answer survives.
pub(super) async fn refuse(node: &Node, mut leg: Leg, path_id: PathId, refusal: Refusal) {
    count(&node.record.counters.paths_failed);
    let severity = if refusal.code == PathFailure::UNAUTHORIZED { Severity::Warn } else { Severity::Info };
    let entry =
        node.event(severity, "path.refused").with_text("path", path_id).with_text("code", refusal.code);
    node.record(entry.with_text("from", &leg.peer().id).with_text("reason", &refusal.reason));
    let failed = PathFailed {
        path_id,
        code: refusal.code,
        retry_after_ms: refusal.retry_after_ms,
        alternates: match refusal.code {
            PathFailure::ISOLATED => node.mesh.alternates_anyhow(node.now()),
            code if code.is_final_for_new() => Vec::new(),
            _ => node.alternates(),
        },
        ext: Ext::none(),
    };
    let Ok(bytes) = Message::from(failed).to_bytes() else { return };
    let written = timeout(REFUSAL_WRITE_MAX, async {
        leg.write_all(&bytes).await?;
        leg.flush().await
    });
    if let Ok(Ok(())) = written.await {
        leg.close_after_refusal().await;
    }
}

/// Sends PathOpened back and runs the pipe in a small fresh task.
pub(super) fn splice(
    node: &SharedNode,
    near: Leg,
    early: &EarlyBytes,
    mut far: FarEnd,
    guard: PathGuard,
    request: PathRequest,
) {
    let path_id = request.path;
    let mut hops = vec![(node.own.id.clone(), far.cost_us)];
    let mut to_far = opened_for_target(node, path_id, &far);
    hops.append(&mut far.hops);
    let Some(mut to_near) = opened_bytes(path_id, hops) else { return };
    to_near.append(&mut far.behind);
    to_far.append(&mut early.rest(far.early_sent));
    node.paths.opened(guard.id, far.to.clone(), node.now());
    draining::tell_late(node, &request, far.to.as_ref());
    count(&node.record.counters.paths_opened);
    record_opened(node, &request, far.to.as_ref());
    let near = End { leg: near, first: to_near };
    let task_node = SharedNode::clone(node);
    match far.leg {
        FarLeg::Target(leg) => {
            guard.handle.set_target(leg.peer().certificate.clone());
            let far = End { leg, first: to_far };
            drop(node.lifetime.tasks.spawn(run_pipe(task_node, near, far, guard, request)));
        }
        FarLeg::Mesh(leg) => {
            let far = End { leg: *leg, first: to_far };
            drop(node.lifetime.tasks.spawn(run_pipe(task_node, near, far, guard, request)));
        }
    }
}

fn ends(request: &PathRequest) -> [ControlPeer; 2] {
    [ControlPeer::Controller(request.controller.clone()), ControlPeer::Target(request.target.clone())]
}

/// JoinPath is answered too: the Target learns the broker that it joined at.
fn opened_for_target(node: &Node, path_id: PathId, far: &FarEnd) -> Vec<u8> {
    match far.leg {
        FarLeg::Target(_) => {
            opened_bytes(path_id, vec![(node.own.id.clone(), far.cost_us)]).unwrap_or_default()
        }
        FarLeg::Mesh(_) => Vec::new(),
    }
}

fn opened_bytes(path_id: PathId, hops: Vec<(BrokerId, u32)>) -> Option<Vec<u8>> {
    Message::from(PathOpened { path_id, hops, ext: Ext::none() }).to_bytes().ok()
}

fn record_opened(node: &Node, request: &PathRequest, to: Option<&BrokerId>) {
    let entry = node
        .event(Severity::Info, "path.opened")
        .with_text("path", request.path)
        .with_text("controller", &request.controller)
        .with_text("target", &request.target)
        .with_text("purpose", request.purpose)
        .with_text("lane", request.lane);
    let entry = match &request.from {
        Some(broker) => entry.with_text("from", broker),
        None => entry,
    };
    node.record(match to {
        Some(broker) => entry.with_text("to", broker),
        None => entry,
    });
}

async fn run_pipe<A, B>(node: SharedNode, near: End<A>, far: End<B>, guard: PathGuard, request: PathRequest)
where
    A: RelayLeg,
    B: RelayLeg,
{
    let end = relay(near, far, &guard.handle.meter, &guard.handle.stop).await;
    let reason = match end {
        PipeEnd::Closed(_) => PathEnd::CLOSED,
        PipeEnd::Broke(_) => PathEnd::LEG_LOST,
        PipeEnd::Stopped => guard.handle.reason(),
    };
    let carried = guard.handle.meter.total();
    node.record.counters.bytes_carried.fetch_add(carried, std::sync::atomic::Ordering::Relaxed);
    drop(guard);
    if reason == PathEnd::LEG_LOST {
        node.paths.note_broken(node.now());
    }
    // When the broker stops, everybody was told before.
    if !node.lifetime.stop.is_cancelled() {
        tell_closed(&node, &request, reason);
    }
    let entry = node.event(Severity::Info, "path.ended").with_text("path", request.path);
    let entry = entry.with_text("controller", &request.controller).with_text("target", &request.target);
    node.record(entry.with_text("reason", reason).with("bytes", carried));
}

/// Tells both endpoints over their control links here why a path ended that they did not close.
pub(crate) fn tell_closed(node: &Node, request: &PathRequest, reason: PathEnd) {
    if reason == PathEnd::CLOSED {
        return;
    }
    for link in ends(request).iter().flat_map(|peer| node.links.of(peer)) {
        link.send(PathClosed { path_id: request.path, reason, ext: Ext::none() });
    }
}
