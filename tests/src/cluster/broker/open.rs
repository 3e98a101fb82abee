//! From the first frame of a leg to the splice.
//!
//! An ingress drives the real search; a broker in transit makes the one attempt that the route names. Attempts run
//! beside each other when the first is slow; the first far end wins and the others are closed.

use std::time::Duration;

use rand::Rng;
use rc_broker::core::paths::{EntryId, Part, PathLimit, PathRequest};
use rc_broker::core::registry::{LinkId, ParkId, Registration};
use rc_broker::core::routing::{Hop, check_named_route, next_hop};
use rc_broker::core::search::Search;
use rc_proto::Moment;
use rc_proto::mesh::LocateQuery;
use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::{
    CertificateRef, Invite, JoinPath, MeshOpen, Message, OpenPath, PathFailed, PathOpened,
};
use rc_proto::wire::{BrokerId, EndpointId, Ext, JoinSecret};

use super::{Broker, Handover, LegUse, Malice};
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, ConnKind, Payload, Record};

/// Who asked for what.
pub(super) struct Ask {
    near: ConnId,
    origin: BrokerId,
    pub(super) controller: EndpointId,
    pub(super) request: OpenPath,
    entry: EntryId,
    pub(super) deadline: Moment,
}

/// One way to the Target that is being tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    Invited,
    Along { conn: ConnId, route: Vec<BrokerId>, early_sent: usize },
}

/// What an open waits for.
pub(super) enum Stage {
    Trying { hedge_at: Moment },
    Locating(Box<LocateQuery>),
    Parked { until: Moment, counted: bool },
}

/// One open that has no far end yet.
pub(super) struct Open {
    pub(super) ask: Ask,
    early: Vec<Record>,
    /// `None` in transit.
    pub(super) search: Option<Search>,
    pub(super) watch: Option<ParkId>,
    pub(super) is_woken: bool,
    pub(super) attempts: Vec<Attempt>,
    /// A question beside a slow attempt.
    pub(super) beside: Option<Box<LocateQuery>>,
    pub(super) stage: Stage,
}

impl Open {
    pub(super) fn poll_timeout(&self) -> Moment {
        let far = self.ask.deadline;
        let stage = match &self.stage {
            Stage::Trying { hedge_at } => *hedge_at,
            Stage::Locating(query) => query.poll_timeout().unwrap_or(far),
            Stage::Parked { until, .. } => *until,
        };
        let beside = self.beside.as_ref().and_then(|query| query.poll_timeout()).unwrap_or(far);
        stage.min(beside).min(far)
    }
}

fn certificate() -> CertificateRef {
    CertificateRef {
        issuer_sha256: [0; 32],
        serial: vec![1],
        key_sha256: [0; 32],
        not_after_ms: u64::MAX,
        key_thumbprint: [0; 32],
    }
}

impl Broker {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is said on a leg")]
    pub(super) fn handle_leg(&mut self, ctx: &mut Ctx, conn: ConnId, message: Message) {
        match message {
            Message::OpenPath(open) => self.open_came(ctx, conn, open),
            Message::MeshOpen(open) => self.mesh_open_came(ctx, conn, open),
            Message::JoinPath(join) => self.join_came(ctx, conn, &join),
            Message::PathOpened(opened) => {
                if let Some(LegUse::Far(number)) = self.links.legs.get(&conn).copied() {
                    self.splice(ctx, number, conn, opened.hops);
                }
            }
            Message::PathFailed(failed) => {
                if let Some(LegUse::Far(number)) = self.links.legs.get(&conn).copied() {
                    self.links.legs.remove(&conn);
                    ctx.close(conn, self.host);
                    self.attempt_over(ctx, number, conn, failed.code);
                }
            }
            _ => {}
        }
    }

    fn open_came(&mut self, ctx: &mut Ctx, near: ConnId, request: OpenPath) {
        let Some(controller) = ctx.net.peer(near, self.host).and_then(|host| ctx.names.endpoint(host)) else {
            return;
        };
        let admitted = self.cores.admission.admit_open(&controller, request.purpose, ctx.now);
        if let Err(slot) = admitted {
            let after = u32::try_from(slot.as_millis()).unwrap_or(u32::MAX);
            return self.refuse(ctx, near, &request, PathFailure::RETRY_AFTER, after);
        }
        if let Err(code) = check_named_route(&self.id, &request.route) {
            return self.refuse(ctx, near, &request, code, 0);
        }
        let park = ctx.now + Duration::from_millis(request.deadline_ms.into());
        let park = Search::park_limit(ctx.now, park, self.cores.timers.park);
        let search = Search::new(request.purpose, request.route.clone(), request.avoid.clone(), park);
        let (id, part) = (self.id.clone(), Part::Ingress);
        if let Some(number) = self.begin(ctx, near, (id, controller, None), request, part, Some(search)) {
            self.advance(ctx, number);
        }
    }

