//! Runs the [`Monitor`] with real probes and publishes the snapshot that answers are decided by.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
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
/// How old the load of an endpoint may be that answers are decided by, beside the age of its last probe.
const LOAD_AGE_MAX: Duration = Duration::from_secs(1);
/// The driver looks up at least this often, though no timer is due.
const IDLE: Duration = Duration::from_secs(60);

/// Sends one probe.
pub trait Prober: Send + Sync + 'static {
    /// Probes an endpoint. The driver drops the future when its time is over.
    fn probe(&self, endpoint: EndpointIndex) -> BoxFuture<'static, Result<Report, ProbeFailure>>;
}

/// What a running driver is asked.
#[derive(Debug)]
enum Request {
    Views(oneshot::Sender<Vec<EndpointView>>),
    Pause { endpoint: EndpointIndex, is_paused: bool },
}

/// Asks a running driver.
#[derive(Debug, Clone)]
pub struct MonitorHandle {
    requests: mpsc::Sender<Request>,
}

impl MonitorHandle {
    /// What is known of each endpoint, by its index; nothing when the driver has ended.
    pub async fn views(&self) -> Vec<EndpointView> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Views(answer)).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Stops probing an endpoint, or goes on with it.
    pub async fn pause(&self, endpoint: EndpointIndex, is_paused: bool) {
        if self.requests.send(Request::Pause { endpoint, is_paused }).await.is_err() {
            tracing::debug!("the monitor has ended");
        }
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
    requests: mpsc::Receiver<Request>,
    probes: JoinSet<Ended>,
    running: BTreeMap<ProbeId, AbortHandle>,
    /// Whether there are answers that the published health does not have, and when it was published.
    has_answers: bool,
    published: Moment,
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
        let published = clock.now();
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
            has_answers: false,
            published,
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
                Some(request) = self.requests.recv() => self.asked(request),
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
        self.publish(has_changed);
    }

    /// A change of state is published at once, a change of load within a second.
    fn publish(&mut self, has_changed: bool) {
        let now = self.clock.now();
        if has_changed || (self.has_answers && now.since(self.published) >= LOAD_AGE_MAX) {
            self.snapshot.observe(self.monitor.observed());
            (self.has_answers, self.published) = (false, now);
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            // Whoever asked may have gone.
            Request::Views(answer) => drop(answer.send(self.monitor.views().cloned().collect())),
            Request::Pause { endpoint, is_paused } => {
                self.monitor.pause(endpoint, is_paused, self.clock.now());
            }
        }
    }

    fn ended(&mut self, joined: Result<Ended, JoinError>) {
        match joined {
            Ok((probe, outcome)) => {
                self.running.remove(&probe);
                self.has_answers |= outcome.is_ok();
                self.monitor.handle_outcome(probe, outcome, self.clock.now(), &mut self.random);
            }
            // An abandoned probe; one that panicked runs into its deadline.
            Err(error) => tracing::trace!(%error, "a probe was cut short"),
        }
    }
}
