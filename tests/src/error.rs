//! Why a deployment did not come up, or did not do what was asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::NodeError;

/// A failure of the harness itself; what a test asserts is the test's own.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A process did not start or become ready.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A file of the deployment cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A certificate, key or ticket cannot be made.
    #[error("cannot make certificates: {0}")]
    Certs(#[from] rc_certs::CertsError),
    /// An address cannot be bound.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// A name in the description is not valid.
    #[error("{0:?} is not a valid id")]
    Id(String),
    /// A region is used that was never described.
    #[error("there is no region {0:?}")]
    NoSuchRegion(String),
    /// More addresses are needed than a loopback block has.
    #[error("the deployment needs more than 253 addresses")]
    TooManyAddresses,
    /// Something did not become true in time.
    #[error("not after {waited:?}: {what}")]
    NotInTime {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
}
