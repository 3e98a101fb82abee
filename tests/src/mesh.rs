//! A running deployment: brokers, DNS servers and delay relays, and the faults that can be done to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rc_certs::{Authority, LeafRequest};
use rc_daemon::admin::AdminClient;
use rc_proto::wire::{BrokerId, Role, TrustDomain};
use serde_json::Value;

use crate::addresses::LoopbackBlock;
use crate::configs;
use crate::error::HarnessError;
use crate::eventually::eventually_async;
use crate::layout::Layout;
use crate::process::{Node, NodeProgram};
use crate::relay::{DelayRelay, Hop};

/// The DNS zone of every deployment; `test` is reserved for this (RFC 6761).
pub(crate) const ZONE: &str = "mesh.test";
/// The service name that endpoints resolve.
pub(crate) const SERVICE_NAME: &str = "brokers.mesh.test";
/// How long a deployment may take until every broker knows every other and is in DNS.
const CONVERGED_DEADLINE: Duration = Duration::from_secs(20);
/// For an answer on an admin socket.
const ADMIN_DEADLINE: Duration = Duration::from_secs(3);

/// Describes a deployment.
#[derive(Debug)]
pub struct MeshBuilder {
    program: NodeProgram,
    layout: Result<Layout, HarnessError>,
    directory: Option<PathBuf>,
    ttl: Duration,
    broker_settings: Vec<String>,
}

impl MeshBuilder {
    /// Adds a region with `count` brokers named `broker-1` and so on.
    #[must_use]
    pub fn region(self, region: &str, count: usize) -> Self {
        self.change(|layout| layout.add_region(region, count))
    }

    /// Adds one broker with a name of its own.
    #[must_use]
    pub fn broker(self, region: &str, id: &str) -> Self {
        self.change(|layout| layout.add_broker(region, id))
    }

    /// Sets the round trip between two regions, or inside one when both are the same.
    #[must_use]
    pub fn rtt(self, one: &str, other: &str, round_trip: Duration) -> Self {
        self.change(|layout| {
            layout.set_round_trip(one, other, round_trip);
            Ok(())
        })
    }

    /// Keeps configuration, keys and logs in `directory` instead of a temporary one.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Adds a line `section.key=value` for every broker, as the flag `--set` takes it; `{port}` in it is the port that
    /// every broker of the deployment listens at.
    #[must_use]
    pub fn broker_setting(mut self, assignment: &str) -> Self {
        self.broker_settings.push(assignment.to_owned());
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Layout) -> Result<(), HarnessError>) -> Self {
        if let Ok(layout) = &mut self.layout
            && let Err(error) = change(layout)
        {
            self.layout = Err(error);
        }
        self
    }

    /// Starts everything and waits until every broker is linked to every other and all are in DNS.
    ///
    /// # Errors
    /// When the description is not valid, a process does not come up, or the deployment does not converge.
    pub async fn start(self) -> Result<Mesh, HarnessError> {
        let mut mesh = self.start_unconverged().await?;
        mesh.converged(CONVERGED_DEADLINE).await?;
        Ok(mesh)
    }

    /// Starts everything and waits only until each process is ready.
    ///
    /// # Errors
    /// When the description is not valid or a process does not come up.
    pub async fn start_unconverged(self) -> Result<Mesh, HarnessError> {
        let place = Place::make(self.directory)?;
        let layout = self.layout?;
        let mut block = LoopbackBlock::claim(&mut StdRng::from_os_rng())?;
        let trust_domain: TrustDomain = ZONE.parse().map_err(|_| HarnessError::Id(ZONE.to_owned()))?;
        let authority = Authority::create(&place.path().join("ca"), &trust_domain)?;
        authority.add_ticket_key(None)?;
        let plan = Plan::draw(&layout, &mut block)?;
        let mut mesh = Mesh {
            program: self.program,
            place,
            layout,
            authority,
            plan,
            brokers: BTreeMap::new(),
            name_servers: BTreeMap::new(),
            relays: BTreeMap::new(),
            ttl: self.ttl,
            broker_settings: self.broker_settings,
            _block: block,
        };
        mesh.start_relays().await?;
        mesh.start_name_servers().await?;
        mesh.start_brokers().await?;
        Ok(mesh)
    }
}

