//! What is said on a mesh link once it stands: pings each second, answers, announcements and gossip, and between
//! them what is registered here already.

use std::sync::atomic::Ordering;

use rand::Rng;
use rc_daemon::clock::unix_ms;
use rc_daemon::events::Severity;
use rc_proto::mesh::members::GOSSIP_INTERVAL;
use rc_proto::wire::message::{Announce, Here, Locate, Matrix, Message, NotHere, Peers, Ping, Pong};
use rc_proto::wire::{BrokerId, EndpointId, Ext, limits};
use rc_transport::{Exchange, FramingError, Leg, MessageStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::locate::Answer;
use super::{News, PeerLink, announcement, directory};
use crate::control::{tell_superseded, wake};
use crate::core::alternates::PeerReport;
use crate::core::directory::audience;
use crate::core::registry::{Hint, Registration};
use crate::core::standing::Claim;
use crate::draining;
use crate::links::{ControlHandle, SharedNode};
use crate::node::{Node, lock, micros};

/// Registrations that are announced at once to a peer that has just been linked.
const INTRODUCED_AT_ONCE: usize = 64;
/// Unsent bytes beyond which messages wait in the queue.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;
/// Unsent bytes beyond which a peer is too far behind: it asks more than it reads.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// Pings between two rows of the matrix.
const PINGS_PER_ROW: u64 = 10;

/// One link in conversation with its peer.
pub(super) struct Running<'n> {
    pub(super) node: &'n SharedNode,
    pub(super) peer: &'n BrokerId,
    pub(super) link: &'n PeerLink,
    /// The ping that is on its way.
    pub(super) ping: Option<(u64, Instant)>,
    pub(super) pings: u64,
}

