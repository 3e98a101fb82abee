//! A mesh in one process: a throw-away CA, real brokers on loopback, and endpoints that speak raw messages.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rc_broker::core::limits::{Limits, Timers};
use rc_broker::{Broker, BrokerConfig, Parts, RunningBroker, Seed};
use rc_proto::identity::ticket::{KeyThumbprint, TicketClaims, TicketKeys};
use rc_proto::wire::codes::{Lane, PathFailure, Purpose, RegistrationRole};
use rc_proto::wire::message::{
    Hello, Invite, JoinPath, Message, OpenPath, Ping, Register, Registered, Welcome,
};
use rc_proto::wire::{Alpn, Ext, Generation, Incarnation, InstanceId, Jti, PathId, version};
use rc_transport::testing::TestCa;
use rc_transport::{
    BootClock, Connector, Credentials, Expectation, Leg, MessageStream, PathIo, PathRefused, TcpNet,
    TicketSigner,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long any one step of a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) signer: TicketSigner,
    numbers: AtomicU64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            ca: TestCa::new("mesh.test"),
            signer: TicketSigner::generate().unwrap(),
            numbers: AtomicU64::new(1),
        }
    }

    pub(crate) async fn broker(&self, id: &str) -> RunningBroker {
        self.broker_with(id, &[], |_| {}).await
    }

    pub(crate) async fn broker_with(
        &self,
        id: &str,
        seeds: &[&RunningBroker],
        change: impl FnOnce(&mut BrokerConfig),
    ) -> RunningBroker {
        let credentials = self.ca.credentials(&format!("broker/{id}"), &["brokers.mesh.test"]);
        self.broker_of(credentials, seeds, change).await
    }

    pub(crate) async fn broker_of(
        &self,
        credentials: Credentials,
        seeds: &[&RunningBroker],
        change: impl FnOnce(&mut BrokerConfig),
    ) -> RunningBroker {
        let seed = |broker: &&RunningBroker| Seed::Broker {
            id: broker.id().clone(),
            address: broker.addresses()[0],
        };
        let mut config = BrokerConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            name: String::new(),
            seeds: seeds.iter().map(seed).collect(),
            limits: Limits::default(),
            timers: Timers::default(),
            ..BrokerConfig::default()
        };
        change(&mut config);
        let mut ticket_keys = TicketKeys::default();
        ticket_keys.insert(self.signer.kid().clone(), self.signer.public_key()).unwrap();
        let parts = Parts {
            credentials: Arc::new(credentials),
            ticket_keys,
            deny_list: None,
            net: Arc::new(TcpNet),
            clock: Arc::new(BootClock),
        };
        Broker::start(config, parts).await.unwrap()
    }

    pub(crate) fn endpoint(&self, path: &str) -> Endpoint {
        self.endpoint_of(path.rsplit('/').next().unwrap(), self.ca.credentials(path, &[]))
    }

    pub(crate) fn endpoint_of(&self, name: &str, credentials: Credentials) -> Endpoint {
        let credentials = Arc::new(credentials);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Endpoint {
            name: name.to_owned(),
            connector: Connector::new(Arc::clone(&credentials), Arc::new(TcpNet)),
            credentials,
            number,
        }
    }

    pub(crate) fn ticket(&self, controller: &Endpoint, target: &str) -> String {
        self.ticket_with(controller, target, |_| {})
    }

    pub(crate) fn ticket_with(
        &self,
        controller: &Endpoint,
        target: &str,
        change: impl FnOnce(&mut TicketClaims),
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = TicketClaims {
            iss: "test".to_owned(),
            sub: controller.credentials.spiffe_id().clone(),
            aud: self.ca.id(&format!("target/{target}")),
            iat: now,
            nbf: now,
            jti: Jti(self.id(7)),
            perm: vec!["*".parse().unwrap()],
            cnf: KeyThumbprint(controller.credentials.key_thumbprint()),
            start_by: now + 300,
            exp: now + 3600,
        };
        change(&mut claims);
        self.signer.sign_ticket(&claims).unwrap()
    }

    pub(crate) fn open(&self, controller: &Endpoint, target: &str) -> OpenPath {
        OpenPath {
            path_id: PathId(self.id(1)),
            target: target.parse().unwrap(),
            ticket: self.ticket(controller, target),
            purpose: Purpose::NEW,
            lane: Lane::INTERACTIVE,
            instance: None,
            route: Vec::new(),
            avoid: Vec::new(),
            deadline_ms: 8_000,
            ext: Ext::none(),
        }
    }

    /// A fresh 16-byte id.
    pub(crate) fn id(&self, family: u8) -> [u8; 16] {
        let mut id = [family; 16];
        id[..8].copy_from_slice(&self.numbers.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        id
    }
}

pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) connector: Connector,
    pub(crate) credentials: Arc<Credentials>,
    number: u64,
}

impl Endpoint {
    pub(crate) async fn dial(&self, broker: &RunningBroker, alpn: Alpn) -> Leg {
        self.dial_at(broker.addresses()[0], broker, alpn).await
    }

    async fn dial_at(&self, address: SocketAddr, broker: &RunningBroker, alpn: Alpn) -> Leg {
        let expect = Expectation::Broker(broker.id().clone());
        self.connector.connect(address, &expect, alpn, DEADLINE).await.unwrap()
    }

    pub(crate) async fn control(&self, broker: &RunningBroker) -> Control {
        let mut stream = MessageStream::over(self.dial(broker, Alpn::Control).await);
        stream.send(&hello().into()).await.unwrap();
        let Some(Message::Welcome(welcome)) = within(stream.recv()).await.unwrap() else {
            panic!("no welcome")
        };
        stream.accepted();
        Control { stream, welcome }
    }

