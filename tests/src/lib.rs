//! The integration harness: a whole deployment on one machine, of real processes, with the distances between regions.
//!
//! ```no_run
//! use std::time::Duration;
//! use rc_tests::{Mesh, NodeProgram};
//!
//! # async fn example() -> Result<(), rc_tests::HarnessError> {
//! let mesh = Mesh::builder(NodeProgram::new("/path/to/rc-node"))
//!     .region("in", 2)
//!     .region("us", 2)
//!     .rtt("in", "us", Duration::from_millis(220))
//!     .start()
//!     .await?;
//! let target = mesh.target("in", "pc-17").start(&mesh).await?;
//! let alice = mesh.controller("us", "alice")?;
//! let ticket = mesh.ticket(&alice, "pc-17", &["shell"])?;
//! let output = alice.command(&["shell", "pc-17", "--", "hostname"], &ticket).output().await;
//! # drop((target, output));
//! # Ok(())
//! # }
//! ```
//!
//! Brokers, targets, controllers and DNS servers are processes of one node program: `rc-node` of this crate, or any
//! executable that calls [`node::run`] with the arguments behind its own. Each region sees every broker through a
//! [`relay::DelayRelay`] of its own, at addresses that the region's own DNS server answers with.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod base;
pub mod cluster;
mod configs;
pub mod crowd;
pub mod demo;
pub mod endpoints;
mod error;
pub mod eventually;
pub mod evil;
mod faults;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod layout;
pub mod load;
mod mesh;
pub mod node;
pub mod process;
pub mod relay;
pub mod simulate;
pub mod stage;

pub use endpoints::{ControllerNode, TargetBuilder, TargetNode};
pub use error::HarnessError;
pub use eventually::{eventually, eventually_async};
pub use mesh::{BrokerNode, Mesh, MeshBuilder};
pub use process::NodeProgram;

/// A span in milliseconds; for [`MeshBuilder::rtt`].
pub const fn ms(count: u64) -> std::time::Duration {
    std::time::Duration::from_millis(count)
}
