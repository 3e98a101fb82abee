//! One program that is every kind of node: what the harness starts, so that nothing has to be built before.

use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

/// Set by the harness: the node ends when its standard input does, so that no node outlives a harness that was killed.
pub(crate) const LEASH: &str = "RC_NODE_LEASH";

/// Runs the node that the first argument names, with the arguments behind it.
///
/// `broker`, `traffic-manager`, `target`, `controller` and `certs` are the binaries of the same name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if std::env::var_os(LEASH).is_some() {
        std::thread::spawn(end_with_standard_input);
    }
    let mut arguments = arguments.into_iter();
    let kind = arguments.next().unwrap_or_default();
    let program = |name: &str| OsString::from(name);
    match kind.to_str() {
        Some("broker") => rc_broker::run(std::iter::once(program("rc-broker")).chain(arguments)),
        Some("traffic-manager") => {
            rc_traffic_manager::run(std::iter::once(program("rc-traffic-manager")).chain(arguments))
        }
        Some("target") => rc_target_client::cli::run(std::iter::once(program("rc-target")).chain(arguments)),
        Some("controller") => {
            rc_controller_client::cli::run(std::iter::once(program("rc-controller")).chain(arguments))
        }
        Some("certs") => rc_certs::run(std::iter::once(program("rc-certs")).chain(arguments)),
        Some(_) | None => {
            rc_daemon::output::notice(
                "rc-node: name a node: broker, traffic-manager, target, controller or certs",
            );
            ExitCode::from(2)
        }
    }
}

fn end_with_standard_input() {
    let mut byte = [0; 1];
    while let Ok(1) = std::io::stdin().lock().read(&mut byte) {}
    std::process::exit(0);
}
