//! What the applications of a pair do: write the pattern, read it back, compare.

use super::{End, Flow, Pair, Violation, check, pattern};
use crate::session::{ChannelError, MessageRead, ReadOutcome, Session};
use crate::wire::ChannelId;
use crate::wire::codes::Class;
use crate::wire::frame::OpenOptions;

impl Pair {
    /// Opens a channel.
    ///
    /// # Errors
    /// When the session does not let it.
    pub fn open(&mut self, end: End, class: Class, may_skip_ms: Option<u32>) -> Result<ChannelId, Violation> {
        let service = "echo".parse().map_err(|error| format!("{error}"))?;
        let session = self.session_mut(end).ok_or("no session")?;
        let id =
            session.open(service, class, OpenOptions { may_skip_ms }).map_err(|error| error.to_string())?;
        self.flows.insert((id, End::Controller), Flow::default());
        self.flows.insert((id, End::Target), Flow::default());
        Ok(id)
    }

    /// Writes up to `count` bytes of the pattern; returns how many were taken.
    ///
    /// # Errors
    /// When the channel takes none.
    pub fn write(&mut self, end: End, id: ChannelId, count: usize) -> Result<usize, ChannelError> {
        let from = self.flows.get(&(id, end)).map_or(0, |flow| flow.written);
        let session = self.session_mut(end).ok_or(ChannelError::NotOpen(id))?;
        // One byte more than there is room for, so that the session hears that there was more.
        let count = count.min(session.write_room(id) + 1);
        let bytes: Vec<u8> = (from..from + count as u64).map(|offset| pattern(id, end, offset)).collect();
        let taken = session.write(id, &bytes)?;
        self.flows.entry((id, end)).or_default().written += taken as u64;
        Ok(taken)
    }

    /// Writes one message of the pattern; returns whether it was taken.
    ///
    /// # Errors
    /// When the channel takes none.
    pub fn write_message(&mut self, end: End, id: ChannelId, count: usize) -> Result<bool, ChannelError> {
        let from = self.flow(id, end).written;
        let bytes: Vec<u8> = (from..from + count as u64).map(|offset| pattern(id, end, offset)).collect();
        let now = self.now;
        let session = self.session_mut(end).ok_or(ChannelError::NotOpen(id))?;
        let taken = session.write_message(id, &bytes, now)?;
        if taken {
            let flow = self.flows.entry((id, end)).or_default();
            flow.written += count as u64;
            flow.boundaries.insert(flow.written);
        }
        Ok(taken)
    }

    /// Finishes an end's direction.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn finish(&mut self, end: End, id: ChannelId) -> Result<(), ChannelError> {
        let session = self.session_mut(end).ok_or(ChannelError::NotOpen(id))?;
        session.finish(id)?;
        self.flows.entry((id, end)).or_default().finished = true;
        Ok(())
    }

    /// Reads up to `limit` bytes (or messages) at an end and compares them with the pattern.
    ///
    /// # Errors
    /// When a byte, the end or a boundary is wrong.
    pub fn read(&mut self, end: End, id: ChannelId, limit: usize) -> Result<usize, Violation> {
        let writer = end.other();
        let mut flow = self.flow(id, writer);
        let Some(session) = self.session_mut(end) else { return Ok(0) };
        let mut buffer = vec![0; limit];
        let total = match session.read(id, &mut buffer) {
            Ok(ReadOutcome::Bytes(count)) => {
                for (byte, offset) in buffer.iter().take(count).zip(flow.read..) {
                    if *byte != pattern(id, writer, offset) {
                        return Err(format!("channel {id} from {writer:?}: byte {offset} differs"));
                    }
                }
                flow.read += count as u64;
                count
            }
            Ok(ReadOutcome::Finished) => {
                flow.ended = true;
                0
            }
            Err(ChannelError::WrongKind(_)) => read_messages(session, id, writer, &mut flow)?,
            Ok(ReadOutcome::Empty) | Err(_) => 0,
        };
        check::flow(id, writer, &flow)?;
        self.flows.insert((id, writer), flow);
        Ok(total)
    }

    /// Reads everything that is there at both ends.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(&mut self) -> Result<(), Violation> {
        let keys: Vec<(ChannelId, End)> = self.flows.keys().copied().collect();
        for (id, writer) in keys {
            while self.read(writer.other(), id, 64 * 1024)? > 0 {}
        }
        Ok(())
    }
}

fn read_messages(
    session: &mut Session,
    id: ChannelId,
    writer: End,
    flow: &mut Flow,
) -> Result<usize, Violation> {
    let mut total = 0;
    loop {
        match session.read_message(id).map_err(|error| error.to_string())? {
            MessageRead::Message(message) => {
                let wrong = message
                    .iter()
                    .zip(flow.read..)
                    .any(|(byte, offset)| *byte != pattern(id, writer, offset));
                if wrong {
                    return Err(format!("channel {id}: message at {} differs", flow.read));
                }
                flow.read += message.len() as u64;
                total += message.len();
            }
            MessageRead::Skipped { from, to } => {
                if from != flow.read || to <= from {
                    return Err(format!("channel {id}: skipped {from} to {to}, read to {}", flow.read));
                }
                flow.read = to;
            }
            MessageRead::Empty => return Ok(total),
            MessageRead::Finished => {
                flow.ended = true;
                return Ok(total);
            }
        }
        if !flow.boundaries.contains(&flow.read) {
            return Err(format!("channel {id}: {} is no message boundary", flow.read));
        }
    }
}
