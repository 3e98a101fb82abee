//! The local end of a shell: a terminal or three pipes here, one channel to the Target.

use rc_proto::wire::Ext;
use rc_proto::wire::shell::{ShellDecoder, ShellExit, ShellFrame, ShellStart, Terminal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::escape::{EscapeWatch, Typed};
use super::platform::{RawTerminal, TerminalSignals, terminal_size};

/// Bytes of one read.
const BUFFER_BYTES: usize = 16 * 1024;
/// Bytes typed ahead of what the Target takes.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// What `~?` shows.
const ESCAPES: &str = "At the start of a line:  ~.  ends the shell   ~~  sends one ~   ~?  this help";

/// How a shell ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ShellEnd {
    /// The command told how it ended.
    Exit(ShellExit),
    /// The user typed `~.`.
    Escaped,
    /// A signal ended it here.
    Signalled(&'static str),
    /// The channel ended without a word from the command.
    Lost,
}

/// Why a shell could not go on here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShellError {
    /// The channel broke.
    #[error("the shell's channel broke: {0}")]
    Channel(std::io::Error),
    /// A local stream broke.
    #[error("the local terminal or pipe broke: {0}")]
    Local(std::io::Error),
    /// The Target spoke something else than the shell service does.
    #[error("the target broke the shell protocol: {0}")]
    Protocol(String),
}

/// The streams of this process.
pub(super) struct Local<I, O, E> {
    pub(super) input: I,
    pub(super) output: O,
    pub(super) errors: E,
}

/// What is asked of the Target: a terminal when this side has one, and the command.
pub(super) fn start(command: Option<String>, want_terminal: bool) -> ShellStart {
    let terminal = want_terminal
        .then(terminal_size)
        .flatten()
        .map(|size| Terminal { kind: std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()), size });
    ShellStart { terminal, command, ext: Ext::none() }
}

/// Joins the local streams and the channel until the command has ended.
///
/// # Errors
/// When the channel, a local stream or the protocol breaks.
pub(super) async fn run<C, I, O, E>(
    channel: C,
    start: ShellStart,
    local: Local<I, O, E>,
) -> Result<ShellEnd, ShellError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let signals = TerminalSignals::install().map_err(ShellError::Local)?;
    let on_terminal = start.terminal.is_some();
    let raw = on_terminal.then(RawTerminal::enter).flatten();
    let (from_target, mut to_target) = tokio::io::split(channel);
    send(&mut to_target, &ShellFrame::Start(start)).await?;
    let Local { input, output, errors } = local;
    let receiving = receive(from_target, output, errors);
    let sending = transmit(&mut to_target, input, signals, on_terminal);
    let end = tokio::select! {
        biased;
        end = receiving => end,
        end = sending => end,
    };
    drop(raw);
    end
}

/// Writes what the command says to the local streams until it has ended.
async fn receive<C, O, E>(
    mut from_target: ReadHalf<C>,
    mut output: O,
    mut errors: E,
) -> Result<ShellEnd, ShellError>
where
    C: AsyncRead + AsyncWrite,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let mut decoder = ShellDecoder::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        while let Some(frame) = decoder.next_frame().map_err(|e| ShellError::Protocol(e.to_string()))? {
            match frame {
                ShellFrame::Output(bytes) => write(&mut output, &bytes).await?,
                ShellFrame::ErrorOutput(bytes) => write(&mut errors, &bytes).await?,
                ShellFrame::Exit(exit) => return Ok(ShellEnd::Exit(exit)),
                ShellFrame::Start(_)
                | ShellFrame::Input(_)
                | ShellFrame::InputEnd
                | ShellFrame::Window(_)
                | ShellFrame::Signal(_) => {
                    return Err(ShellError::Protocol("a frame came that only a controller sends".to_owned()));
                }
            }
        }
        let count = from_target.read(&mut buffer).await.map_err(ShellError::Channel)?;
        match buffer.get(..count).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => decoder.push(bytes),
            None => return Ok(ShellEnd::Lost),
        }
    }
}

