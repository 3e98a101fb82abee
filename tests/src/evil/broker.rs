//! The evil broker: its links, its legs, and what becomes of an open.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{
    CertificateRef, Hello, Invite, Message, OpenPath, PathFailed, PathOpened, Pong, Registered, Welcome,
};
use rc_proto::wire::{
    BrokerId, EndpointId, Ext, Generation, Incarnation, InstanceId, JoinSecret, PathId, TrustDomain, version,
};
use rc_transport::{
    AcceptLimits, Accepted, Acceptor, ControlPeer, Credentials, Leg, Listener, MessageStream, Net, PathPeer,
    TcpNet,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::deed::{Deed, Plan};
use super::imposture::PipeBox;
use super::pipe::{Bringing, Came, Pipe};

/// What a control link's queue holds.
const QUEUE_MAX: usize = 256;
/// For a Target to bring its leg.
const JOIN_MAX: Duration = Duration::from_secs(5);
/// Bytes of an earlier path that are kept to be played.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// A running evil broker; dropping it stops it.
#[derive(Debug)]
pub struct EvilBroker {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: BrokerId,
    pub(super) address: SocketAddr,
    pub(super) credentials: Arc<Credentials>,
    pub(super) trust_domain: TrustDomain,
    pub(super) incarnation: Incarnation,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) random: StdRng,
    /// The control link of each Target that registered here.
    targets: BTreeMap<EndpointId, Registrant>,
    joins: BTreeMap<PathId, oneshot::Sender<Joined>>,
    /// A path that waits to be spliced with another.
    pub(super) partner: Option<oneshot::Sender<(PipeBox, oneshot::Sender<PipeBox>)>>,
    /// What a Controller once said.
    pub(super) record: Vec<u8>,
    /// Whom to lie to in the mesh.
    honest: Option<(BrokerId, SocketAddr)>,
    done: BTreeMap<&'static str, u64>,
    /// Impostures that were believed.
    believed: Vec<String>,
}

/// A Target that registered here.
#[derive(Debug)]
struct Registrant {
    link: mpsc::Sender<Message>,
    instance: InstanceId,
    generation: Generation,
}

struct Joined(Leg, Vec<u8>);

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joined")
    }
}

/// An open as it reached this broker.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) open: OpenPath,
    pub(super) controller: EndpointId,
    pub(super) certificate: CertificateRef,
}

impl EvilBroker {
    /// Listens on loopback. `seed` decides what it does to which path.
    ///
    /// # Errors
    /// When it cannot listen, or the credentials are not a broker's.
    pub async fn start(credentials: Arc<Credentials>, seed: u64) -> io::Result<Self> {
        let spiffe = credentials.spiffe_id().clone();
        let id = spiffe.broker_id().ok_or(io::ErrorKind::InvalidInput)?;
        let listener = TcpNet.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let state = State {
            random: StdRng::seed_from_u64(seed),
            targets: BTreeMap::new(),
            joins: BTreeMap::new(),
            partner: None,
            record: Vec::new(),
            honest: None,
            done: BTreeMap::new(),
            believed: Vec::new(),
        };
        let shared = Arc::new(Shared {
            id,
            address: listener.local_address(),
            credentials: Arc::clone(&credentials),
            trust_domain: spiffe.trust_domain().clone(),
            incarnation: Incarnation(rand::random()),
            state: Mutex::new(state),
        });
        let stop = CancellationToken::new();
        let acceptor = Arc::new(Acceptor::new(credentials, AcceptLimits::default()));
        let accepting = accept(Arc::clone(&shared), listener, acceptor, stop.clone());
        tokio::spawn(accepting);
        Ok(Self { shared, stop })
    }

    /// Who it is.
    pub fn id(&self) -> &BrokerId {
        &self.shared.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// How often it did what.
    pub fn deeds(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state().done.clone()
    }

    /// Impostures that somebody believed; none may.
    pub fn believed(&self) -> Vec<String> {
        self.shared.state().believed.clone()
    }

    /// How many Targets are registered here.
    pub fn registrations(&self) -> usize {
        self.shared.state().targets.len()
    }
}

impl Drop for EvilBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    acceptor: Arc<Acceptor>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(connection) = accepted else { continue };
        let (shared, acceptor, stop) = (Arc::clone(&shared), Arc::clone(&acceptor), stop.clone());
        tokio::spawn(async move {
            let serving = async {
                match Box::pin(acceptor.accept(connection)).await {
                    Ok(Accepted::Control { peer, leg }) => shared.serve_control(peer, leg).await,
                    Ok(Accepted::Path { peer, leg }) => Box::pin(shared.serve_leg(peer, leg)).await,
                    Ok(Accepted::Mesh { leg, .. }) => shared.serve_mesh(leg).await,
                    Err(error) => tracing::debug!(%error, "not accepted"),
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = serving => {}
            }
        });
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, deed: Deed) {
        *self.state().done.entry(deed.name()).or_default() += 1;
    }