/// Where the files are: a directory that is kept, or one that goes with the deployment.
#[derive(Debug)]
enum Place {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    fn make(directory: Option<PathBuf>) -> Result<Self, HarnessError> {
        let Some(path) = directory else {
            return Ok(Self::Temporary(tempfile::Builder::new().prefix("rc-mesh-").tempdir()?));
        };
        std::fs::create_dir_all(&path).map_err(|source| HarnessError::File { path: path.clone(), source })?;
        Ok(Self::Kept(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

/// Who listens where.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Each broker's own listener.
    pub(crate) brokers: BTreeMap<BrokerId, SocketAddr>,
    /// Each region's DNS server.
    pub(crate) name_servers: BTreeMap<String, SocketAddr>,
    /// Each broker as each region sees it.
    pub(crate) views: BTreeMap<(String, BrokerId), SocketAddr>,
}

impl Plan {
    fn draw(layout: &Layout, block: &mut LoopbackBlock) -> Result<Self, HarnessError> {
        let mut next = || block.next_address().ok_or(HarnessError::TooManyAddresses);
        let mut plan =
            Self { brokers: BTreeMap::new(), name_servers: BTreeMap::new(), views: BTreeMap::new() };
        for broker in layout.brokers() {
            plan.brokers.insert(broker.clone(), next()?);
        }
        for region in layout.regions() {
            plan.name_servers.insert(region.to_owned(), next()?);
            for broker in layout.brokers() {
                plan.views.insert((region.to_owned(), broker.clone()), next()?);
            }
        }
        Ok(plan)
    }

    /// The brokers as `region` sees them.
    pub(crate) fn view<'a>(&'a self, region: &'a str) -> impl Iterator<Item = (&'a BrokerId, SocketAddr)> {
        self.views
            .iter()
            .filter(move |((viewer, _), _)| viewer == region)
            .map(|((_, broker), address)| (broker, *address))
    }
}

/// The broker's own DNS name.
pub(crate) fn broker_name(broker: &BrokerId) -> String {
    format!("{}.{}.{ZONE}", broker.id(), broker.region())
}

/// One broker of a deployment.
#[derive(Debug)]
pub struct BrokerNode {
    node: Node,
    admin: PathBuf,
    config: PathBuf,
    ready_file: PathBuf,
}

impl BrokerNode {
    /// The process.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The process, to be signalled or waited for.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its admin socket.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Asks its admin socket; `None` when it does not answer or refuses.
    pub async fn ask(&self, command: &str) -> Option<(Vec<Value>, Value)> {
        let mut client = AdminClient::connect(&self.admin).await.ok()?;
        client.call(command, Value::Null, ADMIN_DEADLINE).await.ok()
    }
}

/// A running deployment. Dropping it kills every process it started.
#[derive(Debug)]
pub struct Mesh {
    program: NodeProgram,
    place: Place,
    layout: Layout,
    authority: Authority,
    plan: Plan,
    brokers: BTreeMap<BrokerId, BrokerNode>,
    name_servers: BTreeMap<String, Node>,
    relays: BTreeMap<(String, BrokerId), DelayRelay>,
    ttl: Duration,
    broker_settings: Vec<String>,
    _block: LoopbackBlock,
}

impl Mesh {
    /// Begins the description of a deployment whose nodes are run by `program`.
    pub fn builder(program: NodeProgram) -> MeshBuilder {
        MeshBuilder {
            program,
            layout: Ok(Layout::default()),
            directory: None,
            ttl: Duration::from_secs(5),
            broker_settings: Vec::new(),
        }
    }

    /// Where configuration, keys and logs are.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    /// The certificate authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A DNS server's process, to be signalled or waited for.
    pub fn name_server_mut(&mut self, region: &str) -> Option<&mut Node> {
        self.name_servers.get_mut(region)
    }

