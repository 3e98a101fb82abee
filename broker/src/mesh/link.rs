//! A mesh link from Hello and Welcome to its end: whether it stands beside another one, and what its loss means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::Rng;
use rc_daemon::events::Severity;
use rc_proto::mesh::{LinkClaim, LinkDecision, MemberHint};
use rc_proto::wire::message::{CertificateRef, Hello, Message, Welcome};
use rc_proto::wire::{BrokerId, Ext, Incarnation, limits, version};
use rc_transport::{FramingError, Leg, MessageStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::conversation::Running;
use super::{PeerLink, QUEUE_MAX, pool};
use crate::core::limits::reconnect_spread;
use crate::links::SharedNode;
use crate::node::{Node, count, lock, micros, millis};

/// How a link's Hello ended.
pub(super) enum Greeting {
    /// It ran and has ended.
    Ran,
    /// The peer is this broker itself.
    Own,
    /// No link came of it.
    Failed,
}

/// Serves a link that a peer dialled.
pub(crate) async fn serve_accepted(node: SharedNode, peer: BrokerId, leg: Leg) {
    let (remote, certificate) = (leg.remote(), leg.peer().certificate.clone());
    // One deadline for the handshake and the first message together.
    let left = limits::PRE_AUTH_DEADLINE.saturating_sub(leg.age());
    let mut stream = MessageStream::over(leg);
    let hello = match timeout(left, stream.recv()).await {
        Ok(Ok(Some(Message::Hello(hello)))) => hello,
        Ok(Ok(Some(_)) | Err(_)) => return count(&node.record.counters.messages_refused),
        Ok(Ok(None)) | Err(_) => return,
    };
    let Ok(agreed) = version::negotiate(version::SUPPORTED, hello.versions, hello.features) else { return };
    stream.accepted();
    if stream.send(&welcome(&node, agreed).into()).await.is_err() {
        return;
    }
    let claim = LinkClaim { incarnation: hello.incarnation, dialled_by_peer: true };
    let hint = MemberHint { name: hello.name, addresses: hello.addresses };
    let up = LinkUp { peer, claim, hint, remote, certificate, round_trip_us: 0 };
    drop(Box::pin(run(&node, stream, up)).await);
}

/// Greets a broker that this one dialled and serves the link; `linked` is told when it stands.
pub(super) async fn serve_dialled(
    node: &SharedNode,
    peer: BrokerId,
    leg: Leg,
    linked: impl FnOnce(&BrokerId),
) -> Greeting {
    if peer == node.own.id {
        return Greeting::Own;
    }
    let (remote, round_trip_us) = (leg.remote(), micros(leg.handshake_round_trip()));
    let certificate = leg.peer().certificate.clone();
    let mut stream = MessageStream::over(leg);
    let greeted = timeout(limits::PRE_AUTH_DEADLINE, async {
        stream.send(&hello(node).into()).await.ok()?;
        stream.recv().await.ok().flatten()
    });
    let Ok(Some(Message::Welcome(welcome))) = greeted.await else { return Greeting::Failed };
    if welcome.broker != peer {
        return Greeting::Failed;
    }
    stream.accepted();
    linked(&peer);
    let claim = LinkClaim { incarnation: welcome.incarnation, dialled_by_peer: false };
    let hint = MemberHint { name: welcome.name, addresses: welcome.addresses };
    let up = LinkUp { peer, claim, hint, remote, certificate, round_trip_us };
    drop(Box::pin(run(node, stream, up)).await);
    Greeting::Ran
}

fn hello(node: &Node) -> Hello {
    Hello {
        versions: version::SUPPORTED,
        features: version::FEATURES,
        incarnation: node.own.incarnation,
        name: node.own.name.clone(),
        addresses: node.own.addresses.clone(),
        ext: Ext::none(),
    }
}

fn welcome(node: &Node, agreed: version::Agreed) -> Welcome {
    Welcome {
        version: agreed.version,
        features: agreed.features,
        broker: node.own.id.clone(),
        incarnation: node.own.incarnation,
        name: node.own.name.clone(),
        addresses: node.own.addresses.clone(),
        load: node.load(),
        keep_alive_ms: millis(node.timers.mesh_ping),
        reconnect_spread_ms: millis(reconnect_spread(0)),
        alternates: Vec::new(),
        ext: Ext::none(),
    }
}

struct LinkUp {
    peer: BrokerId,
    claim: LinkClaim,
    hint: MemberHint,
    remote: SocketAddr,
    certificate: CertificateRef,
    round_trip_us: u32,
}

async fn run(node: &SharedNode, stream: MessageStream<Leg>, up: LinkUp) -> Result<(), FramingError> {
    let (queue, outbox) = mpsc::channel(QUEUE_MAX);
    let close = CancellationToken::new();
    let peer = up.peer.clone();
    let Some(link) = stand(node, up, queue, close.clone()) else {
        crate::relay::close(stream.into_inner().0).await;
        return Ok(());
    };
    let entry = node.event(Severity::Info, "mesh.linked").with_text("peer", &peer);
    node.record(entry.with_text("remote", link.remote).with("dialled", link.dialled));
    node.mesh.judge_health(node);
    pool::refill(node, &peer);
    let mut running = Running { node, peer: &peer, link: &link, ping: None, pings: 0 };
    let outcome = running.serve(stream, outbox, &close).await;
    fall(node, &peer, link.number);
    if let Err(error) = &outcome
        && error.is_misbehaviour()
    {
        count(&node.record.counters.messages_refused);
        let entry = node.event(Severity::Warn, "mesh.refused").with_text("peer", &peer);
        node.record(entry.with_text("reason", error));
    }
    outcome
}

/// Puts the link up, unless it is a duplicate that has to go.
fn stand(
    node: &Node,
    up: LinkUp,
    queue: mpsc::Sender<Message>,
    close: CancellationToken,
) -> Option<PeerLink> {
    let mesh = &node.mesh;
    let dialled = !up.claim.dialled_by_peer;
    let number = mesh.next_link.fetch_add(1, Ordering::Relaxed);
    let link = PeerLink {
        number,
        queue,
        close,
        incarnation: up.claim.incarnation,
        name: up.hint.name.clone(),
        answered_at: dialled.then_some(up.remote),
        remote: up.remote,
        dialled,
        certificate: Arc::new(up.certificate),
        round_trip_us: Arc::new(AtomicU32::new(up.round_trip_us)),
        report: Arc::default(),
    };
    let mut state = lock(&mesh.state);
    match state.members.handle_linked(&up.peer, up.claim, up.hint, node.now()) {
        LinkDecision::Keep | LinkDecision::ReplaceExisting => {
            let old = state.links.insert(up.peer.clone(), link.clone());
            drop(state);
            if let Some(old) = old {
                old.close.cancel();
                // What left while the old link died was never heard; the new one tells everything anew.
                node.presence.peer_lost(&up.peer);
            }
            mesh.changed.notify_one();
            Some(link)
        }
        LinkDecision::CloseNew | LinkDecision::CloseOwn | LinkDecision::CloseOutdated => None,
    }
}

/// Takes the link down, unless another one stands in its place.
fn fall(node: &SharedNode, peer: &BrokerId, number: u64) {
    let mesh = &node.mesh;
    let mut state = lock(&mesh.state);
    if state.links.get(peer).is_none_or(|link| link.number != number) {
        return;
    }
    state.links.remove(peer);
    state.members.handle_link_lost(peer, node.now());
    drop(state);
    mesh.queries.link_lost(peer);
    mesh.pool.forget(peer);
    node.presence.peer_lost(peer);
    mesh.changed.notify_one();
    node.record(node.event(Severity::Warn, "mesh.down").with_text("peer", peer));
    mesh.judge_health(node);
    mesh.tell_heirs(node, peer);
}

/// An incarnation: random, never 0, so that it cannot be an endpoint's.
pub(crate) fn draw_incarnation() -> Incarnation {
    Incarnation(rand::rng().random_range(1..=u64::MAX))
}
