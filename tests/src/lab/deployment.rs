//! Brokers and targets on given hosts and addresses: no DNS and no relay, so that nothing but the product and the
//! network costs anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rc_certs::{Authority, IssuedFiles, LeafRequest, TicketRequest};
use rc_client::{BrokerPlaces, ClientConfig, CredentialFiles, StaticBroker};
use rc_daemon::admin::AdminClient;
use rc_proto::wire::{BrokerId, Role};
use serde_json::Value;
use tokio::process::Command;

use crate::configs;
use crate::error::HarnessError;
use crate::eventually::eventually_async;
use crate::process::{Node, NodeProgram};

const TRUST_DOMAIN: &str = "lab.test";
/// How long brokers may take to be linked to each other.
const LINKED_DEADLINE: Duration = Duration::from_secs(20);
const ADMIN_DEADLINE: Duration = Duration::from_secs(3);

/// Where a broker runs.
#[derive(Debug, Clone)]
pub struct BrokerPlace {
    /// Its id.
    pub broker: BrokerId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What runs it, on its host.
    pub program: NodeProgram,
}

impl BrokerPlace {
    fn address(&self) -> StaticBroker {
        StaticBroker { broker: self.broker.clone(), address: self.listen }
    }

    /// As `mesh.seeds` and `brokers.addresses` take it.
    fn text(&self) -> String {
        format!("{}@{}", self.broker, self.listen)
    }
}

/// Running brokers and targets. Dropping it kills them.
#[derive(Debug)]
pub struct Deployment {
    directory: tempfile::TempDir,
    authority: Authority,
    places: Vec<BrokerPlace>,
    brokers: BTreeMap<BrokerId, Node>,
    targets: Vec<Node>,
}

impl Deployment {
    /// Starts brokers and waits until each is linked to every other.
    ///
    /// # Errors
    /// When a broker does not come up, or they do not find each other.
    pub async fn start(places: Vec<BrokerPlace>) -> Result<Self, HarnessError> {
        let directory = tempfile::Builder::new().prefix("rc-lab-").tempdir()?;
        let domain = TRUST_DOMAIN.parse().map_err(|_| HarnessError::Id(TRUST_DOMAIN.to_owned()))?;
        let authority = Authority::create(&directory.path().join("ca"), &domain)?;
        authority.add_ticket_key(None)?;
        let mut this = Self { directory, authority, places, brokers: BTreeMap::new(), targets: Vec::new() };
        for place in this.places.clone() {
            let node = this.start_broker(&place).await?;
            this.brokers.insert(place.broker, node);
        }
        this.linked().await?;
        Ok(this)
    }

