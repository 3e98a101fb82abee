//! An endpoint's control links: one to the best broker, and in session a second one in another region.
//!
//! ```text
//! Free ──dial──▶ Dialling ──Welcome──▶ Up ──lost, drained──▶ Free (next-ranked broker, back-off)
//! ```
//! Brokers come from DNS, from the last answer that DNS gave, and from the alternates that brokers name.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Drain, Hello, Message, Ping, Register};
use rc_proto::wire::{EndpointId, Ext, Generation, Incarnation, InstanceId};

use crate::cluster::ctx::Ctx;
use crate::cluster::dns::Dns;
use crate::cluster::net::{ConnId, ConnKind, Host};

/// A broker has this long for its handshakes and its Welcome.
const DIAL_MAX: Duration = Duration::from_secs(3);
/// How often a link is asked, and how long an answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));
/// A broker that failed is tried last for so long.
const SHUNNED: Duration = Duration::from_secs(10);
/// First and longest wait before the next broker.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

#[derive(Debug)]
enum State {
    Free { retry: Moment },
    Dialling { conn: ConnId, to: Host, since: Moment },
    Up { conn: ConnId, to: Host, asked: Option<Moment>, next_ask: Moment },
}

#[derive(Debug)]
struct Slot {
    state: State,
    failures: u32,
    /// A link that stays until its successor is up: make before break.
    leaving: Option<(ConnId, Host)>,
}

/// What the driver is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) enum KeeperEvent {
    /// A link stands.
    Up(Host),
    /// A link is gone.
    Lost(Host),
}

/// What a Target says of itself.
#[derive(Debug, Clone, Copy)]
pub(in crate::cluster) struct SelfClaim {
    pub(in crate::cluster) instance: InstanceId,
    pub(in crate::cluster) started_ms: u64,
}

/// The links of one endpoint.
#[derive(Debug)]
pub(in crate::cluster) struct Keeper {
    host: Host,
    pub(in crate::cluster) id: EndpointId,
    claim: Option<SelfClaim>,
    generation: u64,
    slots: [Slot; 2],
    known: Vec<Host>,
    shunned: BTreeMap<Host, Moment>,
    superseded_until: Option<Moment>,
    is_superseded: bool,
    events: Vec<KeeperEvent>,
}

impl Keeper {
    pub(in crate::cluster) fn new(ctx: &Ctx, host: Host, id: EndpointId, claim: Option<SelfClaim>) -> Self {
        let slot = || Slot { state: State::Free { retry: ctx.now }, failures: 0, leaving: None };
        Self {
            host,
            id,
            claim,
            generation: 0,
            slots: [slot(), slot()],
            known: Vec::new(),
            shunned: BTreeMap::new(),
            superseded_until: None,
            is_superseded: false,
            events: Vec::new(),
        }
    }

    pub(in crate::cluster) fn poll_event(&mut self) -> Option<KeeperEvent> {
        if self.events.is_empty() { None } else { Some(self.events.remove(0)) }
    }

    /// Brokers with a link that stands, the primary's first.
    pub(in crate::cluster) fn linked(&self) -> Vec<Host> {
        let up = |slot: &Slot| match &slot.state {
            State::Up { to, .. } => Some(*to),
            State::Free { .. } | State::Dialling { .. } => None,
        };
        self.slots.iter().filter_map(up).collect()
    }

    /// Every broker that may be tried now: linked ones, then near ones, those that failed lately last.
    pub(in crate::cluster) fn ranked(&mut self, ctx: &Ctx) -> Vec<Host> {
        self.resolve(ctx);
        let linked = self.linked();
        let mut all = self.known.clone();
        let rank = |host: &Host| {
            let is_shunned = self.shunned.get(host).is_some_and(|until| ctx.now < *until);
            (is_shunned, !linked.contains(host), ctx.net.latency(self.host, *host), *host)
        };
        all.sort_by_key(rank);
        all
    }

    /// A broker did not do what it should: it is tried last for a while.
    pub(in crate::cluster) fn shun(&mut self, broker: Host, now: Moment) {
        self.shunned.insert(broker, now + SHUNNED);
    }

    pub(in crate::cluster) fn knows(&mut self, brokers: impl IntoIterator<Item = Host>) {
        for broker in brokers {
            if !self.known.contains(&broker) {
                self.known.push(broker);
            }
        }
    }

    fn resolve(&mut self, ctx: &Ctx) {
        match &ctx.dns {
            Dns::Fresh => self.known = ctx.names.brokers.values().copied().collect(),
            Dns::Stale(answer) => {
                let answer = answer.clone();
                self.knows(answer);
            }
            Dns::Silent => {}
        }
    }

