//! Where tickets come from: a fixed text, a file, a command, or the application's own code.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use rc_client::FailureKind;
use rc_proto::identity::SpiffeId;
use rc_proto::wire::codes::Purpose;
use rc_proto::wire::limits::TICKET_BYTES_MAX;

/// What a ticket is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketRequest {
    /// Who will present it: this process's certificate.
    pub controller: SpiffeId,
    /// Who is wanted.
    pub target: SpiffeId,
    /// [`Purpose::NEW`] for a session that starts, [`Purpose::RESUME`] for one that runs and needs a further ticket.
    pub purpose: Purpose,
}

/// Why there is no ticket.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TicketSourceError {
    /// The file cannot be read.
    #[error("the ticket file {path} cannot be read: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The command failed.
    #[error("the ticket command {program:?} failed: {reason}")]
    Command {
        /// Which.
        program: String,
        /// Its exit status and the end of what it wrote to stderr.
        reason: String,
    },
    /// What was found is no ticket.
    #[error("{place} holds no ticket: {reason}")]
    NotATicket {
        /// Where it was found.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The application's own source said no.
    #[error("no ticket: {reason}")]
    Denied {
        /// In its words.
        reason: String,
    },
}

impl TicketSourceError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::File { .. } | Self::NotATicket { .. } => FailureKind::Configuration,
            Self::Command { .. } | Self::Denied { .. } => FailureKind::Refused,
        }
    }
}

/// The future of a ticket.
pub type TicketFuture<'a> = Pin<Box<dyn Future<Output = Result<String, TicketSourceError>> + Send + 'a>>;

/// Gives the tickets of each session, as a compact JWS. Asked for each session that starts, and again well before the
/// ticket in use ends; a session ends 60 s after the `exp` of the last one that it presented.
pub trait TicketSource: Send + Sync + 'static {
    /// A ticket for `request`.
    fn ticket(&self, request: TicketRequest) -> TicketFuture<'_>;
}

/// One ticket, known beforehand; good for one session.
#[derive(Clone)]
pub struct FixedTicket(String);

impl FixedTicket {
    /// Takes a compact JWS; white space around it is dropped.
    ///
    /// # Errors
    /// When it does not look like one.
    pub fn new(ticket: &str) -> Result<Self, TicketSourceError> {
        check_ticket(ticket, "the text given").map(Self)
    }
}

impl std::fmt::Debug for FixedTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FixedTicket(***)")
    }
}

impl TicketSource for FixedTicket {
    fn ticket(&self, _request: TicketRequest) -> TicketFuture<'_> {
        let ticket = self.0.clone();
        Box::pin(async move { Ok(ticket) })
    }
}

/// A file that holds the ticket; read again for each session, and before the ticket in use ends.
#[derive(Debug, Clone)]
pub struct TicketFile(pub PathBuf);

impl TicketSource for TicketFile {
    fn ticket(&self, _request: TicketRequest) -> TicketFuture<'_> {
        let path = self.0.clone();
        Box::pin(async move {
            let place = path.display().to_string();
            match tokio::fs::read_to_string(&path).await {
                Ok(text) => check_ticket(&text, &place),
                Err(error) => Err(TicketSourceError::File { path: place, reason: error.to_string() }),
            }
        })
    }
}

/// A program that prints the ticket; run for each session, and before the ticket in use ends. It gets the target in `RC_TARGET`, the controller in
/// `RC_CONTROLLER` (SPIFFE ids) and the purpose in `RC_PURPOSE`.
#[derive(Debug, Clone)]
pub struct TicketCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Bytes of a failed command's stderr that are told.
const COMMAND_STDERR_BYTES_MAX: usize = 512;

