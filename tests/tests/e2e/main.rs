//! Real brokers, targets and controllers as processes, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step of a test is a panic with its place"
)]

mod bad_input;
mod bytes;
mod control;
mod lifecycle;
mod moving;
mod scale;
mod shell;
mod ssh;
mod support;
