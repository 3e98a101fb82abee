//! What a broker says of itself: the answers of its admin socket, stable in JSON.

pub(crate) mod snapshot;

use std::net::SocketAddr;

use rc_proto::wire::codes::{Lane, Purpose, RegistrationRole};
use rc_proto::wire::{BrokerId, EndpointId, Generation, Incarnation, InstanceId, PathId};
use serde::Serialize;

use crate::core::drain::DrainCause;
use crate::core::paths::Part;

/// The whole broker at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Who it is.
    pub id: BrokerId,
    /// This run.
    pub incarnation: Incarnation,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// Name and addresses that others dial.
    pub advertised: (String, Vec<SocketAddr>),
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// While it drains: ms until it stops.
    pub drain_deadline_ms: Option<u32>,
    /// While it drains: why.
    pub drain_cause: Option<DrainCause>,
    /// Load per mille.
    pub load: u16,
    /// What is in use.
    pub usage: UsageStatus,
    /// The mesh.
    pub mesh: MeshStatus,
    /// Counts since the start.
    pub counters: CounterStatus,
}

/// What is in use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UsageStatus {
    /// Paths open or opening.
    pub paths: usize,
    /// Registrations.
    pub registrations: usize,
    /// Control links.
    pub control_links: usize,
    /// Proven connections that have not said yet what they are for.
    pub waiting_legs: usize,
    /// Targets of which anything is known: registrations, announcements, opens that wait, invites.
    pub tracked_targets: usize,
    /// Tasks that run.
    pub tasks: usize,
    /// Bytes of paths that are held because their next leg does not take them yet.
    pub held_bytes: u64,
}

/// The mesh as this broker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MeshStatus {
    /// Whether it sees more than half of it.
    pub healthy: bool,
    /// Peers linked now.
    pub linked: usize,
    /// Peers linked now or lately, without those that drained.
    pub counted: usize,
    /// Every other broker that it has heard of.
    pub known: usize,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CounterStatus {
    /// Connections taken.
    pub connections: u64,
    /// Of these, closed without a byte or broken off, as a load balancer's check does.
    pub connections_silent: u64,
    /// Of these, refused in the handshake.
    pub connections_refused: u64,
    /// Of these, over the rate of their address.
    pub connections_over_rate: u64,
    /// Messages that broke the protocol.
    pub messages_refused: u64,
    /// Paths opened.
    pub paths_opened: u64,
    /// Paths refused.
    pub paths_failed: u64,
    /// Bytes of paths that have ended, both directions.
    pub bytes_carried: u64,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkStatus {
    /// `controller`, `target`, `traffic-manager` or `broker`.
    pub role: &'static str,
    /// Who.
    pub id: String,
    /// From where.
    pub remote: SocketAddr,
    /// On mesh links whether this broker dialled.
    pub dialled: Option<bool>,
    /// On mesh links the round trip in µs.
    pub round_trip_us: Option<u32>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// The path.
    pub path: PathId,
    /// Who opened it.
    pub controller: EndpointId,
    /// Towards whom.
    pub target: EndpointId,
    /// What for.
    pub purpose: Purpose,
    /// Its kind.
    pub lane: Lane,
    /// What this broker is to it.
    pub part: Part,
    /// The broker that it came from.
    pub from: Option<BrokerId>,
    /// The next broker; none when the Target's leg ends here.
    pub to: Option<BrokerId>,
    /// Whether bytes flow.
    pub open: bool,
    /// How long it is open, in ms.
    pub age_ms: Option<u32>,
    /// Bytes from the Controller's side and from the Target's.
    pub bytes: (u64, u64),
}

/// One registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistrationStatus {
    /// The Target.
    pub target: EndpointId,
    /// The run of its process.
    pub instance: InstanceId,
    /// Which of its registrations.
    pub generation: Generation,
    /// What for.
    pub role: RegistrationRole,
    /// Round trip to it in µs.
    pub round_trip_us: u32,
}
