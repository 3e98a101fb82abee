//! The network between the processes: connections with latency, jitter, a rate, and everything that goes wrong on them.
//!
//! A connection is two pipes. What is sent arrives in order, each piece no earlier than the latency of its direction
//! after it was sent. A blocked direction holds what is on its way, as TCP does, until it is free again; a connection
//! that went dark (an endpoint has another address now) holds it for ever, until a timer gives it up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::wire::message::Message;

use super::ctx::{Ctx, Happening};
pub(super) use super::piece::{Payload, Record, RecordBody};

/// Bytes that a pipe takes before its sender has to wait.
pub(super) const PIPE_BYTES_MAX: usize = 64 * 1024;
/// Bytes per second of a path between two hosts.
const RATE: u64 = 12_500_000;
/// A connection whose far side cannot be reached is given up after this, by TCP keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Bytes on a leg that nobody acknowledges end it after this, on a control or mesh link after the second.
const USER_TIMEOUT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// A process and the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// A broker.
    Broker(u16),
    /// A Controller.
    Controller(u16),
    /// A Target.
    Target(u16),
}

/// Numbers a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId(pub(super) u64);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnKind {
    Control,
    Leg,
    Mesh,
}

#[derive(Debug)]
struct Piece {
    sent: Moment,
    arrives: Moment,
    payload: Payload,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<Piece>,
    bytes: usize,
    last: Moment,
    /// An arrival is on the agenda.
    is_awaited: bool,
    /// Nothing arrives before.
    held_until: Moment,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) kind: ConnKind,
    pub(super) dialler: Host,
    pub(super) acceptor: Host,
    to_dialler: Pipe,
    to_acceptor: Pipe,
    dialler_open: bool,
    acceptor_open: bool,
    is_dark: bool,
    unreachable: Option<Moment>,
}

impl Conn {
    pub(super) fn other(&self, host: Host) -> Host {
        if host == self.dialler { self.acceptor } else { self.dialler }
    }

    fn pipe_to(&mut self, host: Host) -> &mut Pipe {
        if host == self.dialler { &mut self.to_dialler } else { &mut self.to_acceptor }
    }

    fn is_open(&self, host: Host) -> bool {
        if host == self.dialler { self.dialler_open } else { self.acceptor_open }
    }

    fn shut(&mut self, host: Host) {
        if host == self.dialler {
            self.dialler_open = false;
        } else {
            self.acceptor_open = false;
        }
    }
}

/// How a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostState {
    Up,
    /// The process does nothing; its kernel still accepts and acknowledges.
    Frozen,
    /// The process is gone, its kernel answers with RST.
    Killed,
    /// The machine is gone: nothing answers.
    Gone,
}

/// What a connection is to do next at one of its ends.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Nothing is there, or it has to wait.
    Nothing,
    /// The dialler's handshake is done.
    Established,
    Message(Box<Message>),
    Record(Record),
    /// The other side is gone.
    Ended,
}

/// Every connection, and how hosts and links are.
#[derive(Debug, Default)]
pub(super) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    pub(super) hosts: BTreeMap<Host, HostState>,
    pub(super) regions: BTreeMap<Host, u8>,
    blocked: BTreeMap<(Host, Host), u32>,
    slowed: BTreeMap<(Host, Host), Duration>,
    next: u64,
}

impl Net {
    pub(super) fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(&id)
    }

    /// The connections that `host` has open, oldest first.
    pub(super) fn of(&self, host: Host) -> Vec<ConnId> {
        let own = |conn: &Conn| (conn.dialler == host || conn.acceptor == host) && conn.is_open(host);
        self.conns.iter().filter(|(_, conn)| own(conn)).map(|(id, _)| *id).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.conns.iter().map(|(id, conn)| (*id, conn))
    }

    pub(super) fn state(&self, host: Host) -> HostState {
        self.hosts.get(&host).copied().unwrap_or(HostState::Gone)
    }

    /// Who is at the other end.
    pub(super) fn peer(&self, id: ConnId, own: Host) -> Option<Host> {
        self.conns.get(&id).map(|conn| conn.other(own))
    }

    /// Bytes on their way to the other end.
    pub(super) fn backlog(&self, id: ConnId, from: Host) -> usize {
        let Some(conn) = self.conns.get(&id) else { return 0 };
        if from == conn.dialler { conn.to_acceptor.bytes } else { conn.to_dialler.bytes }
    }

    pub(super) fn has_room(&self, id: ConnId, from: Host) -> bool {
        self.backlog(id, from) < PIPE_BYTES_MAX
    }

    /// Whether both ends have the connection and nothing is between them.
    pub(super) fn is_clear(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_some_and(|conn| {
            let ways = [conn.dialler, conn.acceptor].into_iter().all(|end| self.can_reach(conn, end));
            ways && conn.dialler_open && conn.acceptor_open
        })
    }

    /// One way's latency without jitter.
    pub(super) fn latency(&self, from: Host, to: Host) -> Duration {
        let region = |host| self.regions.get(&host).copied().unwrap_or(0);
        let (a, b) = (region(from), region(to));
        let base = match (a.min(b), a.max(b)) {
            (x, y) if x == y => 3,
            (0, 1) => 20,
            (0, 2) => 55,
            _ => 40,
        };
        Duration::from_millis(base) + self.slowed.get(&(from, to)).copied().unwrap_or_default()
    }

    pub(super) fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    /// Blocks or frees one direction; blocks count.
    pub(super) fn block(&mut self, from: Host, to: Host, is_blocked: bool) {
        let count = self.blocked.entry((from, to)).or_default();
        *count = if is_blocked { *count + 1 } else { count.saturating_sub(1) };
    }

    pub(super) fn slow(&mut self, from: Host, to: Host, by: Duration) {
        self.slowed.insert((from, to), by);
    }

    /// Every connection of an endpoint that has another address now.
    pub(super) fn darken(&mut self, host: Host) {
        for conn in self.conns.values_mut().filter(|conn| conn.dialler == host || conn.acceptor == host) {
            conn.is_dark = true;
        }
    }

    fn can_reach(&self, conn: &Conn, from: Host) -> bool {
        let to = conn.other(from);
        !conn.is_dark && !self.is_blocked(from, to) && self.state(to) != HostState::Gone
    }
}

