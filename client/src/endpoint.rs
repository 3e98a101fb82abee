//! One endpoint process: its pinned broker, its sessions, its shutdown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::identity::SpiffeId;
use rc_proto::recovery::PlannerConfig;
use rc_proto::select::Choice;
use rc_proto::wire::codes::EndCode;
use rc_proto::wire::message::Invite;
use rc_proto::wire::{InstanceId, Role, SessionId};
use rc_transport::{BootClock, Clock, Connector, Credentials, Resolver, ResolverConfig, TcpNet};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate_watch::watch_certificate;
use crate::config::ClientConfig;
use crate::error::{LocateError, SetupError};
use crate::event::{Event, EventLog, Events};
use crate::link::{self, BrokerContact, Held, LinkNews, Links, PinState, Shared};
use crate::locate::Locator;
use crate::pool::{LegPool, PoolNeeds, keep_filled};
use crate::reach::{Reach, SystemSource, unix_ms};
use crate::session::{SessionCore, SessionHandle, SessionSetup};
use crate::status::{PinStatus, SessionStatus, whole_ms};
use crate::whereabouts::{TargetNews, tell_controllers};

/// Invites that wait for the Target; a further one is dropped, and its Controller asks again.
const INVITES_MAX: usize = 16;
/// Time for sessions to say goodbye at a shutdown.
const GOODBYE_MAX: Duration = Duration::from_millis(2500);

/// A Controller or a Target; cheap to clone. It runs until [`Endpoint::shutdown`] or until the last clone is dropped.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("instance", &self.inner.run.instance).finish_non_exhaustive()
    }
}

/// This run of the process.
#[derive(Debug, Clone, Copy)]
struct Run {
    instance: InstanceId,
    began: Moment,
    began_unix_ms: u64,
}

pub(crate) type SessionTable = Arc<Mutex<BTreeMap<SessionId, Arc<SessionCore>>>>;

struct Inner {
    reach: Arc<Reach>,
    config: ClientConfig,
    run: Run,
    setup: SessionSetup,
    shared: Shared,
    invites: tokio::sync::Mutex<mpsc::Receiver<Invite>>,
    sessions: SessionTable,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Sessions are owned by their handles and go on without the control link.
        self.stop.cancel();
    }
}

pub(crate) fn lock(sessions: &SessionTable) -> MutexGuard<'_, BTreeMap<SessionId, Arc<SessionCore>>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An endpoint as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointStatus {
    /// Who it is.
    pub id: SpiffeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// Ms since it started.
    pub age_ms: u64,
    /// End of its certificate's validity, unix ms.
    pub certificate_ends_ms: u64,
    /// The pinned broker.
    pub pin: Option<PinStatus>,
    /// The broker of the second control link, which is held while a session lives.
    pub second: Option<PinStatus>,
    /// Why the last look for a broker failed, while none is pinned.
    pub searching: Option<String>,
    /// The last choice of a broker: candidates, samples, scores and the rule that decided.
    pub choice: Option<Choice>,
    /// Its live sessions.
    pub sessions: Vec<SessionStatus>,
}

/// The collaborators of an endpoint over the operating system's network and clock.
pub(crate) fn system_reach(config: &ClientConfig, role: Role) -> Result<Arc<Reach>, SetupError> {
    let credentials = load_credentials(config, role)?;
    if config.brokers.names.is_empty() && config.brokers.addresses.is_empty() {
        return Err(SetupError::NoBrokers);
    }
    let servers = config.brokers.name_servers.clone();
    Ok(Arc::new(Reach {
        connector: Connector::new(Arc::new(credentials), Arc::new(TcpNet)),
        names: Arc::new(Resolver::new(ResolverConfig { servers, ..ResolverConfig::default() })),
        source: Arc::new(SystemSource),
        clock: Arc::new(BootClock),
        timers: config.timers,
        events: EventLog::default(),
        pool: LegPool::default(),
    }))
}

fn load_credentials(config: &ClientConfig, role: Role) -> Result<Credentials, SetupError> {
    let loaded = Credentials::load(&config.credentials);
    let credentials = loaded.map_err(|error| SetupError::Credentials { reason: error.to_string() })?;
    if credentials.role() != role {
        let found = credentials.spiffe_id().to_string();
        return Err(SetupError::Role { found, wanted: role.segment() });
    }
    Ok(credentials)
}

impl Endpoint {
    /// Reads the credentials, which must be of `role`, and begins to look for a broker. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the credentials or the settings cannot be used.
    pub fn start(config: ClientConfig, role: Role) -> Result<Self, SetupError> {
        if let Some(dir) = &config.state_dir {
            std::fs::create_dir_all(dir).map_err(|error| SetupError::StateDir {
                path: dir.display().to_string(),
                reason: error.to_string(),
            })?;
        }
        let reach = system_reach(&config, role)?;
        Ok(Self::start_with(config, role, reach))
    }