impl TicketSource for TicketCommand {
    fn ticket(&self, request: TicketRequest) -> TicketFuture<'_> {
        Box::pin(async move {
            let program = self.program.display().to_string();
            let failed = |reason: String| TicketSourceError::Command { program: program.clone(), reason };
            let output = tokio::process::Command::new(&self.program)
                .args(&self.arguments)
                .env("RC_TARGET", request.target.to_string())
                .env("RC_CONTROLLER", request.controller.to_string())
                .env("RC_PURPOSE", request.purpose.to_string())
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .map_err(|error| failed(error.to_string()))?;
            if !output.status.success() {
                let stderr: Vec<u8> = output.stderr.into_iter().take(COMMAND_STDERR_BYTES_MAX).collect();
                let words = String::from_utf8_lossy(&stderr);
                return Err(failed(format!("{}: {}", output.status, words.trim())));
            }
            check_ticket(&String::from_utf8_lossy(&output.stdout), &program)
        })
    }
}

/// A ticket source made of a function.
pub struct TicketFn<F>(F);

impl<F> std::fmt::Debug for TicketFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketFn")
    }
}

/// Makes a [`TicketSource`] of a function that returns a future.
///
/// ```
/// use rc_controller_client::{TicketRequest, TicketSourceError, ticket_fn};
/// let source = ticket_fn(|request: TicketRequest| async move {
///     Err::<String, _>(TicketSourceError::Denied { reason: format!("{} is on loan", request.target) })
/// });
/// # let _: Box<dyn rc_controller_client::TicketSource> = Box::new(source);
/// ```
pub fn ticket_fn<F, T>(function: F) -> TicketFn<F>
where
    F: Fn(TicketRequest) -> T + Send + Sync + 'static,
    T: Future<Output = Result<String, TicketSourceError>> + Send + 'static,
{
    TicketFn(function)
}

impl<F, T> TicketSource for TicketFn<F>
where
    F: Fn(TicketRequest) -> T + Send + Sync + 'static,
    T: Future<Output = Result<String, TicketSourceError>> + Send + 'static,
{
    fn ticket(&self, request: TicketRequest) -> TicketFuture<'_> {
        Box::pin((self.0)(request))
    }
}

/// Trims the text and holds it to the outer shape of a ticket; what it says is for brokers and the Target to judge.
fn check_ticket(text: &str, place: &str) -> Result<String, TicketSourceError> {
    let ticket = text.trim();
    let wrong = |reason: String| TicketSourceError::NotATicket { place: place.to_owned(), reason };
    if ticket.len() > TICKET_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes, at most {TICKET_BYTES_MAX} are allowed", ticket.len())));
    }
    let parts = ticket.split('.').count();
    let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if parts != 3 || ticket.is_empty() || !ticket.chars().all(alphabet) {
        return Err(wrong("it is not a compact JWS; `rc-certs ticket` makes one".to_owned()));
    }
    Ok(ticket.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> TicketRequest {
        TicketRequest {
            controller: "spiffe://mesh.example/controller/alice".parse().unwrap(),
            target: "spiffe://mesh.example/target/pc-17".parse().unwrap(),
            purpose: Purpose::NEW,
        }
    }

    #[test]
    fn a_ticket_has_three_parts_and_at_most_2048_bytes() {
        assert_eq!(check_ticket(" a.b.c\n", "x").unwrap(), "a.b.c");
        for refused in ["", "a.b", "a.b.c.d", "a.b.c d"] {
            assert!(check_ticket(refused, "x").is_err(), "{refused:?}");
        }
        for (length, holds) in [(2047, true), (2048, true), (2049, false)] {
            let text = format!("a.b.{}", "c".repeat(length - 4));
            assert_eq!(check_ticket(&text, "x").is_ok(), holds, "{length}");
        }
    }

    #[tokio::test]
    async fn a_missing_ticket_file_is_a_matter_of_configuration() {
        let error = TicketFile("/nonexistent/ticket".into()).ticket(request()).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Configuration);
        assert!(error.to_string().contains("/nonexistent/ticket"), "{error}");
    }

    #[tokio::test]
    async fn a_ticket_command_that_is_not_there_is_named() {
        let command = TicketCommand { program: "/nonexistent/program".into(), arguments: vec![] };
        let error = command.ticket(request()).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused);
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
    }

    #[test]
    fn a_fixed_ticket_never_prints() {
        assert_eq!(format!("{:?}", FixedTicket::new("a.b.c").unwrap()), "FixedTicket(***)");
    }
}
