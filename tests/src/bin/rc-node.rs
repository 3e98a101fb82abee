//! Every kind of node in one executable, for the tests of this crate.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rc_tests::node::run(std::env::args_os().skip(1))
}