    async fn start_broker(&self, place: &BrokerPlace) -> Result<Node, HarnessError> {
        let leaf = self.authority.issue(&LeafRequest::new(Role::Broker, place.broker.as_str()))?;
        let others = self.places.iter().filter(|other| other.broker != place.broker);
        let seeds: Vec<String> = others.map(|other| other.text()).collect();
        let stem = stem(&place.broker);
        let ready_file = self.path(&format!("{stem}.ready"));
        let mut text = self.credentials(&leaf);
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            "\n[tickets]\nkeys = {:?}\n\n[listen]\naddresses = [\"{}\"]\n\n[mesh]\nseeds = {seeds:?}\n\
             \n[admin]\nsocket = {:?}\n\n[ready]\nfile = {ready_file:?}\n",
            self.authority.ticket_keys_file(),
            place.listen,
            self.admin(&place.broker),
        );
        self.start_node(&place.program, "broker", &stem, &text, &ready_file).await
    }

    /// Starts a Target process at `broker`, which offers `echo` and `sink`, and waits until it is registered.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_target(
        &mut self,
        id: &str,
        broker: &BrokerId,
        program: &NodeProgram,
    ) -> Result<(), HarnessError> {
        let node = self.launch_target(id, std::slice::from_ref(broker), program).await?;
        self.targets.push(node);
        Ok(())
    }

    /// The same for one that knows several brokers; the caller keeps it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn launch_target(
        &self,
        id: &str,
        brokers: &[BrokerId],
        program: &NodeProgram,
    ) -> Result<Node, HarnessError> {
        let leaf = self.authority.issue(&LeafRequest::new(Role::Target, id))?;
        let (admin, ready_file) = (self.path(&format!("{id}.sock")), self.path(&format!("{id}.ready")));
        let mut text = self.credentials(&leaf);
        let _infallible = write!(
            text,
            "{}\n[tickets]\nkeys = [{:?}]\n\
             \n[offer]\necho = true\nsink = true\n\n[admin]\nsocket = {admin:?}\n\n[ready]\nfile = {ready_file:?}\n",
            self.broker_places(brokers)?,
            self.authority.ticket_keys_file(),
        );
        drop(std::fs::remove_file(&ready_file));
        self.start_node(program, "target", id, &text, &ready_file).await
    }

    /// The command line of a Controller that knows `brokers` and holds a ticket for every service of `target`.
    ///
    /// # Errors
    /// When its files cannot be made, or there is no such broker.
    pub fn controller_command(
        &self,
        id: &str,
        brokers: &[BrokerId],
        target: &str,
        program: &NodeProgram,
        verb: &[&str],
    ) -> Result<Command, HarnessError> {
        let leaf = self.authority.issue(&LeafRequest::new(Role::Controller, id).replacing())?;
        let text = format!("{}{}", self.credentials(&leaf), self.broker_places(brokers)?);
        let config = self.write(&format!("{id}.toml"), &text)?;
        let invalid = || HarnessError::Id(target.to_owned());
        let (wanted, every) = (target.parse().map_err(|_| invalid())?, "*".parse().map_err(|_| invalid())?);
        let request = TicketRequest::for_certificate(&leaf.certificate, wanted, vec![every])?;
        let ticket = self.write(&format!("{id}.ticket"), &self.authority.mint_ticket(&request)?)?;
        let mut words = verb.iter().map(ToString::to_string);
        let mut arguments: Vec<String> = words.next().into_iter().collect();
        arguments.extend(["--config".to_owned(), config.display().to_string()]);
        arguments.extend(["--ticket".to_owned(), ticket.display().to_string()]);
        arguments.extend(words);
        Ok(program.command("controller", &arguments))
    }

    /// Asks a broker's admin socket, or the socket of the Target of that name; `None` when it does not answer.
    pub async fn ask(&self, name: &str, command: &str) -> Option<Value> {
        let mut client = AdminClient::connect(&self.path(&format!("{name}.sock"))).await.ok()?;
        client.call(command, Value::Null, ADMIN_DEADLINE).await.ok().map(|(_, answer)| answer)
    }

    /// A broker's process.
    pub fn broker(&self, broker: &BrokerId) -> Option<&Node> {
        self.brokers.get(broker)
    }

    fn broker_places(&self, brokers: &[BrokerId]) -> Result<String, HarnessError> {
        let places: Result<Vec<String>, HarnessError> =
            brokers.iter().map(|broker| self.place(broker).map(BrokerPlace::text)).collect();
        Ok(format!("\n[brokers]\naddresses = {:?}\nallow_loopback = true\n", places?))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, HarnessError> {
        let path = self.path(name);
        std::fs::write(&path, text).map_err(|source| HarnessError::File { path: path.clone(), source })?;
        Ok(path)
    }

    async fn start_node(
        &self,
        program: &NodeProgram,
        kind: &str,
        stem: &str,
        config: &str,
        ready_file: &Path,
    ) -> Result<Node, HarnessError> {
        let path = self.write(&format!("{stem}.toml"), config)?;
        let arguments = ["run".to_owned(), "--config".to_owned(), path.display().to_string()];
        let command = program.command(kind, &arguments);
        let mut node = Node::start(stem, command, &self.path(&format!("{stem}.log")))?;
        node.ready(ready_file).await?;
        Ok(node)
    }

    /// Configuration of an endpoint that uses `broker` and no other.
    ///
    /// # Errors
    /// When its certificate cannot be made, or there is no such broker.
    pub fn client_config(
        &self,
        role: Role,
        id: &str,
        broker: &BrokerId,
    ) -> Result<ClientConfig, HarnessError> {
        let leaf = self.authority.issue(&LeafRequest::new(role, id).replacing())?;
        let credentials = CredentialFiles {
            certificate: leaf.certificate,
            key: leaf.key,
            ca: self.authority.ca_file(),
            crl: Some(self.authority.crl_file()),
        };
        let mut config = ClientConfig::new(credentials, [] as [&str; 0]);
        config.brokers = BrokerPlaces {
            addresses: vec![self.place(broker)?.address()],
            allow_loopback: true,
            ..config.brokers
        };
        Ok(config)
    }

    /// A ticket for the Controller of `config` to use every service of `target`.
    ///
    /// # Errors
    /// When the id is not valid, or the certificate cannot be read.
    pub fn ticket(&self, config: &ClientConfig, target: &str) -> Result<String, HarnessError> {
        let invalid = || HarnessError::Id(target.to_owned());
        let id = target.parse().map_err(|_| invalid())?;
        let every = "*".parse().map_err(|_| invalid())?;
        let request = TicketRequest::for_certificate(&config.credentials.certificate, id, vec![every])?;
        Ok(self.authority.mint_ticket(&request)?)
    }

    /// The public keys that tickets are judged by.
    pub fn ticket_keys(&self) -> PathBuf {
        self.authority.ticket_keys_file()
    }

    fn place(&self, broker: &BrokerId) -> Result<&BrokerPlace, HarnessError> {
        let found = self.places.iter().find(|place| place.broker == *broker);
        found.ok_or_else(|| HarnessError::Id(broker.to_string()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn admin(&self, broker: &BrokerId) -> PathBuf {
        self.path(&format!("{}.sock", stem(broker)))
    }

    fn credentials(&self, leaf: &IssuedFiles) -> String {
        format!(
            "[credentials]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\ncrl = {:?}\n",
            leaf.certificate,
            leaf.key,
            self.authority.ca_file(),
            self.authority.crl_file()
        )
    }

    async fn linked(&self) -> Result<(), HarnessError> {
        let others = self.places.len().saturating_sub(1);
        let all = || async move {
            for place in &self.places {
                if linked_peers(&self.admin(&place.broker)).await < others {
                    return false;
                }
            }
            true
        };
        if eventually_async(LINKED_DEADLINE, all).await {
            return Ok(());
        }
        let what = "every broker is linked to every other".to_owned();
        Err(HarnessError::NotInTime { what, waited: LINKED_DEADLINE })
    }
}

fn stem(broker: &BrokerId) -> String {
    format!("{}-{}", broker.region(), broker.id())
}

async fn linked_peers(admin: &Path) -> usize {
    let Ok(mut client) = AdminClient::connect(admin).await else { return 0 };
    let answer = client.call("status", Value::Null, ADMIN_DEADLINE).await;
    answer.map(|(_, status)| configs::linked_peers(&status)).unwrap_or_default()
}