    /// The same with collaborators of the caller.
    pub(crate) fn start_with(config: ClientConfig, role: Role, reach: Arc<Reach>) -> Self {
        let run = Run { instance: InstanceId(rand::random()), began: reach.now(), began_unix_ms: unix_ms() };
        let (offer_invite, invites) = mpsc::channel(INVITES_MAX);
        let shared = Shared::new(offer_invite);
        let setup = SessionSetup {
            instance: run.instance,
            config: config.session(role),
            clock: Arc::clone(&reach.clock),
            events: reach.events.clone(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let locator = Locator::new(Arc::clone(&reach), &config);
        let target = (role == Role::Target).then_some((run.instance, run.began_unix_ms));
        link::start(Arc::clone(&reach), locator, target, shared.clone(), &tasks, &stop);
        let sessions = SessionTable::default();
        if role == Role::Target {
            let news = TargetNews {
                links: shared.links.subscribe(),
                news: shared.news.subscribe(),
                count: shared.sessions.subscribe(),
            };
            let telling =
                tell_controllers(run.instance, Arc::clone(&sessions), news, Arc::clone(&reach.clock));
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(telling).await });
        }
        if config.pool_legs > 0 {
            let needs = PoolNeeds {
                links: shared.links.subscribe(),
                sessions: shared.sessions.subscribe(),
                controller: role == Role::Controller,
                legs: config.pool_legs,
            };
            tasks.spawn(keep_filled(Arc::clone(&reach), needs, stop.clone()));
        }
        tasks.spawn(watch_certificate(Arc::clone(&reach), stop.clone()));
        let invites = tokio::sync::Mutex::new(invites);
        let inner = Inner { reach, config, run, setup, shared, invites, sessions, tasks, stop };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for the pinned broker.
    ///
    /// # Errors
    /// When none is found within the time for it, with the reason why the last look failed.
    pub async fn pinned(&self) -> Result<PinStatus, LocateError> {
        self.held().await.map(|held| self.pin_status(&held))
    }

    /// Waits for the pinned broker as long as it takes; for a Target its registration is confirmed then.
    ///
    /// # Errors
    /// [`LocateError::Stopped`] when the endpoint shuts down first.
    pub async fn pinned_at_last(&self) -> Result<PinStatus, LocateError> {
        let mut pin = self.inner.shared.pin.subscribe();
        let settled = pin.wait_for(|state| !matches!(state, PinState::Searching { .. }));
        match settled.await.as_deref() {
            Ok(PinState::Held(held)) => Ok(self.pin_status(held)),
            Ok(PinState::Searching { .. } | PinState::Stopped) | Err(_) => Err(LocateError::Stopped),
        }
    }

    pub(crate) async fn held(&self) -> Result<Arc<Held>, LocateError> {
        let mut pin = self.inner.shared.pin.subscribe();
        let settled = pin.wait_for(|state| !matches!(state, PinState::Searching { .. }));
        let waited = self.inner.reach.timers.locate;
        let state = match tokio::time::timeout(waited, settled).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => PinState::Stopped,
            Err(_) => self.inner.shared.pin.borrow().clone(),
        };
        match state {
            PinState::Held(held) => Ok(held),
            PinState::Searching { last } => Err(last.unwrap_or_else(|| LocateError::Deadline {
                wanted: self.inner.config.brokers.wanted(),
                waited,
            })),
            PinState::Stopped => Err(LocateError::Stopped),
        }
    }

    fn pin_status(&self, held: &Held) -> PinStatus {
        PinStatus {
            broker: held.contact.broker.clone(),
            address: held.link.address,
            incarnation: held.link.incarnation,
            round_trip_us: held.link.heart.round_trip_us(),
            load: held.link.heart.load(),
            registered: held.link.role.is_some(),
            role: held.link.role,
            linked_for_ms: whole_ms(self.inner.reach.now().since(held.link.since)),
        }
    }

    /// The endpoint as it is now.
    pub fn status(&self) -> EndpointStatus {
        let credentials = self.inner.reach.credentials();
        let ends = credentials.not_after().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let pin = self.inner.shared.pin.borrow().clone();
        let searching = match &pin {
            PinState::Searching { last } => {
                Some(last.as_ref().map_or_else(|| "looking for a broker".to_owned(), ToString::to_string))
            }
            PinState::Held(_) => None,
            PinState::Stopped => Some("stopped".to_owned()),
        };
        EndpointStatus {
            id: credentials.spiffe_id().clone(),
            instance: self.inner.run.instance,
            age_ms: whole_ms(self.inner.reach.now().since(self.inner.run.began)),
            certificate_ends_ms: whole_ms(ends),
            pin: match &pin {
                PinState::Held(held) => Some(self.pin_status(held)),
                PinState::Searching { .. } | PinState::Stopped => None,
            },
            second: self.inner.shared.links.borrow().second.as_ref().map(|held| self.pin_status(held)),
            searching,
            choice: self.inner.shared.choice.load().as_deref().cloned(),
            sessions: self.sessions(),
        }
    }

