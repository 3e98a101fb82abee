//! The Target's driver.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::identity::ticket::{DenyLists, Presented, Start, Ticket, UsedTickets, judge_at_target};
use rc_proto::session::attach::read_first;
use rc_proto::session::sim::End;
use rc_proto::session::{PathKey, Session, SessionConfig, SessionEvent, Tombstones};
use rc_proto::wire::codes::{AttachKind, Denial, EndCode, Refusal, RegistrationRole, RepathReason};
use rc_proto::wire::frame::{Attach, Refused, Where};
use rc_proto::wire::message::{Drain, Invite, JoinPath, Message};
use rc_proto::wire::{EndpointId, Ext, Incarnation, InstanceId, PathId, SessionId};

use super::keeper::{Keeper, KeeperEvent, SelfClaim};
use super::seat::Seat;
use super::tls::{Said, Tls};
use crate::cluster::ctx::Ctx;
use crate::cluster::names;
use crate::cluster::net::{ConnId, ConnKind, Host, Payload, Record, RecordBody};

/// From the invite to the first envelope of the session.
const JOIN_MAX: Duration = Duration::from_secs(8);
/// Joins that one broker may have pending here.
const JOINS_PER_BROKER_MAX: usize = 8;

/// A path that is being joined, or carries a session.
struct Leg {
    invite: Invite,
    via: Host,
    began: Moment,
    tls: Option<Tls>,
    first: Vec<u8>,
    session: Option<SessionId>,
    path_id: PathId,
}

/// What a Target remembers beside its sessions.
struct Memory {
    used: UsedTickets,
    ended: Tombstones,
}

/// A Target with its links and sessions.
pub(in crate::cluster) struct Target {
    pub(in crate::cluster) host: Host,
    pub(in crate::cluster) keeper: Keeper,
    pub(in crate::cluster) instance: InstanceId,
    config: SessionConfig,
    pub(in crate::cluster) sessions: BTreeMap<SessionId, (Seat, Option<Moment>)>,
    legs: BTreeMap<ConnId, Leg>,
    memory: Memory,
    next_key: u64,
}

impl Target {
    pub(in crate::cluster) fn new(ctx: &mut Ctx, host: Host, id: EndpointId, config: SessionConfig) -> Self {
        let instance = InstanceId(ctx.rng.random());
        let claim = SelfClaim { instance, started_ms: ctx.unix_s() * 1000 };
        Self {
            host,
            keeper: Keeper::new(ctx, host, id, Some(claim)),
            instance,
            config,
            sessions: BTreeMap::new(),
            legs: BTreeMap::new(),
            memory: Memory { used: UsedTickets::restored([]), ended: Tombstones::default() },
            next_key: 1,
        }
    }

    pub(in crate::cluster) fn poll_timeout(&self) -> Moment {
        let joins = self.legs.values().filter(|leg| leg.session.is_none()).map(|leg| leg.began + JOIN_MAX);
        let sessions = self.sessions.values().filter_map(|(seat, _)| seat.session.poll_timeout());
        let over = self.sessions.values().filter(|(seat, _)| !seat.paths.is_empty());
        let over = over.filter_map(|(_, over)| over.map(|since| since + Duration::from_secs(30)));
        joins.chain(sessions).chain(over).fold(self.keeper.poll_timeout(), Moment::min)
    }

