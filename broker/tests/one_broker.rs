//! One broker, endpoints that speak raw messages, real sockets on loopback.
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

use rc_proto::wire::codes::{PathEnd, PathFailure};
use rc_proto::wire::message::{JoinPath, Message};
use rc_proto::wire::{Alpn, Ext, JoinSecret, limits};
use rc_transport::MessageStream;
use support::{World, eventually, refusal, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_path_carries_early_and_later_bytes_both_ways_and_ends_cleanly() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let open = world.open(&controller, "pc-1");
    let mut near = controller.open(&broker, &open).await;
    near.write_all(b"early ").await.unwrap();
    near.flush().await.unwrap();
    let invite = control.invite().await;
    assert_eq!(invite.path_id, open.path_id);
    assert_eq!(invite.controller.as_str(), "alice");
    assert_eq!(invite.broker, *broker.id());
    let mut far = target.join(&invite).await;
    let hops = within(near.wait_opened()).await.unwrap().hops.clone();
    assert_eq!(hops.len(), 1);
    assert_eq!(hops[0].0, *broker.id());
    within(far.wait_opened()).await.unwrap();
    near.write_all(b"later").await.unwrap();
    near.flush().await.unwrap();
    let mut got = [0; 11];
    within(far.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"early later");
    far.write_all(b"answer").await.unwrap();
    far.flush().await.unwrap();
    let mut got = [0; 6];
    within(near.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"answer");
    assert_eq!(broker.paths().len(), 1);
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(far.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    drop(far);
    eventually("the path leaves the table", || broker.paths().is_empty()).await;
    assert!(broker.status().counters.bytes_carried > 17);
}

#[tokio::test]
async fn a_broken_leg_ends_the_path_as_an_error_at_the_other_end() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let mut far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    near.write_all(b"last words").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut rest = Vec::new();
    assert!(within(far.read_to_end(&mut rest)).await.is_err());
    assert_eq!(rest, b"last words");
    let Message::PathClosed(closed) = control.next().await else { panic!() };
    assert_eq!(closed.reason, PathEnd::LEG_LOST);
}

#[tokio::test]
async fn a_parked_open_is_woken_by_the_registration() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    eventually("the open is there", || broker.paths().len() == 1).await;
    let mut control = target.registered(&broker).await;
    let mut far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
}

#[tokio::test]
async fn an_unknown_target_is_not_found_at_the_deadline_of_the_open() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let controller = world.endpoint("controller/alice");
    let mut open = world.open(&controller, "nobody");
    open.deadline_ms = 300;
    let began = std::time::Instant::now();
    let mut near = controller.open(&broker, &open).await;
    assert_eq!(refusal(&mut near).await, PathFailure::NOT_FOUND);
    assert!(began.elapsed().as_millis() >= 300);
}

#[tokio::test]
async fn a_fifth_parked_open_of_a_controller_is_busy() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let controller = world.endpoint("controller/alice");
    let mut parked = Vec::new();
    for number in 0..limits::PARKED_PER_CONTROLLER_MAX {
        parked.push(controller.open(&broker, &world.open(&controller, &format!("t{number}"))).await);
    }
    eventually("four opens are parked", || broker.paths().len() == 4).await;
    let mut fifth = controller.open(&broker, &world.open(&controller, "t9")).await;
    assert_eq!(refusal(&mut fifth).await, PathFailure::BUSY);
}

#[tokio::test]
async fn every_bad_ticket_is_unauthorized_whether_the_target_is_here_or_not() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (alice, mallory) = (world.endpoint("controller/alice"), world.endpoint("controller/mallory"));
    let _control = world.endpoint("target/pc-1").registered(&broker).await;
    let other = World::new();
    let good = world.ticket(&alice, "pc-1");
    let tickets = [
        world.ticket(&alice, "pc-2"),
        world.ticket(&mallory, "pc-1"),
        world.ticket_with(&alice, "pc-1", |claims| {
            let past = claims.iat - 1000;
            (claims.iat, claims.nbf, claims.start_by, claims.exp) = (past, past, past + 1, past + 900);
        }),
        world.ticket_with(&alice, "pc-1", |claims| claims.cnf.0[0] ^= 1),
        other.ticket(&alice, "pc-1"),
        format!("{}x", &good[..good.len() - 1]),
        String::new(),
    ];
    for (index, ticket) in tickets.into_iter().enumerate() {
        let mut open = world.open(&alice, "pc-1");
        open.ticket = ticket;
        let mut near = alice.open(&broker, &open).await;
        assert_eq!(refusal(&mut near).await, PathFailure::UNAUTHORIZED, "ticket {index}");
    }
    assert_eq!(broker.status().counters.paths_failed, 7);
}

