//! The story of a session that outlives its brokers: a file on its way and an open shell, while brokers are killed,
//! frozen and drained under them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rc_client::Event;
use rc_proto::wire::BrokerId;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::Arguments;
use super::output::Show;
use super::story::hex;
use crate::process::NodeProgram;
use crate::stage::{Place, Stage};

/// Bytes of one piece of the file, and the time between two.
const PIECE_BYTES: usize = 64 << 10;
const PIECE_INTERVAL: Duration = Duration::from_millis(50);
/// The shell says so often that it is there.
const BEAT: &str = "while read -r line; do echo \"$line\"; done";
const BEAT_INTERVAL: Duration = Duration::from_millis(50);
/// After this a session is lost.
const LOST: Duration = Duration::from_secs(40);

/// Tells it.
pub(super) async fn tell(arguments: &Arguments, program: NodeProgram, show: &Show) -> anyhow::Result<()> {
    show.step("Four brokers in two regions 100 ms apart, a target, a controller, a session");
    let mut deployment = Stage::deployment(program);
    if let Some(directory) = &arguments.directory {
        deployment = deployment.directory(directory);
    }
    let mut stage = Stage::start(deployment).await?;
    follow(&stage, show);
    show_way(&stage, show);
    let shell = Shell::open(&stage)?;
    let pipe = Pipe::open(&stage)?;
    show.found(
        "running",
        json!({ "session": stage.session.id().to_string() }),
        "a file goes to the target, a shell answers each 50 ms, and 1 MB/s goes both ways",
    );

    for (place, what) in [(Place::First, "the controller's"), (Place::Last, "the target's")] {
        let broker = stage.broker_at(place)?;
        show.step(&format!("kill -9 {broker}, {what} broker"));
        let gap = stage.kill(place, LOST).await?;
        show_gap(&stage, "killed", &broker, gap, &shell, show);
    }
    let broker = stage.broker_at(Place::First)?;
    show.step(&format!("kill -STOP {broker}: it holds every connection and says nothing"));
    let gap = stage.freeze(Place::First, LOST).await?;
    show_gap(&stage, "frozen", &broker, gap, &shell, show);
    for place in [Place::First, Place::Last] {
        let broker = stage.broker_at(place)?;
        show.step(&format!("{broker} is drained (SIGTERM) and restarted"));
        let gap = stage.hand_over(place, LOST).await?;
        show_gap(&stage, "drained", &broker, gap, &shell, show);
    }

    show.step("Proof");
    shell.finish(show).await?;
    pipe.finish(show).await?;
    let [input, stream] = stage.finish().await?;
    for (name, proof) in [("20 B each 50 ms", input), ("1 MB/s", stream)] {
        let fields = json!({
            "load": name,
            "written": proof.written,
            "received": proof.received,
            "lost": proof.lost,
            "repeated": proof.repeated,
            "altered": proof.altered,
        });
        show.found("proof", fields, &format!("{name}, both ways: {proof}"));
    }
    show.step("Done: no byte was lost, repeated or altered, and nobody had to do anything");
    Ok(())
}

/// Shows what the session says of itself, as it happens.
fn follow(stage: &Stage, show: &Show) {
    let (mut events, show) = (stage.controller.events(), show.clone());
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Missed { .. }) {
                continue;
            }
            let fields = serde_json::to_value(&event).unwrap_or_default();
            let name = fields.get("event").and_then(serde_json::Value::as_str).unwrap_or_default();
            let line = format!("· {name} {}", short(&fields));
            show.found("controller-event", json!({ "happened": fields }), &line);
        }
    });
}

