//! A mesh of more than thirty peers, all but one of them played by the test: who is told of a registration, and who is
//! asked for a Target.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use rc_broker::RunningBroker;
use rc_broker::core::directory::replicas;
use rc_proto::wire::codes::{PathFailure, RegistrationRole};
use rc_proto::wire::message::{Here, Locate, Message, NotHere, Place};
use rc_proto::wire::{Alpn, BrokerId, EndpointId, Ext, Incarnation, InstanceId};
use rc_transport::{Leg, MessageStream};
use support::{World, eventually, refusal, within};

const PEERS: usize = 31;

/// The peers, each with its link to the one broker.
struct Peers(BTreeMap<BrokerId, MessageStream<Leg>>);

impl Peers {
    async fn of(world: &World, broker: &RunningBroker) -> Self {
        let mut links = BTreeMap::new();
        for number in 0..PEERS {
            let id: BrokerId = format!("us/p{number}").parse().unwrap();
            let peer = world.endpoint(&format!("broker/{id}"));
            let mut stream = MessageStream::over(peer.dial(broker, Alpn::Mesh).await);
            let mut hello = support::hello();
            hello.incarnation = Incarnation(9);
            stream.send(&hello.into()).await.unwrap();
            assert!(matches!(within(stream.recv()).await.unwrap(), Some(Message::Welcome(_))));
            stream.accepted();
            links.insert(id, stream);
        }
        eventually("all peers are linked", || broker.status().mesh.linked == PEERS).await;
        Self(links)
    }

    /// The next message of this kind at one peer; what a mesh says anyway is skipped.
    async fn next<T>(&mut self, peer: &BrokerId, pick: impl Fn(Message) -> Option<T>) -> T {
        let stream = self.0.get_mut(peer).unwrap();
        loop {
            let message = within(stream.recv()).await.unwrap().unwrap();
            if let Some(picked) = pick(message) {
                return picked;
            }
        }
    }

    async fn locate(&mut self, peer: &BrokerId) -> Locate {
        self.next(peer, |message| match message {
            Message::Locate(locate) => Some(locate),
            _ => None,
        })
        .await
    }

    async fn send(&mut self, peer: &BrokerId, message: impl Into<Message>) {
        self.0.get_mut(peer).unwrap().send(&message.into()).await.unwrap();
    }

    fn replicas(&self, broker: &RunningBroker, target: &EndpointId) -> Vec<BrokerId> {
        let linked: Vec<_> = self.0.keys().cloned().collect();
        replicas(broker.id(), &linked, target)
    }
}

async fn large(world: &World) -> (RunningBroker, Peers) {
    let patient = |config: &mut rc_broker::BrokerConfig| config.timers.mesh_down = Duration::from_secs(60);
    let broker = world.broker_with("in/b1", &[], patient).await;
    let peers = Peers::of(world, &broker).await;
    (broker, peers)
}

#[tokio::test]
async fn a_registration_is_told_to_its_replicas_and_to_whoever_they_say_holds_the_target() {
    let world = World::new();
    let (broker, mut peers) = large(&world).await;
    let target = world.endpoint("target/pc-1");
    let name: EndpointId = target.name.parse().unwrap();
    let _control = target.registered(&broker).await;
    let told = peers.replicas(&broker, &name);
    let holder = peers.0.keys().find(|peer| !told.contains(peer)).cloned().unwrap();
    for replica in &told {
        let announced = peers.next(replica, |message| match message {
            Message::Announce(announce) => Some(announce),
            _ => None,
        });
        assert_eq!(announced.await.target, name);
        let asked = peers.locate(replica).await;
        assert!(asked.is_of_directory());
        let place = Place {
            broker: holder.clone(),
            incarnation: Incarnation(9),
            instance: InstanceId([99; 16]),
            role: RegistrationRole::RESUME,
            cost_us: 1,
        };
        let here = Here::of_directory(asked.query, &[place]).unwrap();
        peers.send(replica, here).await;
    }
    let announced = peers.next(&holder, |message| match message {
        Message::Announce(announce) => Some(announce),
        _ => None,
    });
    assert_eq!(announced.await.instance, target.instance());
}

#[tokio::test]
async fn an_open_asks_the_replicas_first_and_then_everybody() {
    let world = World::new();
    let (broker, mut peers) = large(&world).await;
    let controller = world.endpoint("controller/alice");
    let mut open = world.open(&controller, "pc-2");
    open.deadline_ms = 2_000;
    let mut near = controller.open(&broker, &open).await;
    let asked = peers.replicas(&broker, &open.target);
    for replica in &asked {
        let locate = peers.locate(replica).await;
        assert!(locate.is_of_directory());
        peers.send(replica, NotHere { query: locate.query, ext: Ext::none() }).await;
    }
    let everybody: Vec<_> = peers.0.keys().cloned().collect();
    for peer in &everybody {
        let locate = peers.locate(peer).await;
        assert!(!locate.is_of_directory(), "{peer}");
        peers.send(peer, NotHere { query: locate.query, ext: Ext::none() }).await;
    }
    // A peer that answers after its time is unknown, so either is right on a busy machine.
    let code = refusal(&mut near).await;
    assert!([PathFailure::NOT_FOUND, PathFailure::PARTIAL].contains(&code), "{code}");
}
