//! One configuration at work: its monitor, its snapshot, its counters. A reload starts the next one beside it and then
//! stops it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_daemon::clock;
use rc_daemon::events::{Entry, EventLog, Severity};
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::Role;
use rc_transport::{
    BootClock, Clock, Connector, CredentialFiles, Credentials, LifeLeft, Resolver, ResolverConfig, TcpNet,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, EndpointConfig};
use crate::decide::{Directive, EndpointIndex, EndpointStatus, Maps, Profile};
use crate::maps::MapProblem;
use crate::monitor::{Driver, LatestSnapshot, Monitor, MonitorEvent, MonitorHandle, NetworkProber};
use crate::server::{Counters, LatestMaps, Serving};
use crate::state::{Clocks, KnownState};

/// Health changes that wait to be recorded; more are dropped, the snapshot has them all.
const HEALTH_EVENTS_MAX: usize = 1024;

/// What a generation is started with.
pub(crate) struct Surroundings {
    pub(crate) events: EventLog,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// One configuration at work.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Arc<Config>,
    pub(crate) snapshot: LatestSnapshot,
    pub(crate) monitor: MonitorHandle,
    pub(crate) counters: Arc<Counters>,
    maps: LatestMaps,
    stop: CancellationToken,
}

impl Generation {
    /// Starts to probe, going on from what is known.
    pub(crate) fn start(
        config: Config,
        known: &KnownState,
        counters: Arc<Counters>,
        around: &Surroundings,
    ) -> Result<Self, Failure> {
        let zones = &config.zones;
        let snapshot = LatestSnapshot::new(Arc::clone(zones), known.directives(zones));
        let watches: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.watch).collect();
        let now = BootClock.now();
        let mut monitor = Monitor::new(&watches, config.probes_max, now, &mut SmallRng::from_os_rng());
        for (at, known) in known.known(zones, &config.endpoints, clocks()).iter().enumerate() {
            if let Some(known) = known {
                monitor.resume(EndpointIndex(at), known);
            }
        }
        for (index, directive) in directed(&config, &snapshot) {
            monitor.pause(index, directive == Directive::Disabled, now);
        }
        let connector = match &config.credentials {
            Some(files) => {
                Some(Arc::new(Connector::new(Arc::new(own_credentials(files)?), Arc::new(TcpNet))))
            }
            None => None,
        };
        let targets = config.endpoints.iter().map(|endpoint| endpoint.target.clone()).collect();
        let resolver = Resolver::new(ResolverConfig::default());
        let prober = NetworkProber::new(connector, resolver, BootClock, targets)
            .map_err(|error| Failure::new(ExitStatus::Internal, error, "starting to probe", ""))?;
        let maps = LatestMaps::default();
        maps.store(config.maps.load().map_err(|problems| map_failure(&problems))?);
        let (sender, receiver) = mpsc::channel(HEALTH_EVENTS_MAX);
        let config = Arc::new(config);
        around.tasks.spawn(record_health(receiver, Arc::clone(&config), around.events.clone()));
        let (driver, monitor) = Driver::new(monitor, prober, BootClock, snapshot.clone(), sender);
        let stop = around.stop.child_token();
        around.tasks.spawn(driver.run(stop.clone()));
        Ok(Self { config, snapshot, monitor, counters, maps, stop })
    }

    /// Answers by this generation.
    pub(crate) fn serving(&self) -> Serving {
        let zones = Arc::clone(&self.config.zones);
        Serving::new(zones, self.snapshot.clone(), Arc::clone(&self.counters))
            .with_maps(self.maps.clone())
            .with_nsid(self.config.nsid.as_deref())
    }

    /// What is known now.
    pub(crate) async fn known(&self) -> KnownState {
        let (config, views) = (&self.config, self.monitor.views().await);
        KnownState::of(&config.zones, &config.endpoints, &views, &self.snapshot.directives(), clocks())
    }

    /// What is known of askers.
    pub(crate) fn maps(&self) -> Arc<Maps> {
        self.maps.load()
    }

    /// Where the next generation's profiles were in this one.
    pub(crate) fn positions(&self, next: &Config) -> Vec<Option<usize>> {
        let of = |profile: &Profile| {
            self.config.zones.profiles().iter().position(|before| before.name == profile.name)
        };
        next.zones.profiles().iter().map(of).collect()
    }

    /// Takes an order of the operator; `None` when there is no such endpoint.
    pub(crate) async fn direct(&self, profile: &Profile, endpoint: &str, directive: Directive) -> Option<()> {
        let found = profile.endpoints().iter().find(|other| other.name == endpoint)?;
        self.snapshot.direct(profile.name.clone(), endpoint, directive);
        self.monitor.pause(found.index, directive == Directive::Disabled).await;
        Some(())
    }

    /// Ends its probes.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// The endpoints that the operator has ordered something for.
