//! Sessions over an evil broker, judged at both applications.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rc_broker::{Broker, BrokerConfig, Parts, RunningBroker};
use rc_certs::{Authority, LeafRequest, TicketRequest};
use rc_client::{BrokerPlaces, Channel, ClientConfig, CredentialFiles, OpenOptions, StaticBroker};
use rc_controller_client::{Controller, FixedTicket, Session};
use rc_proto::identity::ticket::TicketKeys;
use rc_proto::wire::{BrokerId, Role};
use rc_target_client::{Offer, Target, TargetConfig};
use rc_transport::{BootClock, Credentials, TcpNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::broker::EvilBroker;
use crate::eventually::eventually;
use crate::relay::{DelayRelay, Hop};

const TRUST_DOMAIN: &str = "evil.test";
const EVIL: &str = "in/evil";
const HONEST: &str = "us/honest";
/// Round trip to the honest broker, so that the evil one is everybody's first choice.
const HONEST_ROUND_TRIP: Duration = Duration::from_millis(40);
const TARGET_COUNT: usize = 6;
/// Controllers that work at once.
const WORKER_COUNT: usize = 12;
/// Sessions of one Controller before it starts anew, and finds its brokers anew.
const SESSIONS_PER_START: u32 = 12;
const PAYLOAD_BYTES_MAX: usize = 40_000;
/// For a session to start.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// For everything that was written to come back, a recovery included.
const EXCHANGE_MAX: Duration = Duration::from_secs(20);
const SHUTDOWN_MAX: Duration = Duration::from_secs(20);
const READY_MAX: Duration = Duration::from_secs(30);

/// How many sessions, and which.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Sessions to try.
    pub runs: u32,
    /// Decides deeds, places and payloads.
    pub seed: u64,
}

/// What became of them.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Sessions that were tried.
    pub runs: u32,
    /// Those that never started, each with a reason.
    pub refused: u32,
    /// Those that started and brought every byte back.
    pub whole: u32,
    /// Those that started and ended before every byte was back: none may, once another broker is there.
    pub lost: u32,
    /// Bytes that an application got and the other never sent, and clean ends that came too early; none may be.
    pub wrong: Vec<String>,
    /// Paths of a session that had more than one.
    pub moved: u32,
    /// How often the evil broker did what.
    pub deeds: BTreeMap<&'static str, u64>,
    /// Why sessions were refused or lost, and how often.
    pub reasons: BTreeMap<String, u32>,
}

/// Runs an attack.
///
/// # Errors
/// When the brokers or endpoints do not come up: what they do then is the verdict's.
pub async fn attack(attack: Attack) -> anyhow::Result<Verdict> {
    let world = Arc::new(World::start(attack.seed).await?);
    let verdict = Arc::new(Mutex::new(Verdict::default()));
    let mut workers = JoinSet::new();
    for number in 0..WORKER_COUNT {
        let share = (attack.runs as usize + WORKER_COUNT - 1 - number) / WORKER_COUNT;
        let worker = Worker {
            world: Arc::clone(&world),
            verdict: Arc::clone(&verdict),
            name: format!("engineer-{number}"),
            random: StdRng::seed_from_u64(attack.seed.wrapping_add(number as u64)),
        };
        workers.spawn(worker.run(u32::try_from(share)?));
    }
    while let Some(worked) = workers.join_next().await {
        worked??;
    }
    let mut verdict = std::mem::take(&mut *verdict.lock().unwrap_or_else(PoisonError::into_inner));
    verdict.deeds = world.evil.deeds();
    verdict.wrong.extend(world.evil.believed());
    for target in &world.targets {
        target.shutdown().await;
    }
    Ok(verdict)
}

/// An evil and an honest broker, and Targets at both.
struct World {
    directory: tempfile::TempDir,
    authority: Authority,
    evil: EvilBroker,
    _honest: RunningBroker,
    _relay: DelayRelay,
    places: BrokerPlaces,
    targets: Vec<Target>,
}

