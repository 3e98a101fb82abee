//! Assembles a broker and runs it: listeners, mesh, housekeeping, drain.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rc_daemon::events::{EventLog, Severity};
use rc_proto::identity::ticket::{TicketError, TicketKeys};
use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::PathEnd;
use rc_transport::{
    AcceptLimits, Acceptor, Clock, Connector, Credentials, Listener, Net, Resolver, ResolverConfig,
};
use tokio::sync::Semaphore;
use tokio::time::interval;

use crate::core::admission::Admission;
use crate::core::drain::DrainCause;
use crate::core::limits::{Limits, Timers};
use crate::core::scores::ScoreRow;
use crate::links::{ControlLinks, SharedNode};
use crate::mesh::{Mesh, Seed, draw_incarnation};
use crate::node::{Lifetime, Node, Own, Presence, Record, lock};
use crate::path::{Paths, tell_closed};
use crate::recheck::{OtherIdentity, recheck, replace};
use crate::status::{LinkStatus, PathStatus, RegistrationStatus, Status, snapshot};
use crate::tickets::TicketGate;

/// Distance of two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Rounds between two sweeps of the rate limits.
const ROUNDS_PER_SWEEP: u64 = 30;
/// Rounds between two judgements of the peers of live connections.
const ROUNDS_PER_RECHECK: u64 = 5;
/// Time for tasks to end after they were told.
const END_MAX: Duration = Duration::from_secs(5);

/// What a broker is started with.
#[derive(Debug, Clone, Default)]
pub struct BrokerConfig {
    /// Where to listen; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    /// Name and port that others dial; empty for none.
    pub name: String,
    /// Addresses that others dial; unset means those that it listens at, unless they are unspecified.
    pub addresses: Option<Vec<SocketAddr>>,
    /// Where the first peers are.
    pub seeds: Vec<Seed>,
    /// How names are resolved.
    pub resolver: ResolverConfig,
    /// What it takes on.
    pub limits: Limits,
    /// How long things may take.
    pub timers: Timers,
}

/// What a broker works with besides its configuration.
pub struct Parts {
    /// Its certificate, key, CA and revocation lists.
    pub credentials: Arc<Credentials>,
    /// The keys that tickets are judged by.
    pub ticket_keys: TicketKeys,
    /// The list of revoked tickets, when there is one.
    pub deny_list: Option<String>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("id", self.credentials.spiffe_id()).finish_non_exhaustive()
    }
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate is not a broker's.
    #[error("{id} is not a broker's identity ({file}): issue a certificate of role broker")]
    NotABroker {
        /// The identity found.
        id: String,
        /// The certificate's file.
        file: String,
    },
    /// The list of revoked tickets is none, or none of the ticket keys signed it.
    #[error(
        "the list of revoked tickets cannot be used: {0}: correct tickets.deny, or write the list anew with rc-certs"
    )]
    DenyList(TicketError),
    /// The thread that watches the workers cannot be started.
    #[error("cannot start a thread: {0}: see the limits of this user")]
    Watchdog(std::io::Error),
    /// Nothing to listen at.
    #[error("there is no address to listen at: set listen.addresses")]
    NoAddress,
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}: stop what uses it, or set listen.addresses")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's word.
        source: std::io::Error,
    },
}

/// Starts brokers.
#[derive(Debug)]
pub struct Broker;

/// A broker that runs; dropping it stops it at once.
pub struct RunningBroker {
    node: SharedNode,
    addresses: Vec<SocketAddr>,
    acceptor: Arc<Acceptor>,
}

impl std::fmt::Debug for RunningBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningBroker").field("id", &self.node.own.id).finish_non_exhaustive()
    }
}