    pub(in crate::cluster) fn owns(&self, conn: ConnId) -> bool {
        self.slots.iter().any(|slot| {
            let own = match &slot.state {
                State::Free { .. } => None,
                State::Dialling { conn, .. } | State::Up { conn, .. } => Some(*conn),
            };
            own == Some(conn) || slot.leaving.is_some_and(|(old, _)| old == conn)
        })
    }

    pub(in crate::cluster) fn poll_timeout(&self) -> Moment {
        let due = |slot: &Slot| match &slot.state {
            State::Free { retry } => *retry,
            State::Dialling { since, .. } => *since + DIAL_MAX,
            State::Up { asked: Some(asked), .. } => *asked + KEEP_ALIVE.1,
            State::Up { next_ask, .. } => *next_ask,
        };
        let earliest = self.slots.iter().map(due).min().unwrap_or_default();
        self.superseded_until.map_or(earliest, |until| earliest.max(until))
    }

    pub(in crate::cluster) fn handle_timeout(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        if self.superseded_until.is_some_and(|until| now < until) {
            return;
        }
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            match &mut slot.state {
                State::Free { retry } if now >= *retry => self.dial(ctx, index),
                State::Free { .. } => {}
                State::Dialling { conn, to, since } if now.since(*since) >= DIAL_MAX => {
                    let (conn, to) = (*conn, *to);
                    ctx.close(conn, self.host);
                    self.failed(ctx, index, to);
                }
                State::Dialling { .. } => {}
                State::Up { conn, to, asked: Some(asked), .. } if now.since(*asked) >= KEEP_ALIVE.1 => {
                    let (conn, to) = (*conn, *to);
                    ctx.close(conn, self.host);
                    self.failed(ctx, index, to);
                }
                State::Up { conn, asked: asked @ None, next_ask, .. } if now >= *next_ask => {
                    *asked = Some(now);
                    let jitter = Duration::from_millis(ctx.rng.random_range(0..2000));
                    *next_ask = now + KEEP_ALIVE.0 + jitter;
                    let conn = *conn;
                    ctx.tell(conn, self.host, Ping { nonce: 1, ext: Ext::none() });
                }
                State::Up { .. } => {}
            }
        }
    }

    /// The second link goes to another region than the first, where there is one.
    fn dial(&mut self, ctx: &mut Ctx, index: usize) {
        let ranked = self.ranked(ctx);
        let taken: Vec<Host> = self.slots.iter().filter_map(busy_with).collect();
        let region = |host: &Host| ctx.net.regions.get(host).copied();
        let free = || ranked.iter().filter(|host| !taken.contains(host));
        let elsewhere = free().find(|host| taken.iter().all(|other| region(other) != region(host)));
        let chosen = if index == 0 { free().next() } else { elsewhere.or(free().next()) }.copied();
        let Some(slot) = self.slots.get_mut(index) else { return };
        match chosen {
            Some(to) => {
                let conn = ctx.dial(ConnKind::Control, self.host, to);
                slot.state = State::Dialling { conn, to, since: ctx.now };
            }
            None => slot.state = State::Free { retry: ctx.now + BACKOFF.1 },
        }
    }

    fn failed(&mut self, ctx: &mut Ctx, index: usize, broker: Host) {
        self.shun(broker, ctx.now);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let was_up = matches!(slot.state, State::Up { .. });
        let factor = 2_u32.checked_pow(slot.failures).unwrap_or(u32::MAX);
        let longest = BACKOFF.0.saturating_mul(factor).min(BACKOFF.1);
        slot.failures = slot.failures.saturating_add(1);
        let wait = ctx.rng.random_range(Duration::ZERO..=longest);
        slot.state = State::Free { retry: ctx.now + wait };
        if was_up {
            self.events.push(KeeperEvent::Lost(broker));
        }
    }

    pub(in crate::cluster) fn handle_established(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let (incarnation, versions) = (Incarnation(0), (1, 1));
        let (name, addresses) = (String::new(), Vec::new());
        let hello = Hello { versions, features: 0, incarnation, name, addresses, ext: Ext::none() };
        ctx.tell(conn, self.host, hello);
    }

    pub(in crate::cluster) fn handle_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if slot.leaving.is_some_and(|(old, _)| old == conn) {
                slot.leaving = None;
                return;
            }
            let to = match &slot.state {
                State::Dialling { conn: own, to, .. } | State::Up { conn: own, to, .. } if *own == conn => {
                    *to
                }
                State::Free { .. } | State::Dialling { .. } | State::Up { .. } => continue,
            };
            return self.failed(ctx, index, to);
        }
    }

    /// A message on a control link; what concerns paths is given back.
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is for the driver")]
    pub(in crate::cluster) fn handle_message(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        message: Message,
    ) -> Option<Message> {
        let Some(from) = ctx.net.peer(conn, self.host) else { return Some(message) };
        let index = self.slots.iter().position(|slot| busy_with(slot) == Some(from));
        match message {
            Message::Welcome(welcome) => {
                let alternates: Vec<Host> =
                    welcome.alternates.iter().filter_map(|(id, _)| ctx.names.host(id)).collect();
                self.knows(alternates);
                if let Some(index) = index {
                    self.welcomed(ctx, index, conn, from);
                }
            }
            Message::Pong(_) => {
                if let Some(Slot { state: State::Up { asked, .. }, failures, .. }) =
                    index.and_then(|index| self.slots.get_mut(index))
                {
                    *asked = None;
                    *failures = 0;
                }
            }
            Message::Drain(drain) => {
                if !drain.is_passed_on() {
                    self.leave(ctx, index, &drain);
                }
                return Some(Message::Drain(drain));
            }
            Message::RetryAfter(retry) => {
                let alternates: Vec<Host> =
                    retry.alternates.iter().filter_map(|(id, _)| ctx.names.host(id)).collect();
                self.knows(alternates);
                ctx.close(conn, self.host);
                self.handle_ended(ctx, conn);
            }
            Message::Superseded(_) => {
                self.is_superseded = true;
                if self.claim.is_some() {
                    self.register(ctx, conn, 0);
                }
            }
            Message::Registered(_) => {}
            other => return Some(other),
        }
        None
    }

    fn welcomed(&mut self, ctx: &mut Ctx, index: usize, conn: ConnId, to: Host) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let next_ask = ctx.now + KEEP_ALIVE.0;
        slot.state = State::Up { conn, to, asked: None, next_ask };
        let left = slot.leaving.take();
        self.events.push(KeeperEvent::Up(to));
        self.register(ctx, conn, index);
        if let Some((old, _)) = left {
            ctx.close(old, self.host);
        }
    }

    fn register(&mut self, ctx: &mut Ctx, conn: ConnId, index: usize) {
        let Some(claim) = self.claim else { return };
        self.generation += 1;
        let role = match (self.is_superseded, index) {
            (true, _) => RegistrationRole::RESUME,
            (false, 0) => RegistrationRole::PRIMARY,
            (false, _) => RegistrationRole::STANDBY,
        };
        let register = Register {
            instance: claim.instance,
            instance_started_ms: claim.started_ms,
            generation: Generation(self.generation),
            role,
            scores: Vec::new(),
            ext: Ext::none(),
        };
        ctx.tell(conn, self.host, register);
    }

    /// The broker drains: another one first, then this link goes.
    fn leave(&mut self, ctx: &mut Ctx, index: Option<usize>, drain: &Drain) {
        let alternates: Vec<Host> =
            drain.alternates.iter().filter_map(|(id, _)| ctx.names.host(id)).collect();
        self.knows(alternates);
        let Some((index, slot)) = index.and_then(|index| self.slots.get_mut(index).map(|slot| (index, slot)))
        else {
            return;
        };
        if let State::Up { conn, to, .. } = slot.state {
            slot.leaving = Some((conn, to));
            slot.state = State::Free { retry: ctx.now };
            self.shunned.insert(to, ctx.now + Duration::from_millis(drain.deadline_ms.into()));
            self.dial(ctx, index);
        }
    }

    /// The network is another one: every link is made again.
    pub(in crate::cluster) fn network_changed(&mut self, ctx: &mut Ctx) {
        for slot in &mut self.slots {
            let (State::Dialling { conn, to, .. } | State::Up { conn, to, .. }) = slot.state else {
                continue;
            };
            ctx.close(conn, self.host);
            if matches!(slot.state, State::Up { .. }) {
                self.events.push(KeeperEvent::Lost(to));
            }
            slot.state = State::Free { retry: ctx.now };
            slot.failures = 0;
        }
    }
}

fn busy_with(slot: &Slot) -> Option<Host> {
    match &slot.state {
        State::Free { .. } => None,
        State::Dialling { to, .. } | State::Up { to, .. } => Some(*to),
    }
}