impl World {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("rc-evil-").tempdir()?;
        let authority = Authority::create(&directory.path().join("ca"), &TRUST_DOMAIN.parse()?)?;
        authority.add_ticket_key(None)?;
        let evil = EvilBroker::start(broker_credentials(&authority, EVIL)?, seed).await?;
        let honest = honest_broker(&authority).await?;
        let at = honest.addresses().first().copied().ok_or_else(|| anyhow::anyhow!("it listens nowhere"))?;
        let relay = DelayRelay::start("127.0.0.1:0".parse()?, at, Hop::new(HONEST_ROUND_TRIP)).await?;
        let known = |broker: &BrokerId, address| StaticBroker { broker: broker.clone(), address };
        let places = BrokerPlaces {
            addresses: vec![known(evil.id(), evil.address()), known(honest.id(), relay.address())],
            allow_loopback: true,
            ..BrokerPlaces::named([""; 0])
        };
        evil.join_mesh(honest.id(), at).await.map_err(anyhow::Error::msg)?;
        let mut world =
            Self { directory, authority, evil, _honest: honest, _relay: relay, places, targets: Vec::new() };
        for number in 0..TARGET_COUNT {
            world.targets.push(world.start_target(&target_name(number))?);
        }
        let registered = || world.evil.registrations() == TARGET_COUNT;
        anyhow::ensure!(eventually(READY_MAX, registered).await, "the targets are not at the evil broker");
        Ok(world)
    }

    fn start_target(&self, name: &str) -> anyhow::Result<Target> {
        let client = self.config(Role::Target, name)?;
        let mut config = TargetConfig::new(client, [self.authority.ticket_keys_file()]);
        config.limits.invites_per_second = 10_000;
        config.limits.handshakes = 256;
        config.limits.attaches_per_minute = 1_000_000;
        config.limits.sessions = 4_096;
        let target = Target::start(config)?;
        tokio::spawn(serve(name.to_owned(), target.clone()));
        Ok(target)
    }

    fn config(&self, role: Role, name: &str) -> anyhow::Result<ClientConfig> {
        let leaf = self.authority.issue(&LeafRequest::new(role, name).replacing())?;
        let credentials = CredentialFiles {
            certificate: leaf.certificate,
            key: leaf.key,
            ca: self.authority.ca_file(),
            crl: Some(self.authority.crl_file()),
        };
        let mut config = ClientConfig::new(credentials, [""; 0]);
        config.brokers = self.places.clone();
        Ok(config)
    }

    fn ticket(&self, certificate: &Path, target: &str) -> anyhow::Result<FixedTicket> {
        let request = TicketRequest::for_certificate(certificate, target.parse()?, vec!["echo".parse()?])?;
        Ok(FixedTicket::new(&self.authority.mint_ticket(&request)?)?)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("directory", &self.directory.path()).finish_non_exhaustive()
    }
}

fn target_name(number: usize) -> String {
    format!("pc-{number}")
}

fn broker_credentials(authority: &Authority, id: &str) -> anyhow::Result<Arc<Credentials>> {
    let leaf = authority.issue(&LeafRequest::new(Role::Broker, id))?;
    let files = CredentialFiles {
        certificate: leaf.certificate,
        key: leaf.key,
        ca: authority.ca_file(),
        crl: Some(authority.crl_file()),
    };
    Ok(Arc::new(Credentials::load(&files)?))
}

async fn honest_broker(authority: &Authority) -> anyhow::Result<RunningBroker> {
    let config = BrokerConfig { listen: vec!["127.0.0.1:0".parse()?], ..BrokerConfig::default() };
    let ticket_keys: TicketKeys = authority.ticket_keys()?;
    let parts = Parts {
        credentials: broker_credentials(authority, HONEST)?,
        ticket_keys,
        deny_list: None,
        net: Arc::new(TcpNet),
        clock: Arc::new(BootClock),
    };
    Ok(Broker::start(config, parts).await?)
}

/// What a Target says first on every channel: who it is, and who it talks to.
fn greeting(target: &str, controller: &str) -> Vec<u8> {
    format!("{target} to {controller}\n").into_bytes()
}

async fn serve(name: String, target: Target) {
    while let Some(offer) = target.next_offer().await {
        let name = name.clone();
        tokio::spawn(async move {
            // A channel that breaks is judged at its other end.
            drop(echo(&name, offer).await);
        });
    }
}

async fn echo(name: &str, offer: Offer) -> anyhow::Result<()> {
    let greeting = greeting(name, offer.controller().as_str());
    let (mut reading, mut writing) = tokio::io::split(offer.accept()?);
    writing.write_all(&greeting).await?;
    tokio::io::copy(&mut reading, &mut writing).await?;
    writing.shutdown().await?;
    Ok(())
}

