//! What goes wrong: one random fault after the other, each undone after a while.

use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::broker::Malice;
use super::ctx::Happening;
use super::dns::Dns;
use super::net::{ConnId, ConnKind, Host, HostState};
use super::world::World;

/// How long a draining broker has.
const DRAIN: Duration = Duration::from_secs(25);

/// What ends a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undo {
    /// Another one begins.
    Next,
    Restart(Host),
    Thaw(Host),
    Unblock(Vec<(Host, Host)>),
    Unslow(Host, Host),
    Dns,
}

impl World {
    /// Lets faults begin for so long, the first within a second.
    pub(super) fn begin_faults(&mut self, span: Duration) {
        self.faults_until = self.ctx.now + span;
        self.later(Duration::from_secs(1), Undo::Next);
    }

    pub(super) fn later(&mut self, after: Duration, undo: Undo) {
        let number = self.next_fault;
        self.next_fault += 1;
        self.undo.insert(number, undo);
        self.ctx.agenda.put(self.ctx.now + after, Happening::Fault(number));
    }

    pub(super) fn fault(&mut self, number: u64) {
        match self.undo.remove(&number) {
            Some(Undo::Next) if self.ctx.now < self.faults_until => {
                self.random_fault();
                let gap = Duration::from_millis(self.ctx.rng.random_range(500..18_000));
                self.later(gap, Undo::Next);
            }
            Some(undo) => self.undo(undo),
            None => {}
        }
    }

    fn undo(&mut self, undo: Undo) {
        self.ctx.note(format_args!("undo {undo:?}"));
        match undo {
            Undo::Next => {}
            Undo::Restart(host) => self.start_broker(host),
            Undo::Thaw(host) => self.thaw(host),
            Undo::Unblock(pairs) => {
                for (from, to) in &pairs {
                    self.ctx.net.block(*from, *to, false);
                }
                self.ctx.resume(|conn| {
                    pairs.iter().any(|(from, to)| {
                        (conn.dialler == *from && conn.acceptor == *to)
                            || (conn.dialler == *to && conn.acceptor == *from)
                    })
                });
            }
            Undo::Unslow(from, to) => self.ctx.net.slow(from, to, Duration::ZERO),
            Undo::Dns => self.ctx.dns = Dns::Fresh,
        }
    }

    /// Everything is well from now on.
    pub(super) fn heal(&mut self) {
        while let Some((_, undo)) = self.undo.pop_first() {
            self.undo(undo);
        }
        for broker in self.brokers.values_mut() {
            broker.malice = Malice::None;
        }
    }

    fn random_fault(&mut self) {
        self.ctx.oracle.counts.faults += 1;
        let seconds = |world: &mut Self, from: u64, to: u64| {
            Duration::from_millis(world.ctx.rng.random_range(from * 1000..to * 1000))
        };
        match self.ctx.rng.random_range(0..100) {
            0..10 => self.stop_random_broker(false),
            10..14 => self.stop_random_broker(true),
            14..23 => {
                let span = seconds(self, 1, 20);
                self.freeze_random_broker(span);
            }
            23..29 => self.drain_random_broker(),
            29..38 => self.cut_random_link(true),
            38..46 => self.cut_random_link(false),
            46..51 => self.split_mesh(),
            51..58 => self.slow_random_link(),
            58..63 => self.reset_random_leg(),
            63..68 => self.network_change(),
            68..72 => {
                let span = seconds(self, 1, 20);
                self.suspend_random_endpoint(span);
            }
            72..78 => self.break_dns(),
            78..81 => self.kill_two_brokers(),
            _ => self.corrupt_random_broker(),
        }
    }

    fn broker_in(&mut self, state: HostState) -> Option<Host> {
        let hosts: Vec<Host> =
            self.brokers.keys().copied().filter(|host| self.ctx.net.state(*host) == state).collect();
        hosts.choose(&mut self.ctx.rng).copied()
    }

    fn endpoint(&mut self) -> Option<Host> {
        let hosts: Vec<Host> = self.controllers.keys().chain(self.targets.keys()).copied().collect();
        hosts.choose(&mut self.ctx.rng).copied()
    }

