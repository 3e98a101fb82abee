//! The checks of `probes.py`, which builds its messages with dnspython and by hand.

use std::process::Command;

use crate::lab::{have, skip, start};

/// Debian's interpreter: another one in the path may lack Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn dnspython_agrees_with_every_answer() {
    if !have(&[PYTHON]) {
        return;
    }
    let has_library = Command::new(PYTHON).args(["-c", "import dns.query"]).output().unwrap();
    if !has_library.status.success() {
        return skip("python3-dnspython is not installed");
    }
    let server = start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_opinion/probes.py");
    let output = Command::new(PYTHON).args([script, &server.address.port().to_string()]).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 14, "{text}");
}
