//! Let a machine be controlled: the library for Target applications.
//!
//! A [`Target`] registers at a broker and stays registered. Each Controller that its ticket keys admit becomes a session;
//! each channel that a session opens becomes an [`Offer`], which the application accepts or refuses.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/doc-mesh.rs"));
//! use std::path::Path;
//!
//! use rc_target_client::{ClientConfig, CredentialFiles, Target, TargetConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Path::new("/etc/rc-mesh");
//! # let mesh = DocMesh::start().await;
//! # let directory = mesh.directory();
//! let credentials = CredentialFiles {
//!     certificate: directory.join("pc-17.pem"),
//!     key: directory.join("pc-17.key"),
//!     ca: directory.join("ca.pem"),
//!     crl: None,
//! };
//! let mut config = ClientConfig::new(credentials, ["brokers.mesh.example"]);
//! # config.brokers = mesh.places();
//! let target = Target::start(TargetConfig::new(config, [directory.join("ticket-keys.json")]))?;
//! # let controller = rc_controller_client::Controller::start(mesh.config("alice"))?;
//! # let ticket = rc_controller_client::TicketFile(directory.join("pc-17.ticket"));
//! # let done = target.clone();
//! # tokio::spawn(async move {
//! #     let session = controller.connect(&"pc-17".parse().unwrap(), ticket).await.unwrap();
//! #     let mut echo = session.open(&"echo".parse().unwrap(), Default::default()).await.unwrap();
//! #     tokio::io::AsyncWriteExt::write_all(&mut echo, b"hello").await.unwrap();
//! #     tokio::io::AsyncReadExt::read_exact(&mut echo, &mut [0; 5]).await.unwrap();
//! #     done.shutdown().await;
//! # });
//! while let Some(offer) = target.next_offer().await {
//!     if offer.service().as_str() != "echo" {
//!         offer.refuse_unknown_service();
//!         continue;
//!     }
//!     let channel = offer.accept()?;
//!     tokio::spawn(async move {
//!         let (mut reading, mut writing) = tokio::io::split(channel);
//!         let copied = tokio::io::copy(&mut reading, &mut writing).await;
//!         let _ = tokio::io::AsyncWriteExt::shutdown(&mut writing).await;
//!         copied
//!     });
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod config;
mod deadlines;
mod gate;
mod limits;
mod offer;
mod reception;
mod target;
mod used_store;

pub use config::{TargetConfig, TargetLimits};
pub use offer::Offer;
pub use rc_client::{
    BrokerPlaces, Buffers, CandidateFailure, CandidateFault, Channel, ChannelReset, ChannelStatus, Choice,
    ClientConfig, CredentialFiles, EndedBy, Event, Events, FailureKind, HopStatus, LocateError, PathStatus,
    PinStatus, SessionEnd, SessionStatus, SetupError, StaticBroker, Timers, Withdrawn,
};
pub use target::{Target, TargetStatus};