    /// Starts a DNS server that was killed again, with the same identity and address.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_name_server(&mut self, region: &str) -> Result<(), HarnessError> {
        let Some(mut old) = self.name_servers.remove(region) else { return Ok(()) };
        old.kill().await;
        let id = format!("tm-{region}");
        let (config, ready_file) = (self.path(&format!("{id}.toml")), self.path(&format!("{id}.ready")));
        drop(std::fs::remove_file(&ready_file));
        let node = self.launch_name_server(&id, &config, &ready_file).await?;
        self.name_servers.insert(region.to_owned(), node);
        Ok(())
    }

    async fn launch_name_server(
        &self,
        id: &str,
        config: &Path,
        ready_file: &Path,
    ) -> Result<Node, HarnessError> {
        let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        let command = self.program.command("traffic-manager", &arguments);
        let mut node = Node::start(id, command, &self.path(&format!("{id}.log")))?;
        node.ready(ready_file).await?;
        Ok(node)
    }

    /// What runs the nodes.
    pub(crate) fn program(&self) -> &NodeProgram {
        &self.program
    }

    /// Regions, brokers and distances.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The DNS server of a region.
    pub fn name_server(&self, region: &str) -> Option<SocketAddr> {
        self.plan.name_servers.get(region).copied()
    }

    /// Where `region` reaches `broker`: through the relay between them.
    pub fn address(&self, region: &str, broker: &BrokerId) -> Option<SocketAddr> {
        self.plan.views.get(&(region.to_owned(), broker.clone())).copied()
    }

    /// A broker's process.
    pub fn broker(&self, broker: &BrokerId) -> Option<&BrokerNode> {
        self.brokers.get(broker)
    }

    /// A broker's process, to be signalled or waited for.
    pub fn broker_mut(&mut self, broker: &BrokerId) -> Option<&mut BrokerNode> {
        self.brokers.get_mut(broker)
    }

    /// Every broker's process.
    pub fn brokers(&self) -> impl Iterator<Item = (&BrokerId, &BrokerNode)> {
        self.brokers.iter()
    }

    /// The hop between a region and a broker, whose length may be changed and which may be cut.
    pub fn hop(&self, region: &str, broker: &BrokerId) -> Option<&Arc<Hop>> {
        self.relays.get(&(region.to_owned(), broker.clone())).map(DelayRelay::hop)
    }

    /// Every hop, with the region that sees the broker through it.
    pub(crate) fn hops(&self) -> impl Iterator<Item = (&str, &BrokerId, &Arc<Hop>)> {
        self.relays.iter().map(|((region, broker), relay)| (region.as_str(), broker, relay.hop()))
    }

    /// Starts a broker that was killed or has stopped again, with the same identity and address.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_broker(&mut self, broker: &BrokerId) -> Result<(), HarnessError> {
        if let Some(mut old) = self.brokers.remove(broker) {
            old.node.kill().await;
            drop(std::fs::remove_file(&old.ready_file));
            let started = self.launch_broker(broker, old.config, old.admin, old.ready_file).await?;
            self.brokers.insert(broker.clone(), started);
        }
        Ok(())
    }

