//! The `rc-broker` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    rc_broker::run(std::env::args_os())
}
