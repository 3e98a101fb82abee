//! Takes a changed configuration in while queries go on: by SIGHUP, by the admin socket, and when a file changed. One
//! that does not hold leaves everything as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_daemon::events::{Entry, Severity};
use rc_daemon::{ExitStatus, Failure};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::generation::{Current, Generation, Surroundings};
use crate::server::LatestServing;

/// How often the files are looked at: a change is served within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Requests that wait; the requester waits when there are more.
const REQUESTS_MAX: usize = 8;

/// Where the configuration comes from.
pub(crate) struct ConfigSource {
    /// Reads all layers again.
    pub(crate) read: Box<dyn Fn() -> Result<Config, Failure> + Send + Sync>,
    /// Its file, when there is one.
    pub(crate) file: Option<PathBuf>,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Reloaded {
    /// Profiles and endpoints that are served now.
    pub(crate) profiles: usize,
    pub(crate) endpoints: usize,
    /// Settings that changed and count from the next start on.
    pub(crate) needs_restart: Vec<String>,
}

type Reply = oneshot::Sender<Result<Reloaded, String>>;

/// Asks for a reload.
#[derive(Debug, Clone)]
pub(crate) struct ReloadHandle(mpsc::Sender<Reply>);

impl ReloadHandle {
    /// Reads the configuration again.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one goes on.
    pub(crate) async fn reload(&self) -> Result<Reloaded, String> {
        let gone = || "the process is stopping".to_owned();
        let (reply, answered) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Reloads on request.
pub(crate) struct Reloader {
    source: Arc<ConfigSource>,
    current: Current,
    serving: LatestServing,
    around: Surroundings,
    requests: mpsc::Receiver<Reply>,
    /// The files as they were when they were last read.
    seen: Vec<Fingerprint>,
    /// The files as they were when they were last looked at.
    looked: Vec<Fingerprint>,
}

impl Reloader {
    pub(crate) fn new(
        source: ConfigSource,
        current: Current,
        serving: LatestServing,
        around: Surroundings,
    ) -> (Self, ReloadHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let mut reloader = Self {
            source: Arc::new(source),
            current,
            serving,
            around,
            requests,
            seen: Vec::new(),
            looked: Vec::new(),
        };
        reloader.seen = reloader.look();
        reloader.looked.clone_from(&reloader.seen);
        (reloader, ReloadHandle(sender))
    }

    /// Reloads until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut hangups = Hangups::listen();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let (cause, reply) = tokio::select! {
                () = stop.cancelled() => return,
                () = hangups.next() => ("SIGHUP", None),
                Some(reply) = self.requests.recv() => ("request", Some(reply)),
                _ = looks.tick() => {
                    if !self.has_settled() {
                        continue;
                    }
                    ("file", None)
                }
            };
            let outcome = self.reload(cause).await;
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                drop(reply.send(outcome));
            }
        }
    }

    /// Whether a file has changed, and not since the last look: one that is being written may be sound and lack half.
    fn has_settled(&mut self) -> bool {
        let now = self.look();
        let before = std::mem::replace(&mut self.looked, now);
        self.looked == before && self.looked != self.seen
    }

    async fn reload(&mut self, cause: &'static str) -> Result<Reloaded, String> {
        self.seen = self.look();
        let outcome = self.replace().await.map_err(|failure| failure.to_string());
        let entry = match &outcome {
            Ok(reloaded) => Entry::new(Severity::Info, "config.reloaded")
                .with("profiles", reloaded.profiles)
                .with("endpoints", reloaded.endpoints)
                .with("needs_restart", reloaded.needs_restart.clone()),
            Err(reason) => Entry::new(Severity::Warn, "config.refused").with("reason", reason.as_str()),
        };
        self.around.events.record(entry.with("cause", cause));
        outcome
    }

    async fn replace(&self) -> Result<Reloaded, Failure> {
        let source = Arc::clone(&self.source);
        let config = tokio::task::spawn_blocking(move || (source.read)())
            .await
            .map_err(|error| Failure::new(ExitStatus::Internal, error, "reading the configuration", ""))??;
        let before = self.current.load();
        let obstacles = config.obstacles_to_follow(&before.config);
        if !obstacles.is_empty() {
            let fix = "change it back, or restart";
            return Err(Failure::new(ExitStatus::Usage, obstacles.join("\n"), "the new configuration", fix));
        }
        let reloaded = Reloaded {
            profiles: config.zones.profiles().len(),
            endpoints: config.endpoints.len(),
            needs_restart: needs_restart(&before.config, &config),
        };
        let counters = Arc::new(before.counters.renewed(&before.positions(&config)));
        let next = Generation::start(config, &before.known().await, counters, &self.around)?;
        self.serving.store(next.serving());
        self.current.replace(next).stop();
        Ok(reloaded)
    }

    fn look(&self) -> Vec<Fingerprint> {
        let config = Arc::clone(&self.current.load().config);
        let credentials = config.credentials.iter();
        let credentials = credentials.flat_map(|files| {
            [Some(&files.certificate), Some(&files.key), Some(&files.ca), files.crl.as_ref()]
        });
        let maps = &config.maps;
        let maps = [&maps.latency, &maps.nearest, &maps.round_trips, &maps.geography];
        let maps = maps.into_iter().flatten();
        let files = self.source.file.iter().chain(credentials.flatten()).chain(maps);
        files.map(|file| Fingerprint::of(file)).collect()
    }
}

/// Settings that only a start takes in, and that differ.
fn needs_restart(before: &Config, after: &Config) -> Vec<String> {
    let differs = [
        ("listen.dns", before.listen != after.listen),
        ("listen.udp_threads", before.server.udp_threads != after.server.udp_threads),
        ("listen.tcp_idle", before.server.tcp_idle != after.server.tcp_idle),
        (
            "listen.responses_per_second",
            before.server.responses_per_second != after.server.responses_per_second,
        ),
        ("admin.socket", before.admin_socket != after.admin_socket),
        ("state.file", before.state_file != after.state_file),
        ("metrics.addresses", before.metrics != after.metrics),
    ];
    differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect()
}

/// Tells a file from the same file after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    path: PathBuf,
    /// When it was changed and how long it is; `None` when it is not there.
    found: Option<(Option<SystemTime>, u64)>,
}

impl Fingerprint {
    fn of(path: &Path) -> Self {
        let found = std::fs::metadata(path).ok().map(|found| (found.modified().ok(), found.len()));
        Self { path: path.to_owned(), found }
    }
}

/// SIGHUP, where there is one.
struct Hangups {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn listen() -> Self {
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        if let Err(error) = &signal {
            tracing::warn!(%error, "SIGHUP is not listened to");
        }
        Self { signal: signal.ok() }
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }

    #[cfg(not(unix))]
    fn listen() -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending().await
    }
}