    pub(super) fn believed(&self, what: String) {
        self.state().believed.push(what);
    }

    pub(super) fn remember(&self, honest: &BrokerId, address: SocketAddr) {
        self.state().honest = Some((honest.clone(), address));
    }

    pub(super) fn honest(&self) -> Option<(BrokerId, SocketAddr)> {
        self.state().honest.clone()
    }

    /// Every Target that registered here.
    pub(super) fn targets(&self) -> Vec<(EndpointId, InstanceId, Generation)> {
        let known =
            |(target, known): (&EndpointId, &Registrant)| (target.clone(), known.instance, known.generation);
        self.state().targets.iter().map(known).collect()
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            versions: version::SUPPORTED,
            features: version::FEATURES,
            incarnation: self.incarnation,
            name: String::new(),
            addresses: vec![self.address],
            ext: Ext::none(),
        }
    }

    pub(super) fn welcome(&self) -> Welcome {
        Welcome {
            version: version::SUPPORTED.1,
            features: version::FEATURES,
            broker: self.id.clone(),
            incarnation: self.incarnation,
            name: String::new(),
            addresses: vec![self.address],
            load: 0,
            keep_alive_ms: 15_000,
            reconnect_spread_ms: 0,
            alternates: Vec::new(),
            ext: Ext::none(),
        }
    }

    /// The best broker that anybody could find.
    pub(super) fn pong(&self, nonce: u64) -> Pong {
        Pong {
            nonce,
            broker: self.id.clone(),
            incarnation: self.incarnation,
            load: 0,
            paths: 0,
            accepting: true,
            drain_deadline_ms: None,
            mesh_healthy: true,
            ext: Ext::none(),
        }
    }

    async fn serve_control(&self, peer: ControlPeer, leg: Leg) {
        let mut stream = MessageStream::over(leg);
        stream.accepted();
        let (mut reader, mut writer) = stream.split();
        let (queue, mut outbox) = mpsc::channel::<Message>(QUEUE_MAX);
        let writing = async {
            while let Some(message) = outbox.recv().await {
                if writer.send(&message).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            while let Ok(Some(message)) = reader.recv().await {
                let answer = self.answer(&peer, &queue, message);
                if let Some(answer) = answer
                    && queue.send(answer).await.is_err()
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
        if let ControlPeer::Target(target) = &peer {
            let mut state = self.state();
            if state.targets.get(target).is_some_and(|known| known.link.same_channel(&queue)) {
                state.targets.remove(target);
            }
        }
    }

    fn answer(&self, peer: &ControlPeer, queue: &mpsc::Sender<Message>, message: Message) -> Option<Message> {
        if let Message::Ping(ping) = message {
            return Some(self.pong(ping.nonce).into());
        }
        if let Message::Register(register) = message {
            let (instance, generation, role) = (register.instance, register.generation, register.role);
            if let ControlPeer::Target(target) = peer {
                let registrant = Registrant { link: queue.clone(), instance, generation };
                self.state().targets.insert(target.clone(), registrant);
            }
            return Some(Registered { generation, role, ext: Ext::none() }.into());
        }
        matches!(message, Message::Hello(_)).then(|| self.welcome().into())
    }

    async fn serve_leg(&self, peer: PathPeer, leg: Leg) {
        let certificate = leg.peer().certificate.clone();
        let mut stream = MessageStream::over(leg);
        let Ok(Some(message)) = stream.recv().await else { return };
        match (peer, message) {
            (PathPeer::Target(_), Message::JoinPath(join)) => {
                let waiting = self.state().joins.remove(&join.path_id);
                let (leg, behind) = stream.into_inner();
                if let Some(waiting) = waiting {
                    drop(waiting.send(Joined(leg, behind)));
                }
            }
            (PathPeer::Controller(controller), Message::OpenPath(open)) => {
                let wanted = Wanted { open, controller, certificate };
                self.serve_open(stream, wanted).await;
            }
            (PathPeer::Broker(_), Message::MeshOpen(request)) => {
                let wanted = Wanted {
                    open: request.open,
                    controller: request.controller,
                    certificate: request.controller_certificate,
                };
                self.serve_open(stream, wanted).await;
            }
            (PathPeer::Target(_) | PathPeer::Controller(_) | PathPeer::Broker(_), _) => {}
        }
    }

    async fn serve_open(&self, mut stream: MessageStream<Leg>, wanted: Wanted) {
        let plan = Plan::draw(&mut self.state().random);
        self.count(plan.deed);
        let target = match plan.deed {
            Deed::PlayTarget => return self.play_target(stream, &wanted).await,
            Deed::PlayBack | Deed::PlayController => {
                self.play_controller(plan.deed, &wanted).await;
                wanted.open.target.clone()
            }
            Deed::InventOpen => {
                self.invent_open(&wanted).await;
                wanted.open.target.clone()
            }
            Deed::WrongTarget => self.another_target(&wanted.open.target),
            Deed::Carry
            | Deed::Flip
            | Deed::Repeat
            | Deed::Omit
            | Deed::Reorder
            | Deed::Insert
            | Deed::Truncate
            | Deed::BreakOff
            | Deed::Hold
            | Deed::Splice => wanted.open.target.clone(),
        };
        let path_id = wanted.open.path_id;
        let Some(far) = self.invite(path_id, &target, &wanted.controller).await else {
            let failed = PathFailed {
                path_id,
                code: PathFailure::BUSY,
                retry_after_ms: 0,
                alternates: Vec::new(),
                ext: Ext::none(),
            };
            drop(stream.refuse(&failed.into()).await);
            return;
        };
        if stream.send(&self.opened(path_id)).await.is_err() {
            return;
        }
        let (leg, behind) = stream.into_inner();
        let near = Bringing { leg, behind };
        let record_max = if plan.deed == Deed::Carry { RECORD_BYTES_MAX } else { 0 };
        let Ok(mut pipe) = Pipe::join(near, far, record_max).await else { return };
        if plan.deed == Deed::Splice {
            if pipe.carry(plan.after).await == Came::ToLimit {
                self.splice(pipe).await;
            }
        } else if plan.deed == Deed::Carry {
            pipe.carry(u64::MAX).await;
            self.state().record = pipe.into_record();
        } else {
            let foreign = self.state().record.clone();
            pipe.betray(plan, foreign.get(..foreign.len().min(700)).unwrap_or_default()).await;
        }
    }

    pub(super) fn opened(&self, path_id: PathId) -> Message {
        PathOpened { path_id, hops: vec![(self.id.clone(), 0)], ext: Ext::none() }.into()
    }

    fn another_target(&self, wanted: &EndpointId) -> EndpointId {
        let mut state = self.state();
        let State { targets, random, .. } = &mut *state;
        targets.keys().filter(|known| *known != wanted).choose(random).unwrap_or(wanted).clone()
    }

    /// Invites a Target and takes its leg, up to `PathOpened`.
    pub(super) async fn invite(
        &self,
        path_id: PathId,
        target: &EndpointId,
        controller: &EndpointId,
    ) -> Option<Bringing> {
        let (bring, brought) = oneshot::channel();
        let (link, secret) = {
            let mut state = self.state();
            state.joins.insert(path_id, bring);
            (state.targets.get(target)?.link.clone(), JoinSecret(state.random.random()))
        };
        let invite = Invite {
            path_id,
            join_secret: secret,
            controller: controller.clone(),
            lane: rc_proto::wire::codes::Lane::INTERACTIVE,
            deadline_ms: 5_000,
            broker: self.id.clone(),
            name: String::new(),
            addresses: vec![self.address],
            ext: Ext::none(),
        };
        link.send(invite.into()).await.ok()?;
        let brought = timeout(JOIN_MAX, brought).await;
        self.state().joins.remove(&path_id);
        let Joined(leg, behind) = brought.ok()?.ok()?;
        let mut stream = MessageStream::over(leg);
        stream.send(&self.opened(path_id)).await.ok()?;
        let (leg, more) = stream.into_inner();
        Some(Bringing { leg, behind: [behind, more].concat() })
    }
}
