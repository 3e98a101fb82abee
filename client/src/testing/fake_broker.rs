//! A broker that answers probes, welcomes endpoints and confirms registrations, and nothing else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{
    Drain, Message, PathOpened, Pong, Register, Registered, RetryAfter, Superseded, Unregister, Welcome,
};
use rc_proto::wire::{BrokerId, Ext, Incarnation, InstanceId, PathId};
use rc_transport::{AcceptLimits, Accepted, Acceptor, Connection, Credentials, Leg, MessageStream, PlainIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::sync::{broadcast, mpsc};

use super::{SERVICE, World};

/// Longest time of a TCP handshake.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// How a fake broker behaves.
#[derive(Debug, Clone)]
pub(crate) struct Temper {
    pub(crate) round_trip: Duration,
    pub(crate) load: u16,
    pub(crate) accepting: bool,
    /// Answers probes, and nothing else.
    pub(crate) frozen: bool,
    /// Says in its answers that it is this broker.
    pub(crate) poses_as: Option<BrokerId>,
    /// Answers Register with Superseded.
    pub(crate) supersedes: bool,
    /// Answers Register with RetryAfter, in ms.
    pub(crate) retry_after_ms: Option<u32>,
    /// Peers that it is linked to.
    pub(crate) peers: u16,
    /// Advises to move, so many ms later.
    pub(crate) advises_ms: Option<u32>,
}

impl Default for Temper {
    fn default() -> Self {
        Self {
            round_trip: Duration::from_millis(20),
            load: 100,
            accepting: true,
            frozen: false,
            poses_as: None,
            supersedes: false,
            retry_after_ms: None,
            peers: 3,
            advises_ms: None,
        }
    }
}

/// What a test tells every link of a fake broker.
#[derive(Debug, Clone)]
enum Order {
    Cut,
    Say(Box<Message>),
}

/// One fake broker.
pub(crate) struct FakeBroker {
    pub(crate) id: BrokerId,
    pub(crate) address: SocketAddr,
    temper: Arc<Mutex<Temper>>,
    orders: broadcast::Sender<Order>,
    registers: Arc<Mutex<Vec<Register>>>,
    unregisters: Arc<Mutex<Vec<Unregister>>>,
    legs: tokio::sync::Mutex<mpsc::Receiver<Leg>>,
}

impl FakeBroker {
    /// A broker that listens in the world's network.
    pub(crate) fn start(world: &World, id: &str, address: &str, temper: Temper) -> Self {
        let credentials = world.ca.credentials(&format!("broker/{id}"), &[SERVICE]);
        Self::start_with(world, credentials, id, address, temper)
    }

    /// The same with credentials of the caller.
    pub(crate) fn start_with(
        world: &World,
        credentials: Credentials,
        id: &str,
        address: &str,
        temper: Temper,
    ) -> Self {
        // One that never answers still takes connections.
        let round_trip = temper.round_trip.min(CONNECT_MAX);
        let credentials = Arc::new(credentials);
        let (bring, legs) = mpsc::channel(8);
        let broker = Self {
            id: id.parse().unwrap(),
            address: address.parse().unwrap(),
            temper: Arc::new(Mutex::new(temper)),
            orders: broadcast::Sender::new(16),
            registers: Arc::default(),
            unregisters: Arc::default(),
            legs: tokio::sync::Mutex::new(legs),
        };
        let arrivals = world.net.listen(broker.address, round_trip);
        let acceptor = Arc::new(Acceptor::new(credentials, AcceptLimits::default()));
        let service = Service {
            id: broker.id.clone(),
            temper: Arc::clone(&broker.temper),
            orders: broker.orders.clone(),
            registers: Arc::clone(&broker.registers),
            unregisters: Arc::clone(&broker.unregisters),
            bring,
        };
        tokio::spawn(accept(arrivals, acceptor, broker.address, service));
        broker
    }

    /// Behaves differently from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Temper)) {
        change(&mut self.temper.lock().unwrap());
    }

    /// Ends every link without a word.
    pub(crate) fn cut_links(&self) {
        drop(self.orders.send(Order::Cut));
    }

    /// Tells every link to drain.
    pub(crate) fn drain(&self) {
        self.drain_towards(&[]);
    }

    /// The same, with brokers to go to: id and name.
    pub(crate) fn drain_towards(&self, alternates: &[(&str, &str)]) {
        let named = |(id, name): &(&str, &str)| (id.parse().unwrap(), (*name).to_owned());
        let alternates = alternates.iter().map(named).collect();
        let drain = Drain { deadline_ms: 30_000, alternates, slots: vec![], ext: Ext::none() };
        drop(self.orders.send(Order::Say(Box::new(drain.into()))));
    }

    /// Tells every link that another instance took the registration.
    pub(crate) fn supersede(&self) {
        let by = InstanceId([0xee; 16]);
        let superseded = Superseded { by, back_off_ms: 0, ext: Ext::none() };
        drop(self.orders.send(Order::Say(Box::new(superseded.into()))));
    }

    /// Tells every link to drain, and when these paths are to move.
    pub(crate) fn drain_paths(&self, slots: &[(PathId, u32)]) {
        let drain =
            Drain { deadline_ms: 30_000, alternates: vec![], slots: slots.to_vec(), ext: Ext::none() };
        drop(self.orders.send(Order::Say(Box::new(drain.into()))));
    }

    /// Tells every link that a peer of this broker drains.
    pub(crate) fn pass_on_drain_of(&self, peer: &BrokerId) {
        let drain = Drain { deadline_ms: 30_000, alternates: vec![], slots: vec![], ext: Ext::none() };
        drop(self.orders.send(Order::Say(Box::new(drain.of_peer(peer).into()))));
    }

    /// The next leg of a path: takes its first message, says that the path is open, and gives the raw bytes.
    pub(crate) async fn open_next_path(&self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        let leg = self.legs.lock().await.recv().await.unwrap();
        let mut messages = MessageStream::over(leg);
        let first = messages.recv().await.unwrap().unwrap();
        let path_id = if let Message::OpenPath(open) = first {
            open.path_id
        } else {
            let Message::JoinPath(join) = first else { panic!("{first:?}") };
            join.path_id
        };
        let opened = PathOpened { path_id, hops: vec![(self.id.clone(), 0)], ext: Ext::none() };
        messages.send(&opened.into()).await.unwrap();
        let (leg, rest) = messages.into_inner();
        let (reading, writing) = tokio::io::split(leg);
        tokio::io::join(std::io::Cursor::new(rest).chain(reading), writing)
    }

    /// Every Register that came.
    pub(crate) fn registers(&self) -> Vec<Register> {
        self.registers.lock().unwrap().clone()
    }

    /// Every Unregister that came.
    pub(crate) fn unregisters(&self) -> Vec<Unregister> {
        self.unregisters.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Service {
    id: BrokerId,
    temper: Arc<Mutex<Temper>>,
    orders: broadcast::Sender<Order>,
    registers: Arc<Mutex<Vec<Register>>>,
    unregisters: Arc<Mutex<Vec<Unregister>>>,
    bring: mpsc::Sender<Leg>,
}

async fn accept(
    mut arrivals: mpsc::Receiver<DuplexStream>,
    acceptor: Arc<Acceptor>,
    local: SocketAddr,
    service: Service,
) {
    while let Some(io) = arrivals.recv().await {
        let (acceptor, service) = (Arc::clone(&acceptor), service.clone());
        tokio::spawn(async move {
            let remote = SocketAddr::from(([127, 0, 0, 1], 1));
            let connection = Connection { io: Box::new(PlainIo(io)), remote, local };
            match acceptor.accept(connection).await {
                Ok(Accepted::Control { leg, .. }) => service.serve(MessageStream::over(leg)).await,
                Ok(Accepted::Path { leg, .. }) => drop(service.bring.send(leg).await),
                Ok(Accepted::Mesh { .. }) | Err(_) => {}
            }
        });
    }
}

impl Service {
    async fn serve(&self, mut link: MessageStream<rc_transport::Leg>) {
        let mut orders = self.orders.subscribe();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Ok(Order::Say(message)) => drop(link.send(&message).await),
                    Ok(Order::Cut) | Err(_) => return,
                },
                message = link.recv() => {
                    let Ok(Some(message)) = message else { return };
                    let temper = self.temper.lock().unwrap().clone();
                    tokio::time::sleep(temper.round_trip).await;
                    if let Some(answer) = self.answers(message, &temper) {
                        link.accepted();
                        drop(link.send(&answer).await);
                    }
                }
            }
        }
    }

    fn answers(&self, message: Message, temper: &Temper) -> Option<Message> {
        let broker = temper.poses_as.clone().unwrap_or_else(|| self.id.clone());
        if let Message::Ping(ping) = message {
            return Some(pong(ping.nonce, broker, temper));
        }
        if temper.frozen {
            return None;
        }
        if let Message::Register(register) = message {
            return Some(self.register(register, temper));
        }
        if let Message::Unregister(unregister) = message {
            self.unregisters.lock().unwrap().push(unregister);
            return None;
        }
        matches!(message, Message::Hello(_)).then(|| welcome(broker))
    }

    fn register(&self, register: Register, temper: &Temper) -> Message {
        let (generation, role) = (register.generation, register.role);
        self.registers.lock().unwrap().push(register);
        if temper.supersedes && role != RegistrationRole::RESUME {
            let by = InstanceId([0xee; 16]);
            return Superseded { by, back_off_ms: 0, ext: Ext::none() }.into();
        }
        match temper.retry_after_ms {
            Some(after_ms) => RetryAfter { after_ms, alternates: vec![], ext: Ext::none() }.into(),
            None => Registered { generation, role, ext: Ext::none() }.into(),
        }
    }
}

fn pong(nonce: u64, broker: BrokerId, temper: &Temper) -> Message {
    let pong = Pong {
        nonce,
        broker,
        incarnation: Incarnation(1),
        load: temper.load,
        paths: 0,
        accepting: temper.accepting,
        drain_deadline_ms: None,
        mesh_healthy: true,
        ext: Ext::none(),
    };
    let pong = pong.with_peers(temper.peers, 3);
    match temper.advises_ms {
        Some(after_ms) => pong.advising_to_move(after_ms).into(),
        None => pong.into(),
    }
}

fn welcome(broker: BrokerId) -> Message {
    let welcome = Welcome {
        version: 1,
        features: 0,
        broker,
        incarnation: Incarnation(1),
        name: String::new(),
        addresses: vec![],
        load: 0,
        keep_alive_ms: 15_000,
        reconnect_spread_ms: 0,
        alternates: vec![],
        ext: Ext::none(),
    };
    welcome.into()
}
