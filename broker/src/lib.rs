//! The broker daemon: registration, locate, mesh and relay.
#![forbid(unsafe_code)]

pub mod core;
