//! A wide-area network on one machine, of real hosts: network namespaces, joined by a router that delays packets.
//!
//! [`enter`] runs this executable again where it may make namespaces without any right on the machine; there the
//! process is the router, and [`Network`] gives it hosts. A [`Delayer`] holds each packet between two hosts for as long
//! as their distance says; the rate of each host's line is the kernel's token bucket. [`Deployment`] runs brokers and
//! targets on such hosts, or on loopback without any delay. All of it vanishes with the process.
//!
//! Unlike a [`crate::relay::DelayRelay`], this delays everything: handshakes of TCP, acknowledgements, losses.

mod delayer;
mod deployment;
mod figures;
mod namespace;
mod network;
mod queue;

pub use delayer::Delayer;
pub use deployment::{BrokerPlace, Deployment};
pub use figures::{Report, Samples};
pub use namespace::{LabError, enter, unavailable};
pub use network::{Host, Network, NetworkBuilder};
