//! Authoritative DNS server that answers from healthy brokers.
//!
//! | module | owns |
//! |---|---|
//! | `name` | DNS names in their canonical form |
//! | [`decide`] | PURE: which endpoints of a profile an answer names |
//! | [`monitor`] | PURE machine of endpoint health, and the driver that probes brokers |
//! | `zone` | the served zones: apex, profile names, static names |
//! | `server` | DNS over UDP and TCP |
//! | `config` | the knob table and the checked configuration |
//! | `admin`, `command`, `run` | command line, admin socket, life of the process |
#![forbid(unsafe_code)]

pub mod decide;
pub mod monitor;
mod name;

pub use name::{DnsName, NameError};
