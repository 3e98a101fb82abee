//! A broker: the real decisions of `rc_broker::core` and `rc_proto::mesh`, with thin glue where the daemon has tasks.
//!
//! | module | stands for |
//! |---|---|
//! | [`control`] | `broker/src/control.rs`: an endpoint's link, registrations, drain |
//! | [`mesh`] | `broker/src/mesh`: links between brokers, announcements, questions |
//! | [`open`] | `broker/src/path`: from OpenPath, MeshOpen or JoinPath to the splice |
//! | [`seek`] | the search for the Target, as `broker/src/path/ingress.rs` drives it |
//! | [`relay`] | `broker/src/relay.rs`: what passes an open path, and what an evil broker does to it |

mod control;
mod mesh;
mod open;
mod relay;
mod seek;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use rc_broker::core::admission::Admission;
use rc_broker::core::drain::{Hearer, Phase, Remains};
use rc_broker::core::limits::{Limits, Timers};
use rc_broker::core::paths::{EntryId, PathTable};
use rc_broker::core::registry::Registry;
use rc_proto::Moment;
use rc_proto::mesh::{DialKey, Dialling, Members};
use rc_proto::wire::message::Message;
use rc_proto::wire::{BrokerId, EndpointId, Incarnation, InstanceId};

use super::ctx::Ctx;
use super::net::{ConnId, ConnKind, Host, Record};
use mesh::MeshLink;
use open::Open;
pub(super) use relay::Malice;

/// How often a broker looks after its links.
const TICK: Duration = Duration::from_secs(1);

/// Hands a joined leg to its open; tells when the registry drops it instead.
#[derive(Debug)]
pub(super) struct Handover {
    open: Option<u64>,
    dropped: Rc<RefCell<Vec<u64>>>,
}

impl Handover {
    fn take(mut self) -> Option<u64> {
        self.open.take()
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.dropped.borrow_mut().push(open);
        }
    }
}

/// The decisions.
pub(super) struct Cores {
    registry: Registry<ConnId, u64, Handover>,
    admission: Admission,
    members: Members,
    dialling: Dialling,
    table: PathTable<ConnId>,
    phase: Phase,
    timers: Timers,
}

/// What a leg is to this broker.
#[derive(Debug, Clone, Copy)]
enum LegUse {
    /// Whoever asked for the path.
    Near(u64),
    /// An attempt of an open.
    Far(u64),
    /// Bytes flow to the other one.
    Spliced { other: ConnId, entry: EntryId },
}

/// Every connection by what it is.
#[derive(Default)]
pub(super) struct Links {
    control: BTreeMap<ConnId, (Hearer, Moment)>,
    mesh: BTreeMap<ConnId, MeshLink>,
    dials: BTreeMap<ConnId, (DialKey, Moment)>,
    legs: BTreeMap<ConnId, LegUse>,
}

/// One run of one broker.
pub(super) struct Broker {
    pub(super) host: Host,
    pub(super) id: BrokerId,
    incarnation: Incarnation,
    cores: Cores,
    links: Links,
    opens: BTreeMap<u64, Open>,
    dropped: Rc<RefCell<Vec<u64>>>,
    pub(super) malice: Malice,
    /// The latest instance of each identity that this broker has heard of: what it may invite for a new session.
    latest: BTreeMap<EndpointId, (u64, InstanceId)>,
    next: u64,
    next_tick: Moment,
    /// Since when it has no path.
    empty_since: Option<Moment>,
}

