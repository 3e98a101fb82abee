//! The `rc-certs` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rc_certs::run(std::env::args_os())
}
