//! Authoritative DNS server that answers from healthy brokers.
//!
//! | module | owns |
//! |---|---|
//! | `name` | DNS names in their canonical form |
//! | [`decide`] | PURE: which endpoints of a profile an answer names |
//! | [`monitor`] | PURE machine of endpoint health, and the driver that probes brokers |
//! | [`zone`] | the served zones: apex, profile names, static names |
//! | [`server`] | DNS over UDP and TCP |
//! | [`maps`] | the operator's tables of where askers are |
//! | [`import`] | profiles of Azure as a configuration |
//! | [`config`] | the knob table and the checked configuration |
//! | `generation`, `reload`, `state` | one configuration at work, the change to the next, and what outlives both |
//! | `command`, `running`, `admin`, `metrics`, `rates` | command line, life of the process, admin socket, what it shows |
#![forbid(unsafe_code)]

mod admin;
mod command;
pub mod config;
pub mod decide;
mod generation;
pub mod import;
pub mod maps;
mod metrics;
pub mod monitor;
mod name;
mod rates;
mod reload;
mod running;
pub mod server;
mod state;
pub mod zone;

pub use command::run;
pub use name::{DnsName, NameError};
