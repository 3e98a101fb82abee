//! The `shell` service: one command or login shell, on a terminal or on three pipes.
//!
//! Input and output run side by side: a shell that does not read its input never holds its output back. When the
//! channel is lost the whole process group is hung up.

use std::process::ExitStatus;
use std::time::Duration;

use rc_proto::wire::Ext;
use rc_proto::wire::shell::{ShellDecoder, ShellExit, ShellFrame, ShellStart};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Lost, ServiceError, Stream};
use crate::cli::platform::{ShellInput, ShellProcess, spawn_shell};

/// How long the Controller may take to say what to run.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long a terminal may stay silent, after its leader has gone, until its output counts as complete: processes
/// left in the background keep the terminal open.
const LAST_OUTPUT_SILENCE: Duration = Duration::from_millis(100);
/// How long a command may take to end by itself after its channel was lost, before it is killed.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);
/// Bytes of one read.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves one shell channel until the command has ended or the channel is lost.
pub(super) async fn run(channel: impl Stream, lost: Lost, run_as: Option<&str>) -> Result<(), ServiceError> {
    let (from_peer, mut to_peer) = tokio::io::split(channel);
    let mut frames = Frames { from_peer, decoder: ShellDecoder::default() };
    let start = match tokio::time::timeout(START_DEADLINE, frames.next()).await {
        Ok(Ok(Some(ShellFrame::Start(start)))) => start,
        Ok(Ok(Some(_))) => return Err(ServiceError::Protocol("the first frame is not Start".to_owned())),
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return Err(error),
        Err(_elapsed) => return Err(ServiceError::Protocol("no Start within 10 s".to_owned())),
    };
    let exit = match spawn_shell(&start, run_as) {
        Ok(process) => attend(process, &start, frames, lost, &mut to_peer).await?,
        Err(error) => {
            Some(ShellExit { status: None, signal: None, failure: Some(error.to_string()), ext: Ext::none() })
        }
    };
    if let Some(exit) = exit {
        send(&mut to_peer, &ShellFrame::Exit(exit)).await?;
        to_peer.shutdown().await?;
    }
    Ok(())
}

/// Moves bytes until the command has ended; `None` when the channel was lost first.
async fn attend<S: Stream>(
    process: ShellProcess,
    start: &ShellStart,
    frames: Frames<S>,
    channel_lost: Lost,
    to_peer: &mut WriteHalf<S>,
) -> Result<Option<ShellExit>, ServiceError> {
    let ShellProcess { mut input, mut output, mut error_output, mut child } = process;
    let on_terminal = start.terminal.is_some();
    let outcome = {
        let finished = async {
            if on_terminal {
                return pump_terminal(&mut output, &mut child, to_peer).await;
            }
            pump_pipes(&mut output, error_output.as_mut(), to_peer).await?;
            Ok(child.wait().await?)
        };
        let lost = feed(frames, &mut input);
        tokio::select! {
            status = finished => status.map(Some),
            lost = lost => lost.map(|()| None),
            () = channel_lost => Ok(None),
        }
    };
    // Whatever is left of the group goes with its channel, as it would with its terminal.
    let lost = !matches!(outcome, Ok(Some(_)));
    if on_terminal || lost {
        input.hang_up();
    }
    if lost && tokio::time::timeout(HANG_UP_GRACE, child.wait()).await.is_err() {
        input.kill();
    }
    outcome.map(|status| status.map(exit_of))
}

/// Output of a terminal until its leader has gone and the last of it has been read.
async fn pump_terminal<W: AsyncWrite + Unpin>(
    output: &mut (impl AsyncRead + Unpin),
    child: &mut tokio::process::Child,
    to_peer: &mut W,
) -> Result<ExitStatus, ServiceError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let status = loop {
        tokio::select! {
            biased;
            read = output.read(&mut buffer) => {
                // Linux reports EIO once the last process has closed the terminal.
                let count = read.unwrap_or(0);
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(child.wait().await?);
                };
                send(to_peer, &ShellFrame::Output(bytes.to_vec())).await?;
            }
            status = child.wait() => break status?,
        }
    };
    while let Ok(Ok(count)) = tokio::time::timeout(LAST_OUTPUT_SILENCE, output.read(&mut buffer)).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        send(to_peer, &ShellFrame::Output(bytes.to_vec())).await?;
    }
    Ok(status)
}