/// Sends what is typed, window changes and signals; returns only when the user ends the shell, not when the Target
/// takes nothing any more: how that came about is what the other direction tells. Signals and the escape still work
/// then.
async fn transmit<C, I>(
    to_target: &mut WriteHalf<C>,
    mut input: I,
    mut signals: TerminalSignals,
    on_terminal: bool,
) -> Result<ShellEnd, ShellError>
where
    C: AsyncRead + AsyncWrite,
    I: AsyncRead + Unpin,
{
    let mut watch = EscapeWatch::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut waiting = Waiting::default();
    let (mut open, mut interrupted, mut unheard) = (true, false, false);
    loop {
        tokio::select! {
            name = signals.next() => {
                let blocked = unheard || !waiting.is_empty();
                if ends_here(name, blocked || interrupted) {
                    return Ok(ShellEnd::Signalled(name));
                }
                interrupted |= name == "INT";
                waiting.add(&signal_frames(name, on_terminal))?;
            }
            written = to_target.write(waiting.bytes()), if !unheard && !waiting.is_empty() => match written {
                Ok(count) => waiting.taken(count),
                // A command that has ended takes no input; what it said last, and how it ended, is still to be heard.
                Err(_) => (open, unheard) = (false, true),
            },
            count = input.read(&mut buffer), if open && waiting.has_room() => {
                let bytes = buffer.get(..count.map_err(ShellError::Local)?).unwrap_or_default();
                open = !bytes.is_empty();
                match typed(&mut watch, bytes, on_terminal) {
                    Some(frames) => waiting.add(&frames)?,
                    None => return Ok(ShellEnd::Escaped),
                }
            }
        }
    }
}

/// Whether a signal ends the shell here rather than being passed on: an interrupt is passed on first, and ends it when
/// it comes again or when nothing gets through.
fn ends_here(name: &str, hopeless: bool) -> bool {
    match name {
        "WINCH" => false,
        "INT" => hopeless,
        _ => true,
    }
}

/// Frames that the channel has not taken yet.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    fn add(&mut self, frames: &[ShellFrame]) -> Result<(), ShellError> {
        let wrong = |error: rc_proto::wire::EncodeError| ShellError::Protocol(error.to_string());
        frames.iter().try_for_each(|frame| frame.encode(&mut self.bytes)).map_err(wrong)
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn has_room(&self) -> bool {
        self.bytes().len() < WAITING_BYTES_MAX
    }

    fn taken(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
    }
}

fn signal_frames(name: &str, on_terminal: bool) -> Vec<ShellFrame> {
    match name {
        "WINCH" if on_terminal => terminal_size().map(ShellFrame::Window).into_iter().collect(),
        "WINCH" => Vec::new(),
        name => vec![ShellFrame::Signal(name.to_owned())],
    }
}

