//! Sessions of a whole Controller over fake brokers: paths are lost, tickets run out, and the session goes on.

use std::sync::Mutex;

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{KeyThumbprint, TicketClaims};
use rc_proto::session::SessionConfig;
use rc_proto::wire::codes::{AttachKind, Lane, Purpose};
use rc_proto::wire::{InstanceId, Jti};
use rc_transport::{BoxFuture, Credentials, EndToEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::event::{EventLog, Events};
use crate::reach::unix_ms;
use crate::session::{OfferQueue, OpenOptions, SessionSetup, admit, read_attach};
use crate::testing::{FakeBroker, SERVICE, Temper, TokioClock, World};

const DEADLINE: Duration = Duration::from_secs(5);

/// Gives one ticket after the other; then none.
struct Tickets(Mutex<Vec<String>>);

impl TicketRenewal for Tickets {
    fn renew(&self) -> BoxFuture<'_, Result<String, String>> {
        let next = self.0.lock().unwrap().pop();
        Box::pin(async move { next.ok_or_else(|| "there are no more".to_owned()) })
    }
}

struct Scene {
    broker: FakeBroker,
    endpoint: Endpoint,
    target: Credentials,
    setup: SessionSetup,
    world: World,
}

fn scene() -> Scene {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "127.0.0.1:443", Temper::default());
    world.names.answer(SERVICE, &["127.0.0.1"], Duration::ZERO);
    let mut config = world.config();
    // The fake broker takes every connection for a path.
    config.pool_legs = 0;
    config.repath_every = None;
    let endpoint = Endpoint::start_with(config, Role::Controller, world.reach("controller/alice"));
    let target = world.ca.credentials("target/pc-1", &[]);
    let setup = SessionSetup {
        instance: InstanceId([7; 16]),
        config: SessionConfig { resume_window: Duration::from_secs(150), ..SessionConfig::default() },
        clock: Arc::new(TokioClock::start()),
        events: EventLog::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    Scene { broker, endpoint, target, setup, world }
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

/// A running session; `cut` ends its first path without a word.
struct Running {
    controller: SessionHandle,
    target: SessionHandle,
    offers: OfferQueue,
    cut: CancellationToken,
    events: Events,
}

impl Scene {
    /// The next path's stream; it ends when the token is cancelled.
    async fn next_path(&self) -> (tokio::io::DuplexStream, CancellationToken) {
        let mut far = self.broker.open_next_path().await;
        let (near, mut middle) = tokio::io::duplex(64 * 1024);
        let cut = CancellationToken::new();
        let until = cut.clone();
        tokio::spawn(async move {
            until.run_until_cancelled(tokio::io::copy_bidirectional(&mut middle, &mut far)).await;
        });
        (near, cut)
    }

    async fn begin(&self, ticket: String, further: Vec<String>) -> Running {
        let events = self.endpoint.events();
        let peer = id("pc-1");
        let tickets = Arc::new(Tickets(Mutex::new(further)));
        let (controller, (target, offers, cut)) =
            tokio::join!(self.endpoint.start_session(&peer, ticket, tickets), async {
                let (io, cut) = self.next_path().await;
                let mut stream = EndToEnd::server(&self.target, io).await.unwrap();
                let (attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
                let facts = PathFacts::default();
                let (target, offers) =
                    admit(&self.setup, id("alice"), &attach, |_| true, stream, early, facts, 4).ok().unwrap();
                (target, offers, cut)
            });
        Running { controller: controller.unwrap(), target, offers, cut, events }
    }

    /// Takes the next path for the session; returns the ticket that it came with.
    async fn accept_next(&self, running: &Running) -> (String, CancellationToken) {
        let (io, cut) = self.next_path().await;
        let mut stream = EndToEnd::server(&self.target, io).await.unwrap();
        let (attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
        assert_eq!((attach.kind, attach.lane), (AttachKind::RESUME, Lane::INTERACTIVE));
        let taken = running.target.accept_path(stream, &attach, |_| true, early, PathFacts::default());
        assert!(taken.is_ok());
        (attach.ticket, cut)
    }

    /// A ticket that ends so long from now.
    fn ticket(&self, left: Duration) -> String {
        let spiffe = |path: &str| -> SpiffeId { self.world.ca.id(path) };
        let now = unix_ms() / 1000;
        let claims = TicketClaims {
            iss: "test".to_owned(),
            sub: spiffe("controller/alice"),
            aud: spiffe("target/pc-1"),
            iat: now,
            nbf: now,
            jti: Jti(rand::random()),
            perm: vec![],
            cnf: KeyThumbprint([0; 32]),
            start_by: now + 300,
            exp: now + left.as_secs(),
        };
        claims.to_signing_input(&"key-1".parse().unwrap()).unwrap().sign_with(&[0; 64])
    }
}

impl Running {
    async fn echoes(&mut self) {
        let service = "echo".parse().unwrap();
        let (near, far) = tokio::join!(self.controller.open(&service, OpenOptions::default()), async {
            self.offers.next().await.unwrap().accept().unwrap()
        });
        let (mut near, mut far) = (near.unwrap(), far);
        near.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }

    /// The next event that `matches`.
    async fn told(&mut self, matches: impl Fn(&Event) -> bool) -> Event {
        let search = async {
            loop {
                let event = self.events.next().await.unwrap();
                if matches(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(2000), search).await.expect("it is told")
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_path_is_lost_goes_on_over_the_next_one_again_and_again() {
    let scene = scene();
    let mut running = scene.begin("ticket".to_owned(), vec![]).await;
    running.echoes().await;
    let mut cut = running.cut.clone();
    for _ in 0..3 {
        cut.cancel();
        let (ticket, next) = scene.accept_next(&running).await;
        assert_eq!(ticket, "ticket");
        cut = next;
        running.echoes().await;
        let moved = running.told(|event| matches!(event, Event::SessionMoved { .. })).await;
        assert!(matches!(moved, Event::SessionMoved { purpose: Purpose::RESUME, .. }), "{moved:?}");
    }
    let moved = running.controller.status().last_move.unwrap().moved;
    assert_eq!((moved.purpose, moved.attempts), (Purpose::RESUME, Some(1)));
    assert!(running.target.status().last_move.is_some());
}

#[tokio::test(start_paused = true)]
async fn brokers_that_come_back_within_the_window_find_the_session_alive() {
    let scene = scene();
    let mut running = scene.begin("ticket".to_owned(), vec![]).await;
    running.echoes().await;
    running.cut.cancel();
    scene.broker.cut_links();
    running.told(|event| matches!(event, Event::SessionDetached { .. })).await;
    // Nothing takes a path for a minute and a half: each attempt meets a Target that does not answer.
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(90) {
        drop(scene.broker.open_next_path().await);
    }
    assert!(!running.controller.is_over());
    // Legs that were on their way are still cut; the first whole one is taken.
    scene.accept_next(&running).await;
    running.echoes().await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_ticket_is_presented_over_a_new_path_before_the_old_one_ends() {
    let scene = scene();
    let (first, second) = (scene.ticket(Duration::from_secs(1000)), scene.ticket(Duration::from_secs(4000)));
    let mut running = scene.begin(first, vec![second.clone()]).await;
    let began = tokio::time::Instant::now();
    let (presented, _cut) = scene.accept_next(&running).await;
    assert_eq!(presented, second);
    assert!((600..900).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    running.echoes().await;
    let moved = running.told(|event| matches!(event, Event::SessionMoved { .. })).await;
    assert!(matches!(moved, Event::SessionMoved { purpose: Purpose::HANDOVER, .. }), "{moved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_cannot_be_renewed_is_told_and_ends_nothing_by_itself() {
    let scene = scene();
    let mut running = scene.begin(scene.ticket(Duration::from_secs(1000)), vec![]).await;
    let told = running.told(|event| matches!(event, Event::TicketRenewalFailed { .. })).await;
    assert!(
        matches!(&told, Event::TicketRenewalFailed { reason, .. } if reason.contains("no more")),
        "{told:?}"
    );
    assert!(!running.controller.is_over());
    running.echoes().await;
}
