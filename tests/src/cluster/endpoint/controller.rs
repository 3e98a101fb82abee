//! The Controller's driver.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::session::sim::End;
use rc_proto::session::{PathKey, Session, SessionConfig, SessionEvent};
use rc_proto::wire::codes::{Lane, Purpose, RepathReason};
use rc_proto::wire::message::{Drain, Message, OpenPath};
use rc_proto::wire::{BrokerId, EndpointId, Ext, InstanceId, PathId, SessionId};

use super::keeper::{Keeper, KeeperEvent};
use super::planner::{Order, Planner};
use super::seat::Seat;
use super::tls::{Said, Tls};
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, ConnKind, Host, Payload, Record, RecordBody};

/// From the dial to the end of the end-to-end handshake.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);

/// A path that is on its way, or carries the session.
struct Leg {
    session: SessionId,
    key: PathKey,
    path_id: PathId,
    purpose: Purpose,
    lane: Lane,
    via: Host,
    began: Moment,
    /// Not yet handed to the session.
    tls: Option<Tls>,
    /// The planner has not been told how it went.
    is_pending: bool,
}

/// A session and what opens its paths.
pub(in crate::cluster) struct Driven {
    pub(in crate::cluster) seat: Seat,
    planner: Planner,
    target: EndpointId,
    instance: Option<InstanceId>,
    ticket: String,
    place: Vec<BrokerId>,
    over: Option<Moment>,
}

/// A Controller with its links and sessions.
pub(in crate::cluster) struct Controller {
    pub(in crate::cluster) host: Host,
    pub(in crate::cluster) keeper: Keeper,
    instance: InstanceId,
    pub(in crate::cluster) sessions: BTreeMap<SessionId, Driven>,
    legs: BTreeMap<ConnId, Leg>,
    next_key: u64,
}

impl Controller {
    pub(in crate::cluster) fn new(ctx: &mut Ctx, host: Host, id: EndpointId) -> Self {
        let instance = InstanceId(ctx.rng.random());
        let keeper = Keeper::new(ctx, host, id, None);
        Self { host, keeper, instance, sessions: BTreeMap::new(), legs: BTreeMap::new(), next_key: 1 }
    }

    /// Starts a session with `target`, by a ticket of its own.
    pub(in crate::cluster) fn start(
        &mut self,
        ctx: &mut Ctx,
        target: &EndpointId,
        ticket: String,
        config: SessionConfig,
    ) -> SessionId {
        let id = SessionId(ctx.rng.random());
        let session = Session::controller(config, id, self.instance, ctx.now);
        let driven = Driven {
            seat: Seat::new(id, End::Controller, session),
            planner: Planner::default(),
            target: target.clone(),
            instance: None,
            ticket,
            place: Vec::new(),
            over: None,
        };
        self.sessions.insert(id, driven);
        ctx.oracle.counts.sessions += 1;
        self.plan(ctx, id);
        id
    }

    pub(in crate::cluster) fn poll_timeout(&self, now: Moment) -> Moment {
        let mut earliest = self.keeper.poll_timeout();
        for driven in self.sessions.values() {
            let status = driven.seat.session.status();
            for at in [driven.seat.session.poll_timeout(), driven.planner.poll_timeout(&status, now)] {
                earliest = at.map_or(earliest, |at| earliest.min(at));
            }
        }
        let pending = self.legs.values().filter(|leg| leg.is_pending).map(|leg| leg.began + ATTEMPT_MAX);
        pending.fold(earliest, Moment::min)
    }

    pub(in crate::cluster) fn handle_timeout(&mut self, ctx: &mut Ctx) {
        self.keeper.handle_timeout(ctx);
        let late = |leg: &Leg| leg.is_pending && ctx.now.since(leg.began) >= ATTEMPT_MAX;
        let late: Vec<ConnId> =
            self.legs.iter().filter(|(_, leg)| late(leg)).map(|(conn, _)| *conn).collect();
        for conn in late {
            ctx.close(conn, self.host);
            self.leg_ended(ctx, conn);
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(driven) = self.sessions.get_mut(&id) else { continue };
            if driven.seat.session.poll_timeout().is_some_and(|at| at <= ctx.now) {
                driven.seat.session.handle_timeout(ctx.now);
            }
            self.settle(ctx, id);
        }
        self.forget_over(ctx);
    }

