//! Takes connections in: rate by address, handshakes at a time, and the way to whoever serves them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::events::Severity;
use rc_transport::{Accepted, Acceptor, Connection, Listener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::links::SharedNode;
use crate::mesh;
use crate::node::{count, lock};

/// Rest after the system refused to give a connection (too many files, for example), doubled up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts until the broker stops listening.
pub(crate) async fn run(
    node: SharedNode,
    listener: Box<dyn Listener>,
    acceptor: Arc<Acceptor>,
    handshakes: Arc<Semaphore>,
) {
    let (shortest, longest) = BACK_OFF;
    let mut back_off = shortest;
    loop {
        // The permit comes first: while all are taken, connections wait in the listen queue.
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = node.lifetime.stop_listening.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                if back_off == shortest {
                    let entry = node.event(Severity::Warn, "listen.failed");
                    node.record(
                        entry.with_text("address", listener.local_address()).with_text("reason", error),
                    );
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(longest);
                continue;
            }
        };
        back_off = shortest;
        count(&node.record.counters.connections);
        let Some(place) = HandshakePlace::take(&node, connection.remote.ip(), permit) else {
            count(&node.record.counters.connections_over_rate);
            continue;
        };
        let (task_node, acceptor) = (SharedNode::clone(&node), Arc::clone(&acceptor));
        drop(node.lifetime.tasks.spawn(async move {
            if let Some(accepted) = Box::pin(handshake(&task_node, &acceptor, connection, place)).await {
                serve(task_node, accepted);
            }
        }));
    }
}

/// One of the handshakes at a time: of all, and of the peer's block of addresses.
struct HandshakePlace {
    node: SharedNode,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl HandshakePlace {
    /// `None` when the address connects too often, or its block has as many handshakes as it may.
    fn take(node: &SharedNode, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Self> {
        let now = node.now();
        let mut admission = lock(&node.admission);
        let admitted = admission.admit_connection(address, now) && admission.begin_handshake(address);
        drop(admission);
        admitted.then(|| Self { node: SharedNode::clone(node), address, _permit: permit })
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        lock(&self.node.admission).end_handshake(self.address);
    }
}

async fn handshake(
    node: &SharedNode,
    acceptor: &Acceptor,
    connection: Connection,
    place: HandshakePlace,
) -> Option<Accepted> {
    let remote = connection.remote;
    let outcome = tokio::select! {
        biased;
        () = node.lifetime.stop.cancelled() => return None,
        outcome = acceptor.handshake(connection) => outcome,
    };
    // Who was refused and does not go away holds nobody else up.
    drop(place);
    match outcome {
        Ok(accepted) => Some(accepted),
        Err(refused) => {
            let error = refused.error();
            let (counter, severity) = if error.is_normal() {
                (&node.record.counters.connections_silent, Severity::Debug)
            } else {
                (&node.record.counters.connections_refused, Severity::Warn)
            };
            count(counter);
            if severity != Severity::Debug {
                let entry = node.event(severity, "connection.refused").with_text("remote", remote);
                node.record(entry.with("cause", error.label()).with_text("reason", error));
            } else {
                tracing::debug!(%remote, reason = error.label(), "connection ended before its handshake");
            }
            tokio::select! {
                biased;
                () = node.lifetime.stop.cancelled() => {}
                _ = refused.linger() => {}
            }
            None
        }
    }
}

/// The handshake's task ends here; what serves the link or leg is a small task of its own.
fn serve(node: SharedNode, accepted: Accepted) {
    let tasks = node.lifetime.tasks.clone();
    match accepted {
        Accepted::Control { peer, leg } => drop(tasks.spawn(crate::control::serve(node, peer, leg))),
        Accepted::Path { peer, leg } => drop(tasks.spawn(crate::path::serve(node, peer, leg))),
        Accepted::Mesh { broker, leg } => drop(tasks.spawn(mesh::serve_accepted(node, broker, leg))),
    }
}
