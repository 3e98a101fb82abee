//! Brokers that stop, die and are asked; binaries that explain themselves; the demo that cleans up.

use std::process::Stdio;

use rc_proto::wire::BrokerId;
use rc_tests::{Mesh, NodeProgram, TargetNode, eventually, eventually_async, ms};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{one_region, program, stderr, stdout};

async fn pin_of(target: &TargetNode) -> Option<BrokerId> {
    let status = target.status().await?;
    status.pointer("/pin/broker")?.as_str()?.parse().ok()
}

/// `rc-controller connect` to the Target's echo, after one byte has come back.
async fn echoing(mesh: &Mesh, options: &[&str]) -> Child {
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["echo"]).unwrap();
    let mut child = alice
        .command(&["connect", "pc-1", "echo"], &ticket)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    let back = child.stdout.as_mut().unwrap().read_u8().await.unwrap();
    assert_eq!(back, b'x');
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_broker_lets_paths_finish_and_idle_targets_move() {
    let mut mesh = one_region(2).await;
    let target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let first = pin_of(&target).await.unwrap();
    let mut session = echoing(&mesh, &[]).await;
    assert!(mesh.broker(&first).unwrap().node().signal(Signal::TERM));
    let moved = || async { pin_of(&target).await.is_some_and(|pin| pin != first) };
    assert!(eventually_async(ms(20_000), moved).await, "the target stays at {first}");
    session.stdin.as_mut().unwrap().write_all(b"y").await.unwrap();
    assert_eq!(session.stdout.as_mut().unwrap().read_u8().await.unwrap(), b'y', "the path goes on meanwhile");
    drop(session.stdin.take());
    let output = tokio::time::timeout(ms(10_000), session.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let code = mesh.broker_mut(&first).unwrap().node_mut().wait(ms(20_000)).await;
    assert_eq!(code, Some(0), "the broker ends once its last path has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_does_not_end_a_session() {
    let mut mesh = one_region(2).await;
    let target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let mut session = echoing(&mesh, &[]).await;
    let first = pin_of(&target).await.unwrap();
    assert!(mesh.kill_broker(&first).await);
    session.stdin.as_mut().unwrap().write_all(b"y").await.unwrap();
    let back = tokio::time::timeout(ms(30_000), session.stdout.as_mut().unwrap().read_u8());
    assert_eq!(back.await.unwrap().unwrap(), b'y', "the session goes on over the other broker");
    drop(session.stdin.take());
    let output = tokio::time::timeout(ms(10_000), session.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let moved = || async { pin_of(&target).await.is_some_and(|pin| pin != first) };
    assert!(eventually_async(ms(20_000), moved).await, "the target finds the other broker");
    echoing(&mesh, &[]).await.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_and_ends_what_a_broker_carries() {
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let mut session = echoing(&mesh, &[]).await;
    let broker = mesh.layout().brokers().next().unwrap();
    let config = mesh.broker(broker).unwrap().config().display().to_string();
    let ask = |verb: &'static [&'static str]| {
        let arguments = verb.iter().map(ToString::to_string).chain(["--config".to_owned(), config.clone()]);
        let arguments: Vec<String> = arguments.chain(["--json".to_owned()]).collect();
        let command = program().command("broker", &arguments).output();
        async move {
            let output = command.await.unwrap();
            assert!(output.status.success(), "{verb:?}: {}", stderr(&output));
            stdout(&output)
        }
    };
    assert!(ask(&["registrations"]).await.contains("pc-1"));
    assert!(ask(&["links"]).await.contains("alice"));
    let paths = ask(&["paths"]).await;
    assert!(paths.contains("pc-1") && paths.contains("alice"), "{paths}");
    let status: Value = serde_json::from_str(&ask(&["status"]).await).unwrap();
    assert_eq!(status["usage"]["paths"], 1, "{status}");
    ask(&["disconnect", "alice"]).await;
    session.stdin.as_mut().unwrap().write_all(b"y").await.unwrap();
    let back = tokio::time::timeout(ms(30_000), session.stdout.as_mut().unwrap().read_u8());
    assert_eq!(back.await.unwrap().unwrap(), b'y', "a broker ends paths, only its endpoints end a session");
    drop(session.stdin.take());
    let output = tokio::time::timeout(ms(10_000), session.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(ask(&["events"]).await.contains("path"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_binary_explains_itself() {
    for kind in ["broker", "traffic-manager", "target", "controller", "certs"] {
        for (arguments, expected) in [
            (&["version", "--json"][..], "\"commit\""),
            (&["--help"][..], "Examples:"),
            (&["completions", "bash"][..], "complete"),
            (&["man"][..], ".TH"),
        ] {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let output = program().command(kind, &arguments).output().await.unwrap();
            assert!(output.status.success(), "{kind} {arguments:?}: {}", stderr(&output));
            assert!(stdout(&output).contains(expected), "{kind} {arguments:?}: {}", stdout(&output));
        }
        let unknown = program().command(kind, &["fly".to_owned()]).output().await.unwrap();
        assert_eq!(unknown.status.code(), Some(2), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_leaves_nothing_behind_when_it_is_interrupted() {
    let demo = NodeProgram::new(env!("CARGO_BIN_EXE_rc-demo"));
    let mut child = Command::new(&demo.executable)
        .args(["--json", "--keep", "--file-mib", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut brokers = Vec::new();
    let mut events = Vec::new();
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            let name = event["event"].as_str().unwrap().to_owned();
            if name == "brokers" {
                brokers
                    .extend(event["brokers"].as_array().unwrap().iter().map(|b| b["pid"].as_i64().unwrap()));
            }
            let last = name == "try";
            events.push(name);
            if last {
                return;
            }
        }
    };
    tokio::time::timeout(ms(60_000), told).await.unwrap();
    for expected in
        ["brokers", "dns", "choice", "pinned", "path", "shell", "exit", "sent", "received", "latency"]
    {
        assert!(events.iter().any(|event| event == expected), "{expected} is missing in {events:?}");
    }
    assert_eq!(brokers.len(), 4);
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let status = tokio::time::timeout(ms(10_000), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    let gone = || brokers.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(eventually(ms(5000), gone).await, "brokers are left behind");
}
