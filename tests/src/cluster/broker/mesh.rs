//! Links between brokers: which stands, pings, announcements, gossip, and questions where a Target is.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use rc_broker::core::drain::hearers_behind;
use rc_broker::core::registry::Hint;
use rc_broker::core::search::Candidate;
use rc_broker::core::standing::Claim;
use rc_proto::Moment;
use rc_proto::mesh::{LinkClaim, LinkDecision, MemberHint};
use rc_proto::wire::message::{
    Announce, Drain, Hello, Here, Locate, Message, NotHere, Peers, Ping, Pong, Welcome,
};
use rc_proto::wire::{BrokerId, EndpointId, Ext, Incarnation};

use super::Broker;
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, ConnKind, Host};

/// A dial between brokers is given up after this.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Distance of two gossip messages.
const GOSSIP: Duration = Duration::from_secs(30);

/// A link that stands.
#[derive(Debug)]
pub(super) struct MeshLink {
    pub(super) peer: BrokerId,
    pub(super) incarnation: Incarnation,
    heard: Moment,
    pinged: Option<(u64, Moment)>,
    pub(super) round_trip: Duration,
    gossip: Moment,
}

/// Where a broker can be dialled.
pub(super) fn address(host: Host) -> SocketAddr {
    let number = match host {
        Host::Broker(number) | Host::Controller(number) | Host::Target(number) => number,
    };
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 443))
}

fn host_at(address: SocketAddr) -> Option<Host> {
    match address {
        SocketAddr::V4(v4) => {
            let [_, _, high, low] = v4.ip().octets();
            Some(Host::Broker(u16::from_be_bytes([high, low])))
        }
        SocketAddr::V6(_) => None,
    }
}

