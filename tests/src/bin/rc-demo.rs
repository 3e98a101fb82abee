//! A real deployment on loopback and a real remote-control session through it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rc_tests::demo::run(std::env::args_os())
}
