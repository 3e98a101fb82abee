//! What a Controller and a Target share: finding, measuring and pinning a broker, opening paths, and driving
//! sessions over end-to-end TLS. The two client libraries are thin layers over this one.
//!
//! | module | owns |
//! |---|---|
//! | `endpoint` | one process: its pin, its sessions, its shutdown |
//! | `session` | one session: the pure core behind a lock, the pumps of its paths, its channels |
//! | `config`, `status`, `event`, `error` | the plain values of the interface |
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod config;
mod endpoint;
mod error;
mod event;
mod failure;
mod link;
mod locate;
mod reach;
mod session;
mod status;

pub use config::{BrokerPlaces, ClientConfig, StaticBroker, StaticBrokerError, Timers};
pub use endpoint::{Endpoint, EndpointStatus, ProbeError, ProbeReport, ResolvedName, probe};
pub use error::{AttachError, LocateError, OpenError, PathError, SetupError};
pub use event::{Event, EventLog, Events};
pub use failure::FailureKind;
pub use rc_proto::select::{Choice, Rule};
pub use rc_transport::CredentialFiles;
pub use session::{Channel, ChannelReset, OpenOptions, PendingChannel, SessionHandle};
pub use status::{ChannelStatus, EndedBy, HopStatus, PathStatus, PinStatus, SessionEnd, SessionStatus};
