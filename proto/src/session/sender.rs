//! One direction of a channel as its writer sees it: the replay buffer and what of it was sent and acknowledged.
//!
//! ```text
//! 0 ……… acked ≤ base ………… cursor ………… end          base < end only while the peer has not said otherwise
//!       └ skipped ┘└ kept for replay ─────┘
//! ```
//! `base` is the acked offset, or the target of a SKIP that is not acknowledged yet. FIN takes the position behind
//! the last byte. A bind rewinds `cursor` to `base`.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{Flaw, Mutant};
use super::hash::RunningHash;
use super::ring::ByteRing;
use crate::Moment;
use crate::wire::codes::AbortCode;
use crate::wire::limits::CHANNEL_INITIAL_CREDIT_BYTES;

/// Messages of one channel that may wait for an acknowledgement.
pub(super) const MESSAGES_MAX: usize = 4096;

/// The next DATA frame of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) fin: bool,
    pub(super) end_of_message: bool,
}

/// State only a channel of messages has.
#[derive(Debug)]
struct Messages {
    /// Age from which an unacknowledged message is skipped on a bind.
    age: Duration,
    /// End offset and time of writing of each message that is kept.
    written: VecDeque<(u64, Moment)>,
    /// Target of a SKIP that is not acknowledged, and whether this path still has to carry it.
    skip: Option<(u64, bool)>,
}

/// The writing side of one direction.
#[derive(Debug)]
pub(super) struct ChannelSender {
    ring: ByteRing,
    acked: u64,
    base: u64,
    cursor: u64,
    /// Position behind the last byte that any path was given.
    sent: u64,
    data_end: u64,
    finished: bool,
    peer_max: u64,
    cap: usize,
    /// State of the running hash at `base`; none where bytes may be skipped.
    hasher: Option<RunningHash>,
    messages: Option<Messages>,
    flaw: Flaw,
}

impl ChannelSender {
    pub(super) fn new(cap: usize, may_skip_ms: Option<u32>, flaw: Flaw) -> Self {
        let messages = may_skip_ms.map(|age| Messages {
            age: Duration::from_millis(u64::from(age)),
            written: VecDeque::new(),
            skip: None,
        });
        Self {
            ring: ByteRing::default(),
            acked: 0,
            base: 0,
            cursor: 0,
            sent: 0,
            data_end: 0,
            finished: false,
            peer_max: CHANNEL_INITIAL_CREDIT_BYTES,
            cap,
            hasher: messages.is_none().then(RunningHash::new),
            messages,
            flaw,
        }
    }

    /// Position behind the last byte, and behind FIN once that is written.
    pub(super) fn end(&self) -> u64 {
        self.data_end + u64::from(self.finished)
    }

    /// Bytes written, FIN not counted.
    pub(super) fn data_end(&self) -> u64 {
        self.data_end
    }

