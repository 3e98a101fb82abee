//! The `rc-controller` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rc_controller_client::cli::run(std::env::args_os())
}