#[tokio::test]
async fn a_join_without_its_invite_gets_one_and_the_same_answer() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let thief = world.endpoint("target/pc-2");
    let mut control = target.registered(&broker).await;
    let _thief_control = thief.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let invite = control.invite().await;
    let mut stolen = thief.join(&invite).await;
    assert_eq!(refusal(&mut stolen).await, PathFailure::NOT_FOUND);
    let mut guessed = invite.clone();
    guessed.join_secret = JoinSecret([0; 16]);
    assert_eq!(refusal(&mut target.join(&guessed).await).await, PathFailure::NOT_FOUND);
    let mut far = target.join(&invite).await;
    within(far.wait_opened()).await.unwrap();
    within(near.wait_opened()).await.unwrap();
    assert_eq!(refusal(&mut target.join(&invite).await).await, PathFailure::NOT_FOUND);
}

#[tokio::test]
async fn more_early_bytes_than_a_client_hello_are_refused() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let controller = world.endpoint("controller/alice");
    for (extra, refused) in [(0, false), (1, true)] {
        let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
        near.write_all(&vec![1; limits::EARLY_BYTES_MAX + extra]).await.unwrap();
        near.flush().await.unwrap();
        if refused {
            assert_eq!(refusal(&mut near).await, PathFailure::INTERNAL);
        } else {
            let early = tokio::time::timeout(std::time::Duration::from_millis(200), near.wait_opened()).await;
            assert!(early.is_err(), "refused at the limit");
        }
    }
}

#[tokio::test]
async fn a_message_of_a_wrong_role_closes_the_connection_without_an_answer() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let open: Message = world.open(&controller, "pc-1").into();
    let register: Message = target.register(1).into();
    let join: Message = JoinPath {
        path_id: rc_proto::wire::PathId([1; 16]),
        join_secret: JoinSecret([1; 16]),
        ext: Ext::none(),
    }
    .into();
    for (endpoint, alpn, message) in [
        (&controller, Alpn::Control, &register),
        (&controller, Alpn::Control, &open),
        (&target, Alpn::Control, &open),
        (&target, Alpn::Path, &open),
        (&controller, Alpn::Path, &join),
        (&controller, Alpn::Path, &register),
    ] {
        let mut stream = MessageStream::over(endpoint.dial(&broker, alpn).await);
        stream.send(message).await.unwrap();
        let answer = within(stream.recv()).await;
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    }
    eventually("each was counted", || broker.status().counters.messages_refused == 6).await;
    assert!(broker.paths().is_empty());
}

#[tokio::test]
async fn a_lost_control_link_takes_its_registration_along() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let control = target.registered(&broker).await;
    assert_eq!(broker.registrations().len(), 1);
    drop(control);
    eventually("the registration is gone", || broker.registrations().is_empty()).await;
    eventually("the link is gone", || broker.links().is_empty()).await;
}

#[tokio::test]
async fn a_later_instance_supersedes_the_earlier_one() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let earlier = world.endpoint("target/pc-1");
    let later = world.endpoint("target/pc-1");
    let mut first = earlier.registered(&broker).await;
    let mut second = later.registered(&broker).await;
    let Message::Superseded(superseded) = first.next().await else { panic!() };
    assert_eq!(superseded.by, later.instance());
    assert!(superseded.back_off_ms >= 60_000);
    let answer = first.ask(earlier.register(2)).await;
    assert!(matches!(answer, Message::Superseded(_)), "{answer:?}");
    let controller = world.endpoint("controller/alice");
    let _near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    second.invite().await;
}

