//! What programs that are not ours say of the server: dig, dnspython, unbound in front of it, gdnsd beside it. The whole
//! program runs as a process. Each test says `SKIP` when its program is not installed; `RC_TESTS=require` does not let
//! it.
#![cfg(unix)]
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "in a test binary whatever is not as expected fails the test, and a skip is told"
)]

mod dnspython;
mod gdnsd;
mod lab;
mod recipes;
mod unbound;