    /// A session that is over is kept for 30 s, to answer a repeated END.
    fn forget_over(&mut self, ctx: &mut Ctx) {
        let (host, now) = (self.host, ctx.now);
        for driven in self.sessions.values_mut() {
            if driven.over.is_some_and(|since| now.since(since) >= Duration::from_secs(30)) {
                for key in driven.seat.paths.keys().copied().collect::<Vec<_>>() {
                    driven.seat.lose(ctx, host, key);
                }
            }
        }
    }

    pub(in crate::cluster) fn handle_established(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.keeper.owns(conn) {
            return self.keeper.handle_established(ctx, conn);
        }
        let Some(leg) = self.legs.get_mut(&conn) else { return };
        let Some(driven) = self.sessions.get(&leg.session) else { return };
        let is_new = matches!(leg.purpose, Purpose::NEW);
        let via = ctx.names.broker(leg.via);
        let route = driven.place.first().filter(|place| Some(*place) != via.as_ref() && !is_new);
        let open = OpenPath {
            path_id: leg.path_id,
            target: driven.target.clone(),
            ticket: driven.ticket.clone(),
            purpose: leg.purpose,
            lane: leg.lane,
            instance: driven.instance.filter(|_| !is_new),
            route: route.into_iter().cloned().collect(),
            avoid: Vec::new(),
            deadline_ms: 8_000,
            ext: Ext::none(),
        };
        let hello = leg.tls.as_mut().map(|tls| tls.seal(RecordBody::ClientHello));
        ctx.tell(conn, self.host, open);
        if let Some(hello) = hello {
            ctx.send(conn, self.host, Payload::Record(hello));
        }
    }

    pub(in crate::cluster) fn handle_message(&mut self, ctx: &mut Ctx, conn: ConnId, message: Message) {
        let message = if self.keeper.owns(conn) {
            let rest = self.keeper.handle_message(ctx, conn, message);
            self.take_keeper_events(ctx);
            rest
        } else {
            Some(message)
        };
        match message {
            Some(Message::PathFailed(failed)) => {
                let wait =
                    (failed.retry_after_ms > 0).then(|| Duration::from_millis(failed.retry_after_ms.into()));
                ctx.note(format_args!("{:?} path failed: {}", self.host, failed.code));
                ctx.close(conn, self.host);
                self.attempt_failed(ctx, conn, wait);
            }
            Some(Message::Drain(drain)) => self.drained(ctx, &drain),
            _ => {}
        }
    }

    fn drained(&mut self, ctx: &mut Ctx, drain: &Drain) {
        for (path, slot) in &drain.slots {
            let leg = self.legs.values().find(|leg| leg.path_id == *path);
            let Some(leg) = leg else { continue };
            let (session, at) = (leg.session, ctx.now + Duration::from_millis((*slot).into()));
            if let Some(driven) = self.sessions.get_mut(&session) {
                driven.planner.move_at(at);
            }
        }
        if let Some(host) = drain.peer().and_then(|peer| ctx.names.host(&peer)) {
            self.keeper.shun(host, ctx.now);
        }
    }

    pub(in crate::cluster) fn handle_record(&mut self, ctx: &mut Ctx, conn: ConnId, record: Record) {
        let Some(leg) = self.legs.get_mut(&conn) else { return };
        let id = leg.session;
        let Some(driven) = self.sessions.get_mut(&id) else { return };
        let said = match (&mut leg.tls, driven.seat.paths.get_mut(&leg.key)) {
            (Some(tls), _) | (None, Some((_, tls))) => tls.open(record),
            (None, None) => return,
        };
        match said {
            Ok(Said::Up) => self.path_is_up(ctx, conn),
            Ok(Said::Bytes(bytes)) => {
                let key = leg.key;
                if driven.seat.session.handle_bytes(key, &bytes, ctx.now).is_err() {
                    ctx.note(format_args!("{:?} gives path {} up", self.host, key.0));
                    driven.seat.close(ctx, self.host, key);
                    self.legs.remove(&conn);
                }
            }
            Ok(Said::Hello) | Err(_) => {
                ctx.note(format_args!("{:?} got a bad record", self.host));
                ctx.close(conn, self.host);
                self.leg_ended(ctx, conn);
            }
        }
        self.settle(ctx, id);
    }