    /// Writes a file of the deployment and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, HarnessError> {
        let path = self.directory().join(name);
        std::fs::write(&path, text).map_err(|source| HarnessError::File { path: path.clone(), source })?;
        Ok(path)
    }

    /// A path in the deployment's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    async fn start_relays(&mut self) -> Result<(), HarnessError> {
        for ((region, broker), listen) in &self.plan.views {
            let hop = Hop::new(self.layout.round_trip(region, broker.region()));
            let Some(target) = self.plan.brokers.get(broker) else { continue };
            let relay = DelayRelay::start(*listen, *target, hop).await?;
            self.relays.insert((region.clone(), broker.clone()), relay);
        }
        Ok(())
    }

    async fn start_name_servers(&mut self) -> Result<(), HarnessError> {
        for (region, listen) in &self.plan.name_servers {
            let id = format!("tm-{region}");
            let leaf = self.authority.issue(&LeafRequest::new(Role::TrafficManager, &id))?;
            let ready_file = self.path(&format!("{id}.ready"));
            let admin = self.path(&format!("{id}.sock"));
            let text = configs::traffic_manager(&configs::TrafficManager {
                leaf: &leaf,
                authority: &self.authority,
                listen: *listen,
                view: self.plan.view(region).map(|(broker, address)| (broker.clone(), address)).collect(),
                ttl: self.ttl,
                admin: &admin,
                ready_file: &ready_file,
            });
            let config = self.write(&format!("{id}.toml"), &text)?;
            let node = self.launch_name_server(&id, &config, &ready_file).await?;
            self.name_servers.insert(region.clone(), node);
        }
        Ok(())
    }

    async fn start_brokers(&mut self) -> Result<(), HarnessError> {
        let brokers: Vec<BrokerId> = self.layout.brokers().cloned().collect();
        for broker in brokers {
            let stem = format!("{}-{}", broker.region(), broker.id());
            let leaf = self.authority.issue(
                &LeafRequest::new(Role::Broker, broker.as_str())
                    .dns_name(SERVICE_NAME)
                    .dns_name(broker_name(&broker)),
            )?;
            let (Some(listen), Some(name_server)) =
                (self.plan.brokers.get(&broker), self.plan.name_servers.get(broker.region()))
            else {
                continue;
            };
            let admin = self.path(&format!("{stem}.sock"));
            let ready_file = self.path(&format!("{stem}.ready"));
            let text = configs::broker(&configs::Broker {
                leaf: &leaf,
                authority: &self.authority,
                listen: *listen,
                name: &format!("{}:{}", broker_name(&broker), listen.port()),
                seeds: self
                    .layout
                    .brokers()
                    .filter(|other| **other != broker)
                    .map(|other| format!("{}:{}", broker_name(other), listen.port()))
                    .collect(),
                name_server: *name_server,
                admin: &admin,
                ready_file: &ready_file,
            });
            let config = self.write(&format!("{stem}.toml"), &text)?;
            let started = self.launch_broker(&broker, config, admin, ready_file).await?;
            self.brokers.insert(broker, started);
        }
        Ok(())
    }

    async fn launch_broker(
        &self,
        broker: &BrokerId,
        config: PathBuf,
        admin: PathBuf,
        ready_file: PathBuf,
    ) -> Result<BrokerNode, HarnessError> {
        let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        for setting in &self.broker_settings {
            let port = self.plan.brokers.get(broker).map_or(0, SocketAddr::port).to_string();
            arguments.extend(["--set".to_owned(), setting.replace("{port}", &port)]);
        }
        let command = self.program.command("broker", &arguments);
        let log = self.path(&format!("{}-{}.log", broker.region(), broker.id()));
        let mut node = Node::start(broker.as_str(), command, &log)?;
        node.ready(&ready_file).await?;
        Ok(BrokerNode { node, admin, config, ready_file })
    }

    /// Waits until every running broker is linked to every other running one.
    ///
    /// # Errors
    /// When it is not so after `deadline`.
    pub async fn converged(&mut self, deadline: Duration) -> Result<(), HarnessError> {
        let mut expected = 0_usize;
        for broker in self.brokers.values_mut() {
            expected += usize::from(broker.node.is_running());
        }
        let expected = expected.saturating_sub(1);
        let this = &*self;
        let all_linked = || async move {
            for broker in this.brokers.values() {
                if linked_peers(broker).await < expected {
                    return false;
                }
            }
            true
        };
        if eventually_async(deadline, all_linked).await {
            return Ok(());
        }
        let what = "every broker is linked to every other".to_owned();
        Err(HarnessError::NotInTime { what, waited: deadline })
    }
}

/// How many peers a broker is linked to now.
async fn linked_peers(broker: &BrokerNode) -> usize {
    let Some((_, status)) = broker.ask("status").await else { return 0 };
    configs::linked_peers(&status)
}