    fn any_host(&mut self) -> Option<Host> {
        let hosts: Vec<Host> =
            self.brokers.keys().chain(self.controllers.keys()).chain(self.targets.keys()).copied().collect();
        hosts.choose(&mut self.ctx.rng).copied()
    }

    /// The process is killed, or its machine is gone; another run of the broker starts later.
    pub(super) fn stop_broker(&mut self, host: Host, is_machine_gone: bool, restart: Duration) {
        self.ctx.note(format_args!("fault: {host:?} stops, machine gone {is_machine_gone}"));
        let state = if is_machine_gone { HostState::Gone } else { HostState::Killed };
        self.ctx.net.hosts.insert(host, state);
        self.ctx.abandon(host, is_machine_gone);
        self.brokers.remove(&host);
        self.later(restart, Undo::Restart(host));
    }

    fn stop_random_broker(&mut self, is_machine_gone: bool) {
        let Some(host) = self.broker_in(HostState::Up) else { return };
        let restart = Duration::from_millis(self.ctx.rng.random_range(300..20_000));
        self.stop_broker(host, is_machine_gone, restart);
    }

    /// Two brokers die within one suspicion span.
    fn kill_two_brokers(&mut self) {
        self.stop_random_broker(false);
        if self.brokers.len() > 1 {
            self.stop_random_broker(false);
        }
    }

    /// A process does nothing for a while; its clock runs on.
    pub(super) fn freeze(&mut self, host: Host, span: Duration) {
        if self.ctx.net.state(host) == HostState::Up {
            self.ctx.note(format_args!("fault: {host:?} freezes for {span:?}"));
            self.ctx.net.hosts.insert(host, HostState::Frozen);
            self.later(span, Undo::Thaw(host));
        }
    }

    fn freeze_random_broker(&mut self, span: Duration) {
        if let Some(host) = self.broker_in(HostState::Up) {
            self.freeze(host, span);
        }
    }

    fn suspend_random_endpoint(&mut self, span: Duration) {
        // Two suspends behind each other are longer than a session is kept for: then its end is right.
        let mut ends = self.controllers.keys().chain(self.targets.keys());
        let is_one_suspended = ends.any(|host| self.ctx.net.state(*host) == HostState::Frozen);
        if let Some(host) = self.endpoint().filter(|_| !is_one_suspended) {
            self.freeze(host, span);
        }
    }

    fn thaw(&mut self, host: Host) {
        if self.ctx.net.state(host) == HostState::Frozen {
            self.ctx.net.hosts.insert(host, HostState::Up);
            self.ctx.agenda.forget(host);
            self.ctx.resume(|conn| conn.dialler == host || conn.acceptor == host);
            self.arm(host);
        }
    }

    fn drain_random_broker(&mut self) {
        if let Some(host) = self.broker_in(HostState::Up) {
            self.drain(host, DRAIN);
        }
    }

    pub(super) fn drain(&mut self, host: Host, within: Duration) {
        if let Some(broker) = self.brokers.get_mut(&host) {
            broker.drain(&mut self.ctx, within);
            self.arm(host);
        }
    }

    /// Brokers that drain and have nothing more to wait for stop, and start again later.
    pub(super) fn stop_drained(&mut self) {
        let now = self.ctx.now;
        let over = self.brokers.values().filter(|broker| broker.is_over(now)).map(|broker| broker.host);
        let over: Vec<Host> = over.filter(|host| self.ctx.net.state(*host) == HostState::Up).collect();
        for host in over {
            let restart = Duration::from_millis(self.ctx.rng.random_range(300..5_000));
            self.stop_broker(host, false, restart);
        }
    }

    /// Blocks directions between hosts for a while.
    pub(super) fn block(&mut self, pairs: Vec<(Host, Host)>, span: Duration) {
        self.ctx.note(format_args!("fault: blocked {pairs:?} for {span:?}"));
        for (from, to) in &pairs {
            self.ctx.net.block(*from, *to, true);
        }
        self.later(span, Undo::Unblock(pairs));
    }

