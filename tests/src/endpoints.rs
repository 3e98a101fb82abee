//! Targets and Controllers of a deployment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rc_certs::{IssuedFiles, LeafRequest, TicketRequest};
use rc_client::{BrokerPlaces, ClientConfig, CredentialFiles};
use rc_daemon::admin::AdminClient;
use rc_proto::wire::{Role, ServiceName};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::configs;
use crate::error::HarnessError;
use crate::mesh::{Mesh, SERVICE_NAME};
use crate::process::Node;

/// For an answer on an admin socket.
const ADMIN_DEADLINE: Duration = Duration::from_secs(3);

/// Describes a Target process.
#[derive(Debug, Clone)]
pub struct TargetBuilder {
    region: String,
    id: String,
    process: String,
    settings: Vec<String>,
    tcp: Vec<(String, String)>,
    pipe: Vec<(String, Vec<String>)>,
}

impl TargetBuilder {
    /// Offers a TCP service.
    #[must_use]
    pub fn tcp(mut self, name: &str, address: impl std::fmt::Display) -> Self {
        self.tcp.push((name.to_owned(), address.to_string()));
        self
    }

    /// Offers a command.
    #[must_use]
    pub fn pipe(mut self, name: &str, command: &[&str]) -> Self {
        self.pipe.push((name.to_owned(), command.iter().map(ToString::to_string).collect()));
        self
    }

    /// Names the process, when several have the same id.
    #[must_use]
    pub fn named(mut self, process: &str) -> Self {
        process.clone_into(&mut self.process);
        self
    }

    /// Adds a line `section.key=value`, as the flag `--set` takes it.
    #[must_use]
    pub fn set(mut self, assignment: &str) -> Self {
        self.settings.push(assignment.to_owned());
        self
    }

    /// Starts it and waits until it is registered. It offers `shell`, `echo` and `sink` besides what was added.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(self, mesh: &Mesh) -> Result<TargetNode, HarnessError> {
        let leaf = mesh.authority().issue(&LeafRequest::new(Role::Target, &self.id).replacing())?;
        let stem = format!("target-{}", self.process);
        let (admin, ready_file) = (mesh.path(&format!("{stem}.sock")), mesh.path(&format!("{stem}.ready")));
        let text = configs::target(&configs::Target {
            endpoint: mesh.endpoint(&self.region, &leaf)?,
            keys: &mesh.authority().ticket_keys_file(),
            state: &mesh.path(&format!("{stem}.state")),
            tcp: &self.tcp,
            pipe: &self.pipe,
            admin: &admin,
            ready_file: &ready_file,
        });
        let config = mesh.write(&format!("{stem}.toml"), &text)?;
        let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        for setting in self.settings {
            arguments.extend(["--set".to_owned(), setting]);
        }
        let command = mesh.program().command("target", &arguments);
        let mut node = Node::start(&stem, command, &mesh.path(&format!("{stem}.log")))?;
        node.ready(&ready_file).await?;
        Ok(TargetNode { id: self.id, node, admin })
    }
}

/// A Target process.
#[derive(Debug)]
pub struct TargetNode {
    id: String,
    node: Node,
    admin: PathBuf,
}

impl TargetNode {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The process, to be signalled or waited for.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Its admin socket.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// What `status --json` says; `None` when it does not answer.
    pub async fn status(&self) -> Option<Value> {
        let mut client = AdminClient::connect(&self.admin).await.ok()?;
        client.call("status", Value::Null, ADMIN_DEADLINE).await.ok().map(|(_, status)| status)
    }

    /// Ends every session, as whoever sits in front would.
    pub async fn disconnect_all(&self) -> bool {
        let Ok(mut client) = AdminClient::connect(&self.admin).await else { return false };
        client.call("disconnect", json!({ "session": "all" }), ADMIN_DEADLINE).await.is_ok()
    }
}

/// A Controller's identity and configuration; each command is a process of its own.
#[derive(Debug, Clone)]
pub struct ControllerNode {
    id: String,
    config: PathBuf,
    certificate: PathBuf,
    program: crate::process::NodeProgram,
    client: ClientConfig,
}

impl ControllerNode {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its certificate, which tickets are bound to.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The same for a Controller inside this process.
    pub fn client_config(&self) -> ClientConfig {
        self.client.clone()
    }

    /// `rc-controller <arguments>` with this identity and the ticket in `ticket`.
    ///
    /// The first argument is the subcommand; flags are put right behind it, so that a trailing command stays last.
    pub fn command(&self, arguments: &[&str], ticket: &Path) -> Command {
        self.program.command("controller", &self.arguments(arguments, Some(ticket)))
    }

    /// `rc-controller <arguments>` with this identity and no ticket.
    pub fn command_without_ticket(&self, arguments: &[&str]) -> Command {
        self.program.command("controller", &self.arguments(arguments, None))
    }

