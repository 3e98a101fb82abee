//! What must hold, checked from outside: every byte that an application reads, every epoch, every end.

use std::collections::{BTreeMap, BTreeSet};

use rc_proto::session::sim::{End, Watch};
use rc_proto::session::{ChannelError, MessageRead, ReadOutcome, Session};
use rc_proto::wire::codes::EndCode;
use rc_proto::wire::{ChannelId, Epoch, SessionId};

/// Bytes read at a time.
const READ_BYTES: usize = 32 * 1024;

/// One direction of one channel, as the applications know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    pub(super) written: u64,
    /// Ends of messages, on a channel of messages.
    pub(super) boundaries: BTreeSet<u64>,
    pub(super) has_messages: bool,
    pub(super) is_finished: bool,
    pub(super) read: u64,
    pub(super) skipped: u64,
    pub(super) has_ended: bool,
    pub(super) is_reset: bool,
}

impl Flow {
    fn is_whole(&self) -> bool {
        self.is_reset || (self.read == self.written && self.is_finished == self.has_ended)
    }
}

/// What a history has seen, to tell that it was worth running.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that applications read.
    pub bytes: u64,
    /// Paths that carried a session.
    pub paths: u64,
    /// Faults that began.
    pub faults: u64,
    /// Sessions.
    pub sessions: u64,
    /// Channels.
    pub channels: u64,
    /// Times that a session was without a path.
    pub detached: u64,
    /// Bytes that sessions skipped, on channels that may.
    pub skipped: u64,
}

impl Counts {
    /// Adds what another history has seen.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.paths += other.paths;
        self.faults += other.faults;
        self.sessions += other.sessions;
        self.channels += other.channels;
        self.detached += other.detached;
        self.skipped += other.skipped;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) flows: BTreeMap<(SessionId, ChannelId, End), Flow>,
    epochs: BTreeSet<(SessionId, End, Epoch)>,
    pub(super) ended: BTreeMap<(SessionId, End), EndCode>,
    /// Sessions whose end an application wants, or that were without a path for too long by design.
    pub(super) may_end: BTreeMap<SessionId, EndCode>,
    touched: BTreeSet<SessionId>,
    watches: BTreeMap<SessionId, Watch>,
    pub(super) violation: Option<String>,
    pub(super) counts: Counts,
    buffer: Vec<u8>,
}

/// The key of a session's pattern.
fn key(session: SessionId, channel: ChannelId, writer: End) -> u64 {
    let side = if writer == End::Controller { 0x5b } else { 0xa7 };
    let id = session.0.iter().fold(0_u64, |key, byte| key.rotate_left(8) ^ u64::from(*byte));
    id ^ (u64::from(channel.0) << 40) ^ side
}

