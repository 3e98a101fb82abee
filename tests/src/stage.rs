//! A deployment with one session under load, on which faults are played and measured: two regions 100 ms apart with
//! two brokers each, 20 ms from each endpoint to its brokers; 20 B each 50 ms and 1 MB/s, both ways.

use std::time::Duration;

use anyhow::{Context, ensure};
use rc_client::OpenOptions;
use rc_controller_client::{Controller, Session, TicketFile};
use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::Class;
use serde_json::Value;

use crate::endpoints::{ControllerNode, TargetNode, service};
use crate::eventually::{eventually, eventually_async};
use crate::load::{Load, Pace, Proof};
use crate::mesh::{Mesh, MeshBuilder};
use crate::process::NodeProgram;

/// From an endpoint to the brokers of its region and back.
pub const NEAR: Duration = Duration::from_millis(20);
/// Between the regions and back.
pub const FAR: Duration = Duration::from_millis(100);
/// Where the Controller is, and where the Target is.
pub const REGIONS: [&str; 2] = ["us", "in"];
const TARGET: &str = "pc-17";
/// For everything that is not measured: links that stand again, brokers that know each other.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// After a fault the load has to flow for so long without a longer gap than the one below.
const CALM: Duration = Duration::from_millis(1_000);
const CALM_GAP_MAX: Duration = Duration::from_millis(400);
/// What is sent within this time after the load flows again belongs to the same fault.
const AFTERMATH: Duration = Duration::from_millis(500);

/// From the Controller to the Target and back: the whole way.
pub fn whole_way() -> Duration {
    NEAR + NEAR + FAR
}

/// Which broker of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The Controller's.
    First,
    /// The Target's.
    Last,
}

/// The deployment and its session.
#[derive(Debug)]
pub struct Stage {
    /// Brokers and DNS servers.
    pub mesh: Mesh,
    /// The Target's process.
    pub target: TargetNode,
    /// The Controller's identity.
    pub alice: ControllerNode,
    /// The Controller, in this process.
    pub controller: Controller,
    /// The session.
    pub session: Session,
    /// 20 B each 50 ms.
    pub input: Load,
    /// 1 MB/s.
    pub stream: Load,
}

impl Stage {
    /// The deployment that every stage has, to be changed before [`Stage::start`].
    pub fn deployment(program: NodeProgram) -> MeshBuilder {
        let [here, there] = REGIONS;
        Mesh::builder(program)
            .region(here, 2)
            .region(there, 2)
            .rtt(here, here, NEAR)
            .rtt(there, there, NEAR)
            .rtt(here, there, FAR)
            // A drained broker gives its paths slots within this time: short, so that many drains can be measured.
            .broker_setting("drain.spread=200ms")
            .broker_setting("drain.deadline=20s")
    }

