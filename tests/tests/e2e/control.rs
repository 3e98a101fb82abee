//! Remote control through the real command lines: shell, pipe, connect, forward, ping, probe, status.

use std::process::Stdio;

use rc_certs::LeafRequest;
use rc_proto::wire::Role;
use rc_tests::process::Node;
use rc_tests::{ControllerNode, Mesh, eventually_async, ms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{one_region, pattern, program, run, skip, stderr, stdout};

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
async fn the_output_of_a_command_that_fails_comes_whole_before_its_failure() {
    let mesh = one_region(1).await;
    let failing = ["sh", "-c", "head -c 2000000 /dev/zero; printf end; exit 3"];
    let _target = mesh.target("in", "pc-1").pipe("failing", &failing).start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    for _ in 0..5 {
        let ticket = mesh.ticket(&alice, "pc-1", &["*"]).unwrap();
        let output = run(&alice, &["pipe", "pc-1", "failing"], &ticket).await;
        assert_eq!(output.stdout.len(), 2_000_003, "{}", stderr(&output));
        assert!(!output.status.success());
        assert!(stderr(&output).contains("exit status: 3"), "{}", stderr(&output));
    }
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
    let (mut forward, port) = start_forward(&alice, "tcp:echo", &ticket).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_carries_iperf3() {
    let test = "forward_carries_iperf3";
    if !std::path::Path::new("/usr/bin/iperf3").exists() {
        return skip(test, "iperf3 is not installed (Debian: iperf3)");
    }
    let server_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("iperf3")
        .args(["-s", "-1", "-B", "127.0.0.1", "-p", &server_port.to_string()])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mesh = one_region(2).await;
    let address = format!("127.0.0.1:{server_port}");
    let _target = mesh.target("in", "pc-1").tcp("iperf", address).start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["tcp:iperf"]).unwrap();
    let (mut forward, listening) = start_forward(&alice, "tcp:iperf", &ticket).await;
    let client = Command::new("iperf3")
        .args(["-c", "127.0.0.1", "-p", &listening.port().to_string(), "-n", "64M", "-J"])
        .output();
    let output = tokio::time::timeout(ms(60_000), client).await.unwrap().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes =
        |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_default();
    assert_eq!(bytes("/end/sum_sent/bytes"), 64 << 20, "{report}");
    // iperf3 ends its test when the last byte is handed over, not when it has arrived.
    assert!(bytes("/end/sum_received/bytes") >= 32 << 20, "{report}");
    forward.kill().await.unwrap();
    server.kill().await.unwrap();
}

/// Starts `rc-controller forward` on a free port and returns it with that port.
async fn start_forward(
    alice: &ControllerNode,
    service: &str,
    ticket: &std::path::Path,
) -> (tokio::process::Child, std::net::SocketAddr) {
    let mut forward = alice
        .command(&["forward", "pc-1", service, "--listen", "127.0.0.1:0", "--json"], ticket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = tokio::io::BufReader::new(forward.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line).await.unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    (forward, listening["listening"].as_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_over_ipv6_alone() {
    let mesh = Mesh::builder(program()).region("in", 1).start().await.unwrap();
    let broker = mesh.layout().brokers().next().unwrap().clone();
    let second = mesh.authority().issue(&LeafRequest::new(Role::Broker, "six/broker-6")).unwrap();
    let path = |name: &str| mesh.directory().join(name).display().to_string();
    let config = mesh.broker(&broker).unwrap().config().display().to_string();
    let ready = mesh.directory().join("six.ready");
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config];
    for setting in [
        format!("credentials.certificate={}", second.certificate.display()),
        format!("credentials.key={}", second.key.display()),
        "listen.addresses=[::1]:0".to_owned(),
        "advertise.name=six.mesh.test:1".to_owned(),
        "advertise.addresses=[]".to_owned(),
        "mesh.seeds=[]".to_owned(),
        format!("admin.socket={}", path("six.sock")),
        format!("ready.file={}", ready.display()),
    ] {
        arguments.extend(["--set".to_owned(), setting]);
    }
    let command = program().command("broker", &arguments);
    let mut six = Node::start("six", command, &mesh.directory().join("six.log")).unwrap();
    let listening = six.ready(&ready).await.unwrap();
    let address =
        listening["listen"].as_object().unwrap().values().next().unwrap()[0].as_str().unwrap().to_owned();
    assert!(address.starts_with("[::1]:"), "{address}");
    let places = format!("brokers.addresses=six/broker-6@{address}");
    let target = mesh.target("in", "pc-1").set(&places).set("brokers.names=[]").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["shell"]).unwrap();
    let output = alice
        .command(&["shell", "--set", &places, "--set", "brokers.names=[]", "pc-1", "--", "echo six"], &ticket)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(stdout(&output), "six\n", "{}", stderr(&output));
    drop((target, six));
}
