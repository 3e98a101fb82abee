//! The first frame of a leg decides what it is: a request to open, one to forward, or the answer to an invite.

use rc_daemon::events::Severity;
use rc_proto::wire::PathId;
use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{JoinPath, Message};
use rc_transport::{Leg, MessageStream, PathPeer};
use tokio::time::timeout;

use super::opening::{Refusal, refuse};
use super::{ingress, transit};
use crate::links::SharedNode;
use crate::node::{JoinedLeg, count};

/// Serves one leg: until its path is spliced (the pipe runs in a task of its own) or refused.
pub(crate) async fn serve(node: SharedNode, peer: PathPeer, leg: Leg) {
    let idle = match peer {
        PathPeer::Broker(_) => node.timers.mesh_leg_idle,
        PathPeer::Controller(_) | PathPeer::Target(_) => node.timers.pooled_leg_idle,
    };
    let (remote, who) = (leg.remote(), leg.peer().id.clone());
    let waiting = match node.paths.waiting.begin(&peer) {
        Ok(waiting) => waiting,
        // It has not said which path it is for: none.
        Err(limit) => {
            let refusal = Refusal::new(PathFailure::BUSY, limit);
            return refuse(&node, leg, PathId([0; 16]), refusal).await;
        }
    };
    let mut stream = MessageStream::over(leg);
    let first = tokio::select! {
        biased;
        () = node.lifetime.stop.cancelled() => return,
        first = timeout(idle, stream.recv()) => first,
    };
    drop(waiting);
    let message = match first {
        Ok(Ok(Some(message))) => message,
        // A pooled connection that was not needed, or that nobody wanted any more.
        Ok(Ok(None)) | Err(_) => return crate::relay::close(stream.into_inner().0).await,
        Ok(Err(error)) => {
            if error.is_misbehaviour() {
                count(&node.record.counters.messages_refused);
                let entry = node.event(Severity::Warn, "leg.refused").with_text("peer", who);
                node.record(entry.with_text("remote", remote).with_text("reason", error));
            }
            return;
        }
    };
    let (leg, behind) = stream.into_inner();
    match (peer, message) {
        (PathPeer::Controller(controller), Message::OpenPath(open)) => {
            Box::pin(ingress::serve(node, controller, leg, behind, open)).await;
        }
        (PathPeer::Broker(broker), Message::MeshOpen(request)) => {
            Box::pin(transit::serve(node, broker, leg, behind, request)).await;
        }
        (PathPeer::Target(target), Message::JoinPath(join)) => {
            let JoinPath { path_id, join_secret, .. } = join;
            let joined = JoinedLeg { leg, behind };
            // Who was not invited, with a wrong secret, too late or twice: one and the same answer.
            let refused = match node.presence.take_join(&target, path_id, &join_secret) {
                Some(handover) => handover.send(joined).err(),
                None => Some(joined),
            };
            if let Some(JoinedLeg { leg, .. }) = refused {
                let refusal =
                    Refusal::new(PathFailure::NOT_FOUND, "no such invite, or it was used or ran out");
                refuse(&node, leg, path_id, refusal).await;
            }
        }
        // The table of roles admits nothing else here.
        (PathPeer::Controller(_) | PathPeer::Broker(_) | PathPeer::Target(_), _) => {
            count(&node.record.counters.messages_refused);
        }
    }
}