    fn cut_random_link(&mut self, both_ways: bool) {
        let (Some(a), Some(b)) = (self.any_host(), self.broker_in(HostState::Up)) else { return };
        if a == b {
            return;
        }
        let span = Duration::from_millis(self.ctx.rng.random_range(500..20_000));
        let pairs = match (both_ways, self.ctx.rng.random()) {
            (true, _) => vec![(a, b), (b, a)],
            (false, true) => vec![(a, b)],
            (false, false) => vec![(b, a)],
        };
        self.block(pairs, span);
    }

    /// The brokers of one region and all others do not reach each other.
    fn split_mesh(&mut self) {
        let region = self.ctx.rng.random_range(0..3);
        let hosts: Vec<Host> = self.ctx.names.brokers.values().copied().collect();
        let is_inside = |host: &Host| self.ctx.net.regions.get(host) == Some(&region);
        let (inside, outside): (Vec<Host>, Vec<Host>) = hosts.into_iter().partition(is_inside);
        let pairs =
            inside.iter().flat_map(|a| outside.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect();
        let span = Duration::from_millis(self.ctx.rng.random_range(500..20_000));
        self.block(pairs, span);
    }

    fn slow_random_link(&mut self) {
        let (Some(a), Some(b)) = (self.any_host(), self.any_host()) else { return };
        let by = Duration::from_millis(self.ctx.rng.random_range(50..900));
        self.ctx.note(format_args!("fault: {a:?} to {b:?} takes {by:?} more"));
        self.ctx.net.slow(a, b, by);
        let span = Duration::from_millis(self.ctx.rng.random_range(500..30_000));
        self.later(span, Undo::Unslow(a, b));
    }

    /// A middlebox resets one leg.
    fn reset_random_leg(&mut self) {
        let legs: Vec<(ConnId, Host, Host)> = self
            .ctx
            .net
            .ids()
            .filter(|(_, conn)| conn.kind == ConnKind::Leg)
            .map(|(id, conn)| (id, conn.dialler, conn.acceptor))
            .collect();
        let Some((id, a, b)) = legs.choose(&mut self.ctx.rng).copied() else { return };
        self.ctx.note(format_args!("fault: the leg {} of {a:?} and {b:?} is reset", id.0));
        self.ctx.reset_both(id);
    }

    /// An endpoint has another address: its connections are dark. Half of them notice.
    fn network_change(&mut self) {
        let Some(host) = self.endpoint() else { return };
        let notices = self.ctx.rng.random();
        self.change_network(host, notices);
    }

    pub(super) fn change_network(&mut self, host: Host, notices: bool) {
        self.ctx.note(format_args!("fault: {host:?} has another address, notices {notices}"));
        self.ctx.net.darken(host);
        if notices && self.ctx.net.state(host) == HostState::Up {
            if let Some(controller) = self.controllers.get_mut(&host) {
                controller.network_changed(&mut self.ctx);
            } else if let Some(target) = self.targets.get_mut(&host) {
                target.network_changed(&mut self.ctx);
            }
            self.arm(host);
        }
    }

    fn break_dns(&mut self) {
        let hosts: Vec<Host> = self.ctx.names.brokers.values().copied().collect();
        self.ctx.dns = if self.ctx.rng.random() {
            Dns::Silent
        } else {
            Dns::Stale(hosts.choose(&mut self.ctx.rng).copied().into_iter().collect())
        };
        let dns = self.ctx.dns.clone();
        self.ctx.note(format_args!("fault: DNS is {dns:?}"));
        let span = Duration::from_millis(self.ctx.rng.random_range(2_000..60_000));
        self.later(span, Undo::Dns);
    }

    fn corrupt_random_broker(&mut self) {
        let Some(host) = self.broker_in(HostState::Up) else { return };
        let delay = Duration::from_millis(self.ctx.rng.random_range(100..9_000));
        let malice = [
            Malice::Flip,
            Malice::Truncate,
            Malice::Replay,
            Malice::Delay(delay),
            Malice::Splice,
            Malice::InviteTwice,
        ];
        let Some(malice) = malice.choose(&mut self.ctx.rng).copied() else { return };
        self.ctx.note(format_args!("fault: {host:?} will do {malice:?}"));
        if let Some(broker) = self.brokers.get_mut(&host) {
            broker.malice = malice;
        }
    }
}