/// An event's broker and reason, as far as it has them.
fn short(fields: &serde_json::Value) -> String {
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
    [text("broker"), text("reason"), text("why")].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn show_way(stage: &Stage, show: &Show) {
    let way: Vec<String> = stage.on_the_way().iter().map(ToString::to_string).collect();
    let line = format!("path: controller → {} → target", way.join(" → "));
    show.found("path", json!({ "brokers": way }), &line);
}

fn show_gap(stage: &Stage, event: &str, broker: &BrokerId, gap: Duration, shell: &Shell, show: &Show) {
    let shell_gap = shell.longest_gap();
    let (session_ms, shell_ms) = (gap.as_millis(), shell_gap.as_millis());
    let fields = json!({ "broker": broker, "gap_ms": session_ms, "shell_gap_ms": shell_ms });
    let line =
        format!("longest time without a byte: {session_ms} ms in the session, {shell_ms} ms in the shell");
    show.found(event, fields, &line);
    show_way(stage, show);
}

/// A shell of `rc-controller`, which is asked for a line again and again.
struct Shell {
    child: Child,
    beating: JoinHandle<anyhow::Result<u64>>,
    gaps: std::sync::Arc<std::sync::Mutex<Gaps>>,
    stop: tokio_util::sync::CancellationToken,
}

#[derive(Debug)]
struct Gaps {
    last: Instant,
    longest: Duration,
}

impl Shell {
    fn open(stage: &Stage) -> anyhow::Result<Self> {
        let (mut child, stdin, lines) = spawn(stage, &["shell", stage.target.id(), "--", BEAT])?;
        let gaps = Gaps { last: Instant::now(), longest: Duration::ZERO };
        let gaps = std::sync::Arc::new(std::sync::Mutex::new(gaps));
        let stop = tokio_util::sync::CancellationToken::new();
        let beating = tokio::spawn(beat(stdin, lines, std::sync::Arc::clone(&gaps), stop.clone()));
        if child.try_wait()?.is_some() {
            anyhow::bail!("the shell did not start");
        }
        Ok(Self { child, beating, gaps, stop })
    }

    /// The longest time without an answer since the last time this was asked.
    fn longest_gap(&self) -> Duration {
        let mut gaps = self.gaps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut gaps.longest)
    }

    async fn finish(self, show: &Show) -> anyhow::Result<()> {
        let Self { mut child, beating, stop, .. } = self;
        stop.cancel();
        let lines = tokio::time::timeout(LOST, beating).await.context("the shell answers")???;
        let status = tokio::time::timeout(LOST, child.wait()).await.context("the shell ends")??;
        ensure!(status.success(), "the shell ended with {status}");
        let fields = json!({ "lines": lines });
        show.found("shell", fields, &format!("shell: {lines} lines, each answered once and in order"));
        Ok(())
    }
}

/// Sends numbered lines and takes each answer; how many there were.
async fn beat(
    mut stdin: ChildStdin,
    mut lines: Lines<BufReader<ChildStdout>>,
    gaps: std::sync::Arc<std::sync::Mutex<Gaps>>,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<u64> {
    let mut tick = tokio::time::interval(BEAT_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        tick.tick().await;
        stdin.write_all(format!("beat {number}\n").as_bytes()).await?;
        let line = lines.next_line().await?.context("the shell goes on")?;
        ensure!(line == format!("beat {number}"), "the shell said {line:?} where beat {number} was due");
        number += 1;
        let mut gaps = gaps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        gaps.longest = gaps.longest.max(gaps.last.elapsed());
        gaps.last = Instant::now();
    }
    Ok(number)
}

/// `rc-controller pipe` to the Target's `sha256sum`.
struct Pipe {
    child: Child,
    feeding: JoinHandle<anyhow::Result<String>>,
    lines: Lines<BufReader<ChildStdout>>,
    stop: tokio_util::sync::CancellationToken,
}

impl Pipe {
    fn open(stage: &Stage) -> anyhow::Result<Self> {
        let (child, stdin, lines) = spawn(stage, &["pipe", stage.target.id(), "sha256", "--quiet"])?;
        let stop = tokio_util::sync::CancellationToken::new();
        let feeding = tokio::spawn(feed(stdin, stop.clone()));
        Ok(Self { child, feeding, lines, stop })
    }

    async fn finish(self, show: &Show) -> anyhow::Result<()> {
        let Self { mut child, feeding, mut lines, stop } = self;
        stop.cancel();
        let here = tokio::time::timeout(LOST, feeding).await.context("the file is sent")???;
        let there = tokio::time::timeout(LOST, lines.next_line()).await.context("the target answers")??;
        let there = there.context("the target answers")?;
        let status = tokio::time::timeout(LOST, child.wait()).await.context("the pipe ends")??;
        ensure!(status.success(), "the pipe ended with {status}");
        show.found("sent", json!({ "sha256": here }), &format!("pipe: sent      {here}"));
        show.found("received", json!({ "sha256": there }), &format!("pipe: received  {there}"));
        ensure!(there.split_ascii_whitespace().next() == Some(&here), "the hashes differ");
        Ok(())
    }
}

/// Writes a file without an end until it is told to stop; its hash.
async fn feed(mut stdin: ChildStdin, stop: tokio_util::sync::CancellationToken) -> anyhow::Result<String> {
    let mut tick = tokio::time::interval(PIECE_INTERVAL);
    let (mut hash, mut number) = (Sha256::new(), 0_u32);
    let mut piece = vec![0; PIECE_BYTES];
    while !stop.is_cancelled() {
        tick.tick().await;
        super::story::fill(&mut piece, number);
        hash.update(&piece);
        stdin.write_all(&piece).await?;
        number += 1;
    }
    drop(stdin);
    Ok(hex(&hash.finalize()))
}

fn spawn(
    stage: &Stage,
    arguments: &[&str],
) -> anyhow::Result<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)> {
    let ticket = stage.mesh.ticket(&stage.alice, stage.target.id(), &["*"])?;
    let mut command = stage.alice.command(arguments, &ticket);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().context("its input is piped")?;
    let stdout = child.stdout.take().context("its output is piped")?;
    Ok((child, stdin, BufReader::new(stdout).lines()))
}
