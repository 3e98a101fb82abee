//! How the application reads: bytes or messages, of a channel that is open or of what its reset has left.

use super::channel::{Channel, Consent};
use super::event::{ChannelError, ReadOutcome};
use super::life::Session;
use super::receiver::{ChannelReceiver, MessageRead};
use super::table::Known;
use crate::wire::ChannelId;

impl Session {
    /// Reads into `buffer` what is there.
    ///
    /// # Errors
    /// When the channel was reset here, never was, or carries messages. One that was closed reads as finished, and so
    /// does one that the peer has reset, behind what had come before.
    pub fn read(&mut self, id: ChannelId, buffer: &mut [u8]) -> Result<ReadOutcome, ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let run = self.peek(id)?;
            let space = buffer.get_mut(filled..).unwrap_or(&mut []);
            let count = run.len().min(space.len());
            if let (Some(to), Some(from)) = (space.get_mut(..count), run.get(..count)) {
                to.copy_from_slice(from);
            }
            if count == 0 {
                break;
            }
            filled += count;
            self.consume(id, count);
        }
        if filled > 0 {
            return Ok(ReadOutcome::Bytes(filled));
        }
        Ok(self.note_empty_read(id))
    }

    /// The bytes to read next that lie together; [`Self::consume`] takes them. Empty when there are none yet, or
    /// none any more.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn peek(&self, id: ChannelId) -> Result<&[u8], ChannelError> {
        let (receiver, pending) = match (self.table.open.get(&id), self.table.left.get(&id)) {
            (Some(channel), _) => (&channel.receiver, channel.consent == Consent::Pending),
            (None, Some(left)) => (left, false),
            (None, None) => return self.closed(id).map(|()| &[][..]),
        };
        if receiver.has_messages() {
            return Err(ChannelError::WrongKind(id));
        }
        Ok(if pending { &[] } else { receiver.peek() })
    }

    /// Takes `count` bytes that [`Self::peek`] has shown; this is what grants the peer new credit.
    pub fn consume(&mut self, id: ChannelId, count: usize) {
        if let Some(channel) = self.agreed(id) {
            channel.receiver.consume(count);
            channel.note_credit();
            self.settle();
        } else if let Some(left) = self.table.left.get_mut(&id) {
            left.consume(count);
            self.drop_spent(id);
        }
    }

    /// Takes the next message, or the notice that some were skipped.
    ///
    /// # Errors
    /// When the channel was reset here, never was, or carries no messages.
    pub fn read_message(&mut self, id: ChannelId) -> Result<MessageRead, ChannelError> {
        let receiver = match (self.table.open.get(&id), self.table.left.get(&id)) {
            (Some(channel), _) => &channel.receiver,
            (None, Some(left)) => left,
            (None, None) => return self.closed(id).map(|()| MessageRead::Finished),
        };
        if !receiver.has_messages() {
            return Err(ChannelError::WrongKind(id));
        }
        if let Some(channel) = self.agreed(id) {
            let read = channel.receiver.read_message();
            channel.told.readable &= read != MessageRead::Empty;
            channel.note_credit();
            self.settle();
            return Ok(read);
        }
        let Some(left) = self.table.left.get_mut(&id) else { return Ok(MessageRead::Empty) };
        let read = left.read_message();
        if read == MessageRead::Finished {
            self.forget(id);
        }
        self.drop_spent(id);
        Ok(read)
    }

    /// Whether the peer's reset of a channel has left something to read: bytes, or that it had finished before.
    pub fn has_left(&self, id: ChannelId) -> bool {
        self.table.left.contains_key(&id)
    }

    /// Drops what a reset has left.
    pub fn forget(&mut self, id: ChannelId) {
        self.table.left.remove(&id);
    }

    /// An open channel that the application has agreed to.
    fn agreed(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.table.open.get_mut(&id).filter(|channel| channel.consent != Consent::Pending)
    }

    fn closed(&self, id: ChannelId) -> Result<(), ChannelError> {
        if self.table.known(id) == Known::Closed { Ok(()) } else { Err(ChannelError::NotOpen(id)) }
    }

    /// A rest without a finish is spent with its last byte; one with it when the reader has seen that.
    fn drop_spent(&mut self, id: ChannelId) {
        let is_spent = |left: &ChannelReceiver| !left.has_readable() && !left.is_finished();
        if self.table.left.get(&id).is_some_and(is_spent) {
            self.forget(id);
        }
    }

    fn note_empty_read(&mut self, id: ChannelId) -> ReadOutcome {
        match self.table.open.get_mut(&id) {
            None if self.table.left.get(&id).is_some_and(ChannelReceiver::has_readable) => ReadOutcome::Empty,
            None => {
                self.forget(id);
                ReadOutcome::Finished
            }
            Some(channel) if channel.receiver.is_done() && channel.consent != Consent::Pending => {
                ReadOutcome::Finished
            }
            Some(channel) => {
                channel.told.readable = false;
                ReadOutcome::Empty
            }
        }
    }
}
