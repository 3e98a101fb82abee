//! One broker: what an identity may hold, what a stop tells, which tickets are revoked.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rc_proto::identity::ticket::DenyClaims;
use rc_proto::wire::codes::{PathEnd, PathFailure, Purpose, RegistrationRole};
use rc_proto::wire::message::Message;
use rc_proto::wire::{Alpn, limits};
use rc_transport::{
    BoxFuture, Connection, Connector, Expectation, Listener, MessageStream, Net, SocketUse, TcpNet,
};
use support::{World, eventually, refusal, within};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_target_that_registers_over_a_new_link_gets_the_invite_that_the_old_one_swallowed() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut old = target.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    old.invite().await;
    let mut new = target.control(&broker).await;
    assert!(matches!(new.ask(target.register(2)).await, Message::Registered(_)));
    let mut far = target.join(&new.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    within(far.wait_opened()).await.unwrap();
    assert!(!matches!(within(old.stream.recv()).await, Ok(Some(_))), "the old link stands");
}

#[tokio::test]
async fn registrations_that_come_and_go_without_a_word_leave_no_count() {
    let world = World::new();
    let broker = world.broker_with("in/b1", &[], |config| config.limits.registrations = 2).await;
    for round in 0..5 {
        let control = world.endpoint("target/pc-1").registered(&broker).await;
        drop(control);
        eventually("the registration is gone", || broker.status().usage.registrations == 0).await;
        assert_eq!(broker.registrations().len(), 0, "{round}");
    }
}

#[tokio::test]
async fn registrations_beyond_the_brokers_limit_are_told_to_come_back() {
    let world = World::new();
    let broker = world.broker_with("in/b1", &[], |config| config.limits.registrations = 2).await;
    let mut kept = Vec::new();
    for (number, fits) in [(1, true), (2, true), (3, false)] {
        let target = world.endpoint(&format!("target/pc-{number}"));
        let mut control = target.control(&broker).await;
        let answer = control.ask(target.register(1)).await;
        assert_eq!(matches!(answer, Message::Registered(_)), fits, "{answer:?}");
        assert_eq!(matches!(answer, Message::RetryAfter(_)), !fits);
        kept.push((target, control));
    }
    let (target, _) = &kept[0];
    let mut again = target.control(&broker).await;
    assert!(matches!(again.ask(target.register(2)).await, Message::Registered(_)), "it has its place");
}

#[tokio::test]
async fn a_ninth_control_link_of_an_identity_is_told_to_come_back() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let mut links = Vec::new();
    for _ in 0..8 {
        links.push(target.control(&broker).await);
    }
    let mut ninth = MessageStream::over(target.dial(&broker, Alpn::Control).await);
    ninth.send(&support::hello().into()).await.unwrap();
    let answer = within(ninth.recv()).await.unwrap();
    assert!(matches!(answer, Some(Message::RetryAfter(_))), "{answer:?}");
    links.pop();
    eventually("one link has gone", || broker.links().len() == 7).await;
    target.control(&broker).await;
}

#[tokio::test]
async fn a_thirty_third_connection_that_says_nothing_is_busy() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(target.dial(&broker, Alpn::Path).await);
    }
    let mut last = MessageStream::over(target.dial(&broker, Alpn::Path).await).into_path();
    assert_eq!(refusal(&mut last).await, PathFailure::BUSY);
}

/// A network on which nothing is said for a while after each connect.
struct Hesitating(Duration);

impl Net for Hesitating {
    fn connect(&self, address: SocketAddr, purpose: SocketUse) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let connection = TcpNet.connect(address, purpose).await?;
            tokio::time::sleep(self.0).await;
            Ok(connection)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        TcpNet.listen(address)
    }
}

#[tokio::test]
async fn a_control_link_has_one_deadline_for_its_handshake_and_its_first_message() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let hesitating = Hesitating(Duration::from_secs(2));
    let connector = Connector::new(Arc::clone(&target.credentials), Arc::new(hesitating));
    let began = Instant::now();
    let expect = Expectation::Broker(broker.id().clone());
    let leg =
        connector.connect(broker.addresses()[0], &expect, Alpn::Control, support::DEADLINE).await.unwrap();
    let mut stream = MessageStream::over(leg);
    assert!(!matches!(within(stream.recv()).await, Ok(Some(_))));
    let took = began.elapsed();
    assert!(took < limits::PRE_AUTH_DEADLINE + Duration::from_millis(1500), "{took:?}");
}

