//! A session between real hosts: Controller, Target and three brokers in network namespaces of their own, every packet
//! delayed by a router between them.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rc_proto::wire::BrokerId;
use rc_tests::lab::{BrokerPlace, Deployment, Network};
use rc_tests::load::{Load, Pace};
use rc_tests::process::Node;
use rc_tests::{eventually_async, ms};
use serde_json::Value;
use tokio::process::Child;

use crate::program;

pub(crate) const CONTROLLER: &str = "us";
pub(crate) const TARGET: &str = "in";
/// Hosts of brokers: the Controller's, the Target's, and one between.
pub(crate) const BROKERS: [&str; 3] = ["ba", "bb", "bc"];
const PORT: u16 = 7443;
const SETTLED_MAX: Duration = ms(40_000);

/// What runs.
pub(crate) struct Way {
    pub(crate) network: Network,
    pub(crate) deployment: Deployment,
    _target: Node,
    pub(crate) controller: Child,
    pub(crate) input: Load,
}

/// The broker on a host.
pub(crate) fn broker_on(host: &str) -> anyhow::Result<BrokerId> {
    Ok(BrokerId::new(host, "broker")?)
}

fn distances() -> Vec<(&'static str, &'static str, u64)> {
    let [first, last, third] = BROKERS;
    vec![
        (CONTROLLER, first, 20),
        (TARGET, last, 20),
        (first, last, 100),
        (CONTROLLER, third, 60),
        (TARGET, third, 60),
        (first, third, 60),
        (last, third, 60),
        (CONTROLLER, last, 120),
        (TARGET, first, 120),
    ]
}

impl Way {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut builder = Network::builder().host(CONTROLLER).host(TARGET);
        for host in BROKERS {
            builder = builder.host(host);
        }
        for (one, other, round_trip) in distances() {
            builder = builder.rtt(one, other, ms(round_trip));
        }
        let network = builder.build()?;
        let mut places = Vec::new();
        for host in BROKERS {
            let on = network.host(host)?;
            let listen = SocketAddr::new(on.address(), PORT);
            places.push(BrokerPlace { broker: broker_on(host)?, listen, program: on.program(&program()) });
        }
        let deployment = Deployment::start(places).await?;
        let brokers = brokers()?;
        let target =
            deployment.launch_target("pc-17", &brokers, &network.host(TARGET)?.program(&program())).await?;
        let (controller, input) = connect(&network, &deployment, "alice")?;
        let mut way = Self { network, deployment, _target: target, controller, input };
        way.settled().await?;
        Ok(way)
    }

    /// Waits until the load flows calmly, and the Target holds two registrations.
    pub(crate) async fn settled(&mut self) -> anyhow::Result<()> {
        let deployment = &self.deployment;
        let both = eventually_async(SETTLED_MAX, || async {
            let status = deployment.ask("pc-17", "status").await.unwrap_or_default();
            ["/pin/registered", "/second/registered"]
                .iter()
                .all(|at| status.pointer(at) == Some(&Value::Bool(true)))
        });
        anyhow::ensure!(both.await, "the target does not hold two registrations");
        self.input.flows(ms(1_000), ms(400), SETTLED_MAX).await?;
        Ok(())
    }

    /// What a broker says of itself.
    pub(crate) async fn status_of(&self, host: &str) -> Value {
        self.deployment.ask(&format!("{host}-broker"), "status").await.unwrap_or_default()
    }
}

/// Every broker.
pub(crate) fn brokers() -> anyhow::Result<Vec<BrokerId>> {
    BROKERS.iter().map(|host| broker_on(host)).collect()
}

fn connect(network: &Network, deployment: &Deployment, id: &str) -> anyhow::Result<(Child, Load)> {
    let on = network.host(CONTROLLER)?.program(&program());
    let mut command =
        deployment.controller_command(id, &brokers()?, "pc-17", &on, &["connect", "pc-17", "echo"])?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let writing = child.stdin.take().context("its input is piped")?;
    let reading = child.stdout.take().context("its output is piped")?;
    Ok((child, Load::start(reading, writing, Pace::INPUT, 5)))
}