impl Ctx {
    /// Starts a connection; [`Arrival::Established`] or [`Arrival::Ended`] follows, or nothing.
    pub(super) fn dial(&mut self, kind: ConnKind, from: Host, to: Host) -> ConnId {
        let id = ConnId(self.net.next);
        self.net.next += 1;
        let conn = Conn {
            kind,
            dialler: from,
            acceptor: to,
            to_dialler: Pipe::default(),
            to_acceptor: Pipe::default(),
            dialler_open: true,
            acceptor_open: true,
            is_dark: false,
            unreachable: None,
        };
        self.net.conns.insert(id, conn);
        self.send(id, from, Payload::Step(1));
        id
    }

    /// Sends a message over a control or mesh link, or as the first frames of a leg.
    pub(super) fn tell(&mut self, id: ConnId, from: Host, message: impl Into<Message>) {
        self.send(id, from, Payload::Message(Box::new(message.into())));
    }

    pub(super) fn send(&mut self, id: ConnId, from: Host, payload: Payload) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let to = conn.other(from);
        let latency = self.net.latency(from, to);
        let jitter = latency.mul_f64(self.rng.random_range(0.0..0.2));
        let bytes = payload.bytes();
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if !conn.is_open(from) && !matches!(payload, Payload::Fin | Payload::Rst) {
            return;
        }
        let pipe = conn.pipe_to(to);
        let on_wire = Duration::from_nanos(bytes as u64 * 1_000_000_000 / RATE);
        let arrives = (now + latency + jitter).max(pipe.last) + on_wire;
        pipe.last = arrives;
        pipe.bytes += bytes;
        pipe.queue.push_back(Piece { sent: now, arrives, payload });
        if !pipe.is_awaited {
            pipe.is_awaited = true;
            self.agenda.put(arrives, Happening::Arrive(id, to));
        }
    }

    /// Closes one side; the other hears of it behind what was sent.
    pub(super) fn close(&mut self, id: ConnId, from: Host) {
        let Some(conn) = self.net.conns.get_mut(&id).filter(|conn| conn.is_open(from)) else { return };
        conn.shut(from);
        let pipe = conn.pipe_to(from);
        pipe.queue.clear();
        pipe.bytes = 0;
        let other = conn.other(from);
        if conn.is_open(other) {
            self.send(id, from, Payload::Fin);
        } else {
            self.net.conns.remove(&id);
        }
    }

    /// Somebody on the way resets a connection: both ends hear of it.
    pub(super) fn reset_both(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let ends = [conn.dialler, conn.acceptor];
        for end in ends {
            self.send(id, end, Payload::Rst);
        }
    }

    /// The process of `host` is gone: its kernel ends every connection, unless the machine is gone too.
    pub(super) fn abandon(&mut self, host: Host, is_machine_gone: bool) {
        for id in self.net.of(host) {
            let Some(conn) = self.net.conns.get_mut(&id) else { continue };
            conn.shut(host);
            let pipe = conn.pipe_to(host);
            pipe.queue.clear();
            pipe.bytes = 0;
            let other = conn.other(host);
            if !conn.is_open(other) {
                self.net.conns.remove(&id);
            } else if is_machine_gone {
                // What had left the machine still arrives.
            } else {
                self.send(id, host, Payload::Rst);
            }
        }
    }

    /// Looks again at everything that waits for `host`, or on the link between two hosts.
    pub(super) fn resume(&mut self, concerns: impl Fn(&Conn) -> bool) {
        let now = self.now;
        for (id, conn) in self.net.conns.iter_mut().filter(|(_, conn)| concerns(conn)) {
            for to in [conn.dialler, conn.acceptor] {
                let pipe = conn.pipe_to(to);
                if let Some(front) = pipe.queue.front()
                    && !pipe.is_awaited
                {
                    pipe.is_awaited = true;
                    self.agenda.put(front.arrives.max(now), Happening::Arrive(*id, to));
                }
            }
        }
    }

    /// Looks again at what waits on one connection.
    pub(super) fn kick(&mut self, id: ConnId, to: Host) {
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let pipe = conn.pipe_to(to);
        if let Some(front) = pipe.queue.front()
            && !pipe.is_awaited
        {
            pipe.is_awaited = true;
            let at = front.arrives.max(now);
            self.agenda.put(at, Happening::Arrive(id, to));
        }
    }

    /// Holds what flows to `to` on one connection for a while.
    pub(super) fn hold(&mut self, id: ConnId, to: Host, span: Duration) {
        let until = self.now + span;
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.pipe_to(to).held_until = until;
        }
    }

    /// The next thing that has arrived at `to`. `takes_records` is false while the receiver has no room for one.
    pub(super) fn take(&mut self, id: ConnId, to: Host, takes_records: bool) -> Arrival {
        let now = self.now;
        let state = self.net.state(to);
        let Some(conn) = self.net.conns.get(&id) else { return Arrival::Nothing };
        let from = conn.other(to);
        let is_stopped = conn.is_dark || self.net.is_blocked(from, to);
        let Some(conn) = self.net.conns.get_mut(&id) else { return Arrival::Nothing };
        let is_open = conn.is_open(to);
        let pipe = conn.pipe_to(to);
        pipe.is_awaited = false;
        let Some(front) = pipe.queue.front() else { return Arrival::Nothing };
        let due = front.arrives.max(pipe.held_until);
        if due > now {
            pipe.is_awaited = true;
            self.agenda.put(due, Happening::Arrive(id, to));
            return Arrival::Nothing;
        }
        let is_kernels = matches!(front.payload, Payload::Step(1 | 2));
        let waits = (state == HostState::Frozen && !is_kernels)
            || (matches!(front.payload, Payload::Record(_)) && is_open && !takes_records);
        if is_stopped || waits {
            return Arrival::Nothing;
        }
        let Some(piece) = pipe.queue.pop_front() else { return Arrival::Nothing };
        pipe.bytes = pipe.bytes.saturating_sub(piece.payload.bytes());
        if let Some(next) = pipe.queue.front() {
            pipe.is_awaited = true;
            let at = next.arrives.max(now);
            self.agenda.put(at, Happening::Arrive(id, to));
        }
        self.receive(id, to, piece.payload, state, is_open)
    }

    fn receive(
        &mut self,
        id: ConnId,
        to: Host,
        payload: Payload,
        state: HostState,
        is_open: bool,
    ) -> Arrival {
        if state == HostState::Gone {
            return Arrival::Nothing;
        }
        let is_end = matches!(payload, Payload::Fin | Payload::Rst);
        if !is_open || (state == HostState::Killed && !is_end) {
            // Nobody has this connection here any more.
            if is_end {
                self.net.conns.remove(&id);
            } else {
                if let Some(conn) = self.net.conns.get_mut(&id) {
                    conn.shut(to);
                }
                self.send(id, to, Payload::Rst);
            }
            return Arrival::Nothing;
        }
        match payload {
            Payload::Step(4) => Arrival::Established,
            Payload::Step(step) => {
                self.send(id, to, Payload::Step(step + 1));
                Arrival::Nothing
            }
            Payload::Message(message) => Arrival::Message(message),
            Payload::Record(record) => Arrival::Record(record),
            Payload::Fin | Payload::Rst => {
                self.end_both(id);
                Arrival::Ended
            }
        }
    }

    fn end_both(&mut self, id: ConnId) {
        self.net.conns.remove(&id);
    }

    /// What TCP gives up by itself: the ends to tell.
    pub(super) fn sweep_connections(&mut self) -> Vec<(ConnId, Host)> {
        let now = self.now;
        let hosts = self.net.hosts.clone();
        let (mut ended, mut over) = (Vec::new(), Vec::new());
        for id in self.net.conns.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.net.conns.get(&id) else { continue };
            let limit = if conn.kind == ConnKind::Leg { USER_TIMEOUT.0 } else { USER_TIMEOUT.1 };
            let is_stuck =
                |pipe: &Pipe| pipe.queue.front().is_some_and(|front| now.since(front.sent) > limit);
            let half = conn.dialler_open != conn.acceptor_open;
            let cut = !self.net.can_reach(conn, conn.dialler) || !self.net.can_reach(conn, conn.acceptor);
            let stuck = is_stuck(&conn.to_acceptor) || is_stuck(&conn.to_dialler);
            let Some(conn) = self.net.conns.get_mut(&id) else { continue };
            conn.unreachable = if half || cut || stuck { conn.unreachable.or(Some(now)) } else { None };
            let is_over = stuck || conn.unreachable.is_some_and(|since| now.since(since) >= KEEP_ALIVE);
            if is_over {
                for host in [conn.dialler, conn.acceptor] {
                    // A frozen process hears of it later.
                    if conn.is_open(host) && hosts.get(&host) == Some(&HostState::Up) {
                        conn.shut(host);
                        ended.push((id, host));
                    }
                }
            }
            if is_over && !conn.dialler_open && !conn.acceptor_open {
                over.push(id);
            }
        }
        for id in over {
            self.net.conns.remove(&id);
        }
        ended
    }
}