fn directed(config: &Config, snapshot: &LatestSnapshot) -> Vec<(EndpointIndex, Directive)> {
    let directives = snapshot.directives();
    let endpoints = config
        .zones
        .profiles()
        .iter()
        .flat_map(|profile| profile.endpoints().iter().map(move |endpoint| (profile, endpoint)));
    let directed = endpoints.filter_map(|(profile, endpoint)| {
        Some((endpoint.index, directives.of(&profile.name, &endpoint.name)?))
    });
    directed.collect()
}

fn clocks() -> Clocks {
    Clocks { now: BootClock.now(), unix_ms: clock::unix_ms() }
}

/// The generation at work; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<ArcSwap<Generation>>);

impl Current {
    pub(crate) fn new(generation: Generation) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(generation)))
    }

    pub(crate) fn load(&self) -> Arc<Generation> {
        self.0.load_full()
    }

    /// Puts the next one to work; returns the one before.
    pub(crate) fn replace(&self, next: Generation) -> Arc<Generation> {
        self.0.swap(Arc::new(next))
    }
}

/// Every problem of every table, as one failure.
pub(crate) fn map_failure(problems: &[MapProblem]) -> Failure {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::new(ExitStatus::Usage, texts.join("\n"), "reading the tables of askers", "correct these lines")
}

fn own_credentials(files: &CredentialFiles) -> Result<Credentials, Failure> {
    let credentials =
        Credentials::load(files).map_err(|error| Failure::from_error(ExitStatus::Usage, error))?;
    if credentials.role() != Role::TrafficManager {
        return Err(Failure::new(
            ExitStatus::Usage,
            format_args!("the certificate is of role {}", credentials.role()),
            files.certificate.display(),
            "issue one of role traffic-manager with rc-certs",
        ));
    }
    if let LifeLeft::Low(left) = credentials.life_left(std::time::SystemTime::now()) {
        tracing::warn!(
            certificate = %files.certificate.display(),
            left_seconds = left.as_secs(),
            "our certificate ends soon: renew it with rc-certs renew"
        );
    }
    Ok(credentials)
}

/// Puts changes of health into the ring of events; ends with the monitor.
async fn record_health(mut changes: mpsc::Receiver<MonitorEvent>, config: Arc<Config>, events: EventLog) {
    while let Some(change) = changes.recv().await {
        let Some(EndpointConfig { profile, name, .. }) = config.endpoints.get(change.endpoint.0) else {
            continue;
        };
        let Some(profile) = config.zones.profile(*profile) else { continue };
        let severity = match change.after.status {
            EndpointStatus::Degraded => Severity::Warn,
            EndpointStatus::Online
            | EndpointStatus::CheckingEndpoint
            | EndpointStatus::Disabled
            | EndpointStatus::Inactive
            | EndpointStatus::Stopped
            | EndpointStatus::Unmonitored => Severity::Info,
        };
        let mut entry = Entry::new(severity, "endpoint.health")
            .with_text("profile", &profile.name)
            .with("endpoint", name.as_str())
            .with("before", change.before.status.name())
            .with("after", change.after.status.name())
            .with("accepting", change.after.accepting)
            .with("mesh_healthy", change.after.mesh_healthy);
        if let Some(failure) = change.failure {
            entry = entry.with("cause", failure.label()).with_text("reason", failure);
        }
        events.record(entry);
    }
}