impl Broker {
    pub(super) fn start(ctx: &mut Ctx, host: Host, id: &BrokerId) -> Self {
        let limits = Limits::default();
        let mut dialling = Dialling::default();
        let seeds: Vec<_> = ctx
            .names
            .brokers
            .values()
            .filter(|other| **other != host)
            .map(|other| mesh::address(*other))
            .collect();
        dialling.handle_resolved("brokers.test:443", &seeds);
        let cores = Cores {
            registry: Registry::new(),
            admission: Admission::new(&limits, ctx.now),
            members: Members::new(id.clone()),
            dialling,
            table: PathTable::new(limits.paths),
            phase: Phase::Serving,
            timers: Timers::default(),
        };
        Self {
            host,
            id: id.clone(),
            incarnation: Incarnation(ctx.rng.random()),
            cores,
            links: Links::default(),
            opens: BTreeMap::new(),
            dropped: Rc::default(),
            malice: Malice::default(),
            latest: BTreeMap::new(),
            next: 1,
            next_tick: ctx.now + Duration::from_millis(ctx.rng.random_range(0..200)),
            empty_since: None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Moment {
        self.opens.values().map(Open::poll_timeout).fold(self.next_tick, Moment::min)
    }

    /// Whether a record can be taken off this connection now.
    pub(super) fn takes_record(&self, ctx: &Ctx, conn: ConnId) -> bool {
        match self.links.legs.get(&conn) {
            Some(LegUse::Spliced { other, .. }) => ctx.net.has_room(*other, self.host),
            Some(LegUse::Near(_) | LegUse::Far(_)) | None => true,
        }
    }

    pub(super) fn handle_established(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.links.dials.contains_key(&conn) {
            self.greet_peer(ctx, conn);
        } else if let Some(LegUse::Far(number)) = self.links.legs.get(&conn).copied() {
            self.ask_onward(ctx, number, conn);
        }
    }

    pub(super) fn handle_message(&mut self, ctx: &mut Ctx, conn: ConnId, message: Message) {
        let Some(kind) = ctx.net.conn(conn).map(|conn| conn.kind) else { return };
        match kind {
            ConnKind::Control => self.handle_control(ctx, conn, message),
            ConnKind::Mesh => self.handle_mesh(ctx, conn, message),
            ConnKind::Leg => self.handle_leg(ctx, conn, message),
        }
        self.settle(ctx);
    }

    pub(super) fn handle_record(&mut self, ctx: &mut Ctx, conn: ConnId, record: Record) {
        match self.links.legs.get(&conn).copied() {
            Some(LegUse::Spliced { other, .. }) => self.pass_on(ctx, other, record),
            Some(LegUse::Near(number)) => self.early_record(ctx, number, record),
            Some(LegUse::Far(_)) | None => self.drop_leg(ctx, conn),
        }
    }

    /// What was sent has left room for more.
    pub(super) fn handle_writable(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if let Some(LegUse::Spliced { other, .. }) = self.links.legs.get(&conn) {
            ctx.kick(*other, self.host);
        }
    }

    pub(super) fn handle_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.links.control.contains_key(&conn) {
            self.control_lost(ctx, conn);
        } else if self.links.mesh.contains_key(&conn) {
            self.mesh_lost(ctx, conn);
        } else if let Some((key, _)) = self.links.dials.remove(&conn) {
            self.cores.dialling.handle_failed(&key, &self.cores.members, ctx.now, &mut ctx.rng);
        } else {
            self.leg_ended(ctx, conn);
        }
        self.settle(ctx);
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tend_control(ctx);
            self.tend_mesh(ctx);
            self.cores.admission.sweep(now);
            self.empty_since = self.cores.table.is_empty().then(|| self.empty_since.unwrap_or(now));
        }
        for number in self.opens.keys().copied().collect::<Vec<_>>() {
            self.open_timeout(ctx, number);
        }
        self.settle(ctx);
    }

    /// Opens whose pending join the registry dropped look again.
    fn settle(&mut self, ctx: &mut Ctx) {
        loop {
            let Some(number) = self.dropped.borrow_mut().pop() else { return };
            self.invite_over(ctx, number, None);
        }
    }

    /// Whether it drains and may stop now.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        let remains = Remains {
            paths: self.cores.table.len(),
            registrations: self.cores.registry.registration_count(),
            has_alternate: !self.alternates().is_empty(),
            broke_lately: false,
        };
        self.cores.phase.may_stop(remains, self.empty_since, now)
    }

    /// What this broker still holds of paths: entries, opens, legs and Targets that it knows more of than hints.
    pub(super) fn residue(&self) -> (usize, usize, usize) {
        (self.cores.table.len(), self.opens.len(), self.links.legs.len())
    }

    /// Whether an instance is registered here over a link that still carries something.
    pub(super) fn reaches(&self, ctx: &Ctx, target: &EndpointId, instance: InstanceId) -> bool {
        let found = self.cores.registry.find(target, Some(instance));
        found.is_some_and(|found| ctx.net.is_clear(found.link))
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