impl Broker {
    pub(super) fn greet_peer(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let hello = self.hello();
        ctx.tell(conn, self.host, hello);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "brokers send nothing else on a mesh link")]
    pub(super) fn handle_mesh(&mut self, ctx: &mut Ctx, conn: ConnId, message: Message) {
        let Some(peer) = ctx.net.peer(conn, self.host).and_then(|host| ctx.names.broker(host)) else {
            return;
        };
        if let Some(link) = self.links.mesh.get_mut(&conn) {
            link.heard = ctx.now;
        }
        match message {
            Message::Hello(hello) => self.peer_came(ctx, conn, &peer, &hello),
            Message::Welcome(welcome) => self.peer_answered(ctx, conn, &peer, &welcome),
            Message::Ping(ping) => {
                let pong = self.pong(ctx, ping.nonce);
                ctx.tell(conn, self.host, pong);
            }
            Message::Pong(pong) => self.measured(ctx, conn, &pong),
            Message::Announce(announce) => self.announced(ctx, conn, &announce),
            Message::Peers(peers) => {
                self.cores.members.handle_gossip(&peers.peers, ctx.now);
            }
            Message::Locate(locate) => self.answer_locate(ctx, conn, &locate),
            Message::Here(here) => self.located_here(ctx, &peer, &here),
            Message::NotHere(not_here) => self.located_not_here(ctx, &peer, &not_here),
            Message::Drain(drain) => self.peer_drains(ctx, &peer, &drain),
            _ => {}
        }
    }

    fn peer_came(&mut self, ctx: &mut Ctx, conn: ConnId, peer: &BrokerId, hello: &Hello) {
        let claim = LinkClaim { incarnation: hello.incarnation, dialled_by_peer: true };
        let hint = MemberHint { name: hello.name.clone(), addresses: hello.addresses.clone() };
        if self.take_link(ctx, conn, peer, claim, hint) {
            let welcome = Welcome {
                version: 1,
                features: 0,
                broker: self.id.clone(),
                incarnation: self.incarnation,
                name: String::new(),
                addresses: vec![address(self.host)],
                load: 0,
                keep_alive_ms: 15_000,
                reconnect_spread_ms: 0,
                alternates: Vec::new(),
                ext: Ext::none(),
            };
            ctx.tell(conn, self.host, welcome);
            self.introduce(ctx, conn);
        }
    }

    fn peer_answered(&mut self, ctx: &mut Ctx, conn: ConnId, peer: &BrokerId, welcome: &Welcome) {
        let Some((key, _)) = self.links.dials.remove(&conn) else { return };
        self.cores.dialling.handle_linked(&key, peer);
        let claim = LinkClaim { incarnation: welcome.incarnation, dialled_by_peer: false };
        let hint = MemberHint { name: welcome.name.clone(), addresses: welcome.addresses.clone() };
        if self.take_link(ctx, conn, peer, claim, hint) {
            self.introduce(ctx, conn);
        }
    }

    fn take_link(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        peer: &BrokerId,
        claim: LinkClaim,
        hint: MemberHint,
    ) -> bool {
        let decision = self.cores.members.handle_linked(peer, claim, hint, ctx.now);
        ctx.note(format_args!("{} link with {peer}: {decision:?}", self.id));
        match decision {
            LinkDecision::Keep => {}
            LinkDecision::ReplaceExisting => {
                let old: Vec<ConnId> = self.link_to(peer).map(|(conn, _)| conn).into_iter().collect();
                for conn in old {
                    if let Some(link) = self.links.mesh.remove(&conn)
                        && link.incarnation != claim.incarnation
                    {
                        self.cores.registry.peer_lost(peer);
                    }
                    ctx.close(conn, self.host);
                }
            }
            LinkDecision::CloseNew | LinkDecision::CloseOwn | LinkDecision::CloseOutdated => {
                ctx.close(conn, self.host);
                return false;
            }
        }
        let link = MeshLink {
            peer: peer.clone(),
            incarnation: claim.incarnation,
            heard: ctx.now,
            pinged: None,
            round_trip: Duration::from_millis(100),
            gossip: ctx.now,
        };
        self.links.mesh.insert(conn, link);
        true
    }

    fn introduce(&mut self, ctx: &mut Ctx, conn: ConnId) {
        for (target, registration) in self.cores.registry.registrations() {
            let message = self.announcement(&target, &registration.claim, true);
            ctx.tell(conn, self.host, message);
        }
    }

    fn announcement(&self, target: &EndpointId, claim: &Claim, present: bool) -> Announce {
        Announce {
            incarnation: self.incarnation,
            target: target.clone(),
            instance: claim.instance,
            instance_started_ms: claim.started_ms,
            generation: claim.generation,
            role: claim.role,
            present,
            ext: Ext::none(),
        }
    }

    pub(super) fn announce(&mut self, ctx: &mut Ctx, target: &EndpointId, claim: &Claim, present: bool) {
        let message = self.announcement(target, claim, present);
        for conn in self.links.mesh.keys() {
            ctx.tell(*conn, self.host, message.clone());
        }
    }

    pub(super) fn link_to(&self, peer: &BrokerId) -> Option<(ConnId, &MeshLink)> {
        self.links.mesh.iter().find(|(_, link)| link.peer == *peer).map(|(conn, link)| (*conn, link))
    }

    pub(super) fn peers_linked(&self) -> usize {
        self.links.mesh.len()
    }

    /// What peers announced, as candidates of a search: only where there is a link.
    pub(super) fn candidates(&self, hints: &[Hint]) -> Vec<Candidate> {
        let candidate = |hint: &Hint| {
            let (_, link) =
                self.link_to(&hint.broker).filter(|(_, link)| link.incarnation == hint.incarnation)?;
            let cost_us = u32::try_from(link.round_trip.as_micros()).unwrap_or(u32::MAX);
            Some(Candidate { broker: hint.broker.clone(), role: hint.claim.role, cost_us })
        };
        hints.iter().filter_map(candidate).collect()
    }

    fn measured(&mut self, ctx: &Ctx, conn: ConnId, pong: &Pong) {
        if let Some(link) = self.links.mesh.get_mut(&conn)
            && let Some((_, sent)) = link.pinged.take_if(|(nonce, _)| *nonce == pong.nonce)
        {
            link.round_trip = ctx.now.since(sent);
        }
    }

    fn announced(&mut self, ctx: &mut Ctx, conn: ConnId, announce: &Announce) {
        let Some(link) = self.links.mesh.get(&conn) else { return };
        if announce.incarnation != link.incarnation {
            return;
        }
        let claim = Claim::from(announce);
        let hint = Hint {
            broker: link.peer.clone(),
            incarnation: announce.incarnation,
            claim: claim.clone(),
            cost_us: announce.cost_us(),
        };
        if !announce.present {
            return self.cores.registry.hint_left(&announce.target, &hint);
        }
        let now_ms = ctx.unix_s() * 1000;
        let hinted = self.cores.registry.hint_came(&announce.target, hint, now_ms);
        self.heard_of(&announce.target, &claim);
        self.tell_superseded(ctx, &announce.target, &hinted.superseded, &claim);
        for moved in &hinted.moved {
            self.announce(ctx, &announce.target, &moved.claim, false);
        }
        self.wake(ctx, &hinted.woken);
    }

    fn answer_locate(&mut self, ctx: &mut Ctx, conn: ConnId, locate: &Locate) {
        let query = locate.query;
        match self.cores.registry.find(&locate.target, locate.instance) {
            Some(found) => {
                let (instance, role) = (found.claim.instance, found.claim.role);
                let here = Here { query, instance, role, cost_us: found.cost_us, ext: Ext::none() };
                ctx.tell(conn, self.host, here);
            }
            None => ctx.tell(conn, self.host, NotHere { query, ext: Ext::none() }),
        }
    }

    pub(super) fn mesh_lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let Some(link) = self.links.mesh.remove(&conn) else { return };
        ctx.note(format_args!("{} lost the link with {}", self.id, link.peer));
        self.cores.members.handle_link_lost(&link.peer, ctx.now);
        self.cores.registry.peer_lost(&link.peer);
        self.located_link_lost(ctx, &link.peer);
    }

    pub(super) fn tend_mesh(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        for conn in self.links.mesh.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.mesh.get_mut(&conn) else { continue };
            if now.since(link.heard) >= self.cores.timers.mesh_down {
                ctx.close(conn, self.host);
                self.mesh_lost(ctx, conn);
                continue;
            }
            let nonce = ctx.rng.random();
            link.pinged.get_or_insert((nonce, now));
            let due = now >= link.gossip;
            if due {
                link.gossip = now + GOSSIP.mul_f64(ctx.rng.random_range(0.8..1.2));
            }
            ctx.tell(conn, self.host, Ping { nonce, ext: Ext::none() });
            if due {
                let peers = self.cores.members.gossip(now);
                ctx.tell(conn, self.host, Peers { peers, ext: Ext::none() });
            }
        }
        self.cores.members.handle_timeout(now);
        self.tend_dials(ctx);
    }

    fn tend_dials(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        let late = |(_, since): &(_, Moment)| now.since(*since) >= DIAL_MAX;
        let over: Vec<ConnId> =
            self.links.dials.iter().filter(|(_, dial)| late(dial)).map(|(conn, _)| *conn).collect();
        for conn in over {
            if let Some((key, _)) = self.links.dials.remove(&conn) {
                self.cores.dialling.handle_failed(&key, &self.cores.members, now, &mut ctx.rng);
            }
            ctx.close(conn, self.host);
        }
        while let Some(dial) = self.cores.dialling.poll_dial(&self.cores.members, now) {
            match dial.addresses.first().copied().and_then(host_at) {
                Some(host) => {
                    let conn = ctx.dial(ConnKind::Mesh, self.host, host);
                    self.links.dials.insert(conn, (dial.key, now));
                }
                None => self.cores.dialling.handle_failed(&dial.key, &self.cores.members, now, &mut ctx.rng),
            }
        }
    }

    /// A peer stops, or a broker behind it does: the word goes on along each path that crosses it.
    fn peer_drains(&mut self, ctx: &mut Ctx, peer: &BrokerId, drain: &Drain) {
        if !drain.is_passed_on() {
            self.cores.members.handle_drain(peer);
        }
        let stops = drain.peer().unwrap_or_else(|| peer.clone());
        let hearers = hearers_behind(peer, &drain.slots, &self.requests());
        self.tell_drain(ctx, drain.deadline_ms, hearers, Some(&stops));
    }
}
