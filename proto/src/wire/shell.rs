//! What the `shell` service speaks inside its channel: `u8 type | u24 len` (big-endian) and a payload.
//!
//! ```text
//! Controller → Target   Start (once, first)   Input   InputEnd   Window   Signal
//! Target → Controller   Output   ErrorOutput   Exit (once, last)
//! ```
//! With a terminal both outputs are one stream, as on any terminal; without one they stay apart.

use super::codec::{self, Decode, Encode};
use super::ext::Ext;

/// Bytes of one frame's payload. Input and output are split to fit.
pub const SHELL_PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a frame's header.
const HEADER_BYTES: usize = 4;

/// Size of a terminal, in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct WindowSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// The terminal that the Controller wants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    /// Value of `TERM` at the Controller.
    pub kind: String,
    /// Its size.
    pub size: WindowSize,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShellStart {
    /// The terminal; `None` runs without one.
    pub terminal: Option<Terminal>,
    /// The command line for the user's shell; `None` is a login shell.
    pub command: Option<String>,
    /// Later additions.
    pub ext: Ext,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShellExit {
    /// The exit status, when it exited.
    pub status: Option<u8>,
    /// The name of the signal without `SIG`, when one killed it.
    pub signal: Option<String>,
    /// Why it could not be run at all, for people.
    pub failure: Option<String>,
    /// Later additions.
    pub ext: Ext,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellFrame {
    /// What to run.
    Start(ShellStart),
    /// Bytes for standard input.
    Input(Vec<u8>),
    /// End of standard input.
    InputEnd,
    /// The Controller's terminal changed its size.
    Window(WindowSize),
    /// A signal for the foreground, by its name without `SIG`.
    Signal(String),
    /// Bytes of standard output.
    Output(Vec<u8>),
    /// Bytes of standard error.
    ErrorOutput(Vec<u8>),
    /// How it ended.
    Exit(ShellExit),
}

/// Why bytes are not shell frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellFrameError {
    /// A frame type that this version does not know.
    #[error("shell frame type {0} is unknown")]
    UnknownType(u8),
    /// A payload over the limit.
    #[error("a shell frame of {0} bytes came, {SHELL_PAYLOAD_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// A payload that is not what its type says.
    #[error("shell frame type {kind}: {reason}")]
    Malformed {
        /// The frame's type.
        kind: u8,
        /// What is wrong.
        reason: String,
    },
}

impl ShellFrame {
    /// Appends the frame to `out`. Input and output payloads over the limit are split over several frames; other
    /// payloads over it (a command line that long) are refused.
    ///
    /// # Errors
    /// When a structured payload exceeds [`SHELL_PAYLOAD_BYTES_MAX`] or cannot be encoded.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), super::EncodeError> {
        match self {
            Self::Start(start) => append(out, 1, &codec::encode(start)?),
            Self::Input(bytes) => append_split(out, 2, bytes),
            Self::InputEnd => append(out, 3, &[]),
            Self::Window(size) => append(out, 4, &codec::encode(size)?),
            Self::Signal(name) => append(out, 5, name.as_bytes()),
            Self::Output(bytes) => append_split(out, 6, bytes),
            Self::ErrorOutput(bytes) => append_split(out, 7, bytes),
            Self::Exit(exit) => append(out, 8, &codec::encode(exit)?),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, ShellFrameError> {
        let malformed = |reason: String| ShellFrameError::Malformed { kind, reason };
        Ok(match kind {
            1 => Self::Start(codec::decode(payload).map_err(|e| malformed(e.to_string()))?),
            2 => Self::Input(payload.to_vec()),
            3 => Self::InputEnd,
            4 => Self::Window(codec::decode(payload).map_err(|e| malformed(e.to_string()))?),
            5 => {
                let name = std::str::from_utf8(payload).map_err(|e| malformed(e.to_string()))?;
                if name.is_empty() || name.len() > 16 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return Err(malformed("not the name of a signal".to_owned()));
                }
                Self::Signal(name.to_owned())
            }
            6 => Self::Output(payload.to_vec()),
            7 => Self::ErrorOutput(payload.to_vec()),
            8 => Self::Exit(codec::decode(payload).map_err(|e| malformed(e.to_string()))?),
            unknown => return Err(ShellFrameError::UnknownType(unknown)),
        })
    }
}

fn append(out: &mut Vec<u8>, kind: u8, payload: &[u8]) -> Result<(), super::EncodeError> {
    let too_large = super::EncodeError::TooLarge { length: payload.len(), limit: SHELL_PAYLOAD_BYTES_MAX };
    if payload.len() > SHELL_PAYLOAD_BYTES_MAX {
        return Err(too_large);
    }
    let Ok(length) = u32::try_from(payload.len()) else { return Err(too_large) };
    let [_, l1, l2, l3] = length.to_be_bytes();
    out.extend_from_slice(&[kind, l1, l2, l3]);
    out.extend_from_slice(payload);
    Ok(())
}

fn append_split(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) -> Result<(), super::EncodeError> {
    bytes.chunks(SHELL_PAYLOAD_BYTES_MAX).try_for_each(|chunk| append(out, kind, chunk))
}

/// Takes frames out of a byte stream; keeps at most one frame.
#[derive(Debug, Default)]
pub struct ShellDecoder {
    buffer: Vec<u8>,
}

impl ShellDecoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not shell frames; the channel is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<ShellFrame>, ShellFrameError> {
        let Some((&[kind, l1, l2, l3], rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(l1) << 16 | usize::from(l2) << 8 | usize::from(l3);
        if length > SHELL_PAYLOAD_BYTES_MAX {
            return Err(ShellFrameError::TooLarge(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = ShellFrame::decode(kind, payload)?;
        self.buffer.drain(..HEADER_BYTES + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<ShellFrame> {
        let size = WindowSize { columns: 120, rows: 40 };
        vec![
            ShellFrame::Start(ShellStart {
                terminal: Some(Terminal { kind: "xterm".to_owned(), size }),
                command: Some("uname -a".to_owned()),
                ext: Ext::none(),
            }),
            ShellFrame::Input(b"ls\n".to_vec()),
            ShellFrame::InputEnd,
            ShellFrame::Window(size),
            ShellFrame::Signal("INT".to_owned()),
            ShellFrame::Output(b"out".to_vec()),
            ShellFrame::ErrorOutput(b"err".to_vec()),
            ShellFrame::Exit(ShellExit { status: Some(3), signal: None, failure: None, ext: Ext::none() }),
        ]
    }

    #[test]
    fn frames_have_these_bytes() {
        let mut bytes = Vec::new();
        for frame in samples() {
            frame.encode(&mut bytes).unwrap();
        }
        let expected = [
            &[1, 0, 0, 20, 1, 5][..],
            b"xterm",
            &[120, 40, 1, 8],
            b"uname -a",
            &[0],
            &[2, 0, 0, 3],
            b"ls\n",
            &[3, 0, 0, 0],
            &[4, 0, 0, 2, 120, 40],
            &[5, 0, 0, 3],
            b"INT",
            &[6, 0, 0, 3],
            b"out",
            &[7, 0, 0, 3],
            b"err",
            &[8, 0, 0, 5, 1, 3, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let mut bytes = Vec::new();
        for frame in samples() {
            frame.encode(&mut bytes).unwrap();
        }
        let mut decoder = ShellDecoder::default();
        let mut found = Vec::new();
        for byte in bytes {
            decoder.push(&[byte]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                found.push(frame);
            }
        }
        assert_eq!(found, samples());
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_by_its_header() {
        let mut decoder = ShellDecoder::default();
        decoder.push(&[2, 0, 0x80, 1]);
        assert_eq!(decoder.next_frame(), Err(ShellFrameError::TooLarge(0x8001)));
        let mut decoder = ShellDecoder::default();
        decoder.push(&[2, 0, 0x80, 0]);
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn long_output_is_split_and_nothing_else_is() {
        let mut bytes = Vec::new();
        ShellFrame::Output(vec![7; SHELL_PAYLOAD_BYTES_MAX + 1]).encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), SHELL_PAYLOAD_BYTES_MAX + 1 + 2 * HEADER_BYTES);
        let long = ShellStart {
            terminal: None,
            command: Some("x".repeat(SHELL_PAYLOAD_BYTES_MAX)),
            ext: Ext::none(),
        };
        assert!(ShellFrame::Start(long).encode(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_signal_is_a_short_word() {
        for (name, valid) in [("TERM", true), ("", false), ("A;B", false), ("ABCDEFGHIJKLMNOPQ", false)] {
            let mut decoder = ShellDecoder::default();
            decoder.push(&[5, 0, 0, u8::try_from(name.len()).unwrap()]);
            decoder.push(name.as_bytes());
            assert_eq!(decoder.next_frame().is_ok(), valid, "{name:?}");
        }
    }
}
