//! The mesh as this broker's tasks use it: links to every peer, legs between brokers, and questions to all of them.
//!
//! The decisions (who is a member, which of two links stays, what answers mean) are in `rc_proto::mesh`; here are the
//! sockets, the queues and the one lock around that state. No lock is held across an await.

mod conversation;
mod dial;
mod directory;
mod link;
mod locate;
mod pool;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rc_daemon::events::Severity;
use rc_proto::Moment;
use rc_proto::mesh::{
    Dialling, Matrix, MemberHint, Members, MeshCounts, RouteRequest, locate as locate_rules,
};
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Announce, CertificateRef, Message};
use rc_proto::wire::{BrokerId, EndpointId, Ext, Incarnation, limits};
use rc_transport::{Connector, Credentials, Resolver};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::core::alternates::{self, Alternate, PeerReport};
use crate::core::directory::{is_used, replicas};
use crate::core::isolation::{Change, Isolation};
use crate::core::registry::Hint;
use crate::core::scores::Scores;
use crate::core::search::Candidate;
use crate::core::standing::Claim;
use crate::node::{Node, lock, micros};

pub(crate) use dial::run as run_dialling;
pub(crate) use link::{draw_incarnation, serve_accepted};
pub(crate) use locate::Located;

/// Messages that wait for one peer's writer; a link that is further behind is closed and comes back with everything
/// announced anew.
const QUEUE_MAX: usize = 4096;

/// Where the first peers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// A DNS name and port; whoever answers there must have the name in its certificate.
    Name {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// One broker at one address; its certificate must show the id.
    Broker {
        /// The id.
        id: BrokerId,
        /// Where it is.
        address: SocketAddr,
    },
}

/// What is announced of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It stands here.
    Here {
        /// Round trip to the Target, µs.
        cost_us: u32,
    },
    /// It stands here no more.
    Left,
}

/// One peer's link.
#[derive(Debug, Clone)]
pub(crate) struct PeerLink {
    number: u64,
    queue: mpsc::Sender<Message>,
    close: CancellationToken,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    /// Where the peer answered a dial of ours.
    answered_at: Option<SocketAddr>,
    pub(crate) remote: SocketAddr,
    pub(crate) dialled: bool,
    certificate: Arc<CertificateRef>,
    round_trip_us: Arc<AtomicU32>,
    report: Arc<Mutex<PeerReport>>,
}

impl PeerLink {
    pub(crate) fn round_trip_us(&self) -> u32 {
        self.round_trip_us.load(Ordering::Relaxed)
    }

    pub(crate) fn certificate(&self) -> &CertificateRef {
        &self.certificate
    }

    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip_us().into())
    }

    fn report(&self) -> PeerReport {
        *lock(&self.report)
    }

    pub(crate) fn send(&self, message: impl Into<Message>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message.into()) {
            self.close.cancel();
        }
    }
}

struct State {
    members: Members,
    matrix: Matrix,
    dialling: Dialling,
    links: BTreeMap<BrokerId, PeerLink>,
    isolation: Isolation,
}

/// The mesh of one broker.
pub(crate) struct Mesh {
    own: BrokerId,
    seeds: Vec<Seed>,
    state: Mutex<State>,
    connector: Connector,
    resolver: Arc<Resolver>,
    pool: pool::Pool,
    queries: locate::Queries,
    pub(crate) scores: Mutex<Scores>,
    next_link: AtomicU64,
    /// Wakes the dialling task.
    changed: Notify,
}

impl Mesh {
    pub(crate) fn new(
        own: BrokerId,
        seeds: Vec<Seed>,
        connector: Connector,
        resolver: Arc<Resolver>,
    ) -> Self {
        let state = State {
            members: Members::new(own.clone()),
            matrix: Matrix::default(),
            dialling: Dialling::default(),
            links: BTreeMap::new(),
            isolation: Isolation::default(),
        };
        Self {
            own,
            seeds,
            state: Mutex::new(state),
            connector,
            resolver,
            pool: pool::Pool::default(),
            queries: locate::Queries::default(),
            scores: Mutex::default(),
            next_link: AtomicU64::new(1),
            changed: Notify::new(),
        }
    }

