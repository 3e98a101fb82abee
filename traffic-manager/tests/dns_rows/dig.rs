//! The same with `dig`, a client that is not ours.

use std::process::Command;

use crate::lab::Lab;

/// What dig prints; `None` when dig is not installed, which `RC_TESTS=require` does not allow.
async fn dig(lab: &Lab, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("dig");
    command
        .args(["@127.0.0.1", "-p", &lab.v4.port().to_string(), "+tries=1", "+time=5", "+nocookie"])
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    match output {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(error) if std::env::var("RC_TESTS").as_deref() != Ok("require") => {
            eprintln!("SKIP dig: {error}");
            None
        }
        Err(error) => panic!("dig is required: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_sees_answer_ttl_flags_and_edns() {
    let lab = Lab::start();
    let Some(text) = dig(&lab, &["p.tm.test", "A", "+subnet=198.51.100.0/24"]).await else { return };
    assert!(text.contains("status: NOERROR") && text.contains("flags: qr aa rd;"), "{text}");
    assert!(text.contains("ANSWER: 3") && text.contains("p.tm.test.\t\t42\tIN\tA\t203.0.113."), "{text}");
    assert!(text.contains("CLIENT-SUBNET: 198.51.100.0/24/0") && text.contains("udp: 1232"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_sees_every_kind_of_refusal() {
    let lab = Lab::start();
    for (arguments, expected) in [
        (["nosuch.tm.test", "A", "+tcp"].as_slice(), "status: NXDOMAIN"),
        (&["x.other", "A"], "status: REFUSED"),
        (&["p.tm.test", "A", "+edns=1", "+noednsneg"], "status: BADVERS"),
        (&["p.tm.test", "A", "+opcode=15"], "status: NOTIMP"),
        (&["p.tm.test", "A", "-c", "CH"], "status: REFUSED"),
        (&["p.tm.test", "A", "+ednsopt=8:00011400cb00ff"], "status: FORMERR"),
        (&["tm.test", "AXFR"], "Transfer failed"),
    ] {
        let Some(text) = dig(&lab, arguments).await else { return };
        assert!(text.contains(expected), "{arguments:?}\n{text}");
    }
}