#[tokio::test]
async fn a_probe_needs_no_hello_and_tells_the_brokers_state() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let manager = world.endpoint("traffic-manager/tm-1");
    let mut stream = MessageStream::over(manager.dial(&broker, Alpn::Control).await);
    stream.send(&rc_proto::wire::message::Ping { nonce: 9, ext: Ext::none() }.into()).await.unwrap();
    let Some(Message::Pong(pong)) = within(stream.recv()).await.unwrap() else { panic!() };
    assert_eq!((pong.nonce, &pong.broker), (9, broker.id()));
    assert!(pong.accepting && pong.mesh_healthy);
    assert_eq!((pong.load, pong.paths, pong.drain_deadline_ms), (0, 0, None));
}

#[tokio::test]
async fn a_bare_tcp_connect_is_counted_and_leaves_no_event() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    drop(tokio::net::TcpStream::connect(broker.addresses()[0]).await.unwrap());
    eventually("it was counted", || broker.status().counters.connections_silent == 1).await;
    assert!(broker.events().since(0).iter().all(|event| event.kind == "broker.started"));
}

#[tokio::test]
async fn opens_beyond_the_burst_get_their_slot() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let controller = world.endpoint("controller/alice");
    let mut codes = Vec::new();
    for _ in 0..limits::OPENS_BURST_MAX + 2 {
        let mut open = world.open(&controller, "pc-1");
        open.ticket = String::new();
        codes.push(refusal(&mut controller.open(&broker, &open).await).await);
    }
    assert_eq!(codes[0], PathFailure::UNAUTHORIZED);
    assert!(codes.contains(&PathFailure::RETRY_AFTER) || codes.len() < 22);
}

#[tokio::test]
async fn a_draining_broker_tells_everybody_serves_what_exists_and_stops_with_its_last_path() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let open = world.open(&controller, "pc-1");
    let mut near = controller.open(&broker, &open).await;
    let mut far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    broker.begin_drain();
    let Message::Drain(drain) = control.next().await else { panic!() };
    assert_eq!(drain.slots, [(open.path_id, 0)]);
    assert!(drain.deadline_ms > 55_000);
    assert!(!control.ping().await.accepting);
    let mut refused = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    assert_eq!(refusal(&mut refused).await, PathFailure::DRAINING);
    near.write_all(b"still here").await.unwrap();
    near.flush().await.unwrap();
    let mut got = [0; 10];
    within(far.read_exact(&mut got)).await.unwrap();
    near.shutdown().await.unwrap();
    drop((near, far));
    within(broker.drain()).await;
    within(broker.stop()).await;
}

#[tokio::test]
async fn an_operator_ends_a_path_and_both_ends_hear_why() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let open = world.open(&controller, "pc-1");
    let mut near = controller.open(&broker, &open).await;
    let mut far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    assert_eq!(broker.disconnect(&open.path_id.to_string()), 1);
    let mut rest = Vec::new();
    within(near.read_to_end(&mut rest)).await.unwrap();
    within(far.read_to_end(&mut rest)).await.unwrap();
    let Message::PathClosed(closed) = control.next().await else { panic!() };
    assert_eq!(closed.reason, PathEnd::DISCONNECTED);
}

#[tokio::test]
async fn a_stopped_reader_stalls_its_own_path_alone() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut stuck = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let mut unread = target.join(&control.invite().await).await;
    within(stuck.wait_opened()).await.unwrap();
    within(unread.wait_opened()).await.unwrap();
    let chunk = vec![5; 64 * 1024];
    let mut sent = 0_usize;
    while let Ok(count) =
        tokio::time::timeout(std::time::Duration::from_millis(500), stuck.write(&chunk)).await
    {
        sent += count.unwrap();
        assert!(sent < 64 * 1024 * 1024, "nothing stopped the writer");
    }
    let mut other = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let mut echo = target.join(&control.invite().await).await;
    within(other.wait_opened()).await.unwrap();
    other.write_all(b"alive").await.unwrap();
    other.flush().await.unwrap();
    let mut got = [0; 5];
    within(echo.read_exact(&mut got)).await.unwrap();
    let reader = async {
        let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
        while total < sent {
            total += within(unread.read(&mut buffer)).await.unwrap();
        }
        total
    };
    let (flushed, total) = tokio::join!(stuck.flush(), reader);
    flushed.unwrap();
    assert_eq!(total, sent);
}