fn byte(key: u64, offset: u64) -> u8 {
    ((offset ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56)
        .to_le_bytes()
        .first()
        .copied()
        .unwrap_or_default()
}

impl Oracle {
    /// Notes the first thing that must not be.
    pub(super) fn violation(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn touch(&mut self, session: SessionId) {
        self.touched.insert(session);
    }

    pub(super) fn take_touched(&mut self) -> Option<SessionId> {
        self.touched.pop_first()
    }

    /// Checks the two ends of a session against each other.
    pub(super) fn check(&mut self, id: SessionId, controller: Option<&Session>, target: Option<&Session>) {
        if let Err(violation) = self.watches.entry(id).or_default().check(controller, target) {
            self.violation(format!("session {id}: {violation}"));
        }
    }

    /// An epoch went live at one end.
    pub(super) fn attached(&mut self, id: SessionId, end: End, epoch: Epoch) {
        self.counts.paths += u64::from(end == End::Controller);
        if epoch != Epoch(0) && !self.epochs.insert((id, end, epoch)) {
            self.violation(format!("session {id}: epoch {epoch} went live twice at {end:?}"));
        }
    }

    /// A session is over at one end.
    pub(super) fn session_ended(&mut self, id: SessionId, end: End, code: EndCode) {
        if self.may_end.get(&id) != Some(&code) {
            self.violation(format!("session {id}: {end:?} ended with {code}, which nobody wanted"));
        }
        self.ended.insert((id, end), code);
    }

    /// The next bytes that `writer` is to write on a channel.
    pub(super) fn pattern(&mut self, at: (SessionId, ChannelId, End), count: usize) -> Vec<u8> {
        let from = self.flows.entry(at).or_default().written;
        let key = key(at.0, at.1, at.2);
        (from..from + count as u64).map(|offset| byte(key, offset)).collect()
    }

    /// So many bytes of the pattern were taken.
    pub(super) fn wrote(&mut self, at: (SessionId, ChannelId, End), count: usize) {
        let flow = self.flows.entry(at).or_default();
        flow.written += count as u64;
        if flow.has_messages && count > 0 {
            flow.boundaries.insert(flow.written);
        }
    }

    /// Both directions of a channel are gone.
    pub(super) fn reset(&mut self, id: SessionId, channel: ChannelId) {
        for writer in [End::Controller, End::Target] {
            self.flows.entry((id, channel, writer)).or_default().is_reset = true;
        }
    }

    /// FIN came: the writer had finished, and nothing was missing.
    pub(super) fn peer_finished(&mut self, id: SessionId, channel: ChannelId, reader: End) {
        let flow = self.flows.entry((id, channel, reader.other())).or_default();
        if !flow.is_finished && !flow.is_reset {
            let written = flow.written;
            self.violation(format!(
                "session {id} channel {channel}: FIN after {written}, which nobody wrote"
            ));
        }
    }

    /// Reads everything that is there and compares it.
    pub(super) fn read(&mut self, id: SessionId, end: End, channel: ChannelId, session: &mut Session) {
        let at = (id, channel, end.other());
        let key = key(id, channel, end.other());
        let mut flow = self.flows.remove(&at).unwrap_or_default();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let wrong = loop {
            match session.read(channel, &mut buffer) {
                Ok(ReadOutcome::Bytes(count)) => {
                    let read = buffer.iter().take(count);
                    let differs = read.zip(flow.read..).position(|(read, offset)| *read != byte(key, offset));
                    if let Some(place) = differs {
                        break Some(format!("byte {} differs", flow.read + place as u64));
                    }
                    flow.read += count as u64;
                    self.counts.bytes += count as u64;
                }
                Ok(ReadOutcome::Finished) => {
                    flow.has_ended = true;
                    break None;
                }
                Err(ChannelError::WrongKind(_)) => {
                    break self.read_messages(key, &mut flow, session, channel);
                }
                Ok(ReadOutcome::Empty) | Err(_) => break None,
            }
        };
        let short = flow.has_ended && !flow.is_reset && (flow.read != flow.written || !flow.is_finished);
        if flow.read > flow.written || short {
            self.violation(format!(
                "session {id} channel {channel}: {} read of {}, ended {}",
                flow.read, flow.written, flow.has_ended
            ));
        }
        if let Some(wrong) = wrong {
            self.violation(format!("session {id} channel {channel} at {end:?}: {wrong}"));
        }
        self.buffer = buffer;
        self.flows.insert(at, flow);
    }

    fn read_messages(
        &mut self,
        key: u64,
        flow: &mut Flow,
        session: &mut Session,
        channel: ChannelId,
    ) -> Option<String> {
        loop {
            match session.read_message(channel).ok()? {
                MessageRead::Message(message) => {
                    if message.iter().zip(flow.read..).any(|(read, offset)| *read != byte(key, offset)) {
                        return Some(format!("the message at {} differs", flow.read));
                    }
                    flow.read += message.len() as u64;
                    self.counts.bytes += message.len() as u64;
                }
                MessageRead::Skipped { from, to } => {
                    if from != flow.read || to <= from {
                        return Some(format!("skipped {from} to {to}, read to {}", flow.read));
                    }
                    flow.skipped += to - from;
                    self.counts.skipped += to - from;
                    flow.read = to;
                }
                MessageRead::Empty => return None,
                MessageRead::Finished => {
                    flow.has_ended = true;
                    return None;
                }
            }
            if !flow.boundaries.contains(&flow.read) {
                return Some(format!("{} is no message boundary", flow.read));
            }
        }
    }

    /// The first flow that has not arrived as it was written, of sessions that are not over.
    pub(super) fn unfinished(&self) -> Option<String> {
        let is_over = |id: &SessionId| self.ended.keys().any(|(ended, _)| ended == id);
        let mut open = self.flows.iter().filter(|((id, _, _), flow)| !is_over(id) && !flow.is_whole());
        open.next().map(|((id, channel, writer), flow)| {
            format!(
                "session {id} channel {channel} from {writer:?}: read {} of {}, finished {}, ended {}",
                flow.read, flow.written, flow.is_finished, flow.has_ended
            )
        })
    }
}
