//! Looks at the runtime's workers from a thread of its own, and drains this broker when one of them is stuck: part of
//! what it carries stands still then, whatever the rest answers.

use std::sync::{Arc, Weak};

use rc_daemon::events::Severity;
use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use crate::core::drain::DrainCause;
use crate::core::watchdog::{LOOK_EVERY, Watchdog, Worker};
use crate::draining;
use crate::links::SharedNode;
use crate::node::Node;

/// Watches until the broker stops or is dropped. On a runtime whose one thread does everything there is nothing to
/// watch: when that is stuck, nobody is answered.
pub(crate) fn start(node: &SharedNode) -> std::io::Result<()> {
    let runtime = Handle::current();
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(());
    }
    let (node, metrics) = (Arc::downgrade(node), runtime.metrics());
    let watching = std::thread::Builder::new().name("rc-watchdog".to_owned());
    // It ends with the next look after the node is gone.
    watching.spawn(move || watch(&node, &metrics)).map(drop)
}

fn watch(node: &Weak<Node>, metrics: &RuntimeMetrics) {
    let mut watchdog = Watchdog::default();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(node) = node.upgrade() else { return };
        if node.lifetime.stop.is_cancelled() {
            return;
        }
        let workers: Vec<Worker> = (0..metrics.num_workers()).map(|worker| look(metrics, worker)).collect();
        if let Some(stuck) = watchdog.handle_look(&workers, node.now())
            && draining::begin(&node, DrainCause::StuckWorker)
        {
            node.record(node.event(Severity::Error, "worker.stuck").with("worker", stuck));
        }
    }
}

/// A worker counts each time that it parks and each time that it wakes up: odd is parked.
fn look(metrics: &RuntimeMetrics, worker: usize) -> Worker {
    let parks = metrics.worker_park_unpark_count(worker);
    let busy = metrics.worker_total_busy_duration(worker);
    Worker { progress: (busy, parks), is_parked: parks % 2 == 1 }
}
