//! Control envelopes on a byte stream: the only implementation of their framing.
//!
//! What is read goes into a buffer that belongs to the stream and not to a future, so receiving can be cancelled at
//! any point and loses nothing. The buffer never holds more than one largest envelope, and nothing while idle.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use rc_proto::wire::message::{Message, MessageError};
use rc_proto::wire::{
    Alpn, EncodeError, Envelope, EnvelopeError, EnvelopeHeader, MessageKind, Role, limits, may_send,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::leg::Leg;
use crate::path_io::PathIo;

/// One read while no larger envelope is announced, in bytes.
const READ_BYTES: usize = 2048;
/// Bytes that a writer holds for sends that were cancelled; beyond it a send waits for the stream first.
const UNSENT_BYTES_MAX: usize = 2 * limits::ENVELOPE_BODY_BYTES_MAX;

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

/// The receiving side of one stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    buffer: BytesMut,
    /// Largest body now.
    body_bytes_max: usize,
    /// What may still come before a request is accepted; `None` afterwards.
    budget: Option<usize>,
    role: Role,
    alpn: Alpn,
}

impl Inbound {
    fn new(role: Role, alpn: Alpn) -> Self {
        Self {
            buffer: BytesMut::new(),
            body_bytes_max: limits::ENVELOPE_BODY_BYTES_BEFORE_HELLO_MAX,
            budget: Some(limits::PRE_AUTH_BYTES_MAX),
            role,
            alpn,
        }
    }

    fn accept(&mut self) {
        self.body_bytes_max = limits::ENVELOPE_BODY_BYTES_MAX;
        self.budget = None;
    }

    /// The next message of `io`; `None` after a clean end between envelopes.
    pub(crate) fn poll_message<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Message>, FramingError>> {
        loop {
            while let Some(envelope) = self.take_envelope()? {
                if let Some(message) = self.admit(&envelope)? {
                    return Poll::Ready(Ok(Some(message)));
                }
            }
            let room = self.room();
            self.buffer.reserve(room);
            let mut bounded = (&mut self.buffer).limit(room);
            let read = tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut bounded);
            if ready!(read)? == 0 {
                let have = self.buffer.len();
                return Poll::Ready(if have == 0 { Ok(None) } else { Err(FramingError::Truncated { have }) });
            }
        }
    }

    /// Takes the first whole envelope out of the buffer.
    fn take_envelope(&mut self) -> Result<Option<Envelope>, FramingError> {
        let Some((envelope, used)) = Envelope::parse_prefix(&self.buffer, self.body_bytes_max)? else {
            return Ok(None);
        };
        self.buffer.advance(used);
        if self.buffer.is_empty() {
            // An idle link keeps no buffer.
            self.buffer = BytesMut::new();
        }
        if let Some(budget) = &mut self.budget {
            *budget =
                budget.checked_sub(used).ok_or(FramingError::Budget { limit: limits::PRE_AUTH_BYTES_MAX })?;
        }
        Ok(Some(envelope))
    }

    /// The message in an envelope, if its sender may send it here; `None` when it is to be skipped.
    fn admit(&self, envelope: &Envelope) -> Result<Option<Message>, FramingError> {
        if let Some(kind) = MessageKind::from_number(envelope.kind)
            && !may_send(self.role, self.alpn, kind)
        {
            return Err(FramingError::NotAllowed { role: self.role, alpn: self.alpn, kind });
        }
        Ok(Message::from_envelope(envelope)?)
    }

    /// How much to read at most: what the announced envelope lacks, or a little. Never zero, since a whole
    /// envelope was taken out before.
    fn room(&self) -> usize {
        let needed = match self.buffer.first_chunk::<{ EnvelopeHeader::BYTES }>() {
            Some(header) => {
                let length = usize::try_from(EnvelopeHeader::parse(*header).length).unwrap_or(usize::MAX);
                EnvelopeHeader::BYTES.saturating_add(length.min(self.body_bytes_max))
            }
            None => 0,
        };
        needed.saturating_sub(self.buffer.len()).max(READ_BYTES)
    }

    /// What was read behind the last message.
    pub(crate) fn into_rest(self) -> BytesMut {
        self.buffer
    }
}

/// The sending side of one stream.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    unsent: BytesMut,
    needs_flush: bool,
}

/// What [`MessageStream::exchange`] came to.
#[derive(Debug)]
pub enum Exchange {
    /// Everything that was put in the queue is out.
    Sent,
    /// A message came; `None` at a clean end.
    Received(Option<Box<Message>>),
}

impl Outbound {
    async fn send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        message: &Message,
    ) -> Result<(), FramingError> {
        let bytes = message.to_bytes()?;
        if self.unsent.len() + bytes.len() > UNSENT_BYTES_MAX {
            self.drain(io).await?;
        }
        self.unsent.extend_from_slice(&bytes);
        self.drain(io).await?;
        io.flush().await?;
        Ok(())
    }

    /// Whether everything is out.
    fn is_idle(&self) -> bool {
        self.unsent.is_empty() && !self.needs_flush
    }

    fn poll_out<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(io, cx))?;
        if self.needs_flush {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    async fn drain<S: AsyncWrite + Unpin>(&mut self, io: &mut S) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(io, cx)).await
    }

    /// Writes what is left of earlier sends.
    pub(crate) fn poll_drain<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, &self.unsent))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(count);
        }
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Control messages over a byte stream, in both directions.
#[derive(Debug)]
pub struct MessageStream<S> {
    io: S,
    inbound: Inbound,
    outbound: Outbound,
}

/// The receiving half of a control link.
#[derive(Debug)]
pub struct MessageReader<S> {
    io: ReadHalf<S>,
    inbound: Inbound,
}

