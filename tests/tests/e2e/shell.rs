//! The shell at its edges: input that is never read, a person who ends it, signals, a real terminal.

use std::process::Stdio;
use std::time::Duration;

use rc_tests::{ControllerNode, Mesh, TargetNode, ms};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::support::{one_region, run, stderr, stdout};

struct Setup {
    mesh: Mesh,
    target: TargetNode,
    alice: ControllerNode,
}

async fn setup() -> Setup {
    let mesh = one_region(1).await;
    let target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    Setup { mesh, target, alice }
}

impl Setup {
    fn shell(&self, command: &str) -> Command {
        let ticket = self.mesh.ticket(&self.alice, "pc-1", &["shell"]).unwrap();
        let mut shell = self.alice.command(&["shell", "pc-1", "--", command], &ticket);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }
}

/// Types without end, until nobody reads.
fn type_endlessly(child: &mut Child) {
    let mut input = child.stdin.take().unwrap();
    tokio::spawn(async move { while input.write_all(&[b'y'; 65_536]).await.is_ok() {} });
}

async fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while line.last() != Some(&b'\n') {
        line.push(output.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_ends_before_its_input_keeps_its_output_and_status() {
    let setup = setup().await;
    let mut shell = setup.shell("sleep 1; echo hi; exit 3").spawn().unwrap();
    type_endlessly(&mut shell);
    let output = tokio::time::timeout(ms(20_000), shell.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("hi\n", Some(3)), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnect_ends_a_command_that_reads_none_of_its_input() {
    let setup = setup().await;
    let mark = setup.mesh.directory().join("mark");
    let command =
        format!("trap 'echo gone > {}; exit' HUP; echo ready; while :; do sleep 0.1; done", mark.display());
    let mut shell = setup.shell(&command).spawn().unwrap();
    assert_eq!(first_line(&mut shell).await, "ready\n");
    type_endlessly(&mut shell);
    let received = || async {
        let status = setup.target.status().await.unwrap_or_default();
        status.pointer("/sessions/0/received_bytes").and_then(serde_json::Value::as_u64) >= Some(1 << 20)
    };
    assert!(rc_tests::eventually_async(ms(10_000), received).await, "input fills the buffers on the way");
    assert!(setup.target.disconnect_all().await);
    let output = tokio::time::timeout(ms(20_000), shell.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", stderr(&output));
    assert!(rc_tests::eventually(ms(10_000), || mark.exists()).await, "the command was not told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_reaches_the_command_and_a_second_one_ends_the_shell() {
    let setup = setup().await;
    let mut shell = setup.shell("trap '' INT; echo ready; sleep 600").spawn().unwrap();
    let _input = shell.stdin.take();
    assert_eq!(first_line(&mut shell).await, "ready\n");
    signal(&shell, Signal::INT);
    assert!(tokio::time::timeout(ms(500), shell.wait()).await.is_err(), "the command ignores it");
    signal(&shell, Signal::INT);
    let status = tokio::time::timeout(ms(10_000), shell.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_a_command_that_does_not_ignore_it() {
    let setup = setup().await;
    let mut shell = setup.shell("echo ready; exec sleep 600").spawn().unwrap();
    let _input = shell.stdin.take();
    assert_eq!(first_line(&mut shell).await, "ready\n");
    signal(&shell, Signal::INT);
    let status = tokio::time::timeout(ms(10_000), shell.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130), "128 + SIGINT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_ours_is_255() {
    let setup = setup().await;
    let ticket = setup.mesh.ticket(&setup.alice, "pc-1", &["echo"]).unwrap();
    let output = run(&setup.alice, &["shell", "pc-1", "--", "true"], &ticket).await;
    assert_eq!(output.status.code(), Some(255), "{}", stderr(&output));
    assert!(stderr(&output).contains("shell"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_raw_while_the_shell_runs_and_restored_after_the_escape() {
    let setup = setup().await;
    let ticket = setup.mesh.ticket(&setup.alice, "pc-1", &["shell"]).unwrap();
    let line = setup.alice.command_line(&["shell", "pc-1"], &ticket);
    let (pty, pts) = pty_process::open().unwrap();
    pty.resize(pty_process::Size::new(40, 100)).unwrap();
    let mut child = pty_process::Command::new("/bin/sh")
        .args([
            "-c",
            &format!(
                "stty -a | grep -o '.icanon'; {line}; echo \"ended $?\"; stty -a | grep -o '.icanon'; sleep 5"
            ),
        ])
        .env("TERM", "dumb")
        .kill_on_drop(true)
        .spawn(pts)
        .unwrap();
    let mut screen = Screen { pty, seen: String::new(), shown: 0 };
    screen.shows("# ").await;
    screen.types("stty size; tty >/dev/null && echo on-a-terminal\r").await;
    screen.shows("40 100").await;
    screen.shows("\non-a-terminal").await;
    screen.types("\r~.").await;
    screen.shows("ended 0").await;
    screen.shows(" icanon").await;
    child.kill().await.unwrap();
}

/// What a person in front of a terminal sees and types.
struct Screen {
    pty: pty_process::Pty,
    seen: String,
    /// What was looked at already, in bytes of `seen`.
    shown: usize,
}

impl Screen {
    /// Waits until `wanted` appears behind what was waited for before.
    async fn shows(&mut self, wanted: &str) {
        let read = async {
            let mut buffer = [0; 4096];
            loop {
                if let Some(at) = self.seen[self.shown..].find(wanted) {
                    self.shown += at + wanted.len();
                    return;
                }
                let count = self.pty.read(&mut buffer).await.unwrap();
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), read).await.is_err() {
            panic!("{wanted:?} does not appear in {:?}", self.seen);
        }
    }

    async fn types(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).await.unwrap();
    }
}
