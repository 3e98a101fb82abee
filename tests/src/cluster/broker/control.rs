//! The control links of endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_broker::core::drain::{DrainCause, Hearer, Phase, own_hearers, slots};
use rc_broker::core::limits::reconnect_spread;
use rc_broker::core::paths::{PathRequest, PathState};
use rc_broker::core::registry::{LinkId, Registering, Registration};
use rc_broker::core::standing::Claim;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{
    Drain, Hello, Message, Pong, Register, Registered, RetryAfter, Superseded, Welcome,
};
use rc_proto::wire::{BrokerId, EndpointId, Ext, PathId};

use super::Broker;
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, Host};

/// When a Target that is one too many, or comes while this broker drains, may come again.
const RETRY_LATER_MS: u32 = 5_000;
/// First back-off of an instance that a later one superseded.
const SUPERSEDED_BACK_OFF_MS: u32 = 60_000;

impl Broker {
    #[expect(clippy::wildcard_enum_match_arm, reason = "endpoints send nothing else on a control link")]
    pub(super) fn handle_control(&mut self, ctx: &mut Ctx, conn: ConnId, message: Message) {
        let Some(peer) = ctx.net.peer(conn, self.host) else { return };
        let Some(endpoint) = ctx.names.endpoint(peer) else { return };
        if let Some((_, heard)) = self.links.control.get_mut(&conn) {
            *heard = ctx.now;
        }
        match message {
            Message::Hello(_) => {
                let is_target = matches!(peer, Host::Target(_));
                let hearer = if is_target { Hearer::Target(endpoint) } else { Hearer::Controller(endpoint) };
                self.links.control.insert(conn, (hearer, ctx.now));
                let welcome = self.welcome();
                ctx.tell(conn, self.host, welcome);
            }
            Message::Ping(ping) => {
                let pong = self.pong(ctx, ping.nonce);
                ctx.tell(conn, self.host, pong);
            }
            Message::Register(register) => self.register(ctx, conn, &endpoint, &register),
            Message::Unregister(message) => {
                let link = LinkId(conn.0);
                let removed =
                    self.cores.registry.unregister(&endpoint, link, message.instance, message.generation);
                if let Some(removed) = removed {
                    self.announce(ctx, &endpoint, &removed.claim, false);
                }
            }
            Message::ClosePath(close) => self.close_path(ctx, close.path_id),
            _ => {}
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            version: 1,
            features: 0,
            broker: self.id.clone(),
            incarnation: self.incarnation,
            name: String::new(),
            addresses: Vec::new(),
            load: 0,
            keep_alive_ms: 15_000,
            reconnect_spread_ms: u32::try_from(
                reconnect_spread(self.cores.registry.registration_count()).as_millis(),
            )
            .unwrap_or(u32::MAX),
            alternates: self.alternates(),
            ext: Ext::none(),
        }
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            versions: (1, 1),
            features: 0,
            incarnation: self.incarnation,
            name: String::new(),
            addresses: vec![super::mesh::address(self.host)],
            ext: Ext::none(),
        }
    }

    pub(super) fn pong(&self, ctx: &Ctx, nonce: u64) -> Pong {
        Pong {
            nonce,
            broker: self.id.clone(),
            incarnation: self.incarnation,
            load: 0,
            paths: u32::try_from(self.cores.table.len()).unwrap_or(u32::MAX),
            accepting: self.cores.phase.is_accepting(),
            drain_deadline_ms: self.cores.phase.deadline_ms(ctx.now),
            mesh_healthy: self.cores.members.is_healthy(ctx.now),
            ext: Ext::none(),
        }
    }

    pub(super) fn alternates(&self) -> Vec<(BrokerId, String)> {
        self.cores.members.linked().map(|(id, _)| (id.clone(), String::new())).collect()
    }

    fn register(&mut self, ctx: &mut Ctx, conn: ConnId, target: &EndpointId, register: &Register) {
        let is_leaving = !self.cores.phase.is_accepting() && register.role != RegistrationRole::RESUME;
        if is_leaving {
            return self.retry_later(ctx, conn);
        }
        let claim = Claim::from(register);
        let now_ms = ctx.unix_s() * 1000;
        let outcome = self.cores.registry.register(target, claim.clone(), LinkId(conn.0), conn, 0, now_ms);
        ctx.note(format_args!("{} register {} {}: {}", self.id, target, register.role, naming(&outcome)));
        match outcome {
            Registering::Stands { claim, woken, superseded, replaced, evicted } => {
                self.heard_of(target, &claim);
                if let Some(replaced) = replaced {
                    self.close_control(ctx, replaced.link);
                }
                if let Some(evicted) = evicted {
                    self.announce(ctx, target, &evicted.claim, false);
                    self.close_control(ctx, evicted.link);
                }
                self.tell_superseded(ctx, target, &superseded, &claim);
                self.announce(ctx, target, &claim, true);
                let (generation, role) = (claim.generation, claim.role);
                ctx.tell(conn, self.host, Registered { generation, role, ext: Ext::none() });
                self.wake(ctx, &woken);
            }
            Registering::Superseded { by } => {
                let back_off_ms = SUPERSEDED_BACK_OFF_MS;
                ctx.tell(conn, self.host, Superseded { by, back_off_ms, ext: Ext::none() });
            }
            Registering::Stale { standing } => {
                let (generation, role) = (standing.generation, standing.role);
                ctx.tell(conn, self.host, Registered { generation, role, ext: Ext::none() });
            }
            Registering::Full => self.retry_later(ctx, conn),
        }
    }

    fn retry_later(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let alternates = self.alternates();
        ctx.tell(conn, self.host, RetryAfter { after_ms: RETRY_LATER_MS, alternates, ext: Ext::none() });
    }

    /// A claim that this broker has taken: from now on no older instance is invited for a new session.
    pub(super) fn heard_of(&mut self, target: &EndpointId, claim: &Claim) {
        if claim.role == RegistrationRole::RESUME {
            return;
        }
        let latest = self.latest.entry(target.clone()).or_insert((claim.started_ms, claim.instance));
        *latest = (*latest).max((claim.started_ms, claim.instance));
    }

    pub(super) fn tell_superseded(
        &mut self,
        ctx: &mut Ctx,
        target: &EndpointId,
        superseded: &[Registration<ConnId>],
        by: &Claim,
    ) {
        for older in superseded {
            let back_off_ms = SUPERSEDED_BACK_OFF_MS;
            ctx.tell(older.link, self.host, Superseded { by: by.instance, back_off_ms, ext: Ext::none() });
            self.announce(ctx, target, &older.claim, true);
        }
    }

    fn close_control(&mut self, ctx: &mut Ctx, conn: ConnId) {
        ctx.close(conn, self.host);
        self.control_lost(ctx, conn);
    }

    pub(super) fn control_lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let Some((hearer, _)) = self.links.control.remove(&conn) else { return };
        let Hearer::Target(endpoint) = hearer else { return };
        let departed = self.cores.registry.link_lost(&endpoint, LinkId(conn.0));
        for registration in &departed.registrations {
            ctx.note(format_args!("{} lost the registration of {endpoint}", self.id));
            self.announce(ctx, &endpoint, &registration.claim, false);
        }
        drop(departed);
    }

    /// Links that said nothing for too long are closed.
    pub(super) fn tend_control(&mut self, ctx: &mut Ctx) {
        let silence = self.cores.timers.control_silence;
        let silent = |(_, heard): &(Hearer, _)| ctx.now.since(*heard) >= silence;
        let over: Vec<ConnId> =
            self.links.control.iter().filter(|(_, link)| silent(link)).map(|(conn, _)| *conn).collect();
        for conn in over {
            self.close_control(ctx, conn);
        }
    }

    /// Starts to drain: everybody with a path here is told when to move, and where.
    pub(in crate::cluster) fn drain(&mut self, ctx: &mut Ctx, within: Duration) {
        self.cores.phase = Phase::Draining { deadline: ctx.now + within, cause: DrainCause::Request };
        self.empty_since = self.cores.table.is_empty().then_some(ctx.now);
        let paths = self.requests();
        let ids: Vec<PathId> = paths.iter().map(|(request, _)| request.path).collect();
        let slots = slots(&ids, within, self.cores.timers.drain_spread, &mut ctx.rng).into_iter().collect();
        let mut hearers = own_hearers(&paths, &slots);
        // Who has no path here is told too.
        let peers = self.links.mesh.values().map(|link| Hearer::Peer(link.peer.clone()));
        for hearer in self.links.control.values().map(|(hearer, _)| hearer.clone()).chain(peers) {
            hearers.entry(hearer).or_default();
        }
        let deadline_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        ctx.note(format_args!("{} drains, {} paths", self.id, ids.len()));
        self.tell_drain(ctx, deadline_ms, hearers, None);
    }

    /// Every path with the broker that it leads to.
    pub(super) fn requests(&self) -> Vec<(PathRequest, Option<BrokerId>)> {
        let to = |state: &PathState| match state {
            PathState::Open { to, .. } => to.clone(),
            PathState::Opening => None,
        };
        self.cores.table.entries().map(|entry| (entry.request.clone(), to(&entry.state))).collect()
    }

    /// Tells each hearer its slots; `peer` is the broker that stops, unless it is this one.
    pub(super) fn tell_drain(
        &mut self,
        ctx: &mut Ctx,
        deadline_ms: u32,
        hearers: BTreeMap<Hearer, Vec<(PathId, u32)>>,
        peer: Option<&BrokerId>,
    ) {
        let mut alternates = self.alternates();
        alternates.retain(|(broker, _)| Some(broker) != peer);
        for (hearer, slots) in hearers {
            let control = self.links.control.iter().filter(|(_, (known, _))| *known == hearer);
            let mesh = self.links.mesh.iter().filter(|(_, link)| Hearer::Peer(link.peer.clone()) == hearer);
            let conns: Vec<ConnId> =
                control.map(|(conn, _)| *conn).chain(mesh.map(|(conn, _)| *conn)).collect();
            for conn in conns {
                let alternates = alternates.clone();
                let drain = Drain { deadline_ms, alternates, slots: slots.clone(), ext: Ext::none() };
                let drain = peer.map_or(drain.clone(), |peer| drain.of_peer(peer));
                ctx.tell(conn, self.host, drain);
            }
        }
    }
}

fn naming<L, P>(outcome: &Registering<L, P>) -> &'static str {
    match outcome {
        Registering::Stands { .. } => "stands",
        Registering::Superseded { .. } => "superseded",
        Registering::Stale { .. } => "stale",
        Registering::Full => "full",
    }
}
