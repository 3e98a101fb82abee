//! Several brokers in one process: links, locate, relay over two and three brokers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use rc_broker::BrokerConfig;
use rc_proto::wire::Alpn;
use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::Message;
use rc_transport::{Credentials, Leg, PathIo};
use support::{World, eventually, linked, pass, path, refusal, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_target_at_another_broker_is_located_and_reached() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&second).await;
    let (mut near, mut far, hops) = path(&world, &controller, &first, &target, &mut control, &[]).await;
    assert_eq!(hops, ["in/b1", "us/b2"]);
    assert_eq!(first.paths()[0].to.as_ref(), Some(second.id()));
    assert_eq!(second.paths()[0].from.as_ref(), Some(first.id()));
    far.write_all(b"the end").await.unwrap();
    far.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(near.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"the end");
    drop(near);
    eventually("no path is left", || first.paths().is_empty() && second.paths().is_empty()).await;
}

#[tokio::test]
async fn a_named_route_over_three_brokers_is_followed() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("eu/b2", &[&first], |_| {}).await;
    let third = world.broker_with("us/b3", &[&first, &second], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&third).await;
    let (near, _far, hops) =
        path(&world, &controller, &first, &target, &mut control, &[&second, &third]).await;
    assert_eq!(hops, ["in/b1", "eu/b2", "us/b3"]);
    drop(near);
    eventually("no path is left", || [&first, &second, &third].iter().all(|b| b.paths().is_empty())).await;
}

#[tokio::test]
async fn a_named_route_that_fails_falls_back_to_locate() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("eu/b2", &[&first], |_| {}).await;
    let third = world.broker_with("us/b3", &[&first, &second], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&third).await;
    let (_near, _far, hops) = path(&world, &controller, &first, &target, &mut control, &[&second]).await;
    assert_eq!(hops, ["in/b1", "us/b3"]);
}

#[tokio::test]
async fn a_registration_at_another_broker_wakes_a_parked_open() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut near = controller.open(&first, &world.open(&controller, "pc-1")).await;
    eventually("the open is there", || first.paths().len() == 1).await;
    let mut control = target.registered(&second).await;
    let _far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
}

#[tokio::test]
async fn targets_that_peers_announce_are_bounded_and_the_others_are_still_found() {
    let world = World::new();
    let few = |config: &mut BrokerConfig| config.limits.announced_targets = 2;
    let first = world.broker_with("in/b1", &[], few).await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let mut kept = Vec::new();
    for (number, tracked) in [(1, 1), (2, 2), (3, 2)] {
        let target = world.endpoint(&format!("target/pc-{number}"));
        let control = target.registered(&second).await;
        eventually("it is announced", || first.status().usage.tracked_targets == tracked).await;
        kept.push((target, control));
    }
    let controller = world.endpoint("controller/alice");
    let (target, mut control) = kept.pop().unwrap();
    let (_near, _far, hops) = path(&world, &controller, &first, &target, &mut control, &[]).await;
    assert_eq!(hops, ["in/b1", "us/b2"]);
}

#[tokio::test]
async fn an_absent_target_is_not_found_once_every_peer_said_no() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let controller = world.endpoint("controller/alice");
    let mut open = world.open(&controller, "nobody");
    open.deadline_ms = 400;
    assert_eq!(refusal(&mut controller.open(&first, &open).await).await, PathFailure::NOT_FOUND);
}

#[tokio::test]
async fn two_brokers_that_dial_each_other_keep_one_link() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    let third = world.broker_with("eu/b3", &[&first], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    for broker in [&first, &second, &third] {
        let status = broker.status();
        assert_eq!((status.mesh.linked, status.mesh.counted), (2, 2));
        assert!(status.mesh.healthy);
    }
}

#[tokio::test]
async fn a_broker_that_dials_itself_notices() {
    let world = World::new();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let itself = |config: &mut BrokerConfig| {
        config.listen = vec![address];
        config.seeds = vec![rc_broker::Seed::Broker { id: "in/b1".parse().unwrap(), address }];
    };
    let first = world.broker_with("in/b1", &[], itself).await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    assert_eq!(first.status().mesh.known, 1);
}

#[tokio::test]
async fn a_lost_peer_makes_the_rest_isolated_and_its_targets_partial() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    within(second.stop()).await;
    eventually("the peer is down", || !first.status().mesh.healthy).await;
    let controller = world.endpoint("controller/alice");
    let open = world.open(&controller, "pc-1");
    assert_eq!(refusal(&mut controller.open(&first, &open).await).await, PathFailure::ISOLATED);
    let target = world.endpoint("target/pc-2");
    let mut control = target.registered(&first).await;
    assert!(!control.ping().await.mesh_healthy);
    path(&world, &controller, &first, &target, &mut control, &[]).await;
}

