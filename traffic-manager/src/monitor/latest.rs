//! The latest snapshot, shared between the monitor that writes it and the server that reads it for each query.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::decide::Snapshot;

/// The latest snapshot; clones share it. Reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct LatestSnapshot(Arc<ArcSwap<Snapshot>>);

impl LatestSnapshot {
    /// Replaces it.
    pub fn store(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }

    /// It, as it is now.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
