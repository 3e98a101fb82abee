//! Take control of a machine that nobody can dial: the library for Controller applications.
//!
//! A [`Controller`] finds and keeps a broker. [`Controller::connect`] gives a [`Session`] with one Target, protected end
//! to end; [`Session::open`] gives a [`Channel`] to one of its services, a stream of bytes.
//!
//! ```no_run
//! use rc_controller_client::{ClientConfig, Controller, CredentialFiles, OpenOptions, TicketFile};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = CredentialFiles {
//!     certificate: "alice.pem".into(),
//!     key: "alice.key".into(),
//!     ca: "ca.pem".into(),
//!     crl: None,
//! };
//! let controller = Controller::start(ClientConfig::new(credentials, ["brokers.mesh.example"]))?;
//! let session = controller.connect(&"pc-17".parse()?, TicketFile("pc-17.ticket".into())).await?;
//! let mut echo = session.open(&"echo".parse()?, OpenOptions::default()).await?;
//! echo.write_all(b"hello").await?;
//! echo.shutdown().await?;
//! let mut answer = String::new();
//! echo.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! session.close().await?;
//! controller.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod controller;
mod error;
mod session;
mod ticket_source;

pub use controller::{Controller, ControllerStatus};
pub use error::ConnectError;
pub use rc_client::{
    BrokerPlaces, Buffers, CandidateFailure, CandidateFault, Channel, ChannelReset, ChannelStatus, Choice,
    ClientConfig, CredentialFiles, EndedBy, Event, Events, FailureKind, HopStatus, LocateError, OpenError,
    OpenOptions, PathError, PathStatus, PinStatus, ProbeError, ProbeReport, ResolvedName, SessionEnd,
    SessionStatus, SetupError, StaticBroker, Timers,
};
pub use session::Session;
pub use ticket_source::{
    FixedTicket, TicketCommand, TicketFile, TicketFn, TicketFuture, TicketRequest, TicketSource,
    TicketSourceError, ticket_fn,
};