    fn mesh_open_came(&mut self, ctx: &mut Ctx, near: ConnId, open: MeshOpen) {
        let Some(peer) = ctx.net.peer(near, self.host).and_then(|host| ctx.names.broker(host)) else {
            return;
        };
        let MeshOpen { origin, controller, open: request, .. } = open;
        let hop = match next_hop(&self.id, &origin, &peer, &request.route) {
            Ok(hop) => hop,
            Err(code) => return self.refuse(ctx, near, &request, code, 0),
        };
        let from = (origin, controller, Some(peer));
        let Some(number) = self.begin(ctx, near, from, request, Part::Transit, None) else { return };
        match hop {
            Hop::Here => {
                let Some(open) = self.opens.get(&number) else { return };
                let (target, instance) = (open.ask.request.target.clone(), open.ask.request.instance);
                match self.cores.registry.find(&target, instance) {
                    Some(registration) => self.invite(ctx, number, &registration),
                    None => self.fail(ctx, number, PathFailure::NOT_HERE),
                }
            }
            Hop::Onward { route, .. } => self.try_along(ctx, number, route),
        }
    }

    fn begin(
        &mut self,
        ctx: &mut Ctx,
        near: ConnId,
        (origin, controller, from): (BrokerId, EndpointId, Option<BrokerId>),
        request: OpenPath,
        part: Part,
        search: Option<Search>,
    ) -> Option<u64> {
        if request.purpose == Purpose::NEW && !self.cores.phase.is_accepting() {
            self.refuse(ctx, near, &request, PathFailure::DRAINING, 0);
            return None;
        }
        let path = PathRequest {
            path: request.path_id,
            controller: controller.clone(),
            target: request.target.clone(),
            purpose: request.purpose,
            lane: request.lane,
            part,
            from,
        };
        let entry = match self.cores.table.begin(path, near, ctx.now) {
            Ok(entry) => entry,
            Err(PathLimit::Broker | PathLimit::Identity | PathLimit::Duplicate) => {
                self.refuse(ctx, near, &request, PathFailure::BUSY, 0);
                return None;
            }
        };
        let asked = Duration::from_millis(request.deadline_ms.into());
        let deadline = ctx.now + asked.min(self.cores.timers.open);
        let number = self.fresh();
        let ask = Ask { near, origin, controller, request, entry, deadline };
        let stage = Stage::Trying { hedge_at: deadline };
        let open = Open {
            ask,
            early: Vec::new(),
            search,
            watch: None,
            is_woken: false,
            attempts: Vec::new(),
            beside: None,
            stage,
        };
        self.opens.insert(number, open);
        self.links.legs.insert(near, LegUse::Near(number));
        Some(number)
    }

