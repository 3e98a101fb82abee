//! Why a Controller did not get a session.

use rc_client::{AttachError, FailureKind, LocateError, PathError, StartError};

use crate::ticket_source::TicketSourceError;

/// Why [`Controller::connect`](crate::Controller::connect) gave no session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The ticket source gave no ticket.
    #[error(transparent)]
    Ticket(#[from] TicketSourceError),
    /// No broker could be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// No path to the Target was opened.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The path was there, and the Target refused or is not the one wanted.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl ConnectError {
    /// The kind of failure, which is also the documented exit code.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Ticket(error) => error.kind(),
            Self::Locate(error) => error.kind(),
            Self::Path(error) => error.kind(),
            Self::Attach(error) => error.kind(),
        }
    }
}

impl From<StartError> for ConnectError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Locate(error) => Self::Locate(error),
            StartError::Path(error) => Self::Path(error),
            StartError::Attach(error) => Self::Attach(error),
        }
    }
}
