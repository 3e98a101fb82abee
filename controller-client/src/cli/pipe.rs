//! `pipe`: standard input to a command of the Target, its answer to standard output, with counts and hashes.

use std::fmt::Write as _;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use rc_client::OpenOptions;
use rc_daemon::cli::CommonArgs;
use rc_daemon::output::notice;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::ServiceName;
use rc_proto::wire::codes::Class;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::arguments::PipeArgs;
use super::connect::broken;
use super::session::{Running, open, with_controller_until_interrupted};
use super::standard::StandardInput;

/// Bytes of one read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest answer of a sink.
const SINK_ANSWER_BYTES_MAX: usize = 256;

/// Bytes of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Counted {
    bytes: u64,
    sha256: String,
}

pub(super) async fn run(common: &CommonArgs, arguments: &PipeArgs) -> Result<ExitStatus, Failure> {
    let service = arguments.name.as_ref().map_or_else(|| "sink".to_owned(), |name| format!("pipe:{name}"));
    let service = service.parse().map_err(|error| {
        Failure::new(ExitStatus::Usage, error, &service, "name a pipe that the target offers")
    })?;
    with_controller_until_interrupted(common, &arguments.ticket, async |running| {
        send(common, running, arguments, &service).await
    })
    .await
}

async fn send(
    common: &CommonArgs,
    running: &Running,
    arguments: &PipeArgs,
    service: &ServiceName,
) -> Result<ExitStatus, Failure> {
    let session = running.connect(&arguments.target).await?;
    let channel = open(&session, service, OpenOptions::default().class(Class::BULK)).await?;
    let (mut from_target, mut to_target) = tokio::io::split(channel);
    let progress = progress(arguments.quiet);
    let sending = async {
        let sent = copy(&mut StandardInput::new(), &mut to_target, &progress, true).await?;
        to_target.shutdown().await?;
        Ok(sent)
    };
    let mut answer = Answer { sink: arguments.name.is_none().then(Vec::new) };
    let receiving = copy(&mut from_target, &mut answer, &progress, false);
    let (sent, received) = exchange(sending, receiving).await.map_err(|error| broken(&error))?;
    progress.finish_and_clear();
    report(common, sent.as_ref(), &received);
    match (&sent, &answer.sink) {
        (Some(sent), Some(answer)) => compare(sent, answer),
        _ => Ok(ExitStatus::Ok),
    }
}

/// Runs both directions; done when the answer is. A command that is done early is no failure: what it did not read is
/// not sent.
async fn exchange(
    sending: impl Future<Output = std::io::Result<Counted>>,
    receiving: impl Future<Output = std::io::Result<Counted>>,
) -> std::io::Result<(Option<Counted>, Counted)> {
    tokio::pin!(sending);
    tokio::pin!(receiving);
    tokio::select! {
        received = &mut receiving => Ok((None, received?)),
        sent = &mut sending => {
            let sent = sent?;
            Ok((Some(sent), receiving.await?))
        }
    }
}

fn report(common: &CommonArgs, sent: Option<&Counted>, received: &Counted) {
    if common.json {
        let line = serde_json::json!({ "sent": sent, "received": received });
        notice(&line.to_string());
        return;
    }
    if let Some(sent) = sent {
        notice(&format!("sent     {} bytes  sha256 {}", sent.bytes, sent.sha256));
    }
    notice(&format!("received {} bytes  sha256 {}", received.bytes, received.sha256));
}

/// Holds the sink's own count and hash against what was sent.
fn compare(sent: &Counted, answer: &[u8]) -> Result<ExitStatus, Failure> {
    let expected = format!("{} {}", sent.bytes, sent.sha256);
    let found = String::from_utf8_lossy(answer);
    if found.trim() == expected {
        notice("The target received exactly these bytes.");
        return Ok(ExitStatus::Ok);
    }
    let what = format!("the target received {:?}, sent were {expected:?}", found.trim());
    Err(Failure::new(ExitStatus::Internal, what, "pipe", "report this as a fault"))
}

fn progress(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes} sent, {binary_bytes_per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner();
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Where the answer goes: standard output, or kept for the comparison.
struct Answer {
    sink: Option<Vec<u8>>,
}

trait Destination {
    async fn take(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl Destination for Answer {
    async fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.sink {
            Some(kept) => {
                let room = SINK_ANSWER_BYTES_MAX.saturating_sub(kept.len());
                kept.extend(bytes.iter().take(room));
                Ok(())
            }
            None => {
                let mut output = tokio::io::stdout();
                output.write_all(bytes).await?;
                output.flush().await
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> Destination for W {
    async fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write_all(bytes).await
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut impl Destination,
    progress: &ProgressBar,
    counts: bool,
) -> std::io::Result<Counted> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hash = Sha256::new();
    let mut total: u64 = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        to.take(bytes).await?;
        hash.update(bytes);
        total += bytes.len() as u64;
        if counts {
            progress.set_position(total);
        }
    }
    let mut sha256 = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _infallible = write!(sha256, "{byte:02x}");
    }
    Ok(Counted { bytes: total, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn bytes_are_counted_and_hashed_as_they_pass() {
        let mut answer = Answer { sink: Some(Vec::new()) };
        let counted = copy(&mut &b"abc"[..], &mut answer, &ProgressBar::hidden(), true).await.unwrap();
        assert_eq!(counted, Counted { bytes: 3, sha256: ABC.to_owned() });
        assert_eq!(answer.sink.unwrap(), b"abc");
    }

    #[test]
    fn a_sink_that_saw_other_bytes_is_a_failure() {
        let sent = Counted { bytes: 3, sha256: ABC.to_owned() };
        assert!(compare(&sent, format!("3 {ABC}\n").as_bytes()).is_ok());
        assert!(compare(&sent, format!("4 {ABC}\n").as_bytes()).is_err());
        assert!(compare(&sent, b"").is_err());
    }
}