impl Broker {
    /// Listens, joins the mesh and serves. Returns when the addresses are known.
    ///
    /// # Errors
    /// When the certificate is not a broker's, the list of revoked tickets cannot be used, or an address cannot be
    /// listened at.
    pub async fn start(config: BrokerConfig, parts: Parts) -> Result<RunningBroker, StartError> {
        let spiffe = parts.credentials.spiffe_id().clone();
        let id = spiffe.broker_id().ok_or_else(|| StartError::NotABroker {
            id: spiffe.to_string(),
            file: parts.credentials.certificate_file().display().to_string(),
        })?;
        let tickets = TicketGate::new(parts.ticket_keys.clone());
        if let Some(list) = &parts.deny_list {
            tickets.deny(list).map_err(StartError::DenyList)?;
        }
        let listeners = listen(&config.listen, parts.net.as_ref()).await?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_address()).collect();
        let own = Own {
            id: id.clone(),
            trust_domain: spiffe.trust_domain().clone(),
            incarnation: draw_incarnation(),
            name: own_name(&config, &parts.credentials, &addresses),
            addresses: own_addresses(&config, &addresses),
        };
        let acceptor = Arc::new(Acceptor::new(Arc::clone(&parts.credentials), AcceptLimits::default()));
        let node = Arc::new(assemble(own, config, parts, tickets));
        let handshakes = Arc::new(Semaphore::new(node.limits.handshakes));
        for listener in listeners {
            let (task_node, acceptor) = (Arc::clone(&node), Arc::clone(&acceptor));
            let handshakes = Arc::clone(&handshakes);
            drop(node.lifetime.tasks.spawn(crate::listener::run(task_node, listener, acceptor, handshakes)));
        }
        drop(node.lifetime.tasks.spawn(crate::mesh::run_dialling(Arc::clone(&node))));
        drop(node.lifetime.tasks.spawn(housekeeping(Arc::clone(&node))));
        crate::watchdog::start(&node).map_err(StartError::Watchdog)?;
        let entry = node.event(Severity::Info, "broker.started").with_text("id", &id);
        let listening: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        node.record(entry.with("addresses", listening).with_text("incarnation", node.own.incarnation));
        Ok(RunningBroker { node, addresses, acceptor })
    }
}

