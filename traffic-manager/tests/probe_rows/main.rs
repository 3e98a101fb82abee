//! Probes of real TLS connections: the driver in this process, and the whole program as a process.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test binary whatever is not as expected fails the test"
)]

mod driver;
mod fake_broker;
#[cfg(unix)]
mod operating;
#[cfg(unix)]
mod process;
