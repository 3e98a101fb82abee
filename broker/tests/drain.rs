//! Brokers that stop: who hears it, where everybody is sent, and what is served to the end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::time::{Duration, Instant};

use rc_broker::{BrokerConfig, RunningBroker};
use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::{Drain, Message};
use support::{Control, World, eventually, linked, path, refusal, within};

/// The next Drain of a control link; whatever else comes is skipped.
async fn drain(control: &mut Control) -> Drain {
    loop {
        if let Message::Drain(drain) = control.next().await {
            return drain;
        }
    }
}

fn moved(drain: &Drain) -> Vec<String> {
    drain.slots.iter().map(|(path, _)| path.to_string()).collect()
}

fn names(drain: &Drain) -> Vec<String> {
    drain.alternates.iter().map(|(broker, _)| broker.to_string()).collect()
}

async fn three(world: &World) -> [RunningBroker; 3] {
    let first = world.broker("in/b1").await;
    let second = world.broker_with("eu/b2", &[&first], |_| {}).await;
    let third = world.broker_with("us/b3", &[&first, &second], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    [first, second, third]
}

#[tokio::test]
async fn both_ends_of_a_three_broker_route_hear_of_each_broker_that_stops() {
    for stopping in 0..3 {
        let world = World::new();
        let brokers = three(&world).await;
        let [first, second, third] = &brokers;
        let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
        let mut control = target.registered(third).await;
        let mut alice = controller.control(first).await;
        let (_near, _far, _) =
            path(&world, &controller, first, &target, &mut control, &[second, third]).await;
        let crossing = vec![first.paths()[0].path.to_string()];
        brokers[stopping].begin_drain();
        for (end, broker) in [(&mut alice, first), (&mut control, third)] {
            let told = drain(end).await;
            let named = told.peer().unwrap_or_else(|| broker.id().clone());
            assert_eq!(named, *brokers[stopping].id());
            let slots = if told.slots.is_empty() { moved(&drain(end).await) } else { moved(&told) };
            assert_eq!(slots, crossing, "{stopping} stops");
        }
    }
}

#[tokio::test]
async fn alternates_are_the_brokers_that_still_take_sessions_the_own_region_first() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    let second = world.broker_with("eu/a2", &[&first], |_| {}).await;
    let third = world.broker_with("in/b3", &[&first, &second], |_| {}).await;
    linked(&[&first, &second, &third]).await;
    let (mut at_first, mut at_third) = (
        world.endpoint("target/pc-1").control(&first).await,
        world.endpoint("target/pc-2").control(&third).await,
    );
    first.begin_drain();
    assert_eq!(names(&drain(&mut at_first).await), ["in/b3", "eu/a2"]);
    let knows = || second.events().since(0).iter().any(|event| event.kind == "mesh.draining");
    eventually("the others know", knows).await;
    third.begin_drain();
    assert_eq!(names(&drain(&mut at_third).await), ["eu/a2"]);
}

#[tokio::test]
async fn without_an_alternate_a_session_that_lost_its_path_comes_back_up_to_the_deadline() {
    let world = World::new();
    let short = |config: &mut BrokerConfig| config.timers.drain = Duration::from_secs(3);
    let broker = world.broker_with("in/b1", &[], short).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let (near, far, _) = path(&world, &controller, &broker, &target, &mut control, &[]).await;
    // Without close_notify: the leg broke.
    drop((near, far));
    eventually("the path is gone", || broker.paths().is_empty()).await;
    let began = Instant::now();
    let resumed = async {
        assert_eq!(drain(&mut control).await.alternates, []);
        let mut open = world.open(&controller, "pc-1");
        for (purpose, refused) in [(Purpose::NEW, true), (Purpose::STANDBY, true), (Purpose::RESUME, false)] {
            open.purpose = purpose;
            open.instance = Some(target.instance());
            open.path_id = rc_proto::wire::PathId(world.id(1));
            let mut near = controller.open(&broker, &open).await;
            if refused {
                assert_eq!(refusal(&mut near).await, PathFailure::DRAINING);
                continue;
            }
            let _far = target.join(&control.invite().await).await;
            within(near.wait_opened()).await.unwrap();
        }
    };
    tokio::join!(broker.drain(), resumed);
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(broker.status().drain_cause, Some(rc_broker::core::drain::DrainCause::Request));
}

#[tokio::test]
async fn sessions_at_a_draining_broker_are_still_reached_through_its_peers() {
    let world = World::new();
    let first = world.broker("in/b1").await;
    // It dialled: nothing but what it tells says where it can be dialled.
    let second = world.broker_with("us/b2", &[&first], |_| {}).await;
    linked(&[&first, &second]).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&second).await;
    second.begin_drain();
    drain(&mut control).await;
    let knows = || first.events().since(0).iter().any(|event| event.kind == "mesh.draining");
    eventually("its peer knows", knows).await;
    let mut kept = Vec::new();
    // More than there are ready connections.
    for _ in 0..5 {
        let mut open = world.open(&controller, "pc-1");
        (open.purpose, open.instance) = (Purpose::RESUME, Some(target.instance()));
        let mut near = controller.open(&first, &open).await;
        let invite = loop {
            if let Message::Invite(invite) = control.next().await {
                break invite;
            }
        };
        let far = target.join(&invite).await;
        within(near.wait_opened()).await.unwrap();
        kept.push((near, far));
    }
}

#[tokio::test]
async fn a_new_session_waits_for_a_target_that_leaves_a_draining_broker() {
    let world = World::new();
    let brokers = three(&world).await;
    let [first, second, third] = &brokers;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let _at_second = target.registered(second).await;
    second.begin_drain();
    let mut near = controller.open(first, &world.open(&controller, "pc-1")).await;
    let refused = || second.events().since(0).iter().any(|event| event.kind == "path.refused");
    eventually("the draining broker said no", refused).await;
    let mut at_third = target.control(third).await;
    assert!(matches!(at_third.ask(target.register(2)).await, Message::Registered(_)));
    let _far = target.join(&at_third.invite().await).await;
    let hops = within(near.wait_opened()).await.unwrap().hops.clone();
    assert_eq!(hops.last().map(|(broker, _)| broker), Some(third.id()));
}
