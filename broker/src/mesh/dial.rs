//! Dials seeds and members that are not linked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rc_daemon::events::Severity;
use rc_proto::mesh::{Dial, DialKey};
use rc_proto::wire::message::PeerEntry;
use rc_proto::wire::{Alpn, BrokerId, Incarnation};
use rc_transport::{Expectation, Leg};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::link::{Greeting, serve_dialled};
use super::{Mesh, Seed};
use crate::links::SharedNode;
use crate::node::lock;

/// Time for one address to answer.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// Time for one dial with all its addresses and look-ups.
const DIAL_ALL_MAX: Duration = Duration::from_secs(10);
/// Distance of two look-ups of the seeds' names: short while nobody is linked.
const RESOLVE_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// A link that lived shorter counts as a failed dial, so that a peer that hangs up at once is not hammered.
const PROVEN: Duration = Duration::from_secs(5);
/// The longest the task rests.
const REST_MAX: Duration = Duration::from_secs(1);

/// Keeps the mesh linked until the broker stops.
pub(crate) async fn run(node: SharedNode) {
    let mesh = &node.mesh;
    drop(node.lifetime.tasks.spawn(look_up_seeds(SharedNode::clone(&node))));
    loop {
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

/// Looks the seeds up again and again: a task of its own, so that a slow name server delays no dial.
async fn look_up_seeds(node: SharedNode) {
    let (soon, later) = RESOLVE_EVERY;
    let look_up = async {
        loop {
            for seed in &node.mesh.seeds {
                node.mesh.look_up(&node, seed).await;
            }
            sleep(if node.mesh.linked_count() == 0 { soon } else { later }).await;
        }
    };
    tokio::select! {
        biased;
        () = node.lifetime.stop.cancelled() => {}
        () = look_up => {}
    }
}

impl Mesh {
    async fn look_up(&self, node: &SharedNode, seed: &Seed) {
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
        self.changed.notify_one();
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
    let connected = tokio::select! {
        biased;
        () = node.lifetime.stop.cancelled() => return,
        connected = timeout(DIAL_ALL_MAX, connect(mesh, &dial)) => connected,
    };
    let late = |_| Err(format!("nobody answered within {} s", DIAL_ALL_MAX.as_secs()));
    let greeting = match connected.unwrap_or_else(late) {
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
    let state = &mut *state;
    match greeting {
        Greeting::Ran if began.elapsed() >= PROVEN => {}
        Greeting::Own => state.dialling.handle_own(&dial.key, now),
        Greeting::Ran | Greeting::Failed => {
            state.dialling.handle_failed(&dial.key, &state.members, now, &mut rand::rng());
        }
    }
    mesh.changed.notify_one();
}

async fn connect(mesh: &Mesh, dial: &Dial) -> Result<(BrokerId, Leg), String> {
    let expect = match &dial.key {
        DialKey::Contact { name, .. } => Expectation::ServiceName(name.clone()),
        DialKey::Member { broker } => Expectation::Broker(broker.clone()),
    };
    let mut reason = "it has no address".to_owned();
    let mut places: VecDeque<SocketAddr> = dial.addresses.iter().copied().collect();
    let mut is_resolved = false;
    loop {
        let Some(address) = places.pop_front() else {
            if is_resolved {
                return Err(reason);
            }
            // What is known comes first; the name may lead elsewhere by now.
            is_resolved = true;
            places.extend(mesh.resolve(&dial.name).await);
            places.retain(|found| !dial.addresses.contains(found));
            continue;
        };
        match mesh.connector.connect(address, &expect, Alpn::Mesh, DIAL_MAX).await {
            Ok(leg) => match leg.peer().id.broker_id() {
                Some(peer) => return Ok((peer, leg)),
                None => reason = format!("{address} is no broker"),
            },
            Err(error) => reason = error.to_string(),
        }
    }
}

fn place(key: &DialKey) -> String {
    match key {
        DialKey::Contact { name, address } => format!("{name} at {address}"),
        DialKey::Member { broker } => broker.to_string(),
    }
}
