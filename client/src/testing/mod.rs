//! What tests of this crate share: paused time as the clock, a network in memory, names from a table, and brokers that
//! answer just enough.

mod fake_broker;
mod memory_net;
mod stub_names;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rc_proto::Moment;
use rc_transport::testing::TestCa;
use rc_transport::{Clock, Connector};
use tokio::time::Instant;

use crate::config::{ClientConfig, Timers};
use crate::event::EventLog;
use crate::pool::LegPool;
use crate::reach::{Reach, SourceAddress};

pub(crate) use fake_broker::{FakeBroker, Temper};
pub(crate) use memory_net::MemoryNet;
pub(crate) use stub_names::StubNames;

/// The service name of every fake broker.
pub(crate) const SERVICE: &str = "brokers.mesh.test";

/// A clock that follows tokio's time, so that paused time drives everything.
pub(crate) struct TokioClock {
    start: Instant,
    slept_ms: Arc<AtomicU64>,
}

impl TokioClock {
    pub(crate) fn start() -> Self {
        Self::that_sleeps(Arc::default())
    }

    /// The same, of a machine that has slept this long, which tokio's time does not see.
    fn that_sleeps(slept_ms: Arc<AtomicU64>) -> Self {
        Self { start: Instant::now(), slept_ms }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::from_origin(
            self.start.elapsed() + Duration::from_millis(self.slept_ms.load(Ordering::Relaxed)),
        )
    }
}

/// This machine's address towards everywhere.
#[derive(Default)]
pub(crate) struct StubSource(Mutex<Option<IpAddr>>);

impl StubSource {
    /// From now on it is `address`.
    pub(crate) fn set(&self, address: &str) {
        *self.0.lock().unwrap() = Some(address.parse().unwrap());
    }
}

impl SourceAddress for StubSource {
    fn towards(&self, _remote: SocketAddr) -> Option<IpAddr> {
        *self.0.lock().unwrap()
    }
}

/// A CA, a network and names: where fake brokers and endpoints meet.
pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) net: Arc<MemoryNet>,
    pub(crate) names: Arc<StubNames>,
    pub(crate) source: Arc<StubSource>,
    /// How long this machine has slept so far, in ms.
    pub(crate) slept_ms: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            ca: TestCa::new("mesh.test"),
            net: Arc::default(),
            names: Arc::default(),
            source: Arc::default(),
            slept_ms: Arc::default(),
        }
    }

    /// The collaborators of an endpoint with the identity `path`.
    pub(crate) fn reach(&self, path: &str) -> Arc<Reach> {
        let credentials = Arc::new(self.ca.credentials(path, &[]));
        Arc::new(Reach {
            connector: Connector::new(credentials, Arc::clone(&self.net) as _),
            names: Arc::clone(&self.names) as _,
            source: Arc::clone(&self.source) as _,
            clock: Arc::new(TokioClock::that_sleeps(Arc::clone(&self.slept_ms))),
            timers: Timers::default(),
            events: EventLog::default(),
            pool: LegPool::default(),
        })
    }

    /// A configuration that names the service; its credentials are not read.
    pub(crate) fn config(&self) -> ClientConfig {
        let files = self.ca.issue(&self.ca.id("controller/nobody"), &[]);
        let mut config = ClientConfig::new(files, [SERVICE]);
        config.brokers.allow_loopback = true;
        // Fake brokers hand each leg to the test that waits for it: none comes unasked.
        config.pool_legs = 0;
        config
    }
}
