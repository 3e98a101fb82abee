//! The latest snapshot, shared between the monitor that writes it and the server that reads it for each query.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::decide::{Directive, Directives, Health, Snapshot};
use crate::name::DnsName;
use crate::zone::Zones;

/// What the snapshot follows from.
#[derive(Debug, Default)]
struct Sources {
    observed: Vec<Health>,
    directives: Directives,
}

#[derive(Debug, Default)]
struct Shared {
    zones: Arc<Zones>,
    sources: Mutex<Sources>,
    snapshot: ArcSwap<Snapshot>,
}

/// The latest snapshot of the profiles of some zones; clones share it. Reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct LatestSnapshot(Arc<Shared>);

impl LatestSnapshot {
    /// The snapshot when nothing is observed yet.
    pub fn new(zones: Arc<Zones>, directives: Directives) -> Self {
        let latest = Self(Arc::new(Shared { zones, ..Shared::default() }));
        latest.change(|sources| sources.directives = directives);
        latest
    }

    /// Takes in what is observed of every endpoint, by its index.
    pub fn observe(&self, observed: Vec<Health>) {
        self.change(|sources| sources.observed = observed);
    }

    /// Takes in an order of the operator.
    pub fn direct(&self, profile: DnsName, endpoint: impl Into<String>, directive: Directive) {
        self.change(|sources| sources.directives.set(profile, endpoint, directive));
    }

    /// The orders that stand.
    pub fn directives(&self) -> Directives {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).directives.clone()
    }

    /// It, as it is now.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let snapshot = Snapshot::of(self.0.zones.profiles(), &sources.observed, &sources.directives);
        self.0.snapshot.store(Arc::new(snapshot));
    }
}
