//! What the end-to-end tests share.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rc_controller_client::{Controller, Session, TicketFile};
use rc_tests::{ControllerNode, Mesh, NodeProgram};

/// How long any one command of a test may take.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// The node program that cargo built for these tests.
pub(crate) fn program() -> NodeProgram {
    NodeProgram::new(env!("CARGO_BIN_EXE_rc-node"))
}

/// Whether a test whose outside needs are not met is skipped or failed: `RC_TESTS=auto` or `require`.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var("RC_TESTS").as_deref() != Ok("require"), "{test} is required, and {reason}");
    println!("SKIP {test}: {reason}");
}

/// One region with `brokers` brokers.
pub(crate) async fn one_region(brokers: usize) -> Mesh {
    Mesh::builder(program()).region("in", brokers).start().await.unwrap()
}

/// Runs a controller command to its end.
pub(crate) async fn run(controller: &ControllerNode, arguments: &[&str], ticket: &Path) -> Output {
    let child = controller.command(arguments, ticket).stdin(Stdio::null()).output();
    tokio::time::timeout(COMMAND_DEADLINE, child).await.expect("the command ends").unwrap()
}

/// A session inside this process.
pub(crate) async fn session(
    mesh: &Mesh,
    controller: &ControllerNode,
    target: &str,
    permissions: &[&str],
) -> (Controller, Session) {
    let ticket = mesh.ticket(controller, target, permissions).unwrap();
    let running = Controller::start(controller.client_config()).unwrap();
    let session = running.connect(&target.parse().unwrap(), TicketFile(ticket)).await.unwrap();
    (running, session)
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that differ at every offset and seed.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
