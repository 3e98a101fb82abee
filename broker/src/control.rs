//! One endpoint's control link: Hello and Welcome, probes, registrations, and what the broker has to tell.

use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;
use rc_daemon::clock::unix_ms;
use rc_daemon::events::Severity;
use rc_proto::Moment;
use rc_proto::wire::codes::{PathEnd, RegistrationRole};
use rc_proto::wire::message::{
    ClosePath, Hello, Message, Pong, Register, Registered, RetryAfter, Superseded, Unregister, Welcome,
};
use rc_proto::wire::{BrokerId, EndpointId, Ext, limits, version};
use rc_transport::{ControlPeer, FramingError, Leg, MessageStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::core::admission::AddressBlock;
use crate::core::isolation::SHARES;
use crate::core::limits::reconnect_spread;
use crate::core::registry::{LinkId, Registering, Registration};
use crate::core::scores::REPORT_EVERY;
use crate::core::standing::Claim;
use crate::links::{ControlHandle, LinkLimit, Outbox, SharedNode};
use crate::mesh::News;
use crate::node::{Node, count, lock, micros, millis, millis_up};

/// How long one message may take to write before the link is given up.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// What a superseded instance waits at least.
const SUPERSEDED_BACK_OFF: Duration = Duration::from_secs(60);
/// What a registration beyond a limit waits.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// Serves a control link to its end.
pub(crate) async fn serve(node: SharedNode, peer: ControlPeer, leg: Leg) {
    let (remote, certificate) = (leg.remote(), leg.peer().certificate.clone());
    let cost_us = micros(leg.handshake_round_trip());
    let outbox = match node.links.add(peer.clone(), remote, certificate, node.limits.control_links) {
        Ok(outbox) => outbox,
        Err(limit) => return send_away(&node, &peer, leg, limit).await,
    };
    let link_id = outbox.link_id;
    let mut link = ControlLink {
        node: &node,
        peer: &peer,
        cost_us,
        link_id,
        handle: outbox.handle.clone(),
        welcomed: false,
        remote: remote.ip(),
        share: rand::rng().random_range(0..=SHARES),
        reported_at: None,
    };
    let outcome = link.run(MessageStream::over(leg), outbox).await;
    node.links.remove(link_id);
    if let Some(target) = link.target() {
        leave(&node, target, link_id);
    }
    if let Err(error) = outcome
        && error.is_misbehaviour()
    {
        count(&node.record.counters.messages_refused);
        let entry = node.event(Severity::Warn, "link.refused");
        node.record(
            entry.with_text("peer", peer_text(&peer)).with_text("remote", remote).with_text("reason", error),
        );
    }
}

/// Tells an endpoint that is one link too many when to come back, and where else to go.
async fn send_away(node: &Node, peer: &ControlPeer, leg: Leg, limit: LinkLimit) {
    count(&node.record.counters.connections_refused);
    let entry = node.event(Severity::Warn, "link.refused").with_text("peer", peer_text(peer));
    node.record(entry.with_text("remote", leg.remote()).with_text("reason", limit));
    let later = RetryAfter { after_ms: millis(RETRY_LATER), alternates: node.alternates(), ext: Ext::none() };
    // It ends within the write's time and the linger; the peer is gone or told then.
    drop(timeout(WRITE_MAX, MessageStream::over(leg).refuse(&later.into())).await);
}

/// Ends what came over a lost link, and tells the mesh.
fn leave(node: &Node, target: &EndpointId, link_id: LinkId) {
    let departed = node.presence.link_lost(target, link_id);
    for registration in &departed.registrations {
        node.mesh.announce(node, target, &registration.claim, News::Left);
        let entry = node.event(Severity::Info, "target.left").with_text("target", target);
        node.record(entry.with_text("instance", registration.claim.instance));
    }
}

struct ControlLink<'n> {
    node: &'n SharedNode,
    peer: &'n ControlPeer,
    cost_us: u32,
    link_id: LinkId,
    handle: ControlHandle,
    welcomed: bool,
    remote: IpAddr,
    /// When this Target moves, of all that leave an isolated broker.
    share: u16,
    /// When it last said what it measured.
    reported_at: Option<Moment>,
}

