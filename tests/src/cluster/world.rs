//! Every process on one network: hands each happening to the process that it concerns, and checks after each.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::session::{Session, SessionConfig};
use rc_proto::wire::{EndpointId, Jti, SessionId};

use super::application;
use super::broker::Broker;
use super::ctx::{Ctx, Happening};
use super::endpoint::seat::Seat;
use super::endpoint::{Controller, Target};
use super::faults::Undo;
use super::names;
use super::net::{Arrival, ConnId, Host, HostState};
use super::trace::Trace;

/// How often TCP's own timers and draining brokers are looked after.
const SWEEP: Duration = Duration::from_secs(2);
/// Steps without time passing after which something turns in a circle.
const STEPS_AT_ONCE_MAX: u32 = 200_000;

/// See the module.
pub(super) struct World {
    pub(super) ctx: Ctx,
    pub(super) brokers: BTreeMap<Host, Broker>,
    pub(super) controllers: BTreeMap<Host, Controller>,
    pub(super) targets: BTreeMap<Host, Target>,
    /// Who has which session.
    pub(super) ends: BTreeMap<SessionId, (Host, Host)>,
    pub(super) undo: BTreeMap<u64, Undo>,
    pub(super) config: SessionConfig,
    /// Applications write nothing.
    pub(super) is_quiet: bool,
    /// More faults may begin until then.
    pub(super) faults_until: Moment,
    pub(super) next_fault: u64,
}

impl World {
    /// So many brokers, spread over the regions, and nothing else yet.
    pub(super) fn new(seed: u64, trace: Trace, brokers: u16, regions: u8) -> Self {
        let mut ctx = Ctx::new(seed, trace);
        for number in 0..brokers {
            let region = u8::try_from(number % u16::from(regions.max(1))).unwrap_or(0);
            let host = Host::Broker(number);
            ctx.names.brokers.insert(names::broker(region, number), host);
            ctx.net.regions.insert(host, region);
        }
        let now = ctx.now;
        let mut world = Self {
            ctx,
            brokers: BTreeMap::new(),
            controllers: BTreeMap::new(),
            targets: BTreeMap::new(),
            ends: BTreeMap::new(),
            undo: BTreeMap::new(),
            config: SessionConfig::default(),
            is_quiet: false,
            faults_until: now,
            next_fault: 0,
        };
        for number in 0..brokers {
            world.start_broker(Host::Broker(number));
        }
        world.ctx.agenda.put(now + SWEEP, Happening::Sweep);
        world
    }

    pub(super) fn start_broker(&mut self, host: Host) {
        let Some(id) = self.ctx.names.broker(host) else { return };
        self.ctx.net.hosts.insert(host, HostState::Up);
        let broker = Broker::start(&mut self.ctx, host, &id);
        self.ctx.note(format_args!("{id} starts"));
        self.brokers.insert(host, broker);
        self.arm(host);
    }

    pub(super) fn add_controller(&mut self, number: u16, region: u8) -> Host {
        let host = Host::Controller(number);
        let id = self.add_endpoint(host, names::endpoint("controller", number), region);
        let controller = Controller::new(&mut self.ctx, host, id);
        self.controllers.insert(host, controller);
        self.arm(host);
        host
    }

    /// A Target of the identity `identity`; the same identity may run twice.
    pub(super) fn add_target(&mut self, number: u16, identity: u16, region: u8) -> Host {
        let host = Host::Target(number);
        let id = self.add_endpoint(host, names::endpoint("target", identity), region);
        let window = self.config.resume_window + Duration::from_secs(30);
        let config = SessionConfig { resume_window: window, ..self.config.clone() };
        let target = Target::new(&mut self.ctx, host, id, config);
        self.targets.insert(host, target);
        self.arm(host);
        host
    }

    fn add_endpoint(&mut self, host: Host, id: EndpointId, region: u8) -> EndpointId {
        self.ctx.net.hosts.insert(host, HostState::Up);
        self.ctx.net.regions.insert(host, region);
        self.ctx.names.endpoints.insert(host, id.clone());
        id
    }

    /// Starts a session between two endpoints.
    pub(super) fn start_session(&mut self, controller: Host, target: Host) -> Option<SessionId> {
        let to = self.ctx.names.endpoint(target)?;
        let from = self.ctx.names.endpoint(controller)?;
        let ticket = names::ticket(&from, &to, Jti(self.ctx.rng.random()), self.ctx.unix_s());
        let config = self.config.clone();
        let owner = self.controllers.get_mut(&controller)?;
        let id = owner.start(&mut self.ctx, &to, ticket, config);
        self.ends.insert(id, (controller, target));
        self.ctx.agenda.put(self.ctx.now + Duration::from_secs(1), Happening::Application(id));
        self.arm(controller);
        Some(id)
    }