#[tokio::test]
async fn a_path_without_a_byte_is_ended_as_idle() {
    let world = World::new();
    let idle = |config: &mut rc_broker::BrokerConfig| config.timers.path_idle = Duration::from_millis(300);
    let broker = world.broker_with("in/b1", &[], idle).await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let mut far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    let Message::PathClosed(closed) = control.next().await else { panic!() };
    assert_eq!(closed.reason, PathEnd::IDLE);
    let mut rest = Vec::new();
    within(near.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_silent_control_link_is_closed_and_its_registration_goes_with_it() {
    let world = World::new();
    let silence = |config: &mut rc_broker::BrokerConfig| {
        config.timers.control_silence = Duration::from_millis(300);
    };
    let broker = world.broker_with("in/b1", &[], silence).await;
    let target = world.endpoint("target/pc-1");
    let _control = target.registered(&broker).await;
    eventually("the silent link is gone", || broker.registrations().is_empty()).await;
}

#[tokio::test]
async fn paths_beyond_the_brokers_limit_are_busy() {
    let world = World::new();
    let broker = world.broker_with("in/b1", &[], |config| config.limits.paths = 1).await;
    let controller = world.endpoint("controller/alice");
    let _parked = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    eventually("the first is there", || broker.paths().len() == 1).await;
    let mut second = controller.open(&broker, &world.open(&controller, "pc-2")).await;
    assert_eq!(refusal(&mut second).await, PathFailure::BUSY);
}

#[tokio::test]
async fn whoever_leaves_while_parked_leaves_nothing_behind() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let controller = world.endpoint("controller/alice");
    let near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    eventually("the open is there", || broker.paths().len() == 1).await;
    drop(near);
    eventually("the open is gone", || broker.paths().is_empty()).await;
}

#[tokio::test]
async fn a_target_that_loses_its_link_while_invited_is_invited_again_when_it_returns() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let first = control.invite().await;
    drop(control);
    eventually("the link is gone", || broker.registrations().is_empty()).await;
    let mut control = target.control(&broker).await;
    assert!(matches!(control.ask(target.register(2)).await, Message::Registered(_)));
    let second = control.invite().await;
    assert_eq!(first.path_id, second.path_id);
    assert_ne!(first.join_secret, second.join_secret);
    let mut far = target.join(&second).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
}

#[tokio::test]
async fn a_revocation_cuts_live_links_and_paths_of_that_certificate_alone() {
    let world = World::new();
    let id = world.ca.id("broker/in/b1");
    let files = world.ca.issue(&id, &[]);
    let broker = world.broker_of(rc_transport::Credentials::load(&files).unwrap(), &[], |_| {}).await;
    let controller_files = world.ca.issue(&world.ca.id("controller/mallory"), &[]);
    let mallory = world.endpoint_of("mallory", rc_transport::Credentials::load(&controller_files).unwrap());
    let (alice, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut kept = Vec::new();
    for controller in [&mallory, &alice] {
        let mut near = controller.open(&broker, &world.open(controller, "pc-1")).await;
        let far = target.join(&control.invite().await).await;
        within(near.wait_opened()).await.unwrap();
        kept.push((near, far));
    }
    world.ca.revoke(&controller_files);
    broker.set_credentials(Arc::new(rc_transport::Credentials::load(&files).unwrap())).unwrap();
    let Message::PathClosed(closed) = control.next().await else { panic!() };
    assert_eq!(closed.reason, PathEnd::REVOKED);
    eventually("one path is left", || broker.paths().len() == 1).await;
    assert_eq!(broker.paths()[0].controller.as_str(), "alice");
    let other = world.ca.credentials("broker/us/b9", &[]);
    assert!(broker.set_credentials(Arc::new(other)).is_err());
}
