//! What is said on a mesh link once it stands: everything registered here first, then pings each second, answers,
//! announcements and gossip.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use rc_daemon::clock::unix_ms;
use rc_daemon::events::Severity;
use rc_proto::mesh::members::GOSSIP_INTERVAL;
use rc_proto::wire::message::{Announce, Here, Locate, Matrix, Message, NotHere, Peers, Ping, Pong};
use rc_proto::wire::{BrokerId, Ext, limits};
use rc_transport::{FramingError, Leg, MessageStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::locate::Answer;
use super::{PeerLink, announcement};
use crate::control::{tell_superseded, wake};
use crate::core::registry::Hint;
use crate::core::standing::Claim;
use crate::links::SharedNode;
use crate::node::{Node, lock, micros};

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
        let announced = tokio::select! {
            biased;
            () = close.cancelled() => return end(stream).await,
            announced = timeout(down_after * 4, self.introduce(&mut stream)) => announced,
        };
        let Ok(()) = announced.unwrap_or(Ok(())) else { return Ok(()) };
        let mut tick = interval(self.node.timers.mesh_ping);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gossip_at = next_gossip();
        let mut silent_until = Instant::now() + down_after;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // What was said before the stop, a Drain above all, still goes out.
                    while let Ok(message) = outbox.try_recv() {
                        if !write(&mut stream, &message, down_after).await? {
                            return Ok(());
                        }
                    }
                    return end(stream).await;
                }
                () = close.cancelled() => return end(stream).await,
                Some(message) = outbox.recv() => {
                    if !write(&mut stream, &message, down_after).await? {
                        return Ok(());
                    }
                }
                _ = tick.tick() => {
                    for message in self.periodic(&mut gossip_at) {
                        if !write(&mut stream, &message, down_after).await? {
                            return Ok(());
                        }
                    }
                }
                received = timeout_at(silent_until, stream.recv()) => {
                    let Ok(received) = received else { return Ok(()) };
                    let Some(message) = received? else { return end(stream).await };
                    silent_until = Instant::now() + down_after;
                    if let Some(reply) = self.answer(message)
                        && !write(&mut stream, &reply, down_after).await?
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Everything that the peer has to know first: the members, and what is registered here.
    async fn introduce(&self, stream: &mut MessageStream<Leg>) -> Result<(), FramingError> {
        stream.send(&self.peers().into()).await?;
        for (target, registration) in self.node.presence.registrations() {
            let message = announcement(self.node.own.incarnation, &target, &registration.claim, true);
            stream.send(&message.into()).await?;
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
            Message::Drain(_) => {
                lock(&node.mesh.state).members.handle_drain(self.peer);
                node.record(node.event(Severity::Info, "mesh.draining").with_text("peer", self.peer));
            }
            // Revocation lists and score reports are passed on by a later version; the table of roles lets no peer
            // send anything else on a mesh link.
            _ => {}
        }
        None
    }

    fn measured(&mut self, pong: &Pong) {
        self.link.load.store(pong.load.into(), Ordering::Relaxed);
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
        };
        if !announce.present {
            return node.presence.hint_left(&announce.target, &hint);
        }
        if node.presence.tracked_count() >= node.limits.announced_targets {
            return;
        }
        let claim = hint.claim.clone();
        let (woken, superseded) = node.presence.hint_came(&announce.target, hint, unix_ms());
        woken.into_iter().for_each(wake);
        tell_superseded(node, &announce.target, &superseded, &claim);
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

async fn write(
    stream: &mut MessageStream<Leg>,
    message: &Message,
    longest: Duration,
) -> Result<bool, FramingError> {
    match timeout(longest, stream.send(message)).await {
        Ok(sent) => sent.map(|()| true),
        Err(_) => Ok(false),
    }
}

async fn end(stream: MessageStream<Leg>) -> Result<(), FramingError> {
    crate::relay::close(stream.into_inner().0).await;
    Ok(())
}