    pub(in crate::cluster) fn handle_timeout(&mut self, ctx: &mut Ctx) {
        self.keeper.handle_timeout(ctx);
        let late = |leg: &Leg| leg.session.is_none() && ctx.now.since(leg.began) >= JOIN_MAX;
        let late: Vec<ConnId> =
            self.legs.iter().filter(|(_, leg)| late(leg)).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.drop_leg(ctx, conn);
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some((seat, over)) = self.sessions.get_mut(&id) else { continue };
            let is_due = seat.session.poll_timeout().is_some_and(|at| at <= ctx.now);
            if !is_due && over.is_none() {
                continue;
            }
            if is_due {
                seat.session.handle_timeout(ctx.now);
            }
            if over.is_some_and(|since| ctx.now.since(since) >= Duration::from_secs(30)) {
                for key in seat.paths.keys().copied().collect::<Vec<_>>() {
                    seat.lose(ctx, self.host, key);
                }
            }
            self.settle(ctx, id);
        }
    }

    pub(in crate::cluster) fn handle_established(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.keeper.owns(conn) {
            return self.keeper.handle_established(ctx, conn);
        }
        if let Some(leg) = self.legs.get(&conn) {
            let (path_id, join_secret) = (leg.path_id, leg.invite.join_secret);
            ctx.tell(conn, self.host, JoinPath { path_id, join_secret, ext: Ext::none() });
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
            Some(Message::Invite(invite)) => self.invited(ctx, conn, invite),
            Some(Message::PathFailed(_)) => self.drop_leg(ctx, conn),
            Some(Message::Drain(drain)) => self.drained(ctx, &drain),
            _ => {}
        }
    }

    fn invited(&mut self, ctx: &mut Ctx, link: ConnId, invite: Invite) {
        let Some(via) = ctx.net.peer(link, self.host) else { return };
        let pending = self.legs.values().filter(|leg| leg.via == via && leg.session.is_none()).count();
        if pending >= JOINS_PER_BROKER_MAX {
            return;
        }
        let conn = ctx.dial(ConnKind::Leg, self.host, via);
        let path_id = invite.path_id;
        let (began, tls) = (ctx.now, Some(Tls::default()));
        let leg = Leg { invite, via, began, tls, first: Vec::new(), session: None, path_id };
        self.legs.insert(conn, leg);
    }

    fn drained(&mut self, ctx: &mut Ctx, drain: &Drain) {
        for (path, _) in &drain.slots {
            let found = self.legs.iter().find(|(_, leg)| leg.path_id == *path);
            let Some((conn, id)) = found.and_then(|(conn, leg)| Some((*conn, leg.session?))) else {
                continue;
            };
            if let Some((seat, _)) = self.sessions.get_mut(&id) {
                let key = seat.key_of(conn);
                seat.session.ask_repath(RepathReason::DRAIN, key);
                self.settle(ctx, id);
            }
        }
    }

    pub(in crate::cluster) fn handle_record(&mut self, ctx: &mut Ctx, conn: ConnId, record: Record) {
        let Some(leg) = self.legs.get_mut(&conn) else { return };
        let said = match (&mut leg.tls, leg.session) {
            (Some(tls), _) => tls.open(record),
            (None, Some(id)) => {
                let seat = self.sessions.get_mut(&id).map(|(seat, _)| seat);
                let tls = seat.and_then(|seat| {
                    let key = seat.key_of(conn)?;
                    seat.paths.get_mut(&key).map(|(_, tls)| tls)
                });
                match tls {
                    Some(tls) => tls.open(record),
                    None => return,
                }
            }
            (None, None) => return,
        };
        match said {
            Ok(Said::Hello) => {
                let answer = leg.tls.as_mut().map(|tls| tls.seal(RecordBody::ServerHello));
                if let Some(answer) = answer {
                    ctx.send(conn, self.host, Payload::Record(answer));
                }
            }
            Ok(Said::Bytes(bytes)) => match leg.session {
                Some(id) => self.carry(ctx, conn, id, &bytes),
                None => self.first_bytes(ctx, conn, &bytes),
            },
            Ok(Said::Up) | Err(_) => {
                ctx.note(format_args!("{:?} got a bad record", self.host));
                self.drop_leg(ctx, conn);
            }
        }
    }

    fn carry(&mut self, ctx: &mut Ctx, conn: ConnId, id: SessionId, bytes: &[u8]) {
        let Some((seat, _)) = self.sessions.get_mut(&id) else { return };
        let Some(key) = seat.key_of(conn) else { return };
        if seat.session.handle_bytes(key, bytes, ctx.now).is_err() {
            ctx.note(format_args!("{:?} gives path {} up", self.host, key.0));
            seat.close(ctx, self.host, key);
            self.legs.remove(&conn);
        }
        self.settle(ctx, id);
    }

    /// The first envelope: who wants which session, and may they.
    fn first_bytes(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: &[u8]) {
        let Some(leg) = self.legs.get_mut(&conn) else { return };
        leg.first.extend_from_slice(bytes);
        let (attach, used) = match read_first(&leg.first) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(_) => return self.drop_leg(ctx, conn),
        };
        let rest = leg.first.split_off(used);
        let controller = leg.invite.controller.clone();
        match self.admit(ctx, conn, &attach, &controller) {
            Ok(()) => self.carry(ctx, conn, attach.session, &rest),
            Err(refused) => {
                ctx.note(format_args!("{:?} refuses: {}", self.host, refused.code));
                let tls = self.legs.get_mut(&conn).and_then(|leg| leg.tls.as_mut());
                let record = tls.map(|tls| tls.seal(RecordBody::Data(refused.to_bytes())));
                if let Some(record) = record {
                    ctx.send(conn, self.host, Payload::Record(record));
                }
                self.drop_leg(ctx, conn);
            }
        }
    }

    fn admit(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        attach: &Attach,
        controller: &EndpointId,
    ) -> Result<(), Box<Refused>> {
        let refused = |code| Box::new(Refused::new(code, self.instance));
        if let Some(code) = self.memory.ended.ended(attach.session, ctx.now) {
            return Err(Box::new(Refused::ended(code, self.instance)));
        }
        let is_known = self.sessions.contains_key(&attach.session);
        if !is_known && attach.kind != AttachKind::NEW {
            return Err(refused(Refusal::UNKNOWN_SESSION));
        }
        self.judge(ctx, attach, controller)?;
        let (config, instance, now) = (self.config.clone(), self.instance, ctx.now);
        let fresh =
            || Seat::new(attach.session, End::Target, Session::target(config, attach.session, instance, now));
        let (seat, _) = self.sessions.entry(attach.session).or_insert_with(|| (fresh(), None));
        let key = PathKey(self.next_key);
        self.next_key += 1;
        seat.session.accept_attach(key, attach, |_| true, now)?;
        let Some(leg) = self.legs.get_mut(&conn) else { return Ok(()) };
        leg.session = Some(attach.session);
        if let Some(tls) = leg.tls.take() {
            seat.paths.insert(key, (conn, tls));
        }
        self.tell_where(ctx, attach.session);
        Ok(())
    }

    fn judge(&mut self, ctx: &Ctx, attach: &Attach, controller: &EndpointId) -> Result<(), Box<Refused>> {
        let denied = |denial| Box::new(Refused::denied(denial, self.instance));
        let ticket = Ticket::parse(&attach.ticket).and_then(|ticket| ticket.verify(&names::check_signature));
        let Ok(ticket) = ticket else {
            return Err(denied(Denial::NOT_PERMITTED));
        };
        let (sub, aud, key) = (names::controller(controller), names::target(&self.keeper.id), names::KEY);
        let presented = Presented { controller: &sub, key: &key, target: &aud };
        let is_new = attach.kind == AttachKind::NEW;
        let start = if is_new { Start::New(attach.session) } else { Start::Resume };
        #[cfg(feature = "mutants")]
        if ctx.mutant == Some(crate::cluster::Mutant::TicketUseForgotten) {
            self.memory.used = UsedTickets::restored([]);
        }
        judge_at_target(
            &ticket,
            &presented,
            ctx.unix_s(),
            &DenyLists::default(),
            start,
            &mut self.memory.used,
        )
        .map(|_| ())
        .map_err(|refusal| denied(refusal.denial()))
    }

    /// Tells a session where this Target is registered.
    fn tell_where(&mut self, ctx: &Ctx, id: SessionId) {
        let places = self.keeper.linked().into_iter().filter_map(|host| ctx.names.broker(host));
        let places = places.map(|broker| (broker, Incarnation(0), RegistrationRole::PRIMARY));
        let place = Where { instance: self.instance, places: places.collect(), ext: Ext::none() };
        if let Some((seat, _)) = self.sessions.get_mut(&id) {
            seat.session.tell_where(&place);
        }
    }

    pub(in crate::cluster) fn handle_writable(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if let Some(id) = self.legs.get(&conn).and_then(|leg| leg.session) {
            self.settle(ctx, id);
        }
    }

    pub(in crate::cluster) fn handle_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.keeper.owns(conn) {
            self.keeper.handle_ended(ctx, conn);
            self.take_keeper_events(ctx);
        } else {
            self.drop_leg(ctx, conn);
        }
    }

    fn drop_leg(&mut self, ctx: &mut Ctx, conn: ConnId) {
        ctx.close(conn, self.host);
        let Some(leg) = self.legs.remove(&conn) else { return };
        let Some(id) = leg.session else { return };
        if let Some((seat, _)) = self.sessions.get_mut(&id)
            && let Some(key) = seat.key_of(conn)
        {
            seat.lose(ctx, self.host, key);
        }
        self.settle(ctx, id);
    }

    fn take_keeper_events(&mut self, ctx: &mut Ctx) {
        let mut has_changed = false;
        while let Some(event) = self.keeper.poll_event() {
            has_changed = true;
            if let KeeperEvent::Lost(broker) = event {
                ctx.note(format_args!("{:?} lost its link to {broker:?}", self.host));
            }
        }
        if has_changed {
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.tell_where(ctx, id);
                self.settle(ctx, id);
            }
        }
    }

    /// After anything that may have moved a session: events, and what it has to send.
    pub(in crate::cluster) fn settle(&mut self, ctx: &mut Ctx, id: SessionId) {
        loop {
            let Some((seat, _)) = self.sessions.get_mut(&id) else { return };
            let Some(event) = seat.session.poll_event() else { break };
            if let Some(event) = seat.handle_event(ctx, self.host, event) {
                self.handle_event(ctx, id, event);
            }
        }
        if let Some((seat, _)) = self.sessions.get_mut(&id) {
            seat.transmit(ctx, self.host);
            self.legs.retain(|conn, leg| leg.session != Some(id) || seat.key_of(*conn).is_some());
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest moves nothing here")]
    fn handle_event(&mut self, ctx: &mut Ctx, id: SessionId, event: SessionEvent) {
        match event {
            SessionEvent::AttachRequested { path, attach } => self.attach_requested(ctx, id, path, &attach),
            SessionEvent::Ended { code, .. } => self.over(ctx, id, code),
            SessionEvent::Aborted { .. } => self.over(ctx, id, EndCode::INTERNAL),
            _ => {}
        }
    }

    fn attach_requested(&mut self, ctx: &mut Ctx, id: SessionId, path: PathKey, attach: &Attach) {
        let conn = self.sessions.get(&id).and_then(|(seat, _)| seat.paths.get(&path)).map(|(conn, _)| *conn);
        let leg = conn.and_then(|conn| self.legs.get(&conn));
        let Some(controller) = leg.map(|leg| leg.invite.controller.clone()) else { return };
        let judged = self.judge(ctx, attach, &controller);
        let Some((seat, _)) = self.sessions.get_mut(&id) else { return };
        match judged {
            // A refusal by the session is queued by the session itself.
            Ok(()) => drop(seat.session.accept_attach(path, attach, |_| true, ctx.now)),
            Err(refused) => seat.session.refuse_attach(path, &refused),
        }
    }

    fn over(&mut self, ctx: &Ctx, id: SessionId, code: EndCode) {
        self.memory.ended.insert(id, code, self.config.resume_window, ctx.now);
        if let Some((_, over)) = self.sessions.get_mut(&id) {
            *over = Some(ctx.now);
        }
    }

    /// The process runs in another network: every link and leg is closed and made again.
    pub(in crate::cluster) fn network_changed(&mut self, ctx: &mut Ctx) {
        self.keeper.network_changed(ctx);
        for conn in self.legs.keys().copied().collect::<Vec<_>>() {
            self.drop_leg(ctx, conn);
        }
        self.take_keeper_events(ctx);
    }

    /// Legs that are still held.
    pub(in crate::cluster) fn residue(&self) -> usize {
        self.legs.len()
    }
}
