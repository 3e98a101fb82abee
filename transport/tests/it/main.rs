//! The transport's claims over real sockets of the loopback interface, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's own helpers fail like the test"
)]

mod credentials;
mod end_to_end;
mod framing;
mod handshake;
mod resolve;
mod stranger;
mod support;
