//! What answers are made from, replaced as a whole when the configuration changes.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::catalog::Catalog;
use super::counters::Counters;
use crate::decide::Maps;
use crate::monitor::LatestSnapshot;
use crate::zone::Zones;

/// One configuration with the health of its endpoints: the two belong together, since health goes by endpoint index.
#[derive(Debug)]
pub struct Serving {
    pub(super) zones: Arc<Zones>,
    pub(super) catalog: Catalog,
    pub(super) snapshot: LatestSnapshot,
    pub(super) maps: LatestMaps,
    pub(super) counters: Arc<Counters>,
    /// Our name in the NSID option (RFC 5001), when we give one.
    pub(super) nsid: Option<Box<[u8]>>,
}

impl Serving {
    /// Serves `zones` by the health in `snapshot`.
    pub fn new(zones: Arc<Zones>, snapshot: LatestSnapshot, counters: Arc<Counters>) -> Self {
        let (catalog, maps) = (Catalog::of(&zones), LatestMaps::default());
        Self { zones, catalog, snapshot, maps, counters, nsid: None }
    }

    /// Decides by what `maps` hold of askers at each moment.
    #[must_use]
    pub fn with_maps(self, maps: LatestMaps) -> Self {
        Self { maps, ..self }
    }

    /// Tells clients who ask for it that this server is `name`.
    #[must_use]
    pub fn with_nsid(mut self, name: Option<&str>) -> Self {
        self.nsid = name.map(|name| name.as_bytes().into());
        self
    }

    /// The zones that are served.
    pub const fn zones(&self) -> &Arc<Zones> {
        &self.zones
    }

    /// The counts of what was answered.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What is known of askers.
    pub const fn maps(&self) -> &LatestMaps {
        &self.maps
    }

    /// The health that answers are decided by.
    pub const fn snapshot(&self) -> &LatestSnapshot {
        &self.snapshot
    }
}

/// What is known of askers now; clones share it. Reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct LatestMaps(Arc<ArcSwap<Maps>>);

impl LatestMaps {
    /// Decides by these from the next query on.
    pub fn store(&self, maps: Maps) {
        self.0.store(Arc::new(maps));
    }

    /// What is known now.
    pub fn load(&self) -> Arc<Maps> {
        self.0.load_full()
    }
}

/// What is served now; clones share it. Reading takes no lock.
#[derive(Debug, Clone)]
pub struct LatestServing(Arc<ArcSwap<Serving>>);

impl LatestServing {
    /// Begins with this.
    pub fn new(serving: Serving) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(serving)))
    }

    /// Serves this from the next query on.
    pub fn store(&self, serving: Serving) {
        self.0.store(Arc::new(serving));
    }

    /// What is served now.
    pub fn load(&self) -> Arc<Serving> {
        self.0.load_full()
    }
}