impl Running<'_> {
    /// Talks until the link ends.
    pub(super) async fn serve(
        &mut self,
        mut stream: MessageStream<Leg>,
        mut outbox: mpsc::Receiver<Message>,
        close: &CancellationToken,
    ) -> Result<(), FramingError> {
        let down_after = self.node.timers.mesh_down;
        let stop = self.node.lifetime.stop.clone();
        stream.enqueue(&self.peers().into())?;
        let mut introduction = self.node.presence.registrations().into_iter();
        let mut tick = interval(self.node.timers.mesh_ping);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gossip_at = next_gossip();
        let mut silent_until = Instant::now() + down_after;
        let mut stuck_at = Instant::now() + down_after;
        let mut unsent = stream.unsent_bytes();
        loop {
            // Progress of the writing, or nothing to write: the peer reads.
            if stream.is_all_sent() || stream.unsent_bytes() < unsent {
                stuck_at = Instant::now() + down_after;
            }
            unsent = stream.unsent_bytes();
            if unsent > UNSENT_BYTES_MAX {
                return Ok(());
            }
            if stream.is_all_sent() && outbox.is_empty() {
                self.introduce(&mut stream, &mut introduction)?;
                unsent = stream.unsent_bytes();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // What was said before the stop, a Drain above all, still goes out.
                    while let Ok(message) = outbox.try_recv() {
                        stream.enqueue(&message)?;
                    }
                    drop(timeout(down_after, write_out(&mut stream)).await);
                    return end(stream).await;
                }
                () = close.cancelled() => return end(stream).await,
                Some(message) = outbox.recv(), if unsent < OUTBOX_BYTES_MAX => stream.enqueue(&message)?,
                _ = tick.tick() => {
                    for message in self.periodic(&mut gossip_at) {
                        stream.enqueue(&message)?;
                    }
                }
                exchanged = timeout_at(silent_until.min(stuck_at), stream.exchange()) => match exchanged {
                    Err(_) => return Ok(()),
                    Ok(exchanged) => match exchanged? {
                        Exchange::Sent => {}
                        Exchange::Received(None) => return end(stream).await,
                        Exchange::Received(Some(message)) => {
                            silent_until = Instant::now() + down_after;
                            if let Some(reply) = self.answer(*message) {
                                stream.enqueue(&reply)?;
                            }
                        }
                    },
                },
            }
        }
    }

    /// The next of what is registered here, which the peer has to know: little at a time, when there is nothing else
    /// to say. What has left meanwhile is left out.
    fn introduce(
        &self,
        stream: &mut MessageStream<Leg>,
        registrations: &mut impl Iterator<Item = (EndpointId, Registration<ControlHandle>)>,
    ) -> Result<(), FramingError> {
        let presence = &self.node.presence;
        let everybody = self.node.mesh.spread_over();
        for (target, known) in registrations.by_ref().take(INTRODUCED_AT_ONCE) {
            if !audience(&self.node.own.id, &everybody, &target).contains(self.peer) {
                continue;
            }
            let Some(now) = presence.find(&target, Some(known.claim.instance)) else { continue };
            let message = announcement(
                self.node.own.incarnation,
                &target,
                &now.claim,
                News::Here { cost_us: now.cost_us },
            );
            stream.enqueue(&message.into())?;
        }
        Ok(())
    }

    fn peers(&self) -> Peers {
        let peers = lock(&self.node.mesh.state).members.gossip(self.node.now());
        Peers { peers, ext: Ext::none() }
    }

    fn periodic(&mut self, gossip_at: &mut Instant) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.ping.is_none_or(|(_, sent)| sent.elapsed() >= self.node.timers.mesh_ping) {
            let nonce = rand::rng().random();
            self.ping = Some((nonce, Instant::now()));
            messages.push(Ping { nonce, ext: Ext::none() }.into());
        }
        self.pings += 1;
        if self.pings % PINGS_PER_ROW == 2 {
            let mut round_trips = self.node.mesh.own_row();
            round_trips.truncate(limits::MATRIX_ENTRIES_MAX);
            let now = self.node.now();
            lock(&self.node.mesh.state).matrix.handle_row(&self.node.own.id, &round_trips, now);
            messages.push(Matrix { round_trips, ext: Ext::none() }.into());
        }
        if Instant::now() >= *gossip_at {
            *gossip_at = next_gossip();
            messages.push(self.peers().into());
        }
        messages
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the table of roles admits nothing else")]
    fn answer(&mut self, message: Message) -> Option<Message> {
        let node = self.node;
        match message {
            Message::Ping(ping) => return Some(node.pong(ping.nonce).into()),
            Message::Pong(pong) => self.measured(&pong),
            Message::Locate(locate) if locate.is_of_directory() => {
                return Some(directory::answer(node, &locate));
            }
            Message::Locate(locate) => return Some(answer_locate(node, &locate)),
            Message::Here(here) => {
                let query = here.query;
                node.mesh.queries.answer(query, self.peer, Answer::Here(Box::new(here)));
            }
            Message::NotHere(not_here) => {
                node.mesh.queries.answer(not_here.query, self.peer, Answer::NotHere);
            }
            Message::Announce(announce) => self.announced(&announce),
            Message::Peers(peers) => {
                let found = lock(&node.mesh.state).members.handle_gossip(&peers.peers, node.now());
                if !found.is_empty() {
                    node.mesh.changed.notify_one();
                }
            }
            Message::Matrix(matrix) => {
                let now = node.now();
                lock(&node.mesh.state).matrix.handle_row(self.peer, &matrix.round_trips, now);
            }
            Message::Drain(drain) => {
                if !drain.is_passed_on() && lock(&node.mesh.state).members.handle_drain(self.peer) {
                    node.record(node.event(Severity::Info, "mesh.draining").with_text("peer", self.peer));
                    node.mesh.tell_heirs(node, self.peer);
                }
                draining::pass_on(node, self.peer, &drain);
            }
            // Revocation lists and score reports are passed on by a later version; the table of roles lets no peer
            // send anything else on a mesh link.
            _ => {}
        }
        None
    }

    fn measured(&mut self, pong: &Pong) {
        *lock(&self.link.report) =
            PeerReport { load: pong.load, accepting: pong.accepting, mesh_healthy: pong.mesh_healthy };
        let Some((nonce, sent)) = self.ping else { return };
        if nonce != pong.nonce {
            return;
        }
        self.ping = None;
        let sample = micros(sent.elapsed()).max(1);
        let smoothed = match self.link.round_trip_us() {
            // The first ping weighs all: a handshake's round trip has the cryptography in it.
            _ if self.pings <= 1 => sample,
            old => (old / 8 * 7).saturating_add(sample / 8).max(1),
        };
        self.link.round_trip_us.store(smoothed, Ordering::Relaxed);
    }

    fn announced(&self, announce: &Announce) {
        let node = self.node;
        if announce.incarnation != self.link.incarnation {
            return;
        }
        let hint = Hint {
            broker: self.peer.clone(),
            incarnation: announce.incarnation,
            claim: Claim::from(announce),
            cost_us: announce.cost_us(),
        };
        if !announce.present {
            return node.presence.hint_left(&announce.target, &hint);
        }
        if node.presence.tracked_count() >= node.limits.announced_targets {
            return;
        }
        let claim = hint.claim.clone();
        let hinted = node.presence.hint_came(&announce.target, hint, unix_ms());
        hinted.woken.into_iter().for_each(wake);
        tell_superseded(node, &announce.target, &hinted.superseded, &claim);
        for moved in &hinted.moved {
            node.mesh.announce(node, &announce.target, &moved.claim, News::Left);
        }
    }
}

fn answer_locate(node: &Node, locate: &Locate) -> Message {
    match node.presence.find(&locate.target, locate.instance) {
        Some(found) => Here {
            query: locate.query,
            instance: found.claim.instance,
            role: found.claim.role,
            cost_us: found.cost_us,
            ext: Ext::none(),
        }
        .into(),
        None => NotHere { query: locate.query, ext: Ext::none() }.into(),
    }
}

fn next_gossip() -> Instant {
    Instant::now() + GOSSIP_INTERVAL.mul_f64(rand::rng().random_range(0.8..1.2))
}

/// Sends what is queued; what comes meanwhile is of no more interest.
async fn write_out(stream: &mut MessageStream<Leg>) -> Result<(), FramingError> {
    while !stream.is_all_sent() {
        if let Exchange::Received(None) = stream.exchange().await? {
            break;
        }
    }
    Ok(())
}

async fn end(stream: MessageStream<Leg>) -> Result<(), FramingError> {
    crate::relay::close(stream.into_inner().0).await;
    Ok(())
}