    fn path_is_up(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let Some(leg) = self.legs.get_mut(&conn) else { return };
        let Some(driven) = self.sessions.get_mut(&leg.session) else { return };
        let Some(tls) = leg.tls.take() else { return };
        let purpose = match leg.purpose {
            Purpose::NEW if driven.instance.is_some() => Purpose::RESUME,
            other => other,
        };
        let ticket = driven.ticket.clone();
        match driven.seat.session.attach(leg.key, purpose, leg.lane, ticket, ctx.now) {
            Ok(epoch) => {
                ctx.note(format_args!("{:?} attaches path {} with epoch {epoch}", self.host, leg.key.0));
                driven.seat.paths.insert(leg.key, (conn, tls));
            }
            Err(_) => {
                ctx.close(conn, self.host);
                self.leg_ended(ctx, conn);
            }
        }
    }

    pub(in crate::cluster) fn handle_writable(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if let Some(id) = self.legs.get(&conn).map(|leg| leg.session) {
            self.settle(ctx, id);
        }
    }

    pub(in crate::cluster) fn handle_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.keeper.owns(conn) {
            self.keeper.handle_ended(ctx, conn);
            self.take_keeper_events(ctx);
        } else {
            self.leg_ended(ctx, conn);
        }
    }

    fn leg_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let Some((id, via)) = self.legs.get(&conn).map(|leg| (leg.session, leg.via)) else { return };
        self.keeper.shun(via, ctx.now);
        self.attempt_failed(ctx, conn, None);
        let Some(driven) = self.sessions.get_mut(&id) else { return };
        if let Some(key) = driven.seat.key_of(conn) {
            driven.seat.lose(ctx, self.host, key);
        }
        self.settle(ctx, id);
    }

    /// A leg that led to nothing, or carried the session and is gone.
    fn attempt_failed(&mut self, ctx: &mut Ctx, conn: ConnId, wait: Option<Duration>) {
        let Some(leg) = self.legs.remove(&conn) else { return };
        let Some(driven) = self.sessions.get_mut(&leg.session) else { return };
        if leg.is_pending {
            driven.planner.over(leg.lane, false, wait, ctx.now, &mut ctx.rng);
        }
        self.settle(ctx, leg.session);
    }

    fn take_keeper_events(&mut self, ctx: &mut Ctx) {
        while let Some(event) = self.keeper.poll_event() {
            if let KeeperEvent::Lost(broker) = event {
                ctx.note(format_args!("{:?} lost its link to {broker:?}", self.host));
            }
        }
    }

    /// After anything that may have moved a session: events, what it has to send, what is to be opened.
    pub(in crate::cluster) fn settle(&mut self, ctx: &mut Ctx, id: SessionId) {
        loop {
            let Some(driven) = self.sessions.get_mut(&id) else { return };
            let Some(event) = driven.seat.session.poll_event() else { break };
            if let Some(event) = driven.seat.handle_event(ctx, self.host, event) {
                self.handle_event(ctx, id, event);
            }
        }
        if let Some(driven) = self.sessions.get_mut(&id) {
            driven.seat.transmit(ctx, self.host);
        }
        self.forget_gone(ctx, id);
        self.plan(ctx, id);
    }

    /// Forgets legs that the session has given back.
    fn forget_gone(&mut self, ctx: &mut Ctx, id: SessionId) {
        let Some(driven) = self.sessions.get_mut(&id) else { return };
        for (_, leg) in self.legs.extract_if(.., |conn, leg| {
            leg.session == id && leg.tls.is_none() && driven.seat.key_of(*conn).is_none()
        }) {
            if leg.is_pending {
                driven.planner.over(leg.lane, false, None, ctx.now, &mut ctx.rng);
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest moves nothing here")]
    fn handle_event(&mut self, ctx: &mut Ctx, id: SessionId, event: SessionEvent) {
        let Some(driven) = self.sessions.get_mut(&id) else { return };
        match event {
            SessionEvent::Attached { path, .. } => {
                let conn = driven.seat.paths.get(&path).map(|(conn, _)| *conn);
                if let Some(leg) = conn.and_then(|conn| self.legs.get_mut(&conn))
                    && std::mem::take(&mut leg.is_pending)
                {
                    driven.planner.over(leg.lane, true, None, ctx.now, &mut ctx.rng);
                }
            }
            SessionEvent::RefusedByPeer { path, refused } => {
                ctx.note(format_args!("{:?} refused: {}", self.host, refused.code));
                if let Some((conn, _)) = driven.seat.paths.remove(&path) {
                    ctx.close(conn, self.host);
                    self.attempt_failed(ctx, conn, None);
                }
            }
            SessionEvent::Dead(path) => {
                let gone = self.legs.values().find(|leg| leg.key == path && leg.session == id);
                if let Some(via) = gone.map(|leg| leg.via) {
                    self.keeper.shun(via, ctx.now);
                }
            }
            SessionEvent::Suspect(path) => {
                ctx.note(format_args!("{:?} suspects path {}", self.host, path.0));
                let via =
                    self.legs.values().find(|leg| leg.key == path && leg.session == id).map(|leg| leg.via);
                if let Some(via) = via {
                    self.keeper.shun(via, ctx.now);
                }
            }
            SessionEvent::RepathWanted { reason, .. } => {
                let wait = if reason == RepathReason::SUSPECT { 0 } else { ctx.rng.random_range(0..500) };
                driven.planner.move_at(ctx.now + Duration::from_millis(wait));
            }
            SessionEvent::Where(place) => {
                driven.instance = Some(place.instance);
                driven.place = place.places.iter().map(|(broker, _, _)| broker.clone()).collect();
            }
            SessionEvent::Ended { .. } | SessionEvent::Aborted { .. } => driven.over = Some(ctx.now),
            _ => {}
        }
    }

    fn plan(&mut self, ctx: &mut Ctx, id: SessionId) {
        loop {
            let Some(driven) = self.sessions.get_mut(&id) else { return };
            let status = driven.seat.session.status();
            let Some((purpose, lane)) = driven.planner.wish(&status, ctx.now) else { return };
            let bound = status.paths.iter().find(|path| path.bound).map(|path| path.path);
            let current = self.legs.values().find(|leg| Some(leg.key) == bound && leg.session == id);
            let current = current.map(|leg| leg.via);
            let brokers = self.keeper.ranked(ctx);
            let Some(via) = driven.planner.choose(&brokers, current) else { return };
            let order = Order { purpose, lane, via };
            self.open(ctx, id, &order);
        }
    }

    fn open(&mut self, ctx: &mut Ctx, id: SessionId, order: &Order) {
        let Some(driven) = self.sessions.get_mut(&id) else { return };
        driven.planner.began(order.lane, ctx.now);
        let key = PathKey(self.next_key);
        self.next_key += 1;
        let leg = Leg {
            session: id,
            key,
            path_id: PathId(ctx.rng.random()),
            purpose: order.purpose,
            lane: order.lane,
            via: order.via,
            began: ctx.now,
            tls: Some(Tls::client(ctx.rng.random())),
            is_pending: true,
        };
        ctx.note(format_args!("{:?} opens {} for {} via {:?}", self.host, leg.path_id, leg.purpose, leg.via));
        let conn = ctx.dial(ConnKind::Leg, self.host, order.via);
        self.legs.insert(conn, leg);
    }

    /// The process runs in another network: every link and leg is closed and made again.
    pub(in crate::cluster) fn network_changed(&mut self, ctx: &mut Ctx) {
        self.keeper.network_changed(ctx);
        for conn in self.legs.keys().copied().collect::<Vec<_>>() {
            ctx.close(conn, self.host);
            self.leg_ended(ctx, conn);
        }
    }

    pub(in crate::cluster) fn driven_mut(&mut self, id: SessionId) -> Option<&mut Driven> {
        self.sessions.get_mut(&id)
    }

    /// Legs that are still held.
    pub(in crate::cluster) fn residue(&self) -> usize {
        self.legs.len()
    }
}

impl Driven {
    pub(in crate::cluster) fn wants_bulk(&mut self) {
        self.planner.wants_bulk = true;
    }

    pub(in crate::cluster) fn stand_by(&mut self) {
        self.planner.stand_by();
    }
}
