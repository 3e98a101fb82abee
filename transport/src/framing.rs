//! Control envelopes on a byte stream: the only implementation of their framing.

use std::io;

use rc_proto::wire::message::{Message, MessageError};
use rc_proto::wire::{Alpn, EncodeError, EnvelopeError, MessageKind, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use crate::leg::Leg;
use crate::path_io::PathIo;

/// Why no further message can be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The stream failed; [`crate::LegError::of`] may tell more.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The stream ended inside an envelope.
    #[error("the stream ended {have} bytes into an envelope")]
    Truncated {
        /// Bytes of the envelope that came.
        have: usize,
    },
    /// An envelope larger than allowed in this state.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// More bytes than allowed before the first accepted request.
    #[error("more than {limit} bytes came before a request was accepted")]
    Budget {
        /// The bytes allowed.
        limit: usize,
    },
    /// An envelope that is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message that the peer's role may not send here.
    #[error("a {role} may not send {kind:?} on {alpn}", alpn = alpn.name())]
    NotAllowed {
        /// The peer's role.
        role: Role,
        /// The connection's protocol.
        alpn: Alpn,
        /// What it sent.
        kind: MessageKind,
    },
    /// Our own message cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl FramingError {
    /// Whether the peer broke the protocol, as opposed to a network that failed or a mistake of ours.
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Envelope(_) | Self::Budget { .. } | Self::Message(_) | Self::NotAllowed { .. } => true,
            Self::Io(_) | Self::Truncated { .. } | Self::Encode(_) => false,
        }
    }
}

/// Control messages over a byte stream, in both directions.
#[derive(Debug)]
pub struct MessageStream<S> {
    _io: S,
}

/// The receiving half of a control link.
#[derive(Debug)]
pub struct MessageReader<S> {
    _io: ReadHalf<S>,
}

/// The sending half of a control link.
#[derive(Debug)]
pub struct MessageWriter<S> {
    _io: WriteHalf<S>,
}

impl MessageStream<Leg> {
    /// Messages over a leg; who may send what follows from its peer's role and its protocol.
    pub fn over(_leg: Leg) -> Self {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageStream<S> {
    /// Messages over `io`, whose peer has `role`. Bodies are at most 4 KiB until [`Self::accepted`].
    pub fn new(_io: S, _role: Role, _alpn: Alpn) -> Self {
        unimplemented!()
    }

    /// The first request was accepted: bodies up to 64 KiB from here on.
    pub fn accepted(&mut self) {
        unimplemented!()
    }

    /// The next message; `None` after a clean end between envelopes. Types of a later version that may be skipped
    /// are skipped. Cancel-safe.
    ///
    /// # Errors
    /// When the stream fails or the peer breaks the protocol; the stream is of no further use then.
    pub async fn recv(&mut self) -> Result<Option<Message>, FramingError> {
        unimplemented!()
    }

    /// Sends a message and flushes. When it is cancelled, what is left goes out in front of the next message.
    ///
    /// # Errors
    /// When the message cannot be encoded (nothing was sent), or the stream fails.
    pub async fn send(&mut self, _message: &Message) -> Result<(), FramingError> {
        unimplemented!()
    }

    /// What carries the messages.
    pub fn io(&self) -> &S {
        unimplemented!()
    }

    /// The stream, and the bytes that were read behind the last message: raw bytes after `PathOpened`, `OpenPath`.
    pub fn into_inner(self) -> (S, Vec<u8>) {
        unimplemented!()
    }

    /// A control link's two halves, for a reading and a writing task.
    pub fn split(self) -> (MessageReader<S>, MessageWriter<S>) {
        unimplemented!()
    }

    /// An endpoint that has sent `OpenPath` or `JoinPath`: from here on bytes are written raw, and are read raw
    /// behind the broker's `PathOpened`.
    pub fn into_path(self) -> PathIo<S> {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageReader<S> {
    /// As [`MessageStream::accepted`].
    pub fn accepted(&mut self) {
        unimplemented!()
    }

    /// As [`MessageStream::recv`].
    ///
    /// # Errors
    /// As [`MessageStream::recv`].
    pub async fn recv(&mut self) -> Result<Option<Message>, FramingError> {
        unimplemented!()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageWriter<S> {
    /// As [`MessageStream::send`].
    ///
    /// # Errors
    /// As [`MessageStream::send`].
    pub async fn send(&mut self, _message: &Message) -> Result<(), FramingError> {
        unimplemented!()
    }

    /// Ends the link cleanly.
    ///
    /// # Errors
    /// When the stream fails first.
    pub async fn close(&mut self) -> Result<(), FramingError> {
        unimplemented!()
    }
}