impl ControlLink<'_> {
    fn target(&self) -> Option<&EndpointId> {
        match self.peer {
            ControlPeer::Target(id) => Some(id),
            ControlPeer::Controller(_) | ControlPeer::TrafficManager(_) => None,
        }
    }

    async fn run(&mut self, mut stream: MessageStream<Leg>, mut outbox: Outbox) -> Result<(), FramingError> {
        let stop = self.node.lifetime.stop.clone();
        // One deadline for the handshake and the first message together.
        let mut silence_ends = Instant::now() + limits::PRE_AUTH_DEADLINE.saturating_sub(stream.io().age());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // What was said before the stop, a Drain above all, still goes out.
                    while let Ok(message) = outbox.queue.try_recv() {
                        if !write(&mut stream, &message).await? {
                            return Ok(());
                        }
                    }
                    return close(stream).await;
                }
                () = outbox.close.cancelled() => return Ok(()),
                Some(message) = outbox.queue.recv() => {
                    if !write(&mut stream, &message).await? {
                        return Ok(());
                    }
                }
                received = timeout_at(silence_ends, stream.recv()) => {
                    let Ok(received) = received else { return Ok(()) };
                    let Some(message) = received? else { return close(stream).await };
                    silence_ends = Instant::now() + self.node.timers.control_silence;
                    match self.answer(&mut stream, message) {
                        Reply::Nothing => {}
                        Reply::Close => return close(stream).await,
                        Reply::Send(message) => {
                            if !write(&mut stream, &message).await? {
                                return Ok(());
                            }
                        }
                    }
                }
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the table of roles admits nothing else")]
    fn answer(&mut self, stream: &mut MessageStream<Leg>, message: Message) -> Reply {
        match message {
            Message::Ping(ping) => Reply::Send(Box::new(self.pong(ping.nonce).into())),
            Message::Hello(hello) => self.welcome(stream, &hello),
            // Only a probe may come without Hello.
            _ if !self.welcomed => Reply::Close,
            Message::Register(register) => {
                self.take_scores(&register.scores, Duration::ZERO);
                self.register(&register)
            }
            Message::Unregister(unregister) => self.unregister(&unregister),
            Message::ClosePath(close) => self.close_path(&close),
            Message::ScoreReport(report) => {
                self.take_scores(&report.scores, Duration::from_millis(report.age_ms.into()));
                Reply::Nothing
            }
            // The table of roles lets no endpoint send any other message on a control link.
            _ => Reply::Close,
        }
    }

    fn welcome(&mut self, stream: &mut MessageStream<Leg>, hello: &Hello) -> Reply {
        let Ok(agreed) = version::negotiate(version::SUPPORTED, hello.versions, hello.features) else {
            let entry = self.node.event(Severity::Warn, "link.version");
            self.node.record(entry.with_text("peer", peer_text(self.peer)));
            return Reply::Close;
        };
        stream.accepted();
        self.welcomed = true;
        let node = self.node;
        let spread = reconnect_spread(node.presence.registration_count());
        let welcome = Welcome {
            version: agreed.version,
            features: agreed.features,
            broker: node.own.id.clone(),
            incarnation: node.own.incarnation,
            name: node.own.name.clone(),
            addresses: node.own.addresses.clone(),
            load: node.load(),
            keep_alive_ms: millis(node.timers.keep_alive),
            reconnect_spread_ms: millis(spread),
            alternates: node.alternates(),
            ext: Ext::none(),
        };
        Reply::Send(Box::new(welcome.into()))
    }

    /// A registered Target of an isolated broker is advised to move.
    fn pong(&self, nonce: u64) -> Pong {
        let (node, pong) = (self.node, self.node.pong(nonce));
        let is_target = self.welcomed && self.target().is_some();
        match node.mesh.move_after(self.share, node.now()).filter(|_| is_target) {
            Some(after) => pong.advising_to_move(millis(after)),
            None => pong,
        }
    }

    /// What the Target measured to this broker, else the round trip of its handshake.
    fn cost_us(&self, register: &Register) -> u32 {
        let own = register.scores.iter().find(|(broker, _)| *broker == self.node.own.id);
        own.map_or(self.cost_us, |(_, ms)| ms.saturating_mul(1000))
    }

    /// What an endpoint measured goes into the table of its network; more often than now and then it tells nothing new.
    fn take_scores(&mut self, scores: &[(BrokerId, u32)], age: Duration) {
        let now = self.node.now();
        if self.reported_at.is_some_and(|at| now.since(at) < REPORT_EVERY) {
            return;
        }
        self.reported_at = Some(now);
        let network = AddressBlock::of(self.remote);
        lock(&self.node.mesh.scores).handle_report(network, scores, age, now);
    }

    fn register(&self, register: &Register) -> Reply {
        let (node, Some(target)) = (self.node, self.target()) else { return Reply::Close };
        let known_role = [RegistrationRole::PRIMARY, RegistrationRole::STANDBY, RegistrationRole::RESUME];
        if !known_role.contains(&register.role) {
            return Reply::Close;
        }
        let is_full = node.presence.registration_count() >= node.limits.registrations
            && node.presence.find(target, Some(register.instance)).is_none();
        // A draining broker still serves sessions that exist, and their resumes have to find the Target.
        let is_leaving = !node.lifetime.phase().is_accepting() && register.role != RegistrationRole::RESUME;
        if is_full || is_leaving {
            return self.retry_after(RETRY_LATER);
        }
        if let Err(slot) = self.admit(target, register) {
            return self.retry_after(slot);
        }
        let claim = Claim::from(register);
        let cost_us = self.cost_us(register);
        let outcome =
            node.presence.register(target, claim, self.link_id, self.handle.clone(), cost_us, unix_ms());
        match outcome {
            Registering::Stands { claim, woken, superseded, replaced, evicted } => {
                woken.into_iter().for_each(wake);
                if let Some(replaced) = replaced {
                    replaced.link.close();
                }
                if let Some(evicted) = evicted {
                    evicted.link.close();
                    node.mesh.announce(node, target, &evicted.claim, News::Left);
                    let entry = node.event(Severity::Warn, "target.evicted").with_text("target", target);
                    node.record(entry.with_text("instance", evicted.claim.instance));
                }
                tell_superseded(node, target, &superseded, &claim);
                node.mesh.announce(node, target, &claim, News::Here { cost_us });
                node.mesh.tell_holders(node, target, &claim, cost_us);
                let entry = node.event(Severity::Info, "target.registered").with_text("target", target);
                node.record(entry.with_text("instance", claim.instance).with_text("role", claim.role));
                let (generation, role) = (claim.generation, claim.role);
                Reply::Send(Box::new(Registered { generation, role, ext: Ext::none() }.into()))
            }
            Registering::Superseded { by } => {
                let entry = node.event(Severity::Warn, "target.superseded").with_text("target", target);
                node.record(entry.with_text("instance", register.instance).with_text("by", by));
                let back_off_ms = millis(SUPERSEDED_BACK_OFF);
                Reply::Send(Box::new(Superseded { by, back_off_ms, ext: Ext::none() }.into()))
            }
            Registering::Stale { standing } => {
                let (generation, role) = (standing.generation, standing.role);
                Reply::Send(Box::new(Registered { generation, role, ext: Ext::none() }.into()))
            }
            Registering::Full => self.retry_after(RETRY_LATER),
        }
    }

    /// Whether it may register now; else when.
    fn admit(&self, target: &EndpointId, register: &Register) -> Result<(), Duration> {
        let node = self.node;
        let is_here = node.presence.find(target, Some(register.instance)).is_some();
        lock(&node.admission).admit_registration(target, register.role, is_here, node.now())
    }

    fn retry_after(&self, after: Duration) -> Reply {
        let alternates = self.node.alternates();
        let message = RetryAfter { after_ms: millis_up(after), alternates, ext: Ext::none() };
        Reply::Send(Box::new(message.into()))
    }

    fn unregister(&self, message: &Unregister) -> Reply {
        let Some(target) = self.target() else { return Reply::Close };
        let removed =
            self.node.presence.unregister(target, self.link_id, message.instance, message.generation);
        if let Some(removed) = removed {
            self.node.mesh.announce(self.node, target, &removed.claim, News::Left);
            let entry = self.node.event(Severity::Info, "target.left").with_text("target", target);
            self.node.record(entry.with_text("instance", removed.claim.instance));
        }
        Reply::Nothing
    }

    fn close_path(&self, message: &ClosePath) -> Reply {
        let (controller, target) = match self.peer {
            ControlPeer::Controller(id) => (Some(id), None),
            ControlPeer::Target(id) => (None, Some(id)),
            ControlPeer::TrafficManager(_) => return Reply::Close,
        };
        self.node.paths.stop_path(message.path_id, PathEnd::CLOSED, |request| {
            controller.is_none_or(|id| request.controller == *id)
                && target.is_none_or(|id| request.target == *id)
        });
        Reply::Nothing
    }
}