    /// Whether a broker holds the Target by a link that still carries something.
    pub(super) fn is_reachable(&self, target: Host) -> bool {
        let Some(target) = self.targets.get(&target) else { return false };
        self.brokers.values().any(|broker| broker.reaches(&self.ctx, &target.keeper.id, target.instance))
    }

    /// Whether both ends have a path that carries the session and that they trust.
    pub(super) fn is_attached(&self, id: SessionId) -> bool {
        let carries = |session: &Session| {
            session.status().paths.iter().any(|path| path.live && path.epoch.0 > 0 && !path.suspect)
        };
        self.controller_session(id).is_some_and(carries) && self.target_session(id).is_some_and(carries)
    }

    pub(super) fn controller_session(&self, id: SessionId) -> Option<&Session> {
        let (host, _) = self.ends.get(&id)?;
        self.controllers.get(host)?.sessions.get(&id).map(|driven| &driven.seat.session)
    }

    /// The Target's end; with two instances of one identity, whichever has it.
    pub(super) fn target_session(&self, id: SessionId) -> Option<&Session> {
        self.targets.values().find_map(|target| target.sessions.get(&id).map(|(seat, _)| &seat.session))
    }

    /// Lets something happen at one end of a session.
    pub(super) fn at_end<R>(
        &mut self,
        id: SessionId,
        at_controller: bool,
        act: impl FnOnce(&mut Ctx, &mut Seat) -> R,
    ) -> Option<R> {
        let host = if at_controller {
            self.ends.get(&id)?.0
        } else {
            *self.targets.iter().find(|(_, target)| target.sessions.contains_key(&id))?.0
        };
        if self.ctx.net.state(host) != HostState::Up {
            return None;
        }
        let result = if at_controller {
            let controller = self.controllers.get_mut(&host)?;
            let result = act(&mut self.ctx, &mut controller.driven_mut(id)?.seat);
            controller.settle(&mut self.ctx, id);
            result
        } else {
            let target = self.targets.get_mut(&host)?;
            let result = act(&mut self.ctx, &mut target.sessions.get_mut(&id)?.0);
            target.settle(&mut self.ctx, id);
            result
        };
        self.arm(host);
        Some(result)
    }

