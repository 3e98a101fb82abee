//! The life of the process: bind, probe, answer, stop.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_daemon::admin::AdminServer;
use rc_daemon::events::{Entry, EventLog, Severity};
use rc_daemon::ready::{Ready, ReadyFile};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::Role;
use rc_transport::{
    BootClock, Clock, Connector, CredentialFiles, Credentials, LifeLeft, Resolver, ResolverConfig, TcpNet,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Administration, Inventory};
use crate::config::{BINARY, Config};
use crate::decide::{Directives, EndpointStatus};
use crate::maps::MapProblem;
use crate::monitor::{Driver, LatestSnapshot, Monitor, MonitorEvent, MonitorHandle, NetworkProber};
use crate::server::{Counters, DnsServer, LatestMaps, LatestServing, Listening, Serving};

/// Health changes that wait to be recorded; more are dropped, the snapshot has them all.
const HEALTH_EVENTS_MAX: usize = 1024;
/// How long the parts may take to end after a stop was asked for.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or Ctrl-C, or until DNS fails.
pub(crate) async fn run(config: Config) -> Result<ExitStatus, Failure> {
    let shutdown = Shutdown::new();
    let _signals = shutdown
        .on_signals()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    let stop = shutdown.graceful().clone();
    let tasks = TaskTracker::new();
    let events = EventLog::new();
    let usage = |error: &dyn std::fmt::Display| Failure::from_error(ExitStatus::Usage, error);

    let listening =
        Listening::bind_many(&config.listen, config.udp_threads).map_err(|error| usage(&error))?;
    let admin = AdminServer::bind(&config.admin_socket)?;
    let inventory = Arc::new(Inventory {
        listen: listening.addresses().to_vec(),
        zones: Arc::clone(&config.zones),
        endpoints: config.endpoints.clone(),
        counters: Arc::new(Counters::new(config.zones.profiles().len())),
    });
    let snapshot = LatestSnapshot::new(Arc::clone(&config.zones), Directives::default());
    let monitor = start_monitor(&config, &snapshot, &inventory, &events, &tasks, &stop)?;
    let maps = LatestMaps::default();
    maps.store(config.maps.load().map_err(|problems| map_failure(&problems))?);
    let serving = Serving::new(Arc::clone(&config.zones), snapshot.clone(), Arc::clone(&inventory.counters))
        .with_maps(maps)
        .with_nsid(config.nsid.as_deref());
    let serving = LatestServing::new(serving);
    let server = DnsServer::start_with(listening, &serving, config.server).map_err(|error| usage(&error))?;
    let administration =
        Administration { inventory: Arc::clone(&inventory), snapshot, monitor, events: events.clone() };
    tasks.spawn(admin.serve(Arc::new(administration), stop.clone()));
    let ready =
        Ready::new(BINARY).listening("dns", inventory.listen.iter().copied()).admin(&config.admin_socket);
    let ready = config.ready_file.as_ref().map(|path| ReadyFile::write(path, &ready)).transpose()?;
    let addresses: Vec<String> = inventory.listen.iter().map(ToString::to_string).collect();
    events.record(Entry::new(Severity::Info, "dns.serving").with("addresses", addresses));

    let served = server.run(stop.clone()).await;
    drop(ready);
    stop.cancel();
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = shutdown.immediate().cancelled() => {}
        () = tokio::time::sleep(STOP_DEADLINE) => tracing::warn!("not everything ended in time"),
    }
    match served {
        Ok(()) => Ok(shutdown.exit_status()),
        Err(error) => Err(Failure::new(ExitStatus::Internal, error, "serving DNS", "start it again")),
    }
}

/// Every problem of every table, as one failure.
fn map_failure(problems: &[MapProblem]) -> Failure {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::new(ExitStatus::Usage, texts.join("\n"), "reading the tables of askers", "correct these lines")
}

/// Starts to probe, when there is something to probe.
fn start_monitor(
    config: &Config,
    snapshot: &LatestSnapshot,
    inventory: &Arc<Inventory>,
    events: &EventLog,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<MonitorHandle, Failure> {
    let watches: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.watch).collect();
    let monitor = Monitor::new(&watches, config.probes_max, BootClock.now(), &mut SmallRng::from_os_rng());
    let (sender, receiver) = mpsc::channel(HEALTH_EVENTS_MAX);
    tasks.spawn(record_health(receiver, Arc::clone(inventory), events.clone()));
    let connector = match &config.credentials {
        Some(files) => Some(Arc::new(Connector::new(Arc::new(own_credentials(files)?), Arc::new(TcpNet)))),
        None => None,
    };
    let targets = config.endpoints.iter().map(|endpoint| endpoint.target.clone()).collect();
    let resolver = Resolver::new(ResolverConfig::default());
    let prober = NetworkProber::new(connector, resolver, BootClock, targets)
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "starting to probe", ""))?;
    let (driver, handle) = Driver::new(monitor, prober, BootClock, snapshot.clone(), sender);
    tasks.spawn(driver.run(stop.clone()));
    Ok(handle)
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
async fn record_health(
    mut changes: mpsc::Receiver<MonitorEvent>,
    inventory: Arc<Inventory>,
    events: EventLog,
) {
    while let Some(change) = changes.recv().await {
        let Some((profile, endpoint)) = inventory.endpoint(change.endpoint) else { continue };
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
            .with("endpoint", endpoint.name.as_str())
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