#[tokio::test]
async fn a_peer_that_drained_does_not_count_as_lost() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    within(second.drain()).await;
    within(second.stop()).await;
    eventually("the link is gone", || first.links().is_empty()).await;
    assert!(first.status().mesh.healthy);
}

#[tokio::test]
async fn a_later_instance_at_another_broker_supersedes_the_earlier_one_here() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (earlier, later) = (world.endpoint("target/pc-1"), world.endpoint("target/pc-1"));
    let mut old = earlier.registered(&first).await;
    let mut new = later.registered(&second).await;
    let rc_proto::wire::message::Message::Superseded(told) = old.next().await else { panic!() };
    assert_eq!(told.by, later.instance());
    let controller = world.endpoint("controller/alice");
    let (_near, _far, hops) = path(&world, &controller, &first, &later, &mut new, &[]).await;
    assert_eq!(hops, ["in/b1", "us/b2"]);
    let mut named = world.open(&controller, "pc-1");
    named.instance = Some(earlier.instance());
    named.purpose = Purpose::RESUME;
    let mut near = controller.open(&first, &named).await;
    let _far = earlier.join(&old.invite().await).await;
    within(near.wait_opened()).await.unwrap();
}

#[tokio::test]
async fn only_a_broker_may_speak_on_the_mesh() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    for role in ["controller/alice", "target/pc-1", "traffic-manager/tm-1"] {
        let endpoint = world.endpoint(role);
        let expect = rc_transport::Expectation::Broker(broker.id().clone());
        let address = broker.addresses()[0];
        let deadline = Duration::from_secs(5);
        if let Ok(mut leg) = endpoint.connector.connect(address, &expect, Alpn::Mesh, deadline).await {
            assert!(within(leg.read_u8()).await.is_err(), "{role}");
        }
    }
    assert!(broker.links().is_empty());
}

#[tokio::test]
async fn megabytes_cross_two_brokers_both_ways_at_once_unchanged() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&second).await;
    let (near, far, _) = path(&world, &controller, &first, &target, &mut control, &[]).await;
    let pattern =
        |seed: u8| (0..8_000_000).map(|i: u32| i.to_le_bytes()[0].wrapping_mul(seed)).collect::<Vec<u8>>();
    let talk = |stream: PathIo<Leg>, sent: Vec<u8>, expected: Vec<u8>| async move {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = vec![0; expected.len()];
        let writer = async {
            write.write_all(&sent).await?;
            write.flush().await
        };
        let (wrote, read_all) = tokio::join!(writer, read.read_exact(&mut got));
        wrote.unwrap();
        read_all.unwrap();
        assert!(got == expected);
    };
    within(async { tokio::join!(talk(near, pattern(3), pattern(5)), talk(far, pattern(5), pattern(3))) })
        .await;
}

#[tokio::test]
async fn a_pooled_connection_that_the_peer_has_closed_costs_one_retry() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let short = |config: &mut BrokerConfig| config.timers.mesh_leg_idle = Duration::from_millis(100);
    let second = world.broker_with("us/b2", &[&first], short).await;
    linked(&[&first, &second]).await;
    let linked_at = std::time::Instant::now();
    eventually("the ready connections ran out", || linked_at.elapsed() > Duration::from_millis(400)).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&second).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (near, far, hops) = path(&world, &controller, &first, &target, &mut control, &[]).await;
        assert_eq!(hops, ["in/b1", "us/b2"]);
        kept.push((near, far));
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_down_after_its_time() {
    let world = World::new();
    let quick = |config: &mut BrokerConfig| {
        config.timers.mesh_ping = Duration::from_millis(50);
        config.timers.mesh_down = Duration::from_millis(300);
    };
    let first = world.broker_with("in/b1", &[], quick).await;
    let peer = world.endpoint("broker/us/b2");
    let mut stream = rc_transport::MessageStream::over(peer.dial(&first, Alpn::Mesh).await);
    let mut hello = support::hello();
    hello.incarnation = rc_proto::wire::Incarnation(9);
    stream.send(&hello.into()).await.unwrap();
    eventually("the peer is linked", || first.status().mesh.linked == 1).await;
    eventually("the silent peer is down", || first.status().mesh.linked == 0).await;
    assert!(!first.status().mesh.healthy);
}

#[tokio::test]
async fn an_invite_that_nobody_hears_is_hedged_by_another_broker() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut deaf = target.registered(&first).await;
    let mut standby = target.control(&second).await;
    let mut register = target.register(2);
    register.role = rc_proto::wire::codes::RegistrationRole::STANDBY;
    standby.ask(register).await;
    let mut near = controller.open(&first, &world.open(&controller, "pc-1")).await;
    deaf.invite().await;
    let mut far = target.join(&standby.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    pass(&mut near, &mut far, b"there").await;
}

