//! Runs the [`Monitor`] with real probes and publishes the snapshot that answers are decided by.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_transport::{BoxFuture, Clock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::endpoint::EndpointView;
use super::latest::LatestSnapshot;
use super::machine::{Monitor, MonitorAction, MonitorEvent, ProbeId};
use super::outcome::{ProbeFailure, Report};
use crate::decide::EndpointIndex;

/// Requests for the endpoints' state that wait for the driver; the requester waits when there are more.
const REQUESTS_MAX: usize = 16;
/// The driver looks up at least this often, though no timer is due.
const IDLE: Duration = Duration::from_secs(60);

/// Sends one probe.
pub trait Prober: Send + Sync + 'static {
    /// Probes an endpoint. The driver drops the future when its time is over.
    fn probe(&self, endpoint: EndpointIndex) -> BoxFuture<'static, Result<Report, ProbeFailure>>;
}

/// Asks a running driver.
#[derive(Debug, Clone)]
pub struct MonitorHandle {
    requests: mpsc::Sender<oneshot::Sender<Vec<EndpointView>>>,
}

impl MonitorHandle {
    /// What is known of each endpoint, by its index; nothing when the driver has ended.
    pub async fn views(&self) -> Vec<EndpointView> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(answer).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }
}

type Ended = (ProbeId, Result<Report, ProbeFailure>);

/// The monitor with its collaborators.
pub struct Driver<P, C> {
    monitor: Monitor,
    prober: P,
    clock: C,
    random: SmallRng,
    snapshot: LatestSnapshot,
    events: mpsc::Sender<MonitorEvent>,
    requests: mpsc::Receiver<oneshot::Sender<Vec<EndpointView>>>,
    probes: JoinSet<Ended>,
    running: BTreeMap<ProbeId, AbortHandle>,
}

impl<P, C> std::fmt::Debug for Driver<P, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl<P: Prober, C: Clock> Driver<P, C> {
    /// A driver that publishes to `snapshot` and tells changes to `events`; when nobody takes those in time, they are
    /// dropped.
    pub fn new(
        monitor: Monitor,
        prober: P,
        clock: C,
        snapshot: LatestSnapshot,
        events: mpsc::Sender<MonitorEvent>,
    ) -> (Self, MonitorHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        snapshot.observe(monitor.observed());
        let driver = Self {
            monitor,
            prober,
            clock,
            random: SmallRng::from_os_rng(),
            snapshot,
            events,
            requests,
            probes: JoinSet::new(),
            running: BTreeMap::new(),
        };
        (driver, MonitorHandle { requests: sender })
    }

    /// Probes until `stop`; probes in flight end with it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.drain();
            let now = self.clock.now();
            let sleep = self.monitor.poll_timeout().map_or(IDLE, |due| due.since(now).min(IDLE));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(sleep) => {
                    self.monitor.handle_timeout(self.clock.now(), &mut self.random);
                }
                Some(joined) = self.probes.join_next() => self.ended(joined),
                Some(answer) = self.requests.recv() => {
                    // Whoever asked may have gone.
                    drop(answer.send(self.monitor.views().cloned().collect()));
                }
            }
        }
        self.probes.shutdown().await;
    }

    fn drain(&mut self) {
        while let Some(action) = self.monitor.poll_action() {
            match action {
                MonitorAction::Start { probe, .. } => {
                    let outcome = self.prober.probe(probe.endpoint);
                    let handle = self.probes.spawn(async move { (probe, outcome.await) });
                    self.running.insert(probe, handle);
                }
                MonitorAction::Abandon { probe } => {
                    if let Some(handle) = self.running.remove(&probe) {
                        handle.abort();
                    }
                }
            }
        }
        let mut has_changed = false;
        while let Some(event) = self.monitor.poll_event() {
            has_changed = true;
            if self.events.try_send(event).is_err() {
                tracing::debug!("nobody takes the monitor's events");
            }
        }
        if has_changed {
            self.snapshot.observe(self.monitor.observed());
        }
    }

    fn ended(&mut self, joined: Result<Ended, JoinError>) {
        match joined {
            Ok((probe, outcome)) => {
                self.running.remove(&probe);
                self.monitor.handle_outcome(probe, outcome, self.clock.now(), &mut self.random);
            }
            // An abandoned probe; one that panicked runs into its deadline.
            Err(error) => tracing::trace!(%error, "a probe was cut short"),
        }
    }
}
