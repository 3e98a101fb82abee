//! Let a machine be controlled: the library for Target applications.
//!
//! A [`Target`] registers at a broker and stays registered. Each Controller that its ticket keys admit becomes a session;
//! each channel that a session opens becomes an [`Offer`], which the application accepts or refuses.
//!
//! ```no_run
//! use rc_target_client::{ClientConfig, CredentialFiles, Target, TargetConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = CredentialFiles {
//!     certificate: "pc-17.pem".into(),
//!     key: "pc-17.key".into(),
//!     ca: "ca.pem".into(),
//!     crl: None,
//! };
//! let client = ClientConfig::new(credentials, ["brokers.mesh.example"]);
//! let target = Target::start(TargetConfig::new(client, ["ticket-keys.json".into()]))?;
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
