//! What the binaries of both endpoints share: their common settings, how a failure becomes an exit code.
//!
//! Behind the cargo feature `cli`, so that an application that links a client library gets no command line with it.

pub mod admin;
mod settings;

use rc_daemon::{ExitStatus, Failure};

pub use settings::{ENDPOINT_KNOBS, read_client_config, with_endpoint_knobs};

use crate::failure::FailureKind;

impl From<FailureKind> for ExitStatus {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Internal => Self::Internal,
            FailureKind::Configuration => Self::Usage,
            FailureKind::Unreachable => Self::Unreachable,
            FailureKind::SessionLost => Self::SessionLost,
            FailureKind::Refused => Self::Refused,
            FailureKind::NotFound => Self::NotFound,
            FailureKind::Deadline => Self::Deadline,
        }
    }
}

/// A failure whose error already says what, where and what to do.
pub fn failure(kind: FailureKind, error: impl std::fmt::Display) -> Failure {
    Failure::from_error(kind.into(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_documented_exit_code() {
        for kind in [
            FailureKind::Internal,
            FailureKind::Configuration,
            FailureKind::Unreachable,
            FailureKind::SessionLost,
            FailureKind::Refused,
            FailureKind::NotFound,
            FailureKind::Deadline,
        ] {
            assert_eq!(ExitStatus::from(kind).code(), kind.exit_code(), "{kind:?}");
        }
    }
}