    /// The live sessions.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let cores: Vec<_> = lock(&self.inner.sessions).values().cloned().collect();
        cores.iter().map(|core| core.status()).collect()
    }

    /// The live session of that id, while any handle or channel of it is held.
    pub fn session(&self, session: SessionId) -> Option<SessionHandle> {
        let core = lock(&self.inner.sessions).get(&session).cloned()?;
        SessionHandle::of(&core)
    }

    /// Follows what happens, from now on.
    pub fn events(&self) -> Events {
        self.inner.reach.events.follow()
    }

    /// Ends a session at once; false when there is none of that id.
    pub fn disconnect(&self, session: SessionId, message: &str) -> bool {
        let core = lock(&self.inner.sessions).get(&session).cloned();
        core.inspect(|core| core.disconnect(EndCode::DISCONNECTED, message)).is_some()
    }

    /// Reads the credential files again; new connections use what they hold from now on.
    ///
    /// # Errors
    /// When they cannot be used; the ones before stay in force.
    pub fn reload_credentials(&self) -> Result<(), SetupError> {
        let role = self.inner.reach.credentials().role();
        let credentials = load_credentials(&self.inner.config, role)?;
        self.inner.reach.connector.set_credentials(Arc::new(credentials));
        Ok(())
    }

    /// Ends every session and the control link, and waits for them.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        let cores: Vec<_> = lock(&inner.sessions).values().cloned().collect();
        for core in cores {
            core.disconnect(EndCode::SHUTDOWN, "");
        }
        inner.setup.tasks.close();
        if tokio::time::timeout(GOODBYE_MAX, inner.setup.tasks.wait()).await.is_err() {
            inner.setup.stop.cancel();
            inner.setup.tasks.wait().await;
        }
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
    }

    /// As if this many sessions lived.
    #[cfg(test)]
    pub(crate) fn pretend_sessions(&self, count: usize) {
        self.inner.shared.sessions.send_replace(count);
    }

    // ---- for the two client libraries

    pub(crate) fn reach(&self) -> &Reach {
        &self.inner.reach
    }

    pub(crate) fn setup(&self) -> &SessionSetup {
        &self.inner.setup
    }

    /// The control links that stand, the primary first, as they come and go.
    pub(crate) fn links(&self) -> watch::Receiver<Links> {
        self.inner.shared.links.subscribe()
    }

    /// What happens to the control links from now on.
    pub(crate) fn link_news(&self) -> broadcast::Receiver<LinkNews> {
        self.inner.shared.news.subscribe()
    }

    /// Every broker that the last choice knew, nearest first, where it answered.
    pub(crate) fn measured_brokers(&self) -> Vec<BrokerContact> {
        let choice = self.inner.shared.choice.load();
        let rows = choice.iter().flat_map(|choice| &choice.brokers);
        let answered = |row: &rc_proto::select::ChoiceRow| {
            let answered = Some(row.address?);
            Some(BrokerContact { answered, ..BrokerContact::named(&row.broker, "") })
        };
        rows.filter_map(answered).collect()
    }

    /// The settings of its sessions' planners.
    pub(crate) fn planner(&self) -> PlannerConfig {
        PlannerConfig { repath_every: self.inner.config.repath_every, ..PlannerConfig::default() }
    }

    /// Who this process is.
    pub fn id(&self) -> SpiffeId {
        self.inner.reach.own_id()
    }

    /// This run of the process.
    pub fn instance(&self) -> InstanceId {
        self.inner.run.instance
    }

    /// How long its sessions are kept while no path carries them.
    pub fn resume_window(&self) -> Duration {
        self.inner.setup.config.resume_window
    }

    /// Where the endpoint's events are published.
    pub fn event_log(&self) -> &EventLog {
        &self.inner.reach.events
    }

    /// The endpoint's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.reach.clock
    }

    /// The next invite of a broker; `None` once the endpoint has stopped. Dropping the future loses nothing.
    pub(crate) async fn next_invite_message(&self) -> Option<Invite> {
        let mut invites = self.inner.invites.lock().await;
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => None,
            invite = invites.recv() => invite,
        }
    }

    /// Lists a session until it ends, and tells its begin and its end.
    pub(crate) fn adopt(&self, handle: &SessionHandle) {
        let core = handle.shared_core();
        let (session, peer) = (handle.id(), handle.peer().clone());
        let path = core.status().paths.first().and_then(|path| path.path);
        let events = self.inner.reach.events.clone();
        events.publish(Event::SessionStarted { session, peer: peer.clone(), path });
        lock(&self.inner.sessions).insert(session, Arc::clone(&core));
        let count = self.inner.shared.sessions.clone();
        count.send_modify(|sessions| *sessions += 1);
        let table = Arc::clone(&self.inner.sessions);
        self.inner.setup.tasks.spawn(async move {
            let end = crate::session::ended(&core).await;
            lock(&table).remove(&session);
            count.send_modify(|sessions| *sessions = sessions.saturating_sub(1));
            events.publish(Event::SessionEnded { session, peer, end });
        });
    }
}
