//! The `rc-traffic-manager` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    rc_traffic_manager::run(std::env::args_os())
}
