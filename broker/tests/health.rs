//! What a broker knows of its own state: the mesh around it, its workers, what it holds, what it was told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::time::{Duration, Instant};

use rc_broker::core::drain::DrainCause;
use rc_broker::{BrokerConfig, RunningBroker};
use rc_proto::wire::codes::{PathEnd, PathFailure};
use rc_proto::wire::message::{ClosePath, Message, ScoreReport};
use rc_proto::wire::{Alpn, BrokerId, Ext, Incarnation};
use rc_transport::{Leg, MessageStream, PathRefused};
use support::{Endpoint, World, eventually, linked, path, within};
use tokio::io::AsyncWriteExt;

/// A peer that greets and then says only what the test says.
async fn silent_peer(world: &World, id: &str, broker: &RunningBroker) -> MessageStream<Leg> {
    let peer: Endpoint = world.endpoint(id);
    let mut stream = MessageStream::over(peer.dial(broker, Alpn::Mesh).await);
    let mut hello = support::hello();
    hello.incarnation = Incarnation(9);
    hello.name = format!("{}.mesh.test:443", peer.name);
    stream.send(&hello.into()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_broker_knows_within_four_seconds_that_it_is_isolated_and_its_targets_are_advised_to_move() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (target, controller) = (world.endpoint("target/pc-1"), world.endpoint("controller/alice"));
    let (mut control, mut alice) = (target.registered(&first).await, controller.control(&first).await);
    let pong = control.ping().await;
    assert_eq!((pong.peers(), pong.move_after_ms()), (Some((1, 1)), None));
    // One of two known peers falls silent: half of them.
    let silent = silent_peer(&world, "broker/eu/b3", &first).await;
    eventually("the peer is linked", || first.status().mesh.linked == 2).await;
    let began = Instant::now();
    eventually("it is isolated", || !first.status().mesh.healthy).await;
    assert!(began.elapsed() <= Duration::from_secs(4), "{:?}", began.elapsed());
    let pong = control.ping().await;
    assert_eq!((pong.peers(), pong.mesh_healthy), (Some((1, 2)), false));
    assert!(pong.move_after_ms().is_some_and(|after| after <= 60_000), "{pong:?}");
    assert_eq!(alice.ping().await.move_after_ms(), None);
    let open = world.open(&controller, "nobody");
    let mut near = controller.open(&first, &open).await;
    let refused = within(near.wait_opened()).await.map(drop).unwrap_err();
    let refused = PathRefused::of(&refused).unwrap().0.clone();
    assert_eq!(refused.code, PathFailure::ISOLATED);
    let alternates: Vec<_> = refused.alternates.iter().map(|(broker, _)| broker.to_string()).collect();
    assert_eq!(alternates, ["us/b2", "eu/b3"]);
    drop(silent);
    let _back = silent_peer(&world, "broker/eu/b3", &first).await;
    eventually("it is whole again", || first.status().mesh.healthy).await;
    assert_eq!(control.ping().await.move_after_ms(), None);
}

#[tokio::test]
async fn a_peer_that_was_away_for_long_is_linked_and_knows_everything_within_five_seconds() {
    let world = World::new();
    let away = world.broker("us/b2").await;
    let address = away.addresses()[0];
    let first = world.broker_with("in/b1", &[&away], |_| {}).await;
    linked(&[&first, &away]).await;
    within(away.stop()).await;
    drop(away);
    let target = world.endpoint("target/pc-1");
    let mut control = target.registered(&first).await;
    let gone_at = Instant::now();
    while gone_at.elapsed() < Duration::from_secs(6) {
        // Keeps the Target's link busy while the back-off grows.
        control.ping().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let back = world.broker_with("us/b2", &[], |config| config.listen = vec![address]).await;
    let began = Instant::now();
    let knows = || back.status().usage.tracked_targets == 1 && back.status().mesh.linked == 1;
    eventually("it knows what is registered elsewhere", knows).await;
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
    drop(control);
    eventually("it knows what left", || back.status().usage.tracked_targets == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_stuck_worker_stops_accepting_and_drains_itself() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let began = Instant::now();
    tokio::spawn(async move { held.recv().unwrap_or_default() });
    assert_eq!(within(broker.draining()).await, DrainCause::StuckWorker);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let status = broker.status();
    assert_eq!((status.accepting, status.drain_cause), (false, Some(DrainCause::StuckWorker)));
    let knows = || broker.events().since(0).iter().any(|event| event.kind == "worker.stuck");
    eventually("it says why", knows).await;
    drop(release);
    assert!(!world.endpoint("traffic-manager/tm-1").probe(&broker).await.accepting);
}

#[tokio::test]
async fn when_everybody_has_left_nothing_is_held() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let pooled = |broker: &RunningBroker| broker.status().usage.waiting_legs == 2;
    eventually("connections are ready both ways", || pooled(&first) && pooled(&second)).await;
    let base = [first.status().usage, second.status().usage];
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    for round in 0..3 {
        let mut control = target.registered(&second).await;
        let mut alice = controller.control(&first).await;
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(path(&world, &controller, &first, &target, &mut control, &[]).await);
        }
        let mut parked = controller.open(&first, &world.open(&controller, "nobody")).await;
        parked.write_all(&[1; 1000]).await.unwrap();
        parked.flush().await.unwrap();
        eventually("early bytes are held", || first.status().usage.held_bytes == 1000).await;
        // A reader that stops leaves bytes at both brokers.
        let stopped = &mut kept[0].0;
        while tokio::time::timeout(Duration::from_millis(100), stopped.write_all(&[7; 65_536])).await.is_ok()
        {
        }
        eventually("bytes wait for the reader", || second.status().usage.held_bytes > 0).await;
        // Each of the ways in which a path ends.
        let (near, far, _) = kept.pop().unwrap();
        drop((near, far));
        let (mut near, _far, _) = kept.pop().unwrap();
        near.shutdown().await.unwrap();
        let closing = first.paths().into_iter().find(|path| path.open).unwrap().path;
        let close = ClosePath { path_id: closing, reason: PathEnd::CLOSED, ext: Ext::none() };
        alice.stream.send(&close.into()).await.unwrap();
        drop((kept, near, parked, alice, control));
        for (broker, base) in [(&first, base[0]), (&second, base[1])] {
            let back = || {
                let usage = broker.status().usage;
                (usage.paths, usage.registrations, usage.control_links, usage.waiting_legs)
                    == (0, 0, 0, base.waiting_legs)
                    && (usage.tracked_targets, usage.held_bytes, usage.tasks) == (0, 0, base.tasks)
            };
            eventually(&format!("round {round}: {:?} is as before", broker.id()), back).await;
        }
    }
}

#[tokio::test]
async fn what_endpoints_measured_is_kept_by_network_and_can_be_forgotten() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let mut control = target.control(&broker).await;
    let score = |id: &str, ms| (id.parse::<BrokerId>().unwrap(), ms);
    let mut register = target.register(1);
    register.scores = vec![score("in/b1", 20), score("us/b2", 90)];
    assert!(matches!(control.ask(register).await, Message::Registered(_)));
    let mut alice = world.endpoint("controller/alice").control(&broker).await;
    let report = ScoreReport { scores: vec![score("us/b2", 10)], age_ms: 5, ext: Ext::none() };
    alice.stream.send(&report.clone().into()).await.unwrap();
    // A second one right behind it tells nothing new.
    alice.stream.send(&report.into()).await.unwrap();
    alice.ping().await;
    let rows: Vec<_> = broker
        .scores()
        .into_iter()
        .map(|row| (row.network.to_string(), row.broker.to_string(), row.mean_us, row.reports))
        .collect();
    let network = "127.0.0.0/24".to_owned();
    let expected =
        [(network.clone(), "in/b1".to_owned(), 20_000, 1), (network, "us/b2".to_owned(), 80_000, 2)];
    assert_eq!(rows, expected);
    assert_eq!(broker.registrations()[0].round_trip_us, 20_000);
    broker.forget_scores();
    assert!(broker.scores().is_empty());
}

#[tokio::test]
async fn registrations_beyond_the_burst_get_their_slot_and_are_taken_at_it() {
    let world = World::new();
    let tight = |config: &mut BrokerConfig| {
        config.limits.registrations_burst = 4;
        config.limits.registrations_per_second = 2;
    };
    let broker = world.broker_with("in/b1", &[], tight).await;
    let mut kept = Vec::new();
    let mut waits = Vec::new();
    for number in 0..6 {
        let target = world.endpoint(&format!("target/pc-{number}"));
        let mut control = target.control(&broker).await;
        match control.ask(target.register(1)).await {
            Message::Registered(_) => kept.push(control),
            Message::RetryAfter(later) => waits.push((later.after_ms, target, control)),
            other => panic!("{other:?}"),
        }
    }
    assert!(waits.len() >= 2, "{} had to wait", waits.len());
    let (after_ms, target, mut control) = waits.remove(0);
    tokio::time::sleep(Duration::from_millis(after_ms.into())).await;
    assert!(matches!(control.ask(target.register(1)).await, Message::Registered(_)));
    let mut again = target.control(&broker).await;
    assert!(matches!(again.ask(target.register(2)).await, Message::Registered(_)), "it is no newcomer");
    drop(kept);
}
