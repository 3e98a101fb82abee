//! Probes of real TLS connections: the driver in this process, and the whole program as a process.
#![forbid(unsafe_code)]

mod driver;
mod fake_broker;
mod process;
