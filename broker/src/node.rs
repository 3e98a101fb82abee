//! What the tasks of one broker share. Only collaborators live here: every decision is in [`crate::core`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rc_daemon::events::{Entry, EventLog, Severity};
use rc_proto::Moment;
use rc_proto::wire::message::Pong;
use rc_proto::wire::{BrokerId, EndpointId, Incarnation, TrustDomain};
use rc_transport::{Clock, Leg};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::admission::Admission;
use crate::core::drain::Phase;
use crate::core::limits::{Limits, Timers};
use crate::core::load::{Usage, load_per_mille};
use crate::core::registry::Registry;
use crate::links::{ControlHandle, ControlLinks};
use crate::mesh::Mesh;
use crate::path::Paths;
use crate::tickets::TicketGate;

/// Where the Targets are, with what the tasks need to reach them.
pub(crate) type Presence = Registry<ControlHandle, oneshot::Sender<()>, oneshot::Sender<JoinedLeg>>;

/// A Target's leg that answered an invite.
#[derive(Debug)]
pub(crate) struct JoinedLeg {
    pub(crate) leg: Leg,
    /// Bytes that came behind the JoinPath.
    pub(crate) behind: Vec<u8>,
}

/// Who this broker is.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) id: BrokerId,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) incarnation: Incarnation,
    /// Name and port as others dial it; may be empty.
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Whether the broker serves, drains or stops, and the tasks that have to end with it.
#[derive(Debug)]
pub(crate) struct Lifetime {
    pub(crate) phase: watch::Sender<Phase>,
    /// Cancelled when everything has to end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when no new connection is taken.
    pub(crate) stop_listening: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Lifetime {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            stop: CancellationToken::new(),
            stop_listening: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Counters that `status` shows.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_silent: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) connections_over_rate: AtomicU64,
    pub(crate) messages_refused: AtomicU64,
    pub(crate) paths_opened: AtomicU64,
    pub(crate) paths_failed: AtomicU64,
    pub(crate) bytes_carried: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Everything the tasks of a broker share.
pub(crate) struct Node {
    pub(crate) own: Own,
    pub(crate) limits: Limits,
    pub(crate) timers: Timers,
    pub(crate) presence: Presence,
    pub(crate) links: ControlLinks,
    pub(crate) paths: Paths,
    pub(crate) admission: Mutex<Admission>,
    pub(crate) tickets: TicketGate,
    pub(crate) mesh: Mesh,
    pub(crate) lifetime: Lifetime,
    pub(crate) record: Record,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Where events and counts go.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) events: EventLog,
    pub(crate) counters: Counters,
}

impl Node {
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            paths: self.paths.count(),
            registrations: self.presence.registration_count(),
            control_links: self.links.count(),
        }
    }

    pub(crate) fn load(&self) -> u16 {
        load_per_mille(self.usage(), &self.limits)
    }

    pub(crate) fn pong(&self, nonce: u64) -> Pong {
        let now = self.now();
        let phase = self.lifetime.phase();
        let counts = self.mesh.counts(now);
        let peers = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let pong = Pong {
            nonce,
            broker: self.own.id.clone(),
            incarnation: self.own.incarnation,
            load: self.load(),
            paths: u32::try_from(self.paths.count()).unwrap_or(u32::MAX),
            accepting: phase.is_accepting(),
            drain_deadline_ms: phase.deadline_ms(now),
            mesh_healthy: self.mesh.is_healthy(now),
            ext: rc_proto::wire::Ext::none(),
        };
        pong.with_peers(peers(counts.up), peers(counts.counted))
    }

    /// Other brokers to try, at most as many as a message may carry.
    pub(crate) fn alternates(&self) -> Vec<(BrokerId, String)> {
        self.mesh.alternates()
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str) -> Entry {
        Entry::new(severity, kind)
    }

    pub(crate) fn record(&self, entry: Entry) {
        drop(self.record.events.record(entry));
    }

    pub(crate) fn controller_id(&self, controller: &EndpointId) -> rc_proto::identity::SpiffeId {
        rc_proto::identity::SpiffeId::endpoint(
            self.own.trust_domain.clone(),
            rc_proto::wire::Role::Controller,
            controller,
        )
    }

    pub(crate) fn target_id(&self, target: &EndpointId) -> rc_proto::identity::SpiffeId {
        rc_proto::identity::SpiffeId::endpoint(
            self.own.trust_domain.clone(),
            rc_proto::wire::Role::Target,
            target,
        )
    }
}

/// Takes a lock; what it guards is whole after each step, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A span as the u32 ms of a message.
pub(crate) fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// A wait as the u32 ms of a message: never shorter than it is.
pub(crate) fn millis_up(span: Duration) -> u32 {
    u32::try_from(span.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// A span as the u32 µs of a message.
pub(crate) fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
