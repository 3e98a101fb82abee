//! One direction of a channel as its reader sees it: what came in order, what was read, what is granted.
//!
//! `read ≤ next ≤ granted` (FIN's position needs no credit). Offsets only move up; anything that came before is
//! dropped, nothing is reassembled.

use std::collections::VecDeque;

use super::config::{Flaw, Mutant};
use super::hash::RunningHash;
use super::ring::ByteRing;
use crate::wire::codes::AbortCode;
use crate::wire::limits::CHANNEL_INITIAL_CREDIT_BYTES;

/// Why bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// They start behind what is wanted: this path lost something.
    Gap,
    /// The peer broke a rule.
    Abort(AbortCode),
}

/// What a message channel has for its reader, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Message(usize),
    Skipped { from: u64, to: u64 },
}

#[derive(Debug, Default)]
struct Messages {
    ready: VecDeque<Entry>,
    /// Bytes at the ring's end that belong to no complete message.
    partial: usize,
}

/// What `read_message` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageRead {
    /// One whole message.
    Message(Vec<u8>),
    /// The sender gave these positions up; what was there will not come.
    Skipped {
        /// First position that is missing.
        from: u64,
        /// First position that is not.
        to: u64,
    },
    /// No whole message is there; a `Readable` event follows.
    Empty,
    /// The peer has finished and everything was read.
    Finished,
}

/// The reading side of one direction.
#[derive(Debug)]
pub(super) struct ChannelReceiver {
    ring: ByteRing,
    /// Bytes received or skipped, without FIN.
    received: u64,
    final_size: Option<u64>,
    granted: u64,
    window: u64,
    hasher: Option<RunningHash>,
    messages: Option<Messages>,
    flaw: Flaw,
}

impl ChannelReceiver {
    pub(super) fn new(window: u64, has_messages: bool, flaw: Flaw) -> Self {
        Self {
            ring: ByteRing::default(),
            received: 0,
            final_size: None,
            granted: CHANNEL_INITIAL_CREDIT_BYTES,
            window,
            hasher: (!has_messages).then(RunningHash::new),
            messages: has_messages.then(Messages::default),
            flaw,
        }
    }

    /// Next position wanted, behind FIN once that came.
    pub(super) fn next(&self) -> u64 {
        let counts_fin = self.final_size.is_some() && !self.flaw.is(Mutant::FinNotAcknowledged);
        self.received + u64::from(counts_fin)
    }

    /// Highest position that the peer may write up to, as granted so far.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// The window in bytes.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Whether it takes messages apart.
    pub(super) fn has_messages(&self) -> bool {
        self.messages.is_some()
    }