    /// The answer to a probe, which needs no Hello.
    pub(crate) async fn probe(&self, broker: &RunningBroker) -> rc_proto::wire::message::Pong {
        let mut stream = MessageStream::over(self.dial(broker, Alpn::Control).await);
        stream.send(&Ping { nonce: 7, ext: Ext::none() }.into()).await.unwrap();
        match within(stream.recv()).await.unwrap() {
            Some(Message::Pong(pong)) => pong,
            other => panic!("no pong but {other:?}"),
        }
    }

    /// A control link over which this Target is registered as primary.
    pub(crate) async fn registered(&self, broker: &RunningBroker) -> Control {
        let mut control = self.control(broker).await;
        let answer = control.ask(self.register(1)).await;
        assert!(matches!(answer, Message::Registered(Registered { .. })), "{answer:?}");
        control
    }

    pub(crate) fn instance(&self) -> InstanceId {
        InstanceId([u8::try_from(self.number).unwrap(); 16])
    }

    pub(crate) fn register(&self, generation: u64) -> Register {
        Register {
            instance: self.instance(),
            instance_started_ms: self.number,
            generation: Generation(generation),
            role: RegistrationRole::PRIMARY,
            scores: Vec::new(),
            ext: Ext::none(),
        }
    }

    pub(crate) async fn open(&self, broker: &RunningBroker, open: &OpenPath) -> PathIo<Leg> {
        let mut stream = MessageStream::over(self.dial(broker, Alpn::Path).await);
        stream.send(&open.clone().into()).await.unwrap();
        stream.into_path()
    }

    /// Answers an invite at the address that it names.
    pub(crate) async fn join(&self, invite: &Invite) -> PathIo<Leg> {
        let expect = Expectation::Broker(invite.broker.clone());
        let leg = self.connector.connect(invite.addresses[0], &expect, Alpn::Path, DEADLINE).await.unwrap();
        let mut stream = MessageStream::over(leg);
        let join = JoinPath { path_id: invite.path_id, join_secret: invite.join_secret, ext: Ext::none() };
        stream.send(&join.into()).await.unwrap();
        stream.into_path()
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        versions: version::SUPPORTED,
        features: 0,
        incarnation: Incarnation(0),
        name: String::new(),
        addresses: Vec::new(),
        ext: Ext::none(),
    }
}

pub(crate) struct Control {
    pub(crate) stream: MessageStream<Leg>,
    pub(crate) welcome: Welcome,
}

impl Control {
    pub(crate) async fn ask(&mut self, message: impl Into<Message>) -> Message {
        self.stream.send(&message.into()).await.unwrap();
        self.next().await
    }

    pub(crate) async fn next(&mut self) -> Message {
        within(self.stream.recv()).await.unwrap().expect("the link was closed")
    }

    pub(crate) async fn invite(&mut self) -> Invite {
        match self.next().await {
            Message::Invite(invite) => invite,
            other => panic!("no invite but {other:?}"),
        }
    }

    pub(crate) async fn ping(&mut self) -> rc_proto::wire::message::Pong {
        match self.ask(Ping { nonce: 7, ext: Ext::none() }).await {
            Message::Pong(pong) => pong,
            other => panic!("no pong but {other:?}"),
        }
    }
}

pub(crate) async fn linked(brokers: &[&RunningBroker]) {
    for broker in brokers {
        let wanted = brokers.len() - 1;
        eventually("every broker is linked to every other", || {
            let links = broker.links();
            links.iter().filter(|link| link.role == "broker" && link.round_trip_us > Some(0)).count()
                == wanted
        })
        .await;
    }
}

pub(crate) async fn pass(from: &mut PathIo<Leg>, to: &mut PathIo<Leg>, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    from.flush().await.unwrap();
    let mut got = vec![0; bytes.len()];
    within(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, bytes);
}

/// Opens a path with a ClientHello's worth of bytes right behind the request, and returns both ends and the hops.
pub(crate) async fn path(
    world: &World,
    controller: &Endpoint,
    ingress: &RunningBroker,
    target: &Endpoint,
    control: &mut Control,
    route: &[&RunningBroker],
) -> (PathIo<Leg>, PathIo<Leg>, Vec<String>) {
    let mut open = world.open(controller, &target.name);
    open.route = route.iter().map(|broker| broker.id().clone()).collect();
    let mut near = controller.open(ingress, &open).await;
    near.write_all(&[7; 2000]).await.unwrap();
    near.flush().await.unwrap();
    let invite = control.invite().await;
    let mut far = target.join(&invite).await;
    let hops = within(near.wait_opened()).await.unwrap().hops.iter().map(|(id, _)| id.to_string()).collect();
    within(far.wait_opened()).await.unwrap();
    let mut early = vec![0; 2000];
    within(far.read_exact(&mut early)).await.unwrap();
    assert_eq!(early, [7; 2000]);
    pass(&mut near, &mut far, b"there").await;
    pass(&mut far, &mut near, b"and back").await;
    (near, far, hops)
}

/// The code that an open was refused with.
pub(crate) async fn refusal(path: &mut PathIo<Leg>) -> PathFailure {
    let error = within(path.wait_opened()).await.map(drop).unwrap_err();
    PathRefused::of(&error).unwrap_or_else(|| panic!("no refusal but {error}")).0.code
}

/// A step with a deadline.
pub(crate) async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("the step took too long")
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let polled = tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(polled.await.is_ok(), "{what} did not come true");
}