enum Reply {
    Nothing,
    Send(Box<Message>),
    Close,
}

/// Wakes a parked open; it may have given up meanwhile.
pub(crate) fn wake(sender: tokio::sync::oneshot::Sender<()>) {
    sender.send(()).unwrap_or_default();
}

/// Tells older instances here that a later one took their place.
pub(crate) fn tell_superseded(
    node: &Node,
    target: &EndpointId,
    superseded: &[Registration<ControlHandle>],
    by: &Claim,
) {
    for older in superseded {
        let back_off_ms = millis(SUPERSEDED_BACK_OFF);
        older.link.send(Superseded { by: by.instance, back_off_ms, ext: Ext::none() });
        let entry = node.event(Severity::Warn, "target.superseded").with_text("target", target);
        node.record(entry.with_text("instance", older.claim.instance).with_text("by", by.instance));
        node.mesh.announce(node, target, &older.claim, News::Here { cost_us: older.cost_us });
    }
}

/// Writes one message; `false` when the peer does not take it.
async fn write(stream: &mut MessageStream<Leg>, message: &Message) -> Result<bool, FramingError> {
    match timeout(WRITE_MAX, stream.send(message)).await {
        Ok(sent) => sent.map(|()| true),
        Err(_) => Ok(false),
    }
}

async fn close(stream: MessageStream<Leg>) -> Result<(), FramingError> {
    let (leg, _) = stream.into_inner();
    crate::relay::close(leg).await;
    Ok(())
}

/// A control link's peer as text.
pub(crate) fn peer_text(peer: &ControlPeer) -> String {
    format!("{}/{}", peer_role(peer), peer_name(peer))
}

/// The role of a control link's peer.
pub(crate) fn peer_role(peer: &ControlPeer) -> &'static str {
    match peer {
        ControlPeer::Controller(_) => "controller",
        ControlPeer::Target(_) => "target",
        ControlPeer::TrafficManager(_) => "traffic-manager",
    }
}

/// The id of a control link's peer.
pub(crate) fn peer_name(peer: &ControlPeer) -> &str {
    match peer {
        ControlPeer::Controller(id) | ControlPeer::Target(id) | ControlPeer::TrafficManager(id) => {
            id.as_str()
        }
    }
}