    /// Runs until `span` has passed, checking after every step.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub(super) fn run_for(&mut self, span: Duration) -> Result<(), String> {
        let until = self.ctx.now + span;
        let mut at_once = 0;
        while let Some((at, what)) = self.ctx.agenda.pop(until) {
            at_once = if at > self.ctx.now { 0 } else { at_once + 1 };
            if at_once > STEPS_AT_ONCE_MAX {
                return Err(format!("{what:?} makes no progress"));
            }
            self.ctx.now = at.max(self.ctx.now);
            self.happen(what);
            self.check()?;
        }
        self.ctx.now = until;
        Ok(())
    }

    /// Runs until `is_true`, looking every 100 ms; `false` when `limit` has passed first.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut is_true: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, String> {
        let end = self.ctx.now + limit;
        while self.ctx.now < end {
            if is_true(self) {
                return Ok(true);
            }
            self.run_for(Duration::from_millis(100))?;
        }
        Ok(is_true(self))
    }

    fn check(&mut self) -> Result<(), String> {
        while let Some(id) = self.ctx.oracle.take_touched() {
            let Some((host, _)) = self.ends.get(&id) else { continue };
            let controller = self.controllers.get(host).and_then(|owner| owner.sessions.get(&id));
            let target = self.targets.values().find_map(|target| target.sessions.get(&id));
            let controller = controller.map(|driven| &driven.seat.session);
            self.ctx.oracle.check(id, controller, target.map(|(seat, _)| &seat.session));
        }
        match self.ctx.oracle.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive(conn, to) => self.arrive(conn, to),
            Happening::Tick(host) => self.tick(host),
            Happening::Application(id) => self.application(id),
            Happening::Sweep => self.sweep(),
            Happening::Fault(number) => self.fault(number),
        }
    }

    /// The one who writes and the one who reads take turns.
    fn arrive(&mut self, conn: ConnId, to: Host) {
        let takes = self.brokers.get(&to).is_none_or(|broker| broker.takes_record(&self.ctx, conn));
        let from = self.ctx.net.peer(conn, to);
        let was_full = from.is_some_and(|from| !self.ctx.net.has_room(conn, from));
        let arrival = self.ctx.take(conn, to, takes);
        let is_running = self.ctx.net.state(to) == HostState::Up;
        if !matches!(arrival, Arrival::Nothing) && is_running {
            self.ctx.trace.mix(conn.0);
            self.hand_over(conn, to, arrival);
            self.arm(to);
        }
        if let Some(from) = from.filter(|from| was_full && self.ctx.net.has_room(conn, *from)) {
            self.writable(from, conn);
        }
    }

    fn hand_over(&mut self, conn: ConnId, to: Host, arrival: Arrival) {
        let ctx = &mut self.ctx;
        if let Some(broker) = self.brokers.get_mut(&to) {
            match arrival {
                Arrival::Nothing => {}
                Arrival::Established => broker.handle_established(ctx, conn),
                Arrival::Message(message) => broker.handle_message(ctx, conn, *message),
                Arrival::Record(record) => broker.handle_record(ctx, conn, record),
                Arrival::Ended => broker.handle_ended(ctx, conn),
            }
        } else if let Some(controller) = self.controllers.get_mut(&to) {
            match arrival {
                Arrival::Nothing => {}
                Arrival::Established => controller.handle_established(ctx, conn),
                Arrival::Message(message) => controller.handle_message(ctx, conn, *message),
                Arrival::Record(record) => controller.handle_record(ctx, conn, record),
                Arrival::Ended => controller.handle_ended(ctx, conn),
            }
        } else if let Some(target) = self.targets.get_mut(&to) {
            match arrival {
                Arrival::Nothing => {}
                Arrival::Established => target.handle_established(ctx, conn),
                Arrival::Message(message) => target.handle_message(ctx, conn, *message),
                Arrival::Record(record) => target.handle_record(ctx, conn, record),
                Arrival::Ended => target.handle_ended(ctx, conn),
            }
        }
    }

    fn writable(&mut self, host: Host, conn: ConnId) {
        if self.ctx.net.state(host) != HostState::Up {
            return;
        }
        if let Some(broker) = self.brokers.get_mut(&host) {
            broker.handle_writable(&mut self.ctx, conn);
        } else if let Some(controller) = self.controllers.get_mut(&host) {
            controller.handle_writable(&mut self.ctx, conn);
        } else if let Some(target) = self.targets.get_mut(&host) {
            target.handle_writable(&mut self.ctx, conn);
        }
        self.arm(host);
    }

    fn tick(&mut self, host: Host) {
        let now = self.ctx.now;
        if !self.ctx.agenda.take_tick(host, now) || self.ctx.net.state(host) != HostState::Up {
            return;
        }
        if let Some(broker) = self.brokers.get_mut(&host) {
            broker.handle_timeout(&mut self.ctx);
        } else if let Some(controller) = self.controllers.get_mut(&host) {
            controller.handle_timeout(&mut self.ctx);
        } else if let Some(target) = self.targets.get_mut(&host) {
            target.handle_timeout(&mut self.ctx);
        }
        self.arm(host);
    }

    /// Sets a process's timer; one that is due already gets its turn a moment later.
    pub(super) fn arm(&mut self, host: Host) {
        let now = self.ctx.now;
        let due = if let Some(broker) = self.brokers.get(&host) {
            broker.poll_timeout()
        } else if let Some(controller) = self.controllers.get(&host) {
            controller.poll_timeout(now)
        } else if let Some(target) = self.targets.get(&host) {
            target.poll_timeout()
        } else {
            return;
        };
        self.ctx.agenda.arm(host, due.max(now + Duration::from_micros(200)));
    }

    fn application(&mut self, id: SessionId) {
        let is_busy = self.ctx.rng.random_bool(0.6);
        let gap =
            if is_busy { self.ctx.rng.random_range(5..400) } else { self.ctx.rng.random_range(400..12_000) };
        let next = self.ctx.now + Duration::from_millis(gap);
        if self.ctx.oracle.may_end.contains_key(&id) {
            return;
        }
        self.ctx.agenda.put(next, Happening::Application(id));
        if !self.is_quiet {
            let at_controller = self.ctx.rng.random();
            self.at_end(id, at_controller, application::act);
        }
    }

    fn sweep(&mut self) {
        let next = self.ctx.now + SWEEP;
        self.ctx.agenda.put(next, Happening::Sweep);
        for (conn, host) in self.ctx.sweep_connections() {
            if self.ctx.net.state(host) == HostState::Up {
                self.hand_over(conn, host, Arrival::Ended);
                self.arm(host);
            }
        }
        self.stop_drained();
    }
}