    /// First position that is kept for replay.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Next position that the peer is known to want.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Highest position that the peer lets this side write up to.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn peer_max(&self) -> u64 {
        self.peer_max
    }

    /// Bytes kept for replay.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn kept(&self) -> usize {
        self.ring.len()
    }

    /// Whether FIN was written.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the peer has acknowledged everything, FIN included.
    pub(super) fn is_done(&self) -> bool {
        self.finished && self.base == self.end()
    }

    /// Whether the peer has acknowledged every byte that was written.
    pub(super) fn is_drained(&self) -> bool {
        self.base >= self.data_end
    }

    /// Bytes that a write takes now.
    pub(super) fn room(&self) -> usize {
        if self.finished {
            return 0;
        }
        let credit = if self.flaw.is(Mutant::CreditIgnored) {
            usize::MAX
        } else {
            usize::try_from(self.peer_max.saturating_sub(self.data_end)).unwrap_or(usize::MAX)
        };
        if self.flaw.is(Mutant::CapIgnored) {
            return credit;
        }
        credit.min(self.cap.saturating_sub(self.ring.len()))
    }

    /// Takes as much of `bytes` as credit and cap allow; returns how much.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.room().min(bytes.len())).unwrap_or(&[]);
        self.ring.push(taken);
        self.data_end += taken.len() as u64;
        taken.len()
    }

    /// Takes a whole message or nothing.
    pub(super) fn write_message(&mut self, message: &[u8], now: Moment) -> bool {
        let fits = message.len() <= self.room();
        let Some(messages) = self.messages.as_mut() else { return false };
        if !fits || messages.written.len() >= MESSAGES_MAX {
            return false;
        }
        self.ring.push(message);
        self.data_end += message.len() as u64;
        messages.written.push_back((self.data_end, now));
        true
    }

    /// Writes FIN; nothing can be written behind it.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// The peer wants `next`, allows up to `max` and claims `hash` for what is before `next`.
    ///
    /// Returns whether anything moved up.
    ///
    /// # Errors
    /// The rule that the peer broke.
    pub(super) fn handle_ack(&mut self, next: u64, max: u64, hash: Option<u64>) -> Result<bool, AbortCode> {
        if next > self.end() {
            return Err(AbortCode::ACK_BEYOND_END);
        }
        if next < self.base && self.flaw.is(Mutant::PositionBelowBaseFatal) {
            return Err(AbortCode::PROTOCOL);
        }
        let mut moved = next > self.acked || max > self.peer_max;
        if self.flaw.is(Mutant::CreditOverwritten) {
            self.peer_max = max;
            moved = true;
        }
        self.peer_max = self.peer_max.max(max);
        self.acked = self.acked.max(next);
        if let Some(messages) = self.messages.as_mut()
            && messages.skip.is_some_and(|(to, _)| next >= to)
        {
            messages.skip = None;
        }
        if next < self.base {
            return Ok(moved);
        }
        self.release_to(next);
        match (hash, &self.hasher) {
            (Some(claim), Some(own)) if claim != own.claim() => Err(AbortCode::CORRUPT),
            (_, _) => Ok(moved),
        }
    }

    /// Gives up the bytes before `position`.
    fn release_to(&mut self, position: u64) {
        let from = self.base.min(self.data_end);
        let count = usize::try_from(position.min(self.data_end).saturating_sub(from)).unwrap_or(usize::MAX);
        if let Some(hasher) = self.hasher.as_mut() {
            self.ring.visit(0, count, |run| hasher.update(run));
        }
        self.ring.discard(count);
        self.base = self.base.max(position);
        self.cursor = self.cursor.max(self.base);
        if let Some(messages) = self.messages.as_mut() {
            while messages.written.front().is_some_and(|(end, _)| *end <= self.base) {
                messages.written.pop_front();
            }
        }
    }

    /// The channel has got another path: everything unacknowledged is to be sent again, what is too old skipped.
    pub(super) fn bind(&mut self, now: Moment) {
        self.skip_aged(now);
        if let Some(messages) = self.messages.as_mut()
            && let Some((_, due)) = messages.skip.as_mut()
        {
            *due |= !self.flaw.is(Mutant::SkipNotRepeated);
        }
        if self.flaw.is(Mutant::NoRewindOnBind) {
            return;
        }
        let fin_sent = self.finished && self.cursor == self.end();
        self.cursor = self.base;
        if fin_sent && self.flaw.is(Mutant::FinNotRepeated) && self.base == self.data_end {
            self.cursor = self.end();
        }
    }

    fn skip_aged(&mut self, now: Moment) {
        let Some(messages) = self.messages.as_mut() else { return };
        let aged =
            messages.written.iter().take_while(|(_, written)| now.since(*written) >= messages.age).last();
        let Some((to, _)) = aged.copied() else { return };
        let to = if self.flaw.is(Mutant::SkipOffBoundary) { to - 1 } else { to };
        messages.skip = Some((to, true));
        self.release_to(to);
    }

    /// The SKIP that this path still has to carry before DATA.
    pub(super) fn take_skip(&mut self) -> Option<u64> {
        let (to, due) = self.messages.as_mut()?.skip.as_mut()?;
        std::mem::take(due).then_some(*to)
    }

    /// Whether [`Self::take_skip`] has something.
    pub(super) fn has_skip(&self) -> bool {
        self.messages.as_ref().and_then(|messages| messages.skip).is_some_and(|(_, due)| due)
    }

    /// Positions that this path was given and the peer has not acknowledged.
    pub(super) fn in_flight(&self) -> u64 {
        self.cursor.saturating_sub(self.base)
    }

    /// Whether DATA or FIN waits for this path.
    pub(super) fn has_data(&self) -> bool {
        self.cursor < self.end()
    }

    /// The next DATA frame with a payload of at most `limit` bytes; a frame never spans a message boundary.
    pub(super) fn next_segment(&self, limit: usize) -> Option<Segment> {
        if !self.has_data() {
            return None;
        }
        let left = self.data_end.saturating_sub(self.cursor);
        let boundary = self.messages.as_ref().and_then(|messages| {
            let at = messages.written.partition_point(|(end, _)| *end <= self.cursor);
            messages.written.get(at).map(|(end, _)| end - self.cursor)
        });
        let whole = boundary.unwrap_or(left).min(left);
        let length = usize::try_from(whole).unwrap_or(usize::MAX).min(limit);
        Some(Segment {
            offset: self.cursor,
            length,
            fin: self.finished && (length as u64 == left || self.flaw.is(Mutant::FinBeforeLastByte)),
            end_of_message: boundary.is_some_and(|boundary| boundary == length as u64),
        })
    }

    /// Appends the bytes of `segment` to `out` and moves the cursor behind it; returns how many of the bytes were
    /// sent before.
    pub(super) fn send(&mut self, segment: Segment, out: &mut Vec<u8>) -> u64 {
        let from = self.base.min(self.data_end);
        let distance = usize::try_from(segment.offset.saturating_sub(from)).unwrap_or(usize::MAX);
        self.ring.visit(distance, segment.length, |run| out.extend_from_slice(run));
        self.cursor = segment.offset + segment.length as u64 + u64::from(segment.fin);
        if self.flaw.is(Mutant::ReplayFreedOnSend) {
            self.release_to(self.cursor);
        }
        let end = segment.offset + segment.length as u64;
        let repeated = end.min(self.sent).saturating_sub(segment.offset);
        self.sent = self.sent.max(end);
        repeated
    }
}