    /// Bytes that wait for the application.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn unread(&self) -> usize {
        self.ring.len()
    }

    /// Running hash over everything received; `None` where no claim is made.
    pub(super) fn hash(&self) -> Option<u64> {
        self.hasher.as_ref().map(RunningHash::claim)
    }

    /// Whether a RESET that ends this direction after `size` bytes fits what came before.
    pub(super) fn may_end_at(&self, size: u64) -> bool {
        self.final_size.map_or(size >= self.received, |known| known == size)
    }

    /// Whether FIN came.
    pub(super) fn is_finished(&self) -> bool {
        self.final_size.is_some()
    }

    /// Whether FIN came and the application has taken every byte before it.
    pub(super) fn is_done(&self) -> bool {
        self.is_finished() && !self.has_readable()
    }

    /// Whether a read would return something other than nothing-yet.
    pub(super) fn has_readable(&self) -> bool {
        match &self.messages {
            Some(messages) => !messages.ready.is_empty(),
            None => !self.ring.is_empty(),
        }
    }

    /// Takes what of `payload` is new; returns how many bytes that is.
    ///
    /// # Errors
    /// A gap, or the rule that the peer broke.
    pub(super) fn accept(
        &mut self,
        offset: u64,
        payload: &[u8],
        fin: bool,
        end_of_message: bool,
    ) -> Result<usize, Rejected> {
        if offset > self.next() {
            return Err(Rejected::Gap);
        }
        let end = offset.checked_add(payload.len() as u64).ok_or(Rejected::Abort(AbortCode::CREDIT))?;
        if end > self.granted {
            return Err(Rejected::Abort(AbortCode::CREDIT));
        }
        let breaks_end = match self.final_size {
            Some(size) => end > size || (fin && end != size),
            None => fin && end < self.received,
        };
        if breaks_end {
            return Err(Rejected::Abort(AbortCode::END_DIFFERS));
        }
        let known = usize::try_from(self.received.saturating_sub(offset)).unwrap_or(usize::MAX);
        let known = if self.flaw.is(Mutant::DuplicatesCounted) { 0 } else { known };
        let new = payload.get(known..).unwrap_or(&[]);
        self.append(new);
        if end_of_message && !new.is_empty() {
            self.complete_message();
        }
        if fin {
            self.final_size = Some(end);
        }
        Ok(new.len())
    }

    fn append(&mut self, new: &[u8]) {
        if new.is_empty() {
            return;
        }
        self.ring.push(new);
        self.received += new.len() as u64;
        if let Some(hasher) = self.hasher.as_mut() {
            hasher.update(new);
        }
        if let Some(messages) = self.messages.as_mut() {
            messages.partial += new.len();
        }
    }

    fn complete_message(&mut self) {
        if let Some(messages) = self.messages.as_mut() {
            messages.ready.push_back(Entry::Message(std::mem::take(&mut messages.partial)));
        }
    }

    /// The sender gives up everything before `to`; returns whether that is news.
    ///
    /// # Errors
    /// The rule that the peer broke.
    pub(super) fn skip(&mut self, to: u64) -> Result<bool, AbortCode> {
        let Some(messages) = self.messages.as_mut() else { return Err(AbortCode::PROTOCOL) };
        if to > self.granted {
            return Err(AbortCode::CREDIT);
        }
        if to <= self.received {
            return Ok(false);
        }
        if self.final_size.is_some() {
            return Err(AbortCode::END_DIFFERS);
        }
        let from = self.received - messages.partial as u64;
        self.ring.truncate(self.ring.len() - messages.partial);
        messages.partial = 0;
        match messages.ready.back_mut() {
            Some(Entry::Skipped { to: last, .. }) if *last == from => *last = to,
            Some(_) | None => messages.ready.push_back(Entry::Skipped { from, to }),
        }
        self.received = to;
        Ok(true)
    }

    /// What would be granted if the peer were told now.
    pub(super) fn grantable(&self) -> u64 {
        let read = self.received - self.ring.len() as u64;
        if self.flaw.is(Mutant::GrantShrinks) {
            return read.saturating_add(self.window.saturating_sub(self.ring.len() as u64));
        }
        read.saturating_add(self.window).max(self.granted)
    }

    /// Grants all that can be; returns the new limit.
    pub(super) fn grant(&mut self) -> u64 {
        self.granted = self.grantable();
        self.granted
    }

    /// Bytes at the front that lie together.
    pub(super) fn peek(&self) -> &[u8] {
        if self.messages.is_some() { &[] } else { self.ring.run(0, usize::MAX) }
    }

    /// Takes up to `count` bytes at the front away.
    pub(super) fn consume(&mut self, count: usize) {
        if self.messages.is_none() {
            self.ring.discard(count);
        }
    }

    /// Takes the next message or notice of a message channel.
    pub(super) fn read_message(&mut self) -> MessageRead {
        let entry = self.messages.as_mut().and_then(|messages| messages.ready.pop_front());
        match entry {
            Some(Entry::Message(length)) => {
                let mut message = Vec::with_capacity(length);
                self.ring.visit(0, length, |run| message.extend_from_slice(run));
                self.ring.discard(length);
                MessageRead::Message(message)
            }
            Some(Entry::Skipped { from, to }) => MessageRead::Skipped { from, to },
            None if self.is_finished() => MessageRead::Finished,
            None => MessageRead::Empty,
        }
    }
}
