//! Many sessions at once, each with a load of its own: what a storm after a loss, a drain or a rolling restart does to
//! all of them.

use std::time::{Duration, Instant};

use anyhow::Context;
use rc_certs::LeafRequest;
use rc_client::OpenOptions;
use rc_controller_client::{Controller, Session, TicketFile};
use rc_proto::wire::{BrokerId, Role};
use rc_target_client::{Target, TargetConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::endpoints::service;
use crate::load::{Load, Pace};
use crate::mesh::Mesh;

/// Sessions of one Controller: below the limit of new paths of an identity.
const SESSIONS_PER_CONTROLLER: usize = 8;
/// Endpoints that start at once.
const STARTING_AT_ONCE: usize = 32;
/// What each session sends: little, so that a thousand are no load of their own.
const PACE: Pace = Pace { bytes: 20, interval: Duration::from_millis(500) };
const FINISHED_MAX: Duration = Duration::from_secs(60);
const OPEN_FILES: u64 = 1 << 16;

/// Sessions, and the endpoints behind them, in this process.
#[derive(Debug)]
pub struct Crowd {
    targets: Vec<Target>,
    controllers: Vec<Controller>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    session: Session,
    load: Load,
}

impl Crowd {
    /// Starts `count` sessions from region `here` to Targets of their own in region `there`.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(mesh: &Mesh, here: &str, there: &str, count: usize) -> anyhow::Result<Self> {
        allow_descriptors();
        let mut crowd = Self { targets: Vec::new(), controllers: Vec::new(), members: Vec::new() };
        let mut starting = JoinSet::new();
        for number in 0..count {
            if starting.len() == STARTING_AT_ONCE {
                crowd.targets.extend(starting.join_next().await.transpose()?.transpose()?);
            }
            let leaf = mesh.authority().issue(&LeafRequest::new(Role::Target, name(number)))?;
            let client = mesh.client_config(there, &leaf)?;
            starting.spawn(start_target(TargetConfig::new(client, [mesh.authority().ticket_keys_file()])));
        }
        while let Some(started) = starting.join_next().await {
            crowd.targets.push(started??);
        }
        let mut opening = JoinSet::new();
        for first in (0..count).step_by(SESSIONS_PER_CONTROLLER) {
            let node = mesh.controller(here, &format!("engineer-{first}"))?;
            let controller = Controller::start(node.client_config())?;
            crowd.controllers.push(controller.clone());
            for number in first..(first + SESSIONS_PER_CONTROLLER).min(count) {
                if opening.len() == STARTING_AT_ONCE {
                    crowd.members.extend(opening.join_next().await.transpose()?.transpose()?);
                }
                let ticket = TicketFile(mesh.ticket(&node, &name(number), &["*"])?);
                opening.spawn(open(controller.clone(), number, ticket));
            }
        }
        while let Some(opened) = opening.join_next().await {
            crowd.members.push(opened??);
        }
        Ok(crowd)
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// How many of them have the path that they use over `broker`.
    pub fn crossing(&self, broker: &BrokerId) -> usize {
        let crosses = |member: &&Member| {
            let paths = member.session.paths();
            let used = paths.iter().filter(|path| path.in_use).max_by_key(|path| path.epoch);
            used.is_some_and(|path| path.hops.iter().any(|hop| hop.broker == *broker))
        };
        self.members.iter().filter(crosses).count()
    }

    /// Forgets the gaps so far.
    pub fn mark(&self) {
        for member in &self.members {
            member.load.mark();
        }
    }

    /// Waits until something that is written from now on has come back in every session; the longest gap of each since
    /// the mark. To be called when the fault has taken hold.
    ///
    /// # Errors
    /// When one has ended, or does not go on within `limit`.
    pub async fn passes(&self, limit: Duration) -> anyhow::Result<Vec<Duration>> {
        let until = Instant::now() + limit;
        let marks: Vec<u64> = self.members.iter().map(|member| member.load.written()).collect();
        let mut gaps = Vec::with_capacity(self.members.len());
        for (member, mark) in self.members.iter().zip(&marks) {
            let left = until.saturating_duration_since(Instant::now());
            let passed = member.load.passes(*mark, left).await;
            gaps.push(passed.with_context(|| format!("the session with {}", member.session.target()))?);
        }
        Ok(gaps)
    }

    /// Ends everything.
    ///
    /// # Errors
    /// When a load did not come back whole.
    pub async fn finish(self) -> anyhow::Result<u64> {
        let mut total = 0;
        for Member { session, load } in self.members {
            let proof = load.finish(FINISHED_MAX).await.with_context(|| session.target().to_string())?;
            anyhow::ensure!(proof.is_exact(), "{}: {proof}", session.target());
            total += proof.received;
        }
        for controller in &self.controllers {
            controller.shutdown().await;
        }
        for target in &self.targets {
            target.shutdown().await;
        }
        Ok(total)
    }
}

fn name(number: usize) -> String {
    format!("pc-{number}")
}

async fn start_target(config: TargetConfig) -> anyhow::Result<Target> {
    let target = Target::start(config)?;
    tokio::spawn(echo_to_everyone(target.clone()));
    target.registered().await?;
    Ok(target)
}

async fn echo_to_everyone(target: Target) {
    while let Some(offer) = target.next_offer().await {
        let Ok(channel) = offer.accept() else { continue };
        tokio::spawn(async move {
            let (mut from_controller, mut to_controller) = tokio::io::split(channel);
            tokio::io::copy(&mut from_controller, &mut to_controller).await?;
            to_controller.shutdown().await
        });
    }
}

async fn open(controller: Controller, number: usize, ticket: TicketFile) -> anyhow::Result<Member> {
    let session = controller.connect(&name(number).parse()?, ticket).await?;
    let channel = session.open(&service("echo")?, OpenOptions::default()).await?;
    let (reading, writing) = tokio::io::split(channel);
    let load = Load::start(reading, writing, PACE, number as u64);
    Ok(Member { session, load })
}

/// Raises this process's limit, which brokers inherit.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        let current = Some(limit.maximum.map_or(OPEN_FILES, |maximum| OPEN_FILES.min(maximum)));
        // Where the system allows no more, what does not fit fails with its own error.
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap_or_default();
    }
}
