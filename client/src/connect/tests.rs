use std::sync::Arc;

use rc_proto::session::SessionConfig;
use rc_proto::wire::codes::Lane;
use rc_proto::wire::message::Invite;
use rc_proto::wire::{Ext, InstanceId, JoinSecret, PathId};
use rc_transport::{BoxFuture, Credentials, EndToEnd};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::path::join_path;
use crate::session::{OfferQueue, SessionSetup, admit, read_attach};
use crate::testing::{FakeBroker, SERVICE, Temper, TokioClock, World};

const DEADLINE: Duration = Duration::from_secs(5);

struct Scene {
    world: World,
    broker: FakeBroker,
    endpoint: Endpoint,
}

fn scene() -> Scene {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "127.0.0.1:443", Temper::default());
    world.names.answer(SERVICE, &["127.0.0.1"], Duration::ZERO);
    let endpoint = Endpoint::start_with(world.config(), Role::Controller, world.reach("controller/alice"));
    Scene { world, broker, endpoint }
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

/// No ticket but the first.
struct NoFurther;

impl TicketRenewal for NoFurther {
    fn renew(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Err("there is one ticket".to_owned()) })
    }
}

impl Scene {
    async fn start(&self) -> Result<SessionHandle, StartError> {
        self.endpoint.start_session(&id("pc-1"), "ticket".to_owned(), Arc::new(NoFurther)).await
    }

    fn target(&self) -> Credentials {
        self.world.ca.credentials("target/pc-1", &[])
    }
}

/// The Target at the other end of an open path.
async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    own: &Credentials,
) -> (SessionHandle, OfferQueue) {
    let mut stream = EndToEnd::server(own, io).await.unwrap();
    let (attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
    let setup = SessionSetup {
        instance: InstanceId([7; 16]),
        config: SessionConfig::default(),
        clock: Arc::new(TokioClock::start()),
        events: crate::event::EventLog::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let facts = PathFacts::default();
    admit(&setup, id("alice"), &attach, |_| true, stream, early, facts, 4)
        .map_err(|(_, refused)| refused)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn bytes_altered_on_the_way_cost_one_more_path() {
    let scene = scene();
    let target = scene.target();
    let both = tokio::join!(scene.start(), async {
        let mut altered = scene.broker.open_next_path().await;
        altered.write_all(b"these bytes are no TLS at all").await.unwrap();
        serve(scene.broker.open_next_path().await, &target).await
    });
    let (started, (there, _offers)) = both;
    assert_eq!(started.unwrap().id(), there.id());
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_altered_again_and_again_is_no_refusal() {
    let scene = scene();
    let (started, paths) = tokio::join!(scene.start(), async {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut altered = scene.broker.open_next_path().await;
            altered.write_all(b"these bytes are no TLS at all").await.unwrap();
            kept.push(altered);
        }
        kept.len()
    });
    assert_eq!(paths, 2);
    let error = started.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unreachable, "{error}");
    assert!(error.to_string().contains("broken on the way"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_breaks_before_the_answer_costs_one_more_path() {
    let scene = scene();
    let target = scene.target();
    let (started, (there, _offers)) = tokio::join!(scene.start(), async {
        let mut stream = EndToEnd::server(&target, scene.broker.open_next_path().await).await.unwrap();
        read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
        drop(stream);
        serve(scene.broker.open_next_path().await, &target).await
    });
    assert_eq!(started.unwrap().id(), there.id());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_our_certificate_is_a_refusal_and_says_so() {
    let scene = scene();
    let other = World::new();
    let files = scene.world.ca.issue(&scene.world.ca.id("target/pc-1"), &[]);
    let judge = other.ca.unchecked(&files);
    let (started, judged) = tokio::join!(scene.start(), async {
        EndToEnd::server(&judge, scene.broker.open_next_path().await).await.map(|_| ())
    });
    assert!(judged.is_err());
    let error = started.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused, "{error}");
    assert!(error.to_string().contains("refused our certificate"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_controller_has_five_seconds_from_the_open_path_to_its_handshake() {
    let scene = scene();
    let reach = scene.world.reach("target/pc-1");
    let mut contact = BrokerContact::named(&scene.broker.id, "");
    contact.answered = Some(scene.broker.address);
    let invite = Invite {
        path_id: PathId([1; 16]),
        join_secret: JoinSecret([2; 16]),
        controller: id("alice"),
        lane: Lane::INTERACTIVE,
        deadline_ms: 15_000,
        broker: scene.broker.id.clone(),
        name: String::new(),
        addresses: vec![],
        ext: Ext::none(),
    };
    let (joined, (opened, _silent)) = tokio::join!(join_path(&reach, &contact, &invite), async {
        let silent = scene.broker.open_next_path().await;
        (Instant::now(), silent)
    });
    let reason = joined.err().unwrap();
    assert!(reason.contains("no end-to-end handshake within 5s"), "{reason}");
    assert!(opened.elapsed() <= DEADLINE + Duration::from_millis(100), "{:?}", opened.elapsed());
}