struct Worker {
    world: Arc<World>,
    verdict: Arc<Mutex<Verdict>>,
    name: String,
    random: StdRng,
}

/// How one session went.
enum Outcome {
    Whole { paths: usize },
    Refused(String),
    Lost(String),
    Wrong(String),
}

impl Worker {
    async fn run(mut self, sessions: u32) -> anyhow::Result<()> {
        let mut left = sessions;
        while left > 0 {
            let config = self.world.config(Role::Controller, &self.name)?;
            let certificate = config.credentials.certificate.clone();
            let controller = Controller::start(config)?;
            for _ in 0..left.min(SESSIONS_PER_START) {
                let target = target_name(self.random.random_range(0..TARGET_COUNT));
                let ticket = self.world.ticket(&certificate, &target)?;
                let mut payload = vec![0; self.random.random_range(1..PAYLOAD_BYTES_MAX)];
                self.random.fill_bytes(&mut payload);
                let outcome = one_session(&controller, &self.name, &target, ticket, &payload).await;
                self.note(&target, outcome);
                left -= 1;
            }
            let ended = timeout(SHUTDOWN_MAX, controller.shutdown()).await;
            anyhow::ensure!(ended.is_ok(), "{} does not shut down within {SHUTDOWN_MAX:?}", self.name);
        }
        Ok(())
    }

    fn note(&self, target: &str, outcome: Outcome) {
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        verdict.runs += 1;
        let reason = match outcome {
            Outcome::Whole { paths } => {
                verdict.whole += 1;
                verdict.moved += u32::from(paths > 1);
                return;
            }
            Outcome::Wrong(what) => {
                verdict.wrong.push(format!("{} at {target}: {what}", self.name));
                return;
            }
            Outcome::Refused(reason) => {
                verdict.refused += 1;
                format!("refused: {reason}")
            }
            Outcome::Lost(reason) => {
                verdict.lost += 1;
                format!("lost: {reason}")
            }
        };
        *verdict.reasons.entry(reason).or_default() += 1;
    }
}

async fn one_session(
    controller: &Controller,
    name: &str,
    target: &str,
    ticket: FixedTicket,
    payload: &[u8],
) -> Outcome {
    let Ok(id) = target.parse() else { return Outcome::Refused("no such id".to_owned()) };
    let session = match timeout(CONNECT_MAX, controller.connect(&id, ticket)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return Outcome::Refused(error.to_string()),
        Err(_) => return Outcome::Refused(format!("no session within {CONNECT_MAX:?}")),
    };
    let expected = [greeting(target, name), payload.to_vec()].concat();
    let outcome = match timeout(EXCHANGE_MAX, exchange(&session, payload, &expected)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Lost(format!("not every byte came within {EXCHANGE_MAX:?}")),
    };
    controller.disconnect(session.id());
    outcome
}

async fn exchange(session: &Session, payload: &[u8], expected: &[u8]) -> Outcome {
    let Ok(service) = "echo".parse() else { return Outcome::Refused("no such service".to_owned()) };
    let channel: Channel = match session.open(&service, OpenOptions::default()).await {
        Ok(channel) => channel,
        Err(error) => return Outcome::Lost(error.to_string()),
    };
    let (mut reading, mut writing) = tokio::io::split(channel);
    let sending = async {
        for piece in payload.chunks(1_500) {
            writing.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        writing.shutdown().await
    };
    let receiving = async {
        let mut received = Vec::with_capacity(expected.len());
        let ended = reading.read_to_end(&mut received).await;
        (received, ended)
    };
    let (sent, (received, ended)) = tokio::join!(sending, receiving);
    if !expected.starts_with(&received) {
        let at = expected.iter().zip(&received).take_while(|(one, other)| one == other).count();
        return Outcome::Wrong(format!("byte {at} of {} was never sent", received.len()));
    }
    match (sent, ended) {
        (_, Ok(_)) if received.len() == expected.len() => Outcome::Whole { paths: highest_epoch(session) },
        (_, Ok(_)) => {
            Outcome::Wrong(format!("a clean end after {} of {} bytes", received.len(), expected.len()))
        }
        (_, Err(error)) => Outcome::Lost(error.to_string()),
    }
}

/// How many paths the session has had.
fn highest_epoch(session: &Session) -> usize {
    let epochs = session.paths().into_iter().map(|path| path.epoch.0);
    usize::try_from(epochs.max().unwrap_or(1)).unwrap_or(usize::MAX)
}
