//! The life of the process: bind, probe, answer, stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::admin::AdminServer;
use rc_daemon::events::{Entry, EventLog, Severity};
use rc_daemon::metrics::MetricsServer;
use rc_daemon::ready::{Ready, ReadyFile};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Administration;
use crate::config::{BINARY, Config};
use crate::generation::{Current, Generation, Surroundings};
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::reload::{ConfigSource, Reloader};
use crate::server::{Counters, DnsServer, LatestServing, Listening};
use crate::state::KnownState;

/// How long the parts may take to end after a stop was asked for.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// What is known is kept this often, when it changed.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or Ctrl-C, or until DNS fails.
pub(crate) async fn run(source: ConfigSource) -> Result<ExitStatus, Failure> {
    let config = (source.read)()?;
    let shutdown = Shutdown::new();
    let _signals = shutdown
        .on_signals()
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    let stop = shutdown.graceful().clone();
    let tasks = TaskTracker::new();
    let events = EventLog::new();
    let usage = |error: &dyn std::fmt::Display| Failure::from_error(ExitStatus::Usage, error);
    let around =
        || Surroundings { events: events.clone(), tasks: tasks.clone(), stop: shutdown.graceful().clone() };

    let listening =
        Listening::bind_many(&config.listen, config.server.udp_threads).map_err(|error| usage(&error))?;
    let listen = listening.addresses().to_vec();
    let metrics = MetricsServer::bind(&config.metrics).await?;
    let admin = AdminServer::bind(&config.admin_socket)?;
    let (socket, ready_file) = (config.admin_socket.clone(), config.ready_file.clone());
    let (options, state_file) = (config.server, config.state_file.clone());
    let known = read_state(&state_file);
    let counters = Arc::new(Counters::new(config.zones.profiles().len()));
    let generation = Generation::start(config, &known, counters, &around())?;
    let serving = LatestServing::new(generation.serving());
    let server = DnsServer::start_with(listening, &serving, options).map_err(|error| usage(&error))?;
    let current = Current::new(generation);
    let (reloader, reload) = Reloader::new(source, current.clone(), serving, around());
    tasks.spawn(reloader.run(stop.clone()));
    tasks.spawn(save_state(current.clone(), state_file, known, stop.clone()));
    let rates = Rates::default();
    tasks.spawn(rates.clone().run(current.clone(), stop.clone()));
    let ready = Ready::new(BINARY)
        .listening("dns", listen.iter().copied())
        .listening("metrics", metrics.addresses())
        .admin(&socket);
    tasks.spawn(metrics.serve(Arc::new(Metrics::new(current.clone())), stop.clone()));
    let administration =
        Administration { listen: listen.clone(), current, reload, rates, events: events.clone() };
    tasks.spawn(admin.serve(Arc::new(administration), stop.clone()));
    let ready = ready_file.as_ref().map(|path| ReadyFile::write(path, &ready)).transpose()?;
    let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
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

/// What an earlier run knew. A file that is not ours is left alone until it is replaced.
fn read_state(file: &std::path::Path) -> KnownState {
    KnownState::read(file).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "what an earlier run knew is not used");
        KnownState::default()
    })
}

/// Keeps what is known in the file, until `stop`.
async fn save_state(current: Current, file: PathBuf, read: KnownState, stop: CancellationToken) {
    let mut saved = read;
    let mut has_failed = false;
    while stop.run_until_cancelled(tokio::time::sleep(SAVE_INTERVAL)).await.is_some() {
        let known = current.load().known().await;
        if known.is_as_good_as(&saved) {
            continue;
        }
        let path = file.clone();
        let written = tokio::task::spawn_blocking(move || known.write(&path).map(|()| known)).await;
        match written.map_err(std::io::Error::other).and_then(|written| written) {
            Ok(known) => (saved, has_failed) = (known, false),
            Err(error) => {
                if !has_failed {
                    tracing::warn!(file = %file.display(), %error, "what is known cannot be kept");
                }
                has_failed = true;
            }
        }
    }
}

impl ConfigSource {
    /// From a function that reads all layers, and the file among them.
    pub(crate) fn new(
        read: impl Fn() -> Result<Config, Failure> + Send + Sync + 'static,
        file: Option<PathBuf>,
    ) -> Self {
        Self { read: Box::new(read), file }
    }
}