/// Both outputs, apart, until both have ended.
async fn pump_pipes<W: AsyncWrite + Unpin>(
    output: &mut (impl AsyncRead + Unpin),
    error_output: Option<&mut Box<dyn AsyncRead + Send + Unpin>>,
    to_peer: &mut W,
) -> Result<(), ServiceError> {
    let mut out_buffer = vec![0; BUFFER_BYTES];
    let mut error_buffer = vec![0; BUFFER_BYTES];
    let (mut out_open, mut error_output) = (true, error_output);
    while out_open || error_output.is_some() {
        tokio::select! {
            count = output.read(&mut out_buffer), if out_open => {
                let bytes = out_buffer.get(..count?).unwrap_or_default();
                out_open = !bytes.is_empty();
                send(to_peer, &ShellFrame::Output(bytes.to_vec())).await?;
            }
            count = read_optional(&mut error_output, &mut error_buffer), if error_output.is_some() => {
                let bytes = error_buffer.get(..count?).unwrap_or_default();
                if bytes.is_empty() {
                    error_output = None;
                }
                send(to_peer, &ShellFrame::ErrorOutput(bytes.to_vec())).await?;
            }
        }
    }
    Ok(())
}

async fn read_optional(
    source: &mut Option<&mut Box<dyn AsyncRead + Send + Unpin>>,
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    match source {
        Some(source) => source.read(buffer).await,
        None => Ok(0),
    }
}

/// Feeds the shell from the channel; returns when the channel is lost, not when input has ended.
async fn feed<S: Stream>(mut frames: Frames<S>, input: &mut ShellInput) -> Result<(), ServiceError> {
    while let Some(frame) = frames.next().await? {
        let taken = match frame {
            ShellFrame::Input(bytes) => input.write(&bytes).await,
            ShellFrame::InputEnd => input.end().await,
            ShellFrame::Window(size) => {
                input.resize(size);
                Ok(())
            }
            ShellFrame::Signal(name) => {
                input.signal(&name);
                Ok(())
            }
            ShellFrame::Start(_)
            | ShellFrame::Output(_)
            | ShellFrame::ErrorOutput(_)
            | ShellFrame::Exit(_) => {
                return Err(ServiceError::Protocol("a frame came that only a Target sends".to_owned()));
            }
        };
        if let Err(error) = taken {
            // A command that closed its input early goes on; its exit ends the channel.
            tracing::debug!(%error, "the command takes no more input");
        }
    }
    Ok(())
}

fn exit_of(status: ExitStatus) -> ShellExit {
    let signal = crate::cli::platform::signal_of(status);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ShellExit { status: code, signal, failure: None, ext: Ext::none() }
}

/// Shell frames from the peer.
struct Frames<S> {
    from_peer: ReadHalf<S>,
    decoder: ShellDecoder,
}

impl<S: Stream> Frames<S> {
    /// The next frame; `None` when the peer has ended the channel.
    async fn next(&mut self) -> Result<Option<ShellFrame>, ServiceError> {
        let mut buffer = [0; 4096];
        loop {
            let frame =
                self.decoder.next_frame().map_err(|error| ServiceError::Protocol(error.to_string()))?;
            if frame.is_some() {
                return Ok(frame);
            }
            let count = self.from_peer.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
            self.decoder.push(bytes);
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(to_peer: &mut W, frame: &ShellFrame) -> Result<(), ServiceError> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).map_err(|error| ServiceError::Protocol(error.to_string()))?;
    to_peer.write_all(&bytes).await?;
    to_peer.flush().await?;
    Ok(())
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]
mod tests {
    use super::*;
    use rc_proto::wire::shell::{Terminal, WindowSize};
    use tokio::io::DuplexStream;

    struct Peer {
        frames: Frames<DuplexStream>,
        to_target: WriteHalf<DuplexStream>,
    }