/// The sending half of a control link.
#[derive(Debug)]
pub struct MessageWriter<S> {
    io: WriteHalf<S>,
    outbound: Outbound,
}

impl MessageStream<Leg> {
    /// Messages over a leg; who may send what follows from its peer's role and its protocol. A leg that this side
    /// dialled is accepted from the start: the peer is one that this side chose.
    pub fn over(leg: Leg) -> Self {
        let (role, alpn, is_dialled) = (leg.peer().id.role(), leg.alpn(), leg.is_dialled());
        let mut stream = Self::new(leg, role, alpn);
        if is_dialled {
            stream.accepted();
        }
        stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageStream<S> {
    /// Messages over `io`, whose peer has `role`. Until [`Self::accepted`], bodies are at most 4 KiB and all
    /// messages together 8 KiB.
    pub fn new(io: S, role: Role, alpn: Alpn) -> Self {
        Self { io, inbound: Inbound::new(role, alpn), outbound: Outbound::default() }
    }

    /// The first request was accepted: bodies up to 64 KiB from here on.
    pub fn accepted(&mut self) {
        self.inbound.accept();
    }

    /// The next message; `None` after a clean end between envelopes. Types of a later version that may be skipped
    /// are skipped. Cancel-safe.
    ///
    /// # Errors
    /// When the stream fails or the peer breaks the protocol; the stream is of no further use then.
    pub async fn recv(&mut self) -> Result<Option<Message>, FramingError> {
        std::future::poll_fn(|cx| self.inbound.poll_message(&mut self.io, cx)).await
    }

    /// Sends a message and flushes. When it is cancelled, what is left goes out in front of the next message.
    ///
    /// # Errors
    /// When the message cannot be encoded (nothing was sent), or the stream fails.
    pub async fn send(&mut self, message: &Message) -> Result<(), FramingError> {
        self.outbound.send(&mut self.io, message).await
    }

    /// Puts a message behind those that are on their way; [`Self::exchange`] sends them.
    ///
    /// # Errors
    /// When the message cannot be encoded.
    pub fn enqueue(&mut self, message: &Message) -> Result<(), FramingError> {
        self.outbound.unsent.extend_from_slice(&message.to_bytes()?);
        self.outbound.needs_flush = true;
        Ok(())
    }

    /// Bytes that are queued and not written yet.
    pub fn unsent_bytes(&self) -> usize {
        self.outbound.unsent.len()
    }

    /// Whether everything that was queued is out.
    pub fn is_all_sent(&self) -> bool {
        self.outbound.is_idle()
    }

    /// Sends what is queued and receives at the same time, so that two sides that both have much to say cannot block
    /// each other. Ends when something came, or when the queue has become empty. Cancel-safe.
    ///
    /// # Errors
    /// When the stream fails or the peer breaks the protocol; the stream is of no further use then.
    pub async fn exchange(&mut self) -> Result<Exchange, FramingError> {
        let was_idle = self.outbound.is_idle();
        std::future::poll_fn(|cx| {
            let sent = self.outbound.poll_out(&mut self.io, cx)?;
            if let Poll::Ready(message) = self.inbound.poll_message(&mut self.io, cx)? {
                return Poll::Ready(Ok(Exchange::Received(message.map(Box::new))));
            }
            if sent.is_ready() && !was_idle { Poll::Ready(Ok(Exchange::Sent)) } else { Poll::Pending }
        })
        .await
    }

    /// What carries the messages.
    pub fn io(&self) -> &S {
        &self.io
    }

    /// The stream, and the bytes that were read behind the last message: raw bytes after `PathOpened`, `OpenPath`.
    /// Every send must have ended.
    pub fn into_inner(self) -> (S, Vec<u8>) {
        (self.io, self.inbound.into_rest().into())
    }

    /// A control link's two halves, for a reading and a writing task.
    pub fn split(self) -> (MessageReader<S>, MessageWriter<S>) {
        let (read, write) = tokio::io::split(self.io);
        (
            MessageReader { io: read, inbound: self.inbound },
            MessageWriter { io: write, outbound: self.outbound },
        )
    }

    /// An endpoint that has sent `OpenPath` or `JoinPath`: from here on bytes are written raw, and are read raw
    /// behind the broker's `PathOpened`.
    pub fn into_path(self) -> PathIo<S> {
        PathIo::new(self.io, self.inbound, self.outbound)
    }
}

impl MessageStream<Leg> {
    /// Says why and closes, so that the answer arrives: see [`Leg::close_after_refusal`].
    ///
    /// # Errors
    /// When the answer cannot be written.
    pub async fn refuse(mut self, answer: &Message) -> Result<(), FramingError> {
        self.send(answer).await?;
        self.io.close_after_refusal().await;
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageReader<S> {
    /// As [`MessageStream::accepted`].
    pub fn accepted(&mut self) {
        self.inbound.accept();
    }

    /// As [`MessageStream::recv`].
    ///
    /// # Errors
    /// As [`MessageStream::recv`].
    pub async fn recv(&mut self) -> Result<Option<Message>, FramingError> {
        std::future::poll_fn(|cx| self.inbound.poll_message(&mut self.io, cx)).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageWriter<S> {
    /// As [`MessageStream::send`].
    ///
    /// # Errors
    /// As [`MessageStream::send`].
    pub async fn send(&mut self, message: &Message) -> Result<(), FramingError> {
        self.outbound.send(&mut self.io, message).await
    }

    /// Ends the link cleanly.
    ///
    /// # Errors
    /// When the stream fails first.
    pub async fn close(&mut self) -> Result<(), FramingError> {
        self.outbound.drain(&mut self.io).await?;
        Ok(self.io.shutdown().await?)
    }
}