    /// The command line of [`Self::command`] as one shell word list, for `ProxyCommand` and for people.
    pub fn command_line(&self, arguments: &[&str], ticket: &Path) -> String {
        format!("{} controller {}", self.program.line(), self.arguments(arguments, Some(ticket)).join(" "))
    }

    /// The same without a ticket.
    pub fn command_line_without_ticket(&self, arguments: &[&str]) -> String {
        format!("{} controller {}", self.program.line(), self.arguments(arguments, None).join(" "))
    }

    fn arguments(&self, arguments: &[&str], ticket: Option<&Path>) -> Vec<String> {
        let mut all = Vec::with_capacity(arguments.len() + 4);
        let mut rest = arguments.iter();
        all.extend(rest.next().map(ToString::to_string));
        all.extend(["--config".to_owned(), self.config.display().to_string()]);
        if let Some(ticket) = ticket {
            all.extend(["--ticket".to_owned(), ticket.display().to_string()]);
        }
        all.extend(rest.map(ToString::to_string));
        all
    }
}

impl Mesh {
    /// Begins the description of a Target in `region`.
    pub fn target(&self, region: &str, id: &str) -> TargetBuilder {
        TargetBuilder {
            region: region.to_owned(),
            id: id.to_owned(),
            process: id.to_owned(),
            settings: Vec::new(),
            tcp: Vec::new(),
            pipe: Vec::new(),
        }
    }

    /// Makes a Controller in `region`.
    ///
    /// # Errors
    /// When the region does not exist or the identity cannot be made.
    pub fn controller(&self, region: &str, id: &str) -> Result<ControllerNode, HarnessError> {
        let leaf = self.authority().issue(&LeafRequest::new(Role::Controller, id).replacing())?;
        let endpoint = self.endpoint(region, &leaf)?;
        let client = self.client_config(region, &leaf)?;
        let config = self.write(&format!("controller-{id}.toml"), &configs::controller(&endpoint))?;
        Ok(ControllerNode {
            id: id.to_owned(),
            config,
            certificate: leaf.certificate.clone(),
            program: self.program().clone(),
            client,
        })
    }

    /// Writes a ticket for `controller` to control `target`, and returns its file.
    ///
    /// # Errors
    /// When an id or a permission is not valid.
    pub fn ticket(
        &self,
        controller: &ControllerNode,
        target: &str,
        permissions: &[&str],
    ) -> Result<PathBuf, HarnessError> {
        let ticket = self.authority().mint_ticket(&ticket_request(controller, target, permissions)?)?;
        let name = format!("{}-{target}-{}.ticket", controller.id(), rand::random::<u32>());
        self.write(&name, &ticket)
    }

    /// What an endpoint in `region` is told, for one inside this process.
    ///
    /// # Errors
    /// When the region does not exist.
    pub fn client_config(&self, region: &str, leaf: &IssuedFiles) -> Result<ClientConfig, HarnessError> {
        let endpoint = self.endpoint(region, leaf)?;
        let credentials = CredentialFiles {
            certificate: leaf.certificate.clone(),
            key: leaf.key.clone(),
            ca: self.authority().ca_file(),
            crl: Some(self.authority().crl_file()),
        };
        let mut config = ClientConfig::new(credentials, [SERVICE_NAME]);
        config.brokers = BrokerPlaces {
            port: endpoint.port,
            name_servers: vec![endpoint.name_server],
            allow_loopback: true,
            ..config.brokers
        };
        Ok(config)
    }

    fn endpoint<'a>(
        &'a self,
        region: &str,
        leaf: &'a IssuedFiles,
    ) -> Result<configs::Endpoint<'a>, HarnessError> {
        let no_region = || HarnessError::NoSuchRegion(region.to_owned());
        let name_server = self.name_server(region).ok_or_else(no_region)?;
        Ok(configs::Endpoint { leaf, authority: self.authority(), port: name_server.port(), name_server })
    }
}

/// What a ticket says, with the defaults of `rc-certs ticket`.
///
/// # Errors
/// When an id or a permission is not valid, or the certificate cannot be read.
pub fn ticket_request(
    controller: &ControllerNode,
    target: &str,
    permissions: &[&str],
) -> Result<TicketRequest, HarnessError> {
    let target = target.parse().map_err(|_| HarnessError::Id(target.to_owned()))?;
    let permissions: Result<Vec<_>, _> = permissions
        .iter()
        .map(|text| text.parse().map_err(|_| HarnessError::Id((*text).to_owned())))
        .collect();
    Ok(TicketRequest::for_certificate(controller.certificate(), target, permissions?)?)
}

/// A service name that is known to hold.
///
/// # Errors
/// When it does not.
pub fn service(name: &str) -> Result<ServiceName, HarnessError> {
    name.parse().map_err(|_| HarnessError::Id(name.to_owned()))
}