    pub(super) fn invite(&mut self, ctx: &mut Ctx, number: u64, registration: &Registration<ConnId>) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        let request = &open.ask.request;
        let secret = JoinSecret(ctx.rng.random());
        let handover = Handover { open: Some(number), dropped: std::rc::Rc::clone(&self.dropped) };
        let link = LinkId(registration.link.0);
        let fits = self.cores.registry.expect_join(&request.target, link, request.path_id, secret, handover);
        // An invite that was not taken on drops its handover; that is told here, not by the drop.
        if !fits {
            self.dropped.borrow_mut().retain(|dropped| *dropped != number);
            let is_here = self.cores.registry.find(&request.target, request.instance).is_some();
            open.attempts.push(Attempt::Invited);
            let code = is_here.then_some(PathFailure::BUSY);
            return self.invite_over(ctx, number, code);
        }
        let invite = Invite {
            path_id: request.path_id,
            join_secret: secret,
            controller: open.ask.controller.clone(),
            lane: request.lane,
            deadline_ms: u32::try_from(open.ask.deadline.since(ctx.now).as_millis()).unwrap_or(u32::MAX),
            broker: self.id.clone(),
            name: String::new(),
            addresses: Vec::new(),
            ext: Ext::none(),
        };
        if request.purpose == Purpose::NEW && request.instance.is_none() {
            let invited = registration.claim.instance;
            if self.latest.get(&request.target).is_some_and(|(_, latest)| *latest != invited) {
                ctx.oracle.violation(format!("{} invites a superseded instance for a new session", self.id));
            }
        }
        open.attempts.push(Attempt::Invited);
        open.stage = Stage::Trying { hedge_at: ctx.now + Duration::from_millis(500) };
        if self.malice == Malice::InviteTwice {
            self.malice = Malice::None;
            ctx.note(format_args!("{} invites twice", self.id));
            ctx.tell(registration.link, self.host, invite.clone());
        }
        ctx.tell(registration.link, self.host, invite);
    }

    pub(super) fn try_along(&mut self, ctx: &mut Ctx, number: u64, route: Vec<BrokerId>) {
        let next = route.first().and_then(|next| ctx.names.host(next));
        let Some(next) = next.filter(|next| *next != self.host) else {
            return self.fail(ctx, number, PathFailure::INTERNAL);
        };
        let Some(open) = self.opens.get_mut(&number) else { return };
        let conn = ctx.dial(ConnKind::Leg, self.host, next);
        self.links.legs.insert(conn, LegUse::Far(number));
        open.attempts.push(Attempt::Along { conn, route, early_sent: 0 });
        open.stage = Stage::Trying { hedge_at: ctx.now + Duration::from_millis(500) };
    }

    /// The leg to the next broker is there: asks for the rest of the path.
    pub(super) fn ask_onward(&mut self, ctx: &mut Ctx, number: u64, conn: ConnId) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        let (early, ask) = (&open.early, &open.ask);
        let found = open.attempts.iter_mut().find_map(|attempt| match attempt {
            Attempt::Along { conn: own, route, early_sent } if *own == conn => Some((route, early_sent)),
            Attempt::Along { .. } | Attempt::Invited => None,
        });
        let Some((route, early_sent)) = found else { return };
        let mut request = ask.request.clone();
        request.route = route.clone();
        request.deadline_ms = u32::try_from(ask.deadline.since(ctx.now).as_millis()).unwrap_or(u32::MAX);
        let (origin, controller) = (ask.origin.clone(), ask.controller.clone());
        let controller_certificate = certificate();
        let open = MeshOpen { origin, controller, controller_certificate, open: request, ext: Ext::none() };
        *early_sent = early.len();
        let early = early.clone();
        ctx.tell(conn, self.host, open);
        for record in early {
            ctx.send(conn, self.host, Payload::Record(record));
        }
    }

    /// The ClientHello that the Controller sent behind its request.
    pub(super) fn early_record(&mut self, ctx: &mut Ctx, number: u64, record: Record) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        open.early.push(record);
        let mut rest = Vec::new();
        for attempt in &mut open.attempts {
            if let Attempt::Along { conn, early_sent, .. } = attempt
                && *early_sent > 0
            {
                rest.extend(open.early.iter().skip(*early_sent).map(|record| (*conn, record.clone())));
                *early_sent = open.early.len();
            }
        }
        for (conn, record) in rest {
            ctx.send(conn, self.host, Payload::Record(record));
        }
    }

    fn join_came(&mut self, ctx: &mut Ctx, conn: ConnId, join: &JoinPath) {
        let target = ctx.net.peer(conn, self.host).and_then(|host| ctx.names.endpoint(host));
        let handover =
            target.and_then(|target| self.cores.registry.take_join(&target, join.path_id, &join.join_secret));
        match handover.and_then(Handover::take) {
            Some(number) if self.opens.contains_key(&number) => self.splice(ctx, number, conn, Vec::new()),
            Some(_) | None => {
                let code = PathFailure::NOT_FOUND;
                let (retry_after_ms, alternates) = (0, Vec::new());
                let path_id = join.path_id;
                let failed = PathFailed { path_id, code, retry_after_ms, alternates, ext: Ext::none() };
                ctx.tell(conn, self.host, failed);
                ctx.close(conn, self.host);
            }
        }
    }

    /// A far end is there: the others are closed, both sides are told, and bytes flow.
    fn splice(&mut self, ctx: &mut Ctx, number: u64, far: ConnId, mut behind: Vec<(BrokerId, u32)>) {
        let Some(open) = self.take_open(ctx, number, Some(far)) else { return };
        let mut early_sent = 0;
        let mut to = None;
        for attempt in &open.attempts {
            if let Attempt::Along { conn, route, early_sent: sent } = attempt
                && *conn == far
            {
                early_sent = *sent;
                to = route.first().cloned();
            }
        }
        let is_target = to.is_none();
        let path_id = open.ask.request.path_id;
        let mut hops = vec![(self.id.clone(), 0)];
        if is_target {
            ctx.tell(far, self.host, PathOpened { path_id, hops: hops.clone(), ext: Ext::none() });
        }
        hops.append(&mut behind);
        ctx.tell(open.ask.near, self.host, PathOpened { path_id, hops, ext: Ext::none() });
        for record in open.early.into_iter().skip(early_sent) {
            ctx.send(far, self.host, Payload::Record(record));
        }
        let entry = open.ask.entry;
        self.cores.table.opened(entry, to, ctx.now);
        self.links.legs.insert(open.ask.near, LegUse::Spliced { other: far, entry });
        self.links.legs.insert(far, LegUse::Spliced { other: open.ask.near, entry });
        ctx.note(format_args!("{} opened {path_id} ({})", self.id, open.ask.request.purpose));
    }

    /// Takes an open out with everything that belongs to it; legs other than `keep` are closed.
    fn take_open(&mut self, ctx: &mut Ctx, number: u64, keep: Option<ConnId>) -> Option<Open> {
        self.unpark_stage(number);
        let open = self.opens.remove(&number)?;
        let target = &open.ask.request.target;
        if let Some(park) = open.watch {
            self.cores.registry.unpark(target, park);
        }
        if open.attempts.contains(&Attempt::Invited) {
            self.cores.registry.forget_join(target, open.ask.request.path_id);
            self.dropped.borrow_mut().retain(|dropped| *dropped != number);
        }
        for attempt in &open.attempts {
            if let Attempt::Along { conn, .. } = attempt
                && Some(*conn) != keep
            {
                self.links.legs.remove(conn);
                ctx.close(*conn, self.host);
            }
        }
        Some(open)
    }

    /// Whoever asked is gone.
    pub(super) fn cancel_open(&mut self, ctx: &mut Ctx, number: u64) {
        if let Some(open) = self.take_open(ctx, number, None) {
            self.links.legs.remove(&open.ask.near);
            self.cores.table.end(open.ask.entry);
        }
    }

    pub(super) fn fail(&mut self, ctx: &mut Ctx, number: u64, code: PathFailure) {
        let Some(open) = self.take_open(ctx, number, None) else { return };
        self.links.legs.remove(&open.ask.near);
        self.cores.table.end(open.ask.entry);
        self.refuse(ctx, open.ask.near, &open.ask.request, code, 0);
    }

    fn refuse(&mut self, ctx: &mut Ctx, near: ConnId, request: &OpenPath, code: PathFailure, after: u32) {
        ctx.note(format_args!("{} refuses {}: {code}", self.id, request.path_id));
        let (path_id, retry_after_ms) = (request.path_id, after);
        let alternates = if code.is_final_for_new() { Vec::new() } else { self.alternates() };
        ctx.tell(near, self.host, PathFailed { path_id, code, retry_after_ms, alternates, ext: Ext::none() });
        ctx.close(near, self.host);
    }

    /// The invite came to nothing; `None` when the Target's link is gone.
    pub(super) fn invite_over(&mut self, ctx: &mut Ctx, number: u64, code: Option<PathFailure>) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        open.attempts.retain(|attempt| *attempt != Attempt::Invited);
        if let Some(search) = open.search.as_mut() {
            search.invite_failed(code);
        }
        let (is_last, is_ingress) = (open.attempts.is_empty(), open.search.is_some());
        if is_last && is_ingress {
            self.advance(ctx, number);
        } else if is_last {
            self.fail(ctx, number, code.unwrap_or(PathFailure::NOT_HERE));
        }
    }

    /// The leg of an attempt ended without an answer.
    pub(super) fn attempt_ended(&mut self, ctx: &mut Ctx, number: u64, conn: ConnId) {
        self.attempt_over(ctx, number, conn, PathFailure::NOT_HERE);
    }

    fn attempt_over(&mut self, ctx: &mut Ctx, number: u64, conn: ConnId, code: PathFailure) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        open.attempts.retain(|attempt| !matches!(attempt, Attempt::Along { conn: own, .. } if *own == conn));
        if let Some(search) = open.search.as_mut() {
            search.attempt_failed(code);
        }
        let (is_last, is_ingress) = (open.attempts.is_empty(), open.search.is_some());
        if is_last && is_ingress {
            self.advance(ctx, number);
        } else if is_last {
            self.fail(ctx, number, code);
        }
    }
}
