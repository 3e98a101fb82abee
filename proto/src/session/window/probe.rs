//! What a round trip is measured by: DATA whose acknowledgement came at once, and PINGs.
//!
//! An acknowledgement of less than 64 KiB may have waited 25 ms at the peer, so it is no measure; PINGs are answered at once
//! whatever the rate.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Moment;
use crate::session::ack::ACK_BYTES;
use crate::wire::ChannelId;

/// Probes under way; on top of these the oldest is forgotten.
const PROBES_MAX: usize = 256;
/// Between two PINGs of the window: a Target answers at most ten PINGs a second.
const PING_INTERVAL: Duration = Duration::from_millis(125);
/// Marks the nonces of the window's PINGs.
const OWN: u64 = 1 << 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pong(u64),
    Ack(ChannelId, u64),
}

/// A round trip that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    answer: Answer,
    pub(super) sent: Moment,
    /// Bytes under way when it began.
    pub(super) in_flight: u64,
    /// The window was what held the sender back.
    pub(super) limited: bool,
}

/// The probes of one path, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Probes {
    under_way: VecDeque<Probe>,
    marked: Option<Moment>,
    pinged: Option<Moment>,
    next_nonce: u64,
    /// Bytes acknowledged at the same moment.
    acked: Option<(Moment, u64)>,
}

impl Probes {
    /// Whether a PING of this nonce is the window's.
    pub(super) fn is_own(nonce: u64) -> bool {
        nonce & OWN != 0
    }

    /// DATA that ends at `end` of a channel was sent. Marks are `apart` at least.
    pub(super) fn mark(
        &mut self,
        channel: ChannelId,
        end: u64,
        in_flight: u64,
        limited: bool,
        apart: Duration,
        now: Moment,
    ) {
        if self.marked.is_none_or(|at| now.since(at) >= apart) {
            self.marked = Some(now);
            self.push(Probe { answer: Answer::Ack(channel, end), sent: now, in_flight, limited });
        }
    }

    pub(super) fn has_ping(&self, now: Moment) -> bool {
        self.pinged.is_none_or(|at| now.since(at) >= PING_INTERVAL)
    }

    /// The nonce of a PING that is sent now.
    pub(super) fn ping(&mut self, in_flight: u64, limited: bool, now: Moment) -> Option<u64> {
        if !self.has_ping(now) {
            return None;
        }
        self.pinged = Some(now);
        let nonce = OWN | self.next_nonce;
        self.next_nonce = (self.next_nonce + 1) % OWN;
        self.push(Probe { answer: Answer::Pong(nonce), sent: now, in_flight, limited });
        Some(nonce)
    }

    fn push(&mut self, probe: Probe) {
        if self.under_way.len() >= PROBES_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back(probe);
    }

    /// The newest probe that an acknowledgement of `news` bytes up to `next` answers, if it was sent at once.
    pub(super) fn acked(&mut self, channel: ChannelId, news: u64, next: u64, now: Moment) -> Option<Probe> {
        let together = self.acked.filter(|(at, _)| *at == now).map_or(0, |(_, bytes)| bytes) + news;
        self.acked = Some((now, together));
        let newest =
            self.take(|answer| matches!(answer, Answer::Ack(of, end) if of == channel && end <= next));
        newest.filter(|_| together >= ACK_BYTES)
    }

    pub(super) fn pong(&mut self, nonce: u64) -> Option<Probe> {
        self.take(|answer| answer == Answer::Pong(nonce))
    }

    fn take(&mut self, answered: impl Fn(Answer) -> bool) -> Option<Probe> {
        let newest = self.under_way.iter().rev().find(|probe| answered(probe.answer)).copied();
        if newest.is_some() {
            self.under_way.retain(|probe| !answered(probe.answer));
        }
        newest
    }

    pub(super) fn forget(&mut self) {
        self.under_way.clear();
    }
}
