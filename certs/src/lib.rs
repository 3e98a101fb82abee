//! The project's generator of certificates, revocation lists and tickets: a small certificate authority in a directory.
//!
//! [`Authority`] is the library; [`run`] is the command line `rc-certs`. Private keys are written once, readable by
//! their owner only, and never replaced unless asked.
//!
//! ```
//! use rc_certs::{Authority, LeafRequest, TicketRequest};
//! use rc_proto::wire::Role;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let authority = Authority::create(dir.path(), &"mesh.example".parse()?)?;
//! authority.add_ticket_key(None)?;
//! let alice = authority.issue(&LeafRequest::new(Role::Controller, "alice"))?;
//! let request = TicketRequest::for_certificate(&alice.certificate, "pc-17".parse()?, vec!["shell".parse()?])?;
//! let ticket = authority.mint_ticket(&request)?;
//! # assert!(ticket.len() < 2048);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod authority;
mod cli;
mod error;
mod files;
#[cfg(feature = "testing")]
mod flaw;
mod inspect;
mod leaf;
mod reading;
mod register;
mod revocation;
#[cfg(test)]
mod tests;
mod ticketing;

pub use authority::{Authority, AuthorityOptions, CA_LIFE, IssuedFiles, RenewRequest};
pub use cli::run;
pub use error::CertsError;
pub use files::{Existing, FileError};
#[cfg(feature = "testing")]
pub use flaw::Flaw;
pub use inspect::{Finding, inspect};
pub use leaf::{BACKDATE, KeyKind, LEAF_LIFE_MAX, LEAF_LIFE_MIN, LeafRequest, default_life};
pub use revocation::{CRL_LIFE, RevokeRequest};
pub use ticketing::{TICKET_LIFE, TICKET_START_BY, TicketRequest};
