//! The broker daemon: where Targets register, Controllers open paths, and bytes are passed on unread.
//!
//! A broker holds no session state; it knows paths. Everything that it decides is in [`core`], pure; around it are
//! the tasks that own sockets.
//!
//! | module | owns |
//! |---|---|
//! | [`core`] | registry, admission, search, routes, path table, drain, load |
//! | `listener` | accepting and handshakes |
//! | `control` | an endpoint's control link |
//! | `path` | the first frame of a leg up to the splice |
//! | [`relay`] | the pipe between two legs |
//! | `recheck` | live peers judged again, credentials replaced |
//! | `mesh` | links, questions and legs between brokers |
//! | [`server`](Broker) | assembling, stop |
//! | `draining` | who is told that this broker or a peer stops, and when it may |
//! | `watchdog` | a thread that looks at the workers |
//! | [`status`], `admin` | what the admin socket answers |
//! | [`config`], `command`, `running` | configuration, command line, the life of the daemon |
#![forbid(unsafe_code)]

mod admin;
mod command;
pub mod config;
mod control;
pub mod core;
mod draining;
mod links;
mod listener;
mod mesh;
mod node;
mod path;
mod recheck;
pub mod relay;
mod running;
mod server;
pub mod status;
mod tickets;
mod watchdog;

pub use command::run;
pub use mesh::Seed;
pub use recheck::OtherIdentity;
pub use server::{Broker, BrokerConfig, Parts, RunningBroker, StartError};