    /// The credentials in use.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.connector.credentials()
    }

    /// Uses other credentials from the next dial on; connections that were made ready with the old ones go.
    pub(crate) fn set_credentials(&self, credentials: Arc<Credentials>) {
        self.connector.set_credentials(credentials);
        self.pool.clear();
    }

    pub(crate) fn is_healthy(&self, now: Moment) -> bool {
        lock(&self.state).members.is_healthy(now)
    }

    pub(crate) fn counts(&self, now: Moment) -> MeshCounts {
        lock(&self.state).members.counts(now)
    }

    /// Looks whether this broker sees enough of the mesh, and says so when that has changed.
    pub(crate) fn judge_health(&self, node: &Node) {
        let now = node.now();
        let mut state = lock(&self.state);
        let is_healthy = state.members.is_healthy(now);
        let change = state.isolation.handle_health(is_healthy, now);
        let counts = state.members.counts(now);
        drop(state);
        let entry = match change {
            Some(Change::Isolated) => node.event(Severity::Warn, "mesh.isolated"),
            Some(Change::Whole) => node.event(Severity::Info, "mesh.whole"),
            None => return,
        };
        node.record(entry.with("linked", counts.up).with("counted", counts.counted));
    }

    /// When a Target with this share of the spread is advised to move, from now.
    pub(crate) fn move_after(&self, share: u16, now: Moment) -> Option<Duration> {
        lock(&self.state).isolation.move_after(share, now)
    }

    pub(crate) fn linked_count(&self) -> usize {
        lock(&self.state).links.len()
    }

    /// Every link, for `status`.
    pub(crate) fn links(&self) -> Vec<(BrokerId, PeerLink)> {
        lock(&self.state).links.iter().map(|(id, link)| (id.clone(), link.clone())).collect()
    }

    /// Peers that take what is routed to them, best first, with their names.
    pub(crate) fn alternates(&self) -> Vec<(BrokerId, String)> {
        let state = lock(&self.state);
        let alternate = |(id, hint): (&BrokerId, &MemberHint)| {
            let report = state.links.get(id)?.report();
            Some(Alternate { broker: id.clone(), name: hint.name.clone(), report })
        };
        alternates::ranked(&self.own, state.members.linked().filter_map(alternate).collect())
    }

    /// The same, and then those that are out of sight from here: they may be in sight of an endpoint.
    pub(crate) fn alternates_anyhow(&self, now: Moment) -> Vec<(BrokerId, String)> {
        let mut alternates = self.alternates();
        let state = lock(&self.state);
        let missed = state.members.unlinked().filter(|(id, hint)| {
            !hint.name.is_empty()
                && hint.name.len() <= limits::TEXT_BYTES_MAX
                && state.members.is_missed(id, now)
        });
        alternates.extend(missed.map(|(id, hint)| (id.clone(), hint.name.clone())));
        alternates.truncate(limits::ALTERNATES_MAX);
        alternates
    }

    /// The measured round trip to a peer in µs, 0 when there is none.
    pub(crate) fn round_trip_us(&self, peer: &BrokerId) -> u32 {
        lock(&self.state).links.get(peer).map_or(0, PeerLink::round_trip_us)
    }

    /// What peers announced, as candidates of a search: only where there is a link.
    pub(crate) fn candidates(&self, hints: &[Hint]) -> Vec<Candidate> {
        let state = lock(&self.state);
        let candidate = |hint: &Hint| {
            let link = state.links.get(&hint.broker).filter(|link| link.incarnation == hint.incarnation)?;
            let (broker, role) = (hint.broker.clone(), hint.claim.role);
            let cost_us = link.round_trip_us().saturating_add(hint.cost_us);
            Some(Candidate { broker, role, cost_us })
        };
        hints.iter().filter_map(candidate).collect()
    }

    /// How long a route may take before another one is tried beside it.
    pub(crate) fn hedge_after(&self, route: &[BrokerId]) -> Duration {
        let round_trips: u32 = route.iter().map(|broker| self.round_trip_us(broker)).max().unwrap_or(0);
        hedge_after(round_trips)
    }

    /// The way to a located broker: over a third one where the matrix says that this is faster.
    pub(crate) fn with_detour(&self, avoid: &[BrokerId], route: &[BrokerId], now: Moment) -> Vec<BrokerId> {
        let [last] = route else { return route.to_vec() };
        let state = lock(&self.state);
        let request = RouteRequest {
            controller: &[(self.own.clone(), Duration::ZERO)],
            target: &[(last.clone(), Duration::ZERO)],
            avoid,
        };
        let load = |id: &BrokerId| state.links.get(id).map_or(0, |link| link.report().load);
        let found = request.cheapest(&state.matrix, load, now);
        let found = found.map(|route| route.after_ingress().to_vec());
        found
            .filter(|found| found.first().is_some_and(|next| state.links.contains_key(next)))
            .unwrap_or_else(|| route.to_vec())
    }

    /// Tells the mesh that a registration came or went: every peer, or in a large mesh those that keep its entry.
    pub(crate) fn announce(&self, node: &Node, target: &EndpointId, claim: &Claim, news: News) {
        let message = announcement(node.own.incarnation, target, claim, news);
        let everybody = self.spread_over();
        if news == News::Left || !is_used(&everybody) {
            return self.send_all(&message.into());
        }
        for replica in replicas(&self.own, &everybody, target) {
            self.send_to(&replica, message.clone());
        }
    }

    /// Tells one peer, when it is linked.
    pub(crate) fn send_to(&self, peer: &BrokerId, message: impl Into<Message>) {
        let link = lock(&self.state).links.get(peer).cloned();
        if let Some(link) = link {
            link.send(message);
        }
    }

    fn send_all(&self, message: &Message) {
        let links: Vec<PeerLink> = lock(&self.state).links.values().cloned().collect();
        for link in links {
            link.send(message.clone());
        }
    }

    fn own_row(&self) -> Vec<(BrokerId, u32)> {
        let state = lock(&self.state);
        let measured = state.links.iter().map(|(id, link)| (id.clone(), link.round_trip_us()));
        measured.filter(|(_, us)| *us > 0).collect()
    }
}

/// How long an attempt over a round trip of so many µs may take before another one is tried beside it.
pub(crate) fn hedge_after(round_trip_us: u32) -> Duration {
    let (shortest, added) = locate_rules::HEDGE;
    (Duration::from_micros(round_trip_us.into()) * 2 + added).max(shortest)
}

fn announcement(incarnation: Incarnation, target: &EndpointId, claim: &Claim, news: News) -> Announce {
    let announce = Announce {
        incarnation,
        target: target.clone(),
        instance: claim.instance,
        instance_started_ms: claim.started_ms,
        generation: claim.generation,
        role: claim.role,
        present: news != News::Left,
        ext: Ext::none(),
    };
    match news {
        News::Here { cost_us } => announce.with_cost(cost_us),
        News::Left => announce,
    }
}

/// The cost of a location as a message tells it.
fn candidate_of(location: rc_proto::mesh::Location) -> Candidate {
    let (broker, role): (BrokerId, RegistrationRole) = (location.broker, location.role);
    Candidate { broker, role, cost_us: micros(location.cost) }
}
