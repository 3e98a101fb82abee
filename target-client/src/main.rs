//! The `rc-target` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rc_target_client::cli::run(std::env::args_os())
}
