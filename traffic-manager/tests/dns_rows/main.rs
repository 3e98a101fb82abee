//! The rows of DNS behaviour, over UDP and TCP against the real server.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "in a test binary whatever is not as expected fails the test, and a skip is told"
)]

mod lab;

mod answers;
mod dig;
mod edns;
mod negatives;
mod protocol;
mod sockets;
