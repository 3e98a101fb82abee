//! Dials seeds and members that are not linked.

use std::time::Duration;

use rc_daemon::events::Severity;
use rc_proto::mesh::{Dial, DialKey};
use rc_proto::wire::message::PeerEntry;
use rc_proto::wire::{Alpn, BrokerId, Incarnation};
use rc_transport::{Expectation, Leg};
use tokio::time::{Instant, sleep_until};

use super::link::{Greeting, serve_dialled};
use super::{Mesh, Seed};
use crate::links::SharedNode;
use crate::node::lock;

/// Time for one address to answer.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Distance of two look-ups of the seeds' names: short while nobody is linked.
const RESOLVE_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// A link that lived shorter counts as a failed dial, so that a peer that hangs up at once is not hammered.
const PROVEN: Duration = Duration::from_secs(5);
/// The longest the task rests.
const REST_MAX: Duration = Duration::from_secs(1);

/// Keeps the mesh linked until the broker stops.
pub(crate) async fn run(node: SharedNode) {
    let mesh = &node.mesh;
    let mut resolve_at = Instant::now();
    loop {
        if Instant::now() >= resolve_at {
            mesh.look_up_seeds(&node).await;
            let (soon, later) = RESOLVE_EVERY;
            resolve_at = Instant::now() + if mesh.linked_count() == 0 { soon } else { later };
        }
        while let Some(dial) = mesh.next_dial(&node) {
            let task_node = SharedNode::clone(&node);
            drop(node.lifetime.tasks.spawn(Box::pin(run_dial(task_node, dial))));
        }
        let rest = mesh.rest(&node);
        tokio::select! {
            biased;
            () = node.lifetime.stop.cancelled() => return,
            () = mesh.changed.notified() => {}
            () = sleep_until(Instant::now() + rest) => {}
        }
    }
}

impl Mesh {
    async fn look_up_seeds(&self, node: &SharedNode) {
        for seed in &self.seeds {
            match seed {
                Seed::Name { host, port } => {
                    let found = self.resolve(&format!("{host}:{port}")).await;
                    lock(&self.state).dialling.handle_resolved(host, &found);
                }
                Seed::Broker { id, address } => {
                    let entry = PeerEntry {
                        broker: id.clone(),
                        name: String::new(),
                        addresses: vec![*address],
                        incarnation: Incarnation(0),
                        age_ms: 0,
                    };
                    let now = node.now();
                    drop(lock(&self.state).members.handle_gossip(&[entry], now));
                }
            }
        }
    }

    fn next_dial(&self, node: &SharedNode) -> Option<Dial> {
        if !node.lifetime.phase().is_accepting() {
            return None;
        }
        let mut state = lock(&self.state);
        let state = &mut *state;
        let now = node.now();
        state.members.handle_timeout(now);
        state.dialling.poll_dial(&state.members, now)
    }

    fn rest(&self, node: &SharedNode) -> Duration {
        let now = node.now();
        let at = lock(&self.state).dialling.poll_timeout(now);
        at.map_or(REST_MAX, |at| at.since(now).clamp(Duration::from_millis(10), REST_MAX))
    }
}

async fn run_dial(node: SharedNode, dial: Dial) {
    let mesh = &node.mesh;
    let began = Instant::now();
    let greeting = match connect(mesh, &dial).await {
        Ok((peer, leg)) => {
            let linked = |peer: &BrokerId| lock(&mesh.state).dialling.handle_linked(&dial.key, peer);
            serve_dialled(&node, peer, leg, linked).await
        }
        Err(reason) => {
            let entry = node.event(Severity::Debug, "mesh.unreachable");
            node.record(entry.with_text("place", place(&dial.key)).with_text("reason", reason));
            Greeting::Failed
        }
    };
    let now = node.now();
    let mut state = lock(&mesh.state);
    match greeting {
        Greeting::Ran if began.elapsed() >= PROVEN => {}
        Greeting::Own => state.dialling.handle_own(&dial.key, now),
        Greeting::Ran | Greeting::Failed => state.dialling.handle_failed(&dial.key, now, &mut rand::rng()),
    }
    drop(state);
    mesh.changed.notify_one();
}

async fn connect(mesh: &Mesh, dial: &Dial) -> Result<(BrokerId, Leg), String> {
    let expect = match &dial.key {
        DialKey::Contact { name, .. } => Expectation::ServiceName(name.clone()),
        DialKey::Member { broker } => Expectation::Broker(broker.clone()),
    };
    let resolved = mesh.resolve(&dial.name).await;
    let mut reason = "it has no address".to_owned();
    for address in resolved.into_iter().chain(dial.addresses.iter().copied()) {
        match mesh.connector.connect(address, &expect, Alpn::Mesh, DIAL_MAX).await {
            Ok(leg) => match leg.peer().id.broker_id() {
                Some(peer) => return Ok((peer, leg)),
                None => reason = format!("{address} is no broker"),
            },
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

fn place(key: &DialKey) -> String {
    match key {
        DialKey::Contact { name, address } => format!("{name} at {address}"),
        DialKey::Member { broker } => broker.to_string(),
    }
}
