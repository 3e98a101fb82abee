//! Why a Controller did not get a session.

use std::time::Duration;

use rc_client::{AttachError, FailureKind, LocateError, PathError};

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
    /// It took too long.
    #[error("no session within {waited:?}; the last failure was: {last}")]
    Deadline {
        /// How long.
        waited: Duration,
        /// What failed last; may be empty.
        last: String,
    },
}

impl ConnectError {
    /// The kind of failure, which is also the documented exit code.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Ticket(error) => error.kind(),
            Self::Locate(error) => error.kind(),
            Self::Path(error) => error.kind(),
            Self::Attach(error) => error.kind(),
            Self::Deadline { .. } => FailureKind::Deadline,
        }
    }
}