/// Frames for typed bytes; `None` when the user ended the shell. Escapes exist on a terminal only, so a file that is
/// piped in passes unchanged.
fn typed(watch: &mut EscapeWatch, bytes: &[u8], on_terminal: bool) -> Option<Vec<ShellFrame>> {
    if bytes.is_empty() {
        return Some(vec![ShellFrame::InputEnd]);
    }
    if !on_terminal {
        return Some(vec![ShellFrame::Input(bytes.to_vec())]);
    }
    let mut frames = Vec::new();
    for typed in watch.typed(bytes) {
        match typed {
            Typed::Send(bytes) => frames.push(ShellFrame::Input(bytes)),
            Typed::Help => rc_daemon::output::notice(ESCAPES),
            Typed::End => return None,
        }
    }
    Some(frames)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ShellError> {
    stream.write_all(bytes).await.map_err(ShellError::Local)?;
    stream.flush().await.map_err(ShellError::Local)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &ShellFrame) -> Result<(), ShellError> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).map_err(|error| ShellError::Protocol(error.to_string()))?;
    stream.write_all(&bytes).await.map_err(ShellError::Channel)?;
    stream.flush().await.map_err(ShellError::Channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(input: &[u8]) -> Local<&[u8], Vec<u8>, Vec<u8>> {
        Local { input, output: Vec::new(), errors: Vec::new() }
    }

    async fn target(answers: Vec<ShellFrame>, channel: tokio::io::DuplexStream) -> Vec<ShellFrame> {
        let (mut from, mut to) = tokio::io::split(channel);
        let mut seen = Vec::new();
        let mut decoder = ShellDecoder::default();
        let mut buffer = [0; 512];
        while !seen.contains(&ShellFrame::InputEnd) {
            let count = from.read(&mut buffer).await.unwrap();
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        for answer in answers {
            send(&mut to, &answer).await.unwrap();
        }
        seen
    }

    #[tokio::test]
    async fn input_is_sent_and_the_exit_status_comes_back() {
        let (near, far) = tokio::io::duplex(4096);
        let exit = ShellExit { status: Some(3), signal: None, failure: None, ext: Ext::none() };
        let far = tokio::spawn(target(vec![ShellFrame::Exit(exit.clone())], far));
        let end = run(near, start(Some("x".to_owned()), false), local(b"~.\nhi")).await.unwrap();
        assert_eq!(end, ShellEnd::Exit(exit));
        let seen = far.await.unwrap();
        assert_eq!(seen[1..], [ShellFrame::Input(b"~.\nhi".to_vec()), ShellFrame::InputEnd]);
    }

    #[test]
    fn an_interrupt_is_passed_on_first_and_ends_the_shell_when_nothing_gets_through() {
        assert!(!ends_here("INT", false));
        assert!(ends_here("INT", true));
        assert!(ends_here("TERM", false));
        assert!(!ends_here("WINCH", true));
    }

    #[test]
    fn what_waits_is_sent_in_order_and_bounded() {
        let mut waiting = Waiting::default();
        waiting.add(&[ShellFrame::Input(b"ab".to_vec()), ShellFrame::InputEnd]).unwrap();
        assert_eq!(waiting.bytes(), [2, 0, 0, 2, b'a', b'b', 3, 0, 0, 0]);
        waiting.taken(6);
        assert_eq!(waiting.bytes(), [3, 0, 0, 0]);
        waiting.taken(4);
        assert!(waiting.is_empty() && waiting.has_room());
        waiting.add(&[ShellFrame::Input(vec![0; WAITING_BYTES_MAX])]).unwrap();
        assert!(!waiting.has_room());
    }

    #[tokio::test]
    async fn outputs_stay_apart() {
        let (near, far) = tokio::io::duplex(4096);
        let exit = ShellExit { status: Some(0), signal: None, failure: None, ext: Ext::none() };
        let answers = vec![
            ShellFrame::Output(b"out".to_vec()),
            ShellFrame::ErrorOutput(b"err".to_vec()),
            ShellFrame::Exit(exit),
        ];
        tokio::spawn(target(answers, far));
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let local = Local { input: &b""[..], output: &mut output, errors: &mut errors };
        run(near, start(None, false), local).await.unwrap();
        assert_eq!((output.as_slice(), errors.as_slice()), (&b"out"[..], &b"err"[..]));
    }

    #[tokio::test]
    async fn a_channel_that_ends_without_an_exit_is_lost() {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(target(Vec::new(), far));
        assert_eq!(run(near, start(None, false), local(b"")).await.unwrap(), ShellEnd::Lost);
    }

    #[tokio::test]
    async fn a_command_that_takes_no_more_input_is_heard_to_its_end() {
        let (near, mut far) = tokio::io::duplex(256);
        let exit = ShellExit { status: Some(3), signal: None, failure: None, ext: Ext::none() };
        let answer = ShellFrame::Exit(exit.clone());
        tokio::spawn(async move {
            far.read_exact(&mut [0; 4]).await.unwrap();
            send(&mut far, &ShellFrame::Output(b"hi".to_vec())).await.unwrap();
            send(&mut far, &answer).await.unwrap();
        });
        // What comes out is taken long after the channel has broken for what goes in.
        let (output, mut shown) = tokio::io::duplex(1);
        let local = Local { input: tokio::io::repeat(b'y'), output, errors: Vec::new() };
        let reading = async move {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let mut bytes = Vec::new();
            shown.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let (end, bytes) = tokio::join!(run(near, start(None, false), local), reading);
        assert_eq!(end.unwrap(), ShellEnd::Exit(exit));
        assert_eq!(bytes, b"hi");
    }

    #[tokio::test]
    async fn frames_of_the_wrong_direction_are_refused() {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(target(vec![ShellFrame::InputEnd], far));
        assert!(matches!(run(near, start(None, false), local(b"")).await, Err(ShellError::Protocol(_))));
    }
}