async fn listen(addresses: &[SocketAddr], net: &dyn Net) -> Result<Vec<Box<dyn Listener>>, StartError> {
    if addresses.is_empty() {
        return Err(StartError::NoAddress);
    }
    let mut listeners = Vec::new();
    for address in addresses {
        let listener =
            net.listen(*address).await.map_err(|source| StartError::Listen { address: *address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The configured name, else the first DNS name of the certificate with the port that is listened at.
fn own_name(config: &BrokerConfig, credentials: &Credentials, addresses: &[SocketAddr]) -> String {
    if !config.name.is_empty() {
        return config.name.clone();
    }
    match (credentials.dns_names().first(), addresses.first()) {
        (Some(name), Some(address)) if !name.starts_with('*') => format!("{name}:{}", address.port()),
        _ => String::new(),
    }
}

fn own_addresses(config: &BrokerConfig, listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = config.addresses.clone().unwrap_or_else(|| listening.to_vec());
    addresses.retain(|address| !address.ip().is_unspecified());
    addresses.truncate(rc_proto::wire::limits::ADDRESSES_MAX);
    addresses
}

fn assemble(own: Own, config: BrokerConfig, parts: Parts, tickets: TicketGate) -> Node {
    let now = parts.clock.now();
    let connector = Connector::new(Arc::clone(&parts.credentials), parts.net);
    let resolver = Arc::new(Resolver::new(config.resolver));
    Node {
        mesh: Mesh::new(own.id.clone(), config.seeds, connector, resolver),
        own,
        presence: Presence::new(),
        links: ControlLinks::default(),
        paths: Paths::new(config.limits.paths, config.limits.waiting_legs),
        admission: Mutex::new(Admission::new(&config.limits, now)),
        tickets,
        lifetime: Lifetime::new(),
        record: Record::default(),
        clock: parts.clock,
        limits: config.limits,
        timers: config.timers,
    }
}

/// Ends idle paths, forgets old rates. One timer for all paths.
async fn housekeeping(node: SharedNode) {
    let mut tick = interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        tokio::select! {
            biased;
            () = node.lifetime.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = node.now();
        node.paths.stop_idle(node.timers.path_idle, now);
        node.mesh.judge_health(&node);
        if round % ROUNDS_PER_RECHECK == 0 {
            recheck(&node);
        }
        if round % ROUNDS_PER_SWEEP == 0 {
            lock(&node.admission).sweep(now);
            lock(&node.mesh.scores).sweep(now);
            node.mesh.renew_pools(&node);
        }
    }
}

impl RunningBroker {
    /// Who it is.
    pub fn id(&self) -> &BrokerId {
        &self.node.own.id
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Uses other credentials of the same identity from the next handshake on, and judges every live peer by their
    /// revocation lists at once.
    ///
    /// # Errors
    /// When they are of another identity.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) -> Result<(), OtherIdentity> {
        replace(&self.node, &self.acceptor, credentials)
    }

    /// The credentials in use.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.node.mesh.credentials()
    }

    /// Takes a list of revoked tickets, judged by the configured ticket keys; whether it is newer than the one in
    /// use.
    ///
    /// # Errors
    /// When it is no such list, or none of the keys signed it.
    pub fn set_deny_list(&self, text: &str) -> Result<bool, TicketError> {
        self.node.tickets.deny(text)
    }

    /// Whether it tells others a name or an address to dial.
    pub fn can_be_dialled(&self) -> bool {
        !self.node.own.name.is_empty() || !self.node.own.addresses.is_empty()
    }

    /// What happened in it.
    pub fn events(&self) -> EventLog {
        self.node.record.events.clone()
    }

    /// Its state.
    pub fn status(&self) -> Status {
        snapshot::status(&self.node, &self.addresses)
    }

    /// Its control links and mesh links.
    pub fn links(&self) -> Vec<LinkStatus> {
        snapshot::links(&self.node)
    }

    /// Its paths.
    pub fn paths(&self) -> Vec<PathStatus> {
        snapshot::paths(&self.node)
    }

    /// The Targets that are registered here.
    pub fn registrations(&self) -> Vec<RegistrationStatus> {
        snapshot::registrations(&self.node)
    }

    /// What endpoints measured to each broker, by network.
    pub fn scores(&self) -> Vec<ScoreRow> {
        lock(&self.node.mesh.scores).rows(self.node.now())
    }

    /// Forgets what endpoints measured.
    pub fn forget_scores(&self) {
        lock(&self.node.mesh.scores).forget();
    }

    /// Ends every path of this id, or of an endpoint of this name with its control links. Returns how many things
    /// were ended.
    pub fn disconnect(&self, id: &str) -> usize {
        let paths = self.node.paths.stop_where(PathEnd::DISCONNECTED, |request| {
            request.path.to_string() == id
                || request.controller.as_str() == id
                || request.target.as_str() == id
        });
        let links = self.node.links.close_where(|peer| crate::control::peer_name(peer) == id);
        paths + links
    }

    /// Stops accepting, tells everybody where to go, and returns when the last path is gone or the time is over.
    /// Idle Targets get a moment to register elsewhere first.
    pub async fn drain(&self) {
        self.begin_drain();
        crate::draining::wait(&self.node).await;
    }

    /// Waits until it drains, whoever asked for it; why.
    pub async fn draining(&self) -> DrainCause {
        let mut phase = self.node.lifetime.phase.subscribe();
        let cause = phase.wait_for(|phase| !phase.is_accepting()).await.ok().and_then(|phase| phase.cause());
        // The sender lives in the node.
        cause.unwrap_or(DrainCause::Request)
    }

    /// Starts to drain without waiting; a second call changes nothing.
    pub fn begin_drain(&self) {
        crate::draining::begin(&self.node, DrainCause::Request);
    }

    /// Ends everything, and waits until the tasks are gone.
    pub async fn stop(&self) {
        let lifetime = &self.node.lifetime;
        lifetime.stop_listening.cancel();
        // The word goes into the queues of the links before these end; what is queued then still goes out.
        for (request, _) in self.node.paths.requests() {
            tell_closed(&self.node, &request, PathEnd::DRAINED);
        }
        lifetime.stop.cancel();
        self.node.paths.stop_where(PathEnd::DRAINED, |_| true);
        lifetime.tasks.close();
        drop(tokio::time::timeout(END_MAX, lifetime.tasks.wait()).await);
        self.node.record(self.node.event(Severity::Info, "broker.stopped"));
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        self.node.lifetime.stop_listening.cancel();
        self.node.paths.stop_where(PathEnd::DRAINED, |_| true);
        self.node.lifetime.stop.cancel();
    }
}
