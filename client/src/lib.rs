//! What a Controller and a Target share: finding, measuring and pinning a broker, opening paths, and driving
//! sessions over end-to-end TLS. The two client libraries are thin layers over this one.
//!
//! | module | owns |
//! |---|---|
//! | `endpoint` | one process: its pin, its sessions, its shutdown |
//! | `locate` | resolve, race, measure, choose |
//! | `link` | the control links: the pin, and a second one in session |
//! | `path`, `connect`, `join` | a path to the other endpoint, from the Controller's and from the Target's side |
//! | `pool` | legs that wait ready-made |
//! | `whereabouts` | a Target tells its Controllers where it is registered, and asks for other paths |
//! | `direct` | a session over a stream that no broker carries |
//! | `session` | one session: the pure core behind a lock, the pumps of its paths, its channels |
//! | `certificate_watch` | warns in time to renew |
//! | `config`, `status`, `event`, `error`, `probe` | the plain values of the interface |
#![forbid(unsafe_code)]

mod certificate_watch;
#[cfg(feature = "cli")]
pub mod cli;
mod config;
mod connect;
pub mod direct;
mod endpoint;
mod error;
mod event;
mod failure;
mod join;
mod limits;
mod link;
mod locate;
mod path;
mod pool;
mod probe;
mod proven_path;
mod reach;
mod session;
mod status;
#[cfg(test)]
mod testing;
mod whereabouts;

pub use config::{BrokerPlaces, Buffers, ClientConfig, StaticBroker, StaticBrokerError, Timers};
pub use connect::StartError;
pub use endpoint::{Endpoint, EndpointStatus};
pub use error::{
    AttachError, CandidateFailure, CandidateFault, LocateError, OpenError, PathError, SetupError,
};
pub use event::{Event, EventLog, Events};
pub use failure::FailureKind;
pub use join::{Invitation, JoinError, Joined, Unfit};
pub use probe::{ProbeError, ProbeReport, ResolvedName, probe};
pub use rc_proto::recovery::Reason as MoveReason;
pub use rc_proto::select::{Choice, Rule};
pub use rc_transport::CredentialFiles;
pub use session::{
    AttachRequest, Channel, ChannelReset, OfferQueue, OpenOptions, PendingChannel, SessionHandle,
    TicketRenewal, Withdrawn,
};
pub use status::{
    ChannelStatus, EndedBy, HopStatus, LastMove, MoveStatus, PathStatus, PinStatus, SessionEnd, SessionStatus,
};