    impl Peer {
        async fn start(command: Option<&str>, terminal: bool) -> Self {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(run(far, Box::pin(std::future::pending()), None));
            let (from_peer, to_target) = tokio::io::split(near);
            let mut peer = Self { frames: Frames { from_peer, decoder: ShellDecoder::default() }, to_target };
            let size = WindowSize { columns: 91, rows: 33 };
            let terminal = terminal.then(|| Terminal { kind: "dumb".to_owned(), size });
            let command = command.map(ToOwned::to_owned);
            peer.send(ShellFrame::Start(ShellStart { terminal, command, ext: Ext::none() })).await;
            peer
        }

        async fn send(&mut self, frame: ShellFrame) {
            send(&mut self.to_target, &frame).await.unwrap();
        }

        async fn finish(mut self) -> (String, String, ShellExit) {
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            loop {
                match self.frames.next().await.unwrap().expect("the exit comes before the end") {
                    ShellFrame::Output(bytes) => out.extend(bytes),
                    ShellFrame::ErrorOutput(bytes) => errors.extend(bytes),
                    ShellFrame::Exit(exit) => {
                        let text = |bytes| String::from_utf8(bytes).unwrap();
                        return (text(out), text(errors), exit);
                    }
                    ShellFrame::Start(_)
                    | ShellFrame::Input(_)
                    | ShellFrame::InputEnd
                    | ShellFrame::Window(_)
                    | ShellFrame::Signal(_) => unreachable!("a target sends no such frame"),
                }
            }
        }
    }

    #[tokio::test]
    async fn outputs_stay_apart_without_a_terminal() {
        let peer = Peer::start(Some("echo out; echo err >&2; exit 7"), false).await;
        let (out, errors, exit) = peer.finish().await;
        assert_eq!((out.as_str(), errors.as_str(), exit.status), ("out\n", "err\n", Some(7)));
    }

    #[tokio::test]
    async fn input_reaches_the_command_and_its_end_too() {
        let mut peer = Peer::start(Some("wc -c"), false).await;
        peer.send(ShellFrame::Input(vec![b'x'; 100_000])).await;
        peer.send(ShellFrame::InputEnd).await;
        let (out, _, exit) = peer.finish().await;
        assert_eq!((out.trim(), exit.status), ("100000", Some(0)));
    }

    #[tokio::test]
    async fn a_terminal_has_the_size_that_was_asked_for_and_changes_it() {
        let peer = Peer::start(Some("stty size; test -t 0 && echo tty"), true).await;
        let (out, _, exit) = peer.finish().await;
        assert_eq!((out.as_str(), exit.status), ("33 91\r\ntty\r\n", Some(0)));
        let mut peer = Peer::start(Some("read x; stty size"), true).await;
        peer.send(ShellFrame::Window(WindowSize { columns: 80, rows: 24 })).await;
        peer.send(ShellFrame::Input(b"\n".to_vec())).await;
        assert!(peer.finish().await.0.contains("24 80"));
    }

    #[tokio::test]
    async fn a_signal_kills_the_command_and_is_named() {
        let mut peer = Peer::start(Some("echo ready; exec sleep 600"), false).await;
        assert_eq!(peer.frames.next().await.unwrap(), Some(ShellFrame::Output(b"ready\n".to_vec())));
        peer.send(ShellFrame::Signal("TERM".to_owned())).await;
        let (_, _, exit) = peer.finish().await;
        assert_eq!((exit.status, exit.signal.as_deref()), (None, Some("TERM")));
    }

    #[tokio::test]
    async fn the_group_is_hung_up_when_the_channel_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let command = format!(
            "trap 'echo gone > {}; exit' HUP; echo ready; while :; do sleep 0.05; done",
            mark.display()
        );
        let mut peer = Peer::start(Some(&command), false).await;
        assert_eq!(peer.frames.next().await.unwrap(), Some(ShellFrame::Output(b"ready\n".to_vec())));
        drop(peer);
        let found = async {
            while !mark.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("the command was told");
    }

    #[tokio::test]
    async fn something_else_than_start_is_refused() {
        let (near, far) = tokio::io::duplex(1024);
        let service = tokio::spawn(run(far, Box::pin(std::future::pending()), None));
        let (_from, mut to_target) = tokio::io::split(near);
        send(&mut to_target, &ShellFrame::InputEnd).await.unwrap();
        assert!(matches!(service.await.unwrap(), Err(ServiceError::Protocol(_))));
    }
}
