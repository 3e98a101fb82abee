//! What the application does with channels and with the session as a whole.

use super::channel::{Channel, Consent};
use super::ending::{END_LINGER, Ending};
use super::event::ChannelError;
use super::life::{Session, Side};
use crate::Moment;
use crate::wire::codes::{Class, EndCode, ResetCode};
use crate::wire::frame::{Open, OpenOptions, Where};
use crate::wire::limits::{CHANNEL_INITIAL_CREDIT_BYTES, TEXT_BYTES_MAX};
use crate::wire::{ChannelId, Ext, ServiceName};

impl Session {
    /// Opens a channel; it can be written to at once, within the initial credit of 64 KiB.
    ///
    /// # Errors
    /// When 64 channels are open or the session is ending.
    pub fn open(
        &mut self,
        service: ServiceName,
        class: Class,
        options: OpenOptions,
    ) -> Result<ChannelId, ChannelError> {
        if self.ending.is_closing() {
            return Err(ChannelError::Ending);
        }
        let id = self.table.take_id().ok_or(ChannelError::TooMany)?;
        let open = Open { service, class, options, ext: Ext::none() };
        let config = &self.config;
        let mut channel =
            Channel::new(open, true, config.send_cap_bytes, config.receive_window_bytes, config.flaw());
        channel.bound = self.table.path_of(class);
        channel.note_credit();
        self.table.open.insert(id, channel);
        Ok(id)
    }

    /// Agrees to a channel that the peer has offered; what it sent meanwhile can be read now.
    ///
    /// # Errors
    /// When the channel is not open. Agreeing twice is no error.
    pub fn accept(&mut self, id: ChannelId) -> Result<(), ChannelError> {
        let channel = self.channel_mut(id)?;
        if channel.consent != Consent::Pending {
            return Ok(());
        }
        channel.consent = Consent::Agreed;
        channel.offer_due = true;
        channel.note_credit();
        let finished = channel.receiver.is_finished();
        self.tell_reader(id, finished);
        Ok(())
    }

    /// Declines a channel that the peer has offered: [`Self::reset`] by another name.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn refuse(&mut self, id: ChannelId, code: ResetCode, reason: &str) -> Result<(), ChannelError> {
        self.reset(id, code, reason)
    }

    /// Writes what fits now and returns how much that is; after less than all, a `Writable` event follows.
    ///
    /// # Errors
    /// When the channel is not open, was finished, or carries messages.
    pub fn write(&mut self, id: ChannelId, bytes: &[u8]) -> Result<usize, ChannelError> {
        let channel = self.writable_channel(id)?;
        if channel.has_messages() {
            return Err(ChannelError::WrongKind(id));
        }
        let taken = channel.sender.write(bytes);
        channel.told.wants_room = taken < bytes.len();
        self.totals.bytes_out += taken as u64;
        Ok(taken)
    }

    /// Bytes that a write would take now.
    pub fn write_room(&self, id: ChannelId) -> usize {
        self.table.open.get(&id).map_or(0, |channel| channel.sender.room())
    }

    /// Writes one whole message or nothing; after false, a `Writable` event follows.
    ///
    /// # Errors
    /// When the channel is not open or carries no messages, or the message is empty or larger than 64 KiB.
    pub fn write_message(
        &mut self,
        id: ChannelId,
        message: &[u8],
        now: Moment,
    ) -> Result<bool, ChannelError> {
        let channel = self.writable_channel(id)?;
        if !channel.has_messages() {
            return Err(ChannelError::WrongKind(id));
        }
        if message.is_empty() || message.len() as u64 > CHANNEL_INITIAL_CREDIT_BYTES {
            return Err(ChannelError::MessageLength(message.len()));
        }
        let taken = channel.sender.write_message(message, now);
        channel.told.wants_room = !taken;
        if taken {
            self.totals.bytes_out += message.len() as u64;
        }
        Ok(taken)
    }

    /// Whether the peer has acknowledged everything that this side wrote, and its finish; so too when the channel is gone.
    pub fn is_acknowledged(&self, id: ChannelId) -> bool {
        self.table.open.get(&id).is_none_or(|channel| channel.sender.is_done())
    }

    /// Whether the peer has acknowledged every byte that this side wrote, finished or not; so too when the channel is gone.
    pub fn is_delivered(&self, id: ChannelId) -> bool {
        self.table.open.get(&id).is_none_or(|channel| channel.sender.is_drained())
    }

    /// Ends this side's direction behind what was written. Finishing twice is no error.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn finish(&mut self, id: ChannelId) -> Result<(), ChannelError> {
        self.channel_mut(id)?.sender.finish();
        Ok(())
    }

    /// Gives the channel up in both directions; what is buffered is dropped. `reason` is cut at 255 bytes.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn reset(&mut self, id: ChannelId, code: ResetCode, reason: &str) -> Result<(), ChannelError> {
        self.channel_mut(id)?;
        self.reset_channel(id, code, reason);
        self.settle();
        Ok(())
    }

    pub(super) fn reset_channel(&mut self, id: ChannelId, code: ResetCode, reason: &str) {
        let Some(channel) = self.table.open.remove(&id) else { return };
        if channel.opened_here && !channel.offered {
            self.close_channel(id);
            return;
        }
        self.queue_reset(id, channel.class(), code, cut(reason), channel.sender.data_end());
    }

    /// Ends the session once every channel is finished and acknowledged; nothing can be opened any more. The
    /// `Ended` event follows when the peer has confirmed. A second call changes nothing.
    pub fn end(&mut self, code: EndCode, reason: &str) {
        if !self.ending.is_closing() {
            self.ending = Ending::Wanted { code, reason: cut(reason), until: None };
            self.settle();
        }
    }

    /// Ends the session without waiting for its channels: each open one is reset first. If the peer has not confirmed
    /// within 30 s, the session ends without it.
    pub fn cut(&mut self, code: EndCode, reason: &str, now: Moment) {
        if self.ending.is_over() {
            return;
        }
        for id in self.table.open.keys().copied().collect::<Vec<_>>() {
            self.reset_channel(id, ResetCode::CANCELLED, "");
        }
        self.ending.cut(code, cut(reason), now + END_LINGER);
        self.settle();
    }

    /// Target: tells the Controller where it is registered, now and on each later path.
    pub fn tell_where(&mut self, place: &Where) {
        if self.identity.side == Side::Target {
            self.frames.place = place.encode().ok().map(|payload| (payload, true));
        }
    }

    fn channel_mut(&mut self, id: ChannelId) -> Result<&mut Channel, ChannelError> {
        self.table.open.get_mut(&id).ok_or(ChannelError::NotOpen(id))
    }

    fn writable_channel(&mut self, id: ChannelId) -> Result<&mut Channel, ChannelError> {
        if self.ending.is_over() {
            return Err(ChannelError::Ending);
        }
        let channel = self.channel_mut(id)?;
        if channel.sender.is_finished() { Err(ChannelError::NotOpen(id)) } else { Ok(channel) }
    }
}

/// The longest prefix that a reason may have.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(TEXT_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}