#[tokio::test]
async fn a_refused_peer_that_stays_takes_no_handshake_from_others() {
    let world = World::new();
    let broker = world.broker_with("in/b1", &[], |config| config.limits.handshakes = 1).await;
    let mut stranger = tokio::net::TcpStream::connect(broker.addresses()[0]).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    eventually("the stranger is refused", || broker.status().counters.connections_refused == 1).await;
    let began = Instant::now();
    let _control = world.endpoint("target/pc-1").control(&broker).await;
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    drop(stranger);
}

#[tokio::test]
async fn a_draining_broker_takes_registrations_that_are_for_resumes_alone() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let target = world.endpoint("target/pc-1");
    let mut control = target.control(&broker).await;
    broker.begin_drain();
    assert!(matches!(control.next().await, Message::Drain(_)));
    let mut register = target.register(1);
    assert!(matches!(control.ask(register.clone()).await, Message::RetryAfter(_)));
    register.role = RegistrationRole::RESUME;
    assert!(matches!(control.ask(register).await, Message::Registered(_)));
}

#[tokio::test]
async fn a_path_that_opens_while_the_broker_drains_is_told_to_move_at_once() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut alice = controller.control(&broker).await;
    broker.begin_drain();
    for control in [&mut control, &mut alice] {
        let Message::Drain(drain) = control.next().await else { panic!() };
        assert_eq!(drain.slots, []);
    }
    let mut open = world.open(&controller, "pc-1");
    open.purpose = Purpose::RESUME;
    open.instance = Some(target.instance());
    let mut near = controller.open(&broker, &open).await;
    let _far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    for control in [&mut control, &mut alice] {
        let Message::Drain(drain) = control.next().await else { panic!() };
        assert_eq!(drain.slots, [(open.path_id, 0)]);
    }
}

#[tokio::test]
async fn a_broker_that_stops_tells_its_paths_before_its_links_end() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (controller, target) = (world.endpoint("controller/alice"), world.endpoint("target/pc-1"));
    let mut control = target.registered(&broker).await;
    let mut near = controller.open(&broker, &world.open(&controller, "pc-1")).await;
    let far = target.join(&control.invite().await).await;
    within(near.wait_opened()).await.unwrap();
    let (stopped, told) = tokio::join!(broker.stop(), async {
        let told = control.next().await;
        drop((near, far, control));
        told
    });
    let () = stopped;
    let Message::PathClosed(closed) = told else { panic!("{told:?}") };
    assert_eq!(closed.reason, PathEnd::DRAINED);
}

#[tokio::test]
async fn a_ticket_on_the_deny_list_is_unauthorized_from_then_on() {
    let world = World::new();
    let broker = world.broker("in/b1").await;
    let (alice, bob) = (world.endpoint("controller/alice"), world.endpoint("controller/bob"));
    let mut control = world.endpoint("target/pc-1").registered(&broker).await;
    let _near = alice.open(&broker, &world.open(&alice, "pc-1")).await;
    control.invite().await;
    let claims =
        DenyClaims { number: 1, iat: 1, jti: [].into(), sub: [alice.credentials.spiffe_id().clone()].into() };
    let list = world.signer.sign_deny_list(&claims).unwrap();
    assert!(
        World::new().signer.sign_deny_list(&claims).is_ok_and(|other| broker.set_deny_list(&other).is_err())
    );
    assert_eq!(broker.set_deny_list(&format!("{list}\n")), Ok(true));
    assert_eq!(broker.set_deny_list(&list), Ok(false));
    let mut denied = alice.open(&broker, &world.open(&alice, "pc-1")).await;
    assert_eq!(refusal(&mut denied).await, PathFailure::UNAUTHORIZED);
    let _near = bob.open(&broker, &world.open(&bob, "pc-1")).await;
    control.invite().await;
}
