//! Take control of a machine that nobody can dial: the library for Controller applications.
//!
//! A [`Controller`] finds and keeps a broker. [`Controller::connect`] gives a [`Session`] with one Target, protected end
//! to end; [`Session::open`] gives a [`Channel`] to one of its services, a stream of bytes.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/doc-mesh.rs"));
//! use std::path::Path;
//!
//! use rc_controller_client::{ClientConfig, Controller, CredentialFiles, OpenOptions, TicketFile};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Path::new("/etc/rc-mesh");
//! # let mesh = DocMesh::start().await;
//! # let directory = mesh.directory();
//! # let keys = [directory.join("ticket-keys.json")];
//! # let target = rc_target_client::Target::start(rc_target_client::TargetConfig::new(mesh.config("pc-17"), keys))?;
//! # tokio::spawn(async move {
//! #     let echo = target.next_offer().await.unwrap().accept().unwrap();
//! #     let (mut reading, mut writing) = tokio::io::split(echo);
//! #     tokio::io::copy(&mut reading, &mut writing).await.unwrap();
//! #     writing.shutdown().await.unwrap();
//! #     std::future::pending::<()>().await;
//! # });
//! let credentials = CredentialFiles {
//!     certificate: directory.join("alice.pem"),
//!     key: directory.join("alice.key"),
//!     ca: directory.join("ca.pem"),
//!     crl: None,
//! };
//! let mut config = ClientConfig::new(credentials, ["brokers.mesh.example"]);
//! # config.brokers = mesh.places();
//! let controller = Controller::start(config)?;
//! let ticket = TicketFile(directory.join("pc-17.ticket"));
//! let session = controller.connect(&"pc-17".parse()?, ticket).await?;
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
