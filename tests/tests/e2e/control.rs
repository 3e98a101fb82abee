//! Remote control through the real command lines: shell, pipe, connect, forward, ping, probe, status.

use std::process::Stdio;

use rc_tests::{eventually_async, ms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{one_region, pattern, run, stderr, stdout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_command_returns_output_errors_and_status_apart() {
    let mesh = one_region(2).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["shell"]).unwrap();
    let output = run(&alice, &["shell", "pc-1", "--", "echo out; echo err >&2; exit 7"], &ticket).await;
    assert_eq!(stdout(&output), "out\n", "{}", stderr(&output));
    assert_eq!(stderr(&output), "err\n");
    assert_eq!(output.status.code(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_reaches_the_command_with_its_end() {
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["shell"]).unwrap();
    let mut child = alice
        .command(&["shell", "pc-1", "--", "wc -c"], &ticket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&pattern(1, 1_000_000)).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(stdout(&output).trim(), "1000000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipe_sends_a_file_and_compares_the_hash_of_both_ends() {
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").pipe("upper", &["tr", "a-z", "A-Z"]).start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let send = |arguments: &'static [&'static str], ticket: std::path::PathBuf, bytes: Vec<u8>| {
        let mut child = alice
            .command(arguments, &ticket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        async move {
            let mut input = child.stdin.take().unwrap();
            input.write_all(&bytes).await.unwrap();
            drop(input);
            child.wait_with_output().await.unwrap()
        }
    };
    let output = send(&["pipe", "pc-1", "upper"], ticket, b"abc".to_vec()).await;
    assert_eq!(stdout(&output), "ABC", "{}", stderr(&output));
    let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
    let output = send(&["pipe", "pc-1"], ticket, pattern(5, 3_000_000)).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("received exactly these bytes"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_carries_several_connections_over_one_session() {
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").tcp("echo", address).start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["tcp:echo"]).unwrap();
    let mut forward = alice
        .command(&["forward", "pc-1", "tcp:echo", "--listen", "127.0.0.1:0", "--json"], &ticket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = tokio::io::BufReader::new(forward.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line).await.unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    let port: std::net::SocketAddr = listening["listening"].as_str().unwrap().parse().unwrap();
    let exchanges = (0..4_u64).map(|number| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(port).await.unwrap();
            let sent = pattern(number, 100_000);
            let mut back = vec![0; sent.len()];
            let (mut read, mut write) = stream.split();
            let (written, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
            written.unwrap();
            read.unwrap();
            assert!(back == sent);
        })
    });
    for exchange in exchanges.collect::<Vec<_>>() {
        exchange.await.unwrap();
    }
    forward.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sits_in_front_sees_who_is_in_control_and_ends_it() {
    let mesh = one_region(1).await;
    let target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["shell"]).unwrap();
    let mut shell = alice
        .command(&["shell", "pc-1", "--", "echo ready; exec sleep 600"], &ticket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    shell.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
    assert!(target.node().logs("alice is in control: shell", ms(3000)).await, "{}", target.node().log());
    let status = target.status().await.unwrap();
    assert_eq!(status["sessions"][0]["peer"], "alice");
    assert!(target.disconnect_all().await);
    let output = tokio::time::timeout(ms(10_000), shell.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("disconnected"), "{}", stderr(&output));
    let nobody =
        || async { target.status().await.is_some_and(|s| s["sessions"].as_array().unwrap().is_empty()) };
    assert!(eventually_async(ms(5000), nobody).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_and_probe_explain_the_way() {
    let mesh = one_region(2).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["echo"]).unwrap();
    let output = run(&alice, &["ping", "pc-1", "--count", "3", "--json"], &ticket).await;
    let pinged: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pinged["samples_ms"].as_array().unwrap().len(), 3);
    let output = alice.command_without_ticket(&["probe", "--json"]).output().await.unwrap();
    let probed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probed["choice"]["brokers"].as_array().unwrap().len(), 2, "{probed}");
    assert!(probed["choice"]["chosen"].is_string());
}