#[tokio::test]
async fn a_broker_in_the_middle_judges_the_controllers_certificate_by_its_own_lists() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let own = world.ca.issue(&world.ca.id("broker/us/b2"), &["brokers.mesh.test"]);
    let second = world.broker_of(Credentials::load(&own).unwrap(), &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let files = world.ca.issue(&world.ca.id("controller/alice"), &[]);
    let controller = world.endpoint_of("alice", Credentials::load(&files).unwrap());
    let _control = world.endpoint("target/pc-1").registered(&second).await;
    world.ca.revoke(&files);
    second.set_credentials(Arc::new(Credentials::load(&own).unwrap())).unwrap();
    let mut near = controller.open(&first, &world.open(&controller, "pc-1")).await;
    assert_eq!(refusal(&mut near).await, PathFailure::UNAUTHORIZED);
}

#[tokio::test]
async fn a_draining_broker_takes_no_new_path_from_a_peer_and_says_when_those_that_cross_it_move() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&second).await;
    let mut alice = controller.control(&first).await;
    let (_near, _far, _) = path(&world, &controller, &first, &target, &mut control, &[]).await;
    let crossing = first.paths()[0].path;
    second.begin_drain();
    let Message::Drain(drain) = alice.next().await else { panic!() };
    let told: Vec<_> = drain.slots.iter().map(|(path, slot)| (path.to_string(), *slot)).collect();
    assert_eq!(told, [(crossing.to_string(), 0)]);
    let mut open = world.open(&controller, "pc-1");
    open.deadline_ms = 400;
    assert_eq!(refusal(&mut controller.open(&first, &open).await).await, PathFailure::DRAINING);
}

#[tokio::test]
async fn a_parked_resume_is_woken_by_the_instance_that_it_names_alone() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let controller = world.endpoint("controller/alice");
    let (other, wanted) = (world.endpoint("target/pc-1"), world.endpoint("target/pc-1"));
    let mut open = world.open(&controller, "pc-1");
    open.purpose = Purpose::RESUME;
    open.instance = Some(wanted.instance());
    let mut near = controller.open(&first, &open).await;
    eventually("the open is there", || first.paths().len() == 1).await;
    let _of_other = other.registered(&first).await;
    let mut at_second = wanted.control(&second).await;
    assert!(matches!(at_second.ask(wanted.register(1)).await, Message::Registered(_)));
    let _far = wanted.join(&at_second.invite().await).await;
    within(near.wait_opened()).await.unwrap();
}

#[tokio::test]
async fn an_open_that_hangs_on_a_named_route_follows_the_target_to_where_it_registers() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("eu/b2", &[&first], |_| {}).await;
    let third = world.broker_with("us/b3", &[&first, &second], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut deaf = target.control(&second).await;
    let mut register = target.register(1);
    register.role = rc_proto::wire::codes::RegistrationRole::STANDBY;
    assert!(matches!(deaf.ask(register).await, Message::Registered(_)));
    let mut open = world.open(&controller, "pc-1");
    open.route = vec![second.id().clone()];
    let mut near = controller.open(&first, &open).await;
    deaf.invite().await;
    // By then the mesh has been asked, and nobody else had the Target.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut at_third = target.control(&third).await;
    assert!(matches!(at_third.ask(target.register(2)).await, Message::Registered(_)));
    let _far = target.join(&at_third.invite().await).await;
    let opened = within(near.wait_opened()).await.unwrap();
    assert_eq!(opened.hops.last().map(|(broker, _)| broker), Some(third.id()));
}

#[tokio::test]
async fn a_resume_is_told_at_once_that_a_peer_did_not_answer() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let peer = world.endpoint("broker/us/b2");
    let mut stream = rc_transport::MessageStream::over(peer.dial(&first, Alpn::Mesh).await);
    let mut hello = support::hello();
    hello.incarnation = rc_proto::wire::Incarnation(9);
    // Whoever connects there hears nothing either.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    hello.addresses = vec![deaf.local_addr().unwrap()];
    stream.send(&hello.into()).await.unwrap();
    eventually("the peer is linked", || first.status().mesh.linked == 1).await;
    let controller = world.endpoint("controller/alice");
    let resume = |route: Vec<rc_proto::wire::BrokerId>| {
        let mut open = world.open(&controller, "pc-1");
        (open.purpose, open.route) = (Purpose::RESUME, route);
        let (controller, first) = (&controller, &first);
        async move {
            let began = std::time::Instant::now();
            (refusal(&mut controller.open(first, &open).await).await, began.elapsed())
        }
    };
    let (located, named) = tokio::join!(resume(vec![]), resume(vec!["us/b2".parse().unwrap()]));
    for (code, took) in [located, named] {
        assert_eq!(code, PathFailure::PARTIAL);
        assert!(took < Duration::from_millis(2_500), "{took:?}");
    }
}
