//! What every process of the simulation is handed: time, randomness, the network, the agenda and the record of what
//! happened.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
use rc_proto::wire::{BrokerId, EndpointId, SessionId};

use super::dns::Dns;
use super::net::{ConnId, Host, Net};
use super::oracle::Oracle;
use super::trace::Trace;

/// What is to happen at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    /// Something may have arrived at a connection's end.
    Arrive(ConnId, Host),
    /// A process's timer.
    Tick(Host),
    /// The application of a session does something.
    Application(SessionId),
    /// TCP's own timers.
    Sweep,
    /// The next fault begins, or a fault ends.
    Fault(u64),
}

/// What happens when, in an order that the seed decides.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    queue: BinaryHeap<Reverse<(Moment, u64, Happening)>>,
    armed: BTreeMap<Host, Moment>,
    next: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Moment, what: Happening) {
        self.queue.push(Reverse((at, self.next, what)));
        self.next += 1;
    }

    /// Sets the timer of a process; an earlier one that is set already stays.
    pub(super) fn arm(&mut self, host: Host, at: Moment) {
        if self.armed.get(&host).is_none_or(|set| at < *set) {
            self.armed.insert(host, at);
            self.put(at, Happening::Tick(host));
        }
    }

    /// Whether this tick is the one that was set; it is taken.
    pub(super) fn take_tick(&mut self, host: Host, at: Moment) -> bool {
        let is_set = self.armed.get(&host) == Some(&at);
        if is_set {
            self.armed.remove(&host);
        }
        is_set
    }

    /// The timer of a process that was frozen is set anew.
    pub(super) fn forget(&mut self, host: Host) {
        self.armed.remove(&host);
    }

    /// What is next, if it is not after `until`.
    pub(super) fn pop(&mut self, until: Moment) -> Option<(Moment, Happening)> {
        if self.queue.peek().is_none_or(|Reverse((at, _, _))| *at > until) {
            return None;
        }
        self.queue.pop().map(|Reverse((at, _, what))| (at, what))
    }
}

/// Who is who.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) brokers: BTreeMap<BrokerId, Host>,
    pub(super) endpoints: BTreeMap<Host, EndpointId>,
}

impl Directory {
    pub(super) fn host(&self, broker: &BrokerId) -> Option<Host> {
        self.brokers.get(broker).copied()
    }

    pub(super) fn broker(&self, host: Host) -> Option<BrokerId> {
        self.brokers.iter().find(|(_, known)| **known == host).map(|(id, _)| id.clone())
    }

    pub(super) fn endpoint(&self, host: Host) -> Option<EndpointId> {
        self.endpoints.get(&host).cloned()
    }
}

/// See the module.
pub(super) struct Ctx {
    pub(super) now: Moment,
    pub(super) rng: SmallRng,
    pub(super) net: Net,
    pub(super) agenda: Agenda,
    pub(super) names: Directory,
    pub(super) dns: Dns,
    pub(super) trace: Trace,
    pub(super) oracle: Oracle,
    #[cfg(feature = "mutants")]
    pub(super) mutant: Option<super::Mutant>,
}

impl Ctx {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        Self {
            now: Moment::from_origin(super::START),
            rng: SmallRng::seed_from_u64(seed),
            net: Net::default(),
            agenda: Agenda::default(),
            names: Directory::default(),
            dns: Dns::default(),
            trace,
            oracle: Oracle::default(),
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// The wall clock, unix seconds: the simulation's own time since an arbitrary day.
    pub(super) fn unix_s(&self) -> u64 {
        1_800_000_000 + self.now.since_origin().as_secs()
    }

    /// Notes what happened in the trace.
    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let now = self.now;
        self.trace.note(now, what);
    }
}
