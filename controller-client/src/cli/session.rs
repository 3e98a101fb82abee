//! From flags to a session: the ticket's source, the Controller, the admin socket while it lives.

use std::io::Read;
use std::path::{Path, PathBuf};

use rc_client::cli::{admin, failure};
use rc_client::{Channel, Events, OpenOptions, SessionStatus};
use rc_daemon::cli::CommonArgs;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::limits::TICKET_BYTES_MAX;
use rc_proto::wire::{EndpointId, ServiceName, SessionId};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::BINARY;
use super::arguments::TicketArgs;
use super::settings::{self, ControllerConfig};
use crate::controller::Controller;
use crate::session::Session;
use crate::ticket_source::{
    FixedTicket, TicketCommand, TicketFile, TicketFuture, TicketRequest, TicketSource,
};

/// Longest text that is read as a ticket from standard input.
const TICKET_INPUT_BYTES_MAX: u64 = 2 * TICKET_BYTES_MAX as u64;

/// A Controller with its admin socket.
pub(super) struct Running {
    controller: Controller,
    tickets: Tickets,
    stop: CancellationToken,
    administration: Option<JoinHandle<()>>,
}

struct AdministeredController(Controller);

impl admin::Administered for AdministeredController {
    fn status(&self) -> Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }
    fn sessions(&self) -> Vec<SessionStatus> {
        self.0.status().sessions
    }
    fn events(&self) -> Events {
        self.0.events()
    }
    fn disconnect(&self, session: SessionId) -> bool {
        self.0.disconnect(session)
    }
}

/// Does `work` with a Controller and ends its sessions in order afterwards, however the work ends.
pub(super) async fn with_controller(
    common: &CommonArgs,
    ticket: &TicketArgs,
    work: impl AsyncFnOnce(&Running) -> Result<ExitStatus, Failure>,
) -> Result<ExitStatus, Failure> {
    let running = Running::start(common, ticket)?;
    let outcome = work(&running).await;
    running.stop().await;
    outcome
}

/// As [`with_controller`]; Ctrl-C ends the work with its own exit code.
pub(super) async fn with_controller_until_interrupted(
    common: &CommonArgs,
    ticket: &TicketArgs,
    work: impl AsyncFnOnce(&Running) -> Result<ExitStatus, Failure>,
) -> Result<ExitStatus, Failure> {
    let work = async |running: &Running| {
        tokio::select! {
            outcome = work(running) => outcome,
            Ok(()) = tokio::signal::ctrl_c() => Ok(ExitStatus::Interrupted),
        }
    };
    with_controller(common, ticket, work).await
}

impl Running {
    /// Reads the configuration and starts the Controller. Without an admin socket (a read-only runtime directory) it
    /// works all the same.
    fn start(common: &CommonArgs, ticket: &TicketArgs) -> Result<Self, Failure> {
        let config = settings::read(&settings::load(common, None))?;
        let tickets = Tickets::choose(ticket, &config)?;
        let controller = Controller::start(config.client).map_err(|error| failure(error.kind(), error))?;
        let stop = CancellationToken::new();
        let socket = admin::socket_of_this_process(BINARY);
        let administration = match admin::serve(
            &socket,
            AdministeredController(controller.clone()),
            stop.clone(),
        ) {
            Ok(serving) => Some(tokio::spawn(serving)),
            Err(error) => {
                tracing::info!(%error, "no admin socket: status and disconnect do not reach this process");
                None
            }
        };
        Ok(Self { controller, tickets, stop, administration })
    }

    /// A session with `target`.
    pub(super) async fn connect(&self, target: &EndpointId) -> Result<Session, Failure> {
        self.controller
            .connect(target, self.tickets.clone())
            .await
            .map_err(|error| failure(error.kind(), error))
    }

    /// Ends sessions, the control link and the admin socket.
    async fn stop(mut self) {
        self.controller.shutdown().await;
        self.stop.cancel();
        if let Some(administration) = self.administration.take() {
            // A socket that cannot be removed is the next process's stale socket.
            drop(administration.await);
        }
    }
}

/// Opens a channel, with the failure's exit code.
pub(super) async fn open(
    session: &Session,
    service: &ServiceName,
    options: OpenOptions,
) -> Result<Channel, Failure> {
    session.open(service, options).await.map_err(|error| failure(error.kind(), error))
}

/// Where this command line's tickets come from.
#[derive(Debug, Clone)]
pub(super) enum Tickets {
    Fixed(FixedTicket),
    File(TicketFile),
    Command(TicketCommand),
}

impl TicketSource for Tickets {
    fn ticket(&self, request: TicketRequest) -> TicketFuture<'_> {
        match self {
            Self::Fixed(ticket) => ticket.ticket(request),
            Self::File(ticket) => ticket.ticket(request),
            Self::Command(ticket) => ticket.ticket(request),
        }
    }
}

impl Tickets {
    /// Flags win over the configuration.
    fn choose(flags: &TicketArgs, config: &ControllerConfig) -> Result<Self, Failure> {
        if let Some(command) = &flags.ticket_command {
            return Ok(Self::Command(shell_command(command)));
        }
        if let Some(file) = &flags.ticket {
            return Self::file(file);
        }
        if let Some(command) = &config.ticket_command {
            return Ok(Self::Command(shell_command(command)));
        }
        match &config.ticket_file {
            Some(file) => Self::file(file),
            None => Err(Failure::new(
                ExitStatus::Usage,
                "no ticket",
                "--ticket or --ticket-command",
                "name a file or a command that gives one; `rc-certs ticket` makes one",
            )),
        }
    }

    fn file(file: &Path) -> Result<Self, Failure> {
        if file != Path::new("-") {
            return Ok(Self::File(TicketFile(file.to_owned())));
        }
        let mut text = String::new();
        std::io::stdin().lock().take(TICKET_INPUT_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
            Failure::new(ExitStatus::Usage, error, "reading the ticket from standard input", "")
        })?;
        FixedTicket::new(&text).map(Self::Fixed).map_err(|error| failure(error.kind(), error))
    }
}

/// The command line as the user's shell reads it.
fn shell_command(command: &str) -> TicketCommand {
    if cfg!(windows) {
        TicketCommand { program: PathBuf::from("cmd"), arguments: vec!["/C".to_owned(), command.to_owned()] }
    } else {
        TicketCommand {
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".to_owned(), command.to_owned()],
        }
    }
}