    /// Starts everything, and waits until the load flows.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn start(deployment: MeshBuilder) -> anyhow::Result<Self> {
        let mesh = deployment.start().await?;
        let [here, there] = REGIONS;
        let target = mesh.target(there, TARGET).pipe("sha256", &["sha256sum"]).start(&mesh).await?;
        let alice = mesh.controller(here, "alice")?;
        let controller = Controller::start(alice.client_config())?;
        let ticket = mesh.ticket(&alice, TARGET, &["*"])?;
        let session = controller.connect(&TARGET.parse()?, TicketFile(ticket)).await?;
        let input = echo(&session, Class::INPUT, Pace::INPUT, 1).await?;
        let stream = echo(&session, Class::BULK, Pace::STREAM, 2).await?;
        let mut stage = Self { mesh, target, alice, controller, session, input, stream };
        stage.settled().await?;
        Ok(stage)
    }

    /// The brokers on the path that the session uses, the Controller's first.
    pub fn on_the_way(&self) -> Vec<BrokerId> {
        let paths = self.session.paths();
        let used = paths.iter().filter(|path| path.in_use).max_by_key(|path| path.epoch);
        used.map(|path| path.hops.iter().map(|hop| hop.broker.clone()).collect()).unwrap_or_default()
    }

    /// One broker of the path.
    ///
    /// # Errors
    /// When the session has no path.
    pub fn broker_at(&self, place: Place) -> anyhow::Result<BrokerId> {
        let way = self.on_the_way();
        let found = match place {
            Place::First => way.first(),
            Place::Last => way.last(),
        };
        found.cloned().context("the session has no path")
    }

    /// Kills the broker, measures the gap, and starts the broker again.
    ///
    /// # Errors
    /// When the session does not go on within `limit`, or the deployment does not come to rest afterwards.
    pub async fn kill(&mut self, place: Place, limit: Duration) -> anyhow::Result<Duration> {
        let broker = self.broker_at(place)?;
        self.mark();
        self.mesh.kill_broker(&broker).await;
        let gap = self.passes(limit).await.with_context(|| format!("after the kill of {broker}"))?;
        self.mesh.restart_broker(&broker).await?;
        self.settled().await?;
        Ok(gap)
    }

    /// Freezes the broker, measures the gap, and lets it go on.
    ///
    /// # Errors
    /// As [`Stage::kill`].
    pub async fn freeze(&mut self, place: Place, limit: Duration) -> anyhow::Result<Duration> {
        let broker = self.broker_at(place)?;
        self.mark();
        self.mesh.freeze_broker(&broker);
        let gap = self.passes(limit).await.with_context(|| format!("after the freeze of {broker}"));
        self.mesh.thaw_broker(&broker);
        let gap = gap?;
        self.settled().await?;
        Ok(gap)
    }

    /// Drains the broker, measures the gap until its process has ended, and starts it again.
    ///
    /// # Errors
    /// As [`Stage::kill`]; when the broker has not ended after `limit`; when it ended and the session still uses it.
    pub async fn hand_over(&mut self, place: Place, limit: Duration) -> anyhow::Result<Duration> {
        let broker = self.broker_at(place)?;
        self.drain(&broker, limit).await
    }

    /// The same of a broker that the session may or may not use.
    ///
    /// # Errors
    /// As [`Stage::hand_over`].
    pub async fn drain(&mut self, broker: &BrokerId, limit: Duration) -> anyhow::Result<Duration> {
        self.mark();
        let node = self.mesh.broker_mut(broker).context("there is such a broker")?.node_mut();
        let ended = node.terminate(limit).await;
        ensure!(ended == Some(0), "{broker} drained and ended with {ended:?}");
        let gap = self.passes(limit).await.with_context(|| format!("after the drain of {broker}"))?;
        self.mesh.restart_broker(broker).await?;
        self.settled().await?;
        Ok(gap)
    }

    /// Forgets the gaps of both loads so far.
    pub fn mark(&self) {
        self.input.mark();
        self.stream.mark();
    }

    /// Waits until something that is written from now on has come back on both loads; the longest gap of the input
    /// since the mark. To be called when the fault has taken hold.
    ///
    /// # Errors
    /// When one of them does not, or the session ends.
    pub async fn passes(&self, limit: Duration) -> anyhow::Result<Duration> {
        let (input, stream) = (self.input.written(), self.stream.written());
        self.input.passes(input, limit).await.context("the input")?;
        self.stream.passes(stream, limit).await.context("the stream")?;
        let per_second = 1_000 / Pace::INPUT.interval.as_millis().max(1);
        let beats = per_second * AFTERMATH.as_millis() / 1_000;
        let later = self.input.written() + u64::try_from(beats)? * Pace::INPUT.bytes as u64;
        self.input.passes(later, limit).await.context("the input, a little later")
    }

    /// Waits until every running broker is linked to every other, both endpoints hold two links, and the load flows.
    ///
    /// # Errors
    /// When it is not so after a minute.
    pub async fn settled(&mut self) -> anyhow::Result<()> {
        self.mesh.converged(SETTLED_MAX).await?;
        let both = eventually_async(SETTLED_MAX, || async { self.has_two_links().await }).await;
        ensure!(both, "an endpoint does not hold two control links: {}", self.links().await);
        self.input.flows(CALM, CALM_GAP_MAX, SETTLED_MAX).await?;
        self.stream.flows(CALM, CALM_GAP_MAX, SETTLED_MAX).await?;
        Ok(())
    }

    async fn has_two_links(&self) -> bool {
        let target = self.target.status().await.unwrap_or_default();
        let controller = self.controller.status();
        let is_linked = |name: &str| target.pointer(name).is_some_and(Value::is_string);
        let is_registered = |name: &str| target.pointer(name) == Some(&Value::Bool(true));
        is_linked("/pin/broker")
            && is_linked("/second/broker")
            && is_registered("/pin/registered")
            && is_registered("/second/registered")
            && controller.pin.is_some()
            && controller.second.is_some()
    }

    async fn links(&self) -> String {
        let target = self.target.status().await.unwrap_or_default();
        let controller = self.controller.status();
        format!(
            "target {} and {}, controller {:?} and {:?}",
            target.get("pin").unwrap_or(&Value::Null),
            target.get("second").unwrap_or(&Value::Null),
            controller.pin.map(|pin| pin.broker),
            controller.second.map(|second| second.broker),
        )
    }

    /// Ends the load and the session.
    ///
    /// # Errors
    /// When the load does not come back whole, or the session does not end properly.
    pub async fn finish(self) -> anyhow::Result<[Proof; 2]> {
        let Self { input, stream, session, controller, .. } = self;
        let proofs = [input.finish(SETTLED_MAX).await?, stream.finish(SETTLED_MAX).await?];
        for proof in &proofs {
            ensure!(proof.is_exact(), "not byte-exact: {proof}");
        }
        tokio::time::timeout(SETTLED_MAX, session.close()).await.context("the session ends")??;
        controller.shutdown().await;
        Ok(proofs)
    }

    /// Whether the bytes are right so far.
    ///
    /// # Errors
    /// When they are not.
    pub fn is_exact_so_far(&self) -> anyhow::Result<()> {
        for proof in [self.input.proof(), self.stream.proof()] {
            ensure!(proof.lost + proof.repeated + proof.altered == 0, "not byte-exact: {proof}");
        }
        Ok(())
    }

    /// Waits until the session's path does not cross `broker`; whether it is so in time.
    pub async fn leaves(&self, broker: &BrokerId, limit: Duration) -> bool {
        eventually(limit, || !self.on_the_way().contains(broker)).await
    }
}

/// A load over the Target's echo.
///
/// # Errors
/// When the Target does not open it.
pub async fn echo(session: &Session, class: Class, pace: Pace, seed: u64) -> anyhow::Result<Load> {
    let channel = session.open(&service("echo")?, OpenOptions::default().class(class)).await?;
    let (reading, writing) = tokio::io::split(channel);
    Ok(Load::start(reading, writing, pace, seed))
}
