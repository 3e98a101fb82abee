//! What goes on a path next: the machines' wishes as whole frames, within the driver's budget.
//!
//! Order: the attach exchange; answers of the path itself; the session's own frames (control path only); per
//! channel OPEN, acknowledgement, SKIP; then DATA by class.

use super::config::Mutant;
use super::event::PathKey;
use super::life::{Session, frame};
use super::path::{Answer, Path, Stage};
use super::schedule::{is_bulk, is_windowed};
use crate::Moment;
use crate::wire::frame::{
    AckBody, End, FLAG_ANSWER, FLAG_END_OF_MESSAGE, FLAG_FIN, FrameHeader, FrameType, Reset,
};
use crate::wire::{ChannelId, Ext};

/// A DATA frame is not cut below this to fill the rest of a budget.
const SPLIT_BYTES_MIN: usize = 1024;

/// Every frame but DATA and an ATTACHED of many channels fits into this.
const BUDGET_BYTES_MIN: usize = 1024;

/// Bytes that go behind an ATTACH before its answer; who judges holds twice as much.
const BEHIND_ATTACH_BYTES_MAX: usize = 128 * 1024;

/// The caller's buffer with what may still be appended to it.
struct Room<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    budget: usize,
}

impl Room<'_> {
    fn left(&self) -> usize {
        self.budget.saturating_sub(self.out.len() - self.start)
    }

    fn is_empty(&self) -> bool {
        self.out.len() == self.start
    }

    /// Appends one whole frame, if it fits; one that no budget of this size would take goes alone.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.left() || (self.is_empty() && bytes.len() > self.budget);
        if fits {
            self.out.extend_from_slice(bytes);
        }
        fits
    }

    fn push_frame(&mut self, kind: FrameType, channel: ChannelId, offset: u64, payload: &[u8]) -> bool {
        self.push(&frame(kind, channel, offset, payload))
    }
}

/// The budget is used up.
struct Full;

fn fits(pushed: bool) -> Result<(), Full> {
    if pushed { Ok(()) } else { Err(Full) }
}

impl Session {
    /// Appends whole frames for `path` to `out`, at most `budget` bytes, and says whether there were any.
    ///
    /// A small budget keeps the unsent backlog small, and so the time that input waits behind bulk; 16 KiB and a
    /// header is the largest frame. A control frame that is larger than the whole budget is appended alone.
    pub fn poll_transmit(&mut self, path: PathKey, now: Moment, budget: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let mut room = Room { out, start, budget };
        let whole = self.write_path(path, now, &mut room);
        if whole.is_ok() && self.carries_channels(path) {
            let written = self.write_session(path, now, &mut room);
            if written.and_then(|()| self.write_channels(path, now, &mut room)).is_ok() {
                let before = room.left();
                let waits = self.write_data(path, now, &mut room);
                let bytes = before - room.left();
                if let Some(state) = self.paths.path_mut(path) {
                    state.pace.sent(bytes, waits, now);
                }
            }
        }
        let wrote = out.len() - start;
        if let Some(Stage::Attaching { behind, .. }) = self.paths.path_mut(path).map(|state| &mut state.stage)
        {
            *behind += wrote;
        }
        self.settle();
        wrote > 0
    }

    /// A budget for [`Self::poll_transmit`] with which input waits behind one frame at most: the largest that the path
    /// may carry at its pace.
    pub fn transmit_budget(&self, path: PathKey) -> usize {
        let limit = self.config.frame_payload_bytes_max;
        let payload = self.paths.path(path).map_or(limit, |path| path.payload_max(limit));
        (FrameHeader::BYTES + payload).max(BUDGET_BYTES_MIN)
    }

    fn carries_channels(&self, key: PathKey) -> bool {
        let binds = match self.paths.path(key).map(|path| path.stage) {
            Some(Stage::Attaching { binds, behind, .. }) => binds && behind < BEHIND_ATTACH_BYTES_MAX,
            Some(Stage::Live) => true,
            Some(Stage::Standby | Stage::Judging | Stage::Retiring { .. }) | None => false,
        };
        binds && !self.ending.is_over()
    }

    /// What belongs to the path alone.
    fn write_path(&mut self, key: PathKey, now: Moment, room: &mut Room<'_>) -> Result<(), Full> {
        let Some(path) = self.paths.path_mut(key) else { return Err(Full) };
        while let Some(bytes) = path.owed.outbox.front() {
            fits(room.push(bytes))?;
            path.owed.outbox.pop_front();
            if let Stage::Attaching { sent, .. } = &mut path.stage {
                sent.get_or_insert(now);
            }
        }
        if matches!(path.stage, Stage::Attaching { .. }) {
            return Ok(());
        }
        write_answers(path, now, room)?;
        if self.frames.end_ack == Some(key) {
            fits(room.push_frame(FrameType::EndAck, ChannelId(0), 0, &[]))?;
            self.frames.end_ack = None;
        }
        Ok(())
    }

    /// Frames of the session itself, on the control path.
    fn write_session(&mut self, key: PathKey, now: Moment, room: &mut Room<'_>) -> Result<(), Full> {
        if self.table.control != Some(key) {
            return Ok(());
        }
        for (epoch, due) in self.paths.retired.iter_mut().filter(|(_, due)| *due) {
            fits(room.push_frame(FrameType::Retire, ChannelId(0), epoch.0, &[]))?;
            *due = false;
        }
        if let Some(payload) = &self.frames.repath {
            fits(room.push_frame(FrameType::Repath, ChannelId(0), 0, payload))?;
            self.frames.repath = None;
        }
        if let Some((payload, due)) = self.frames.place.as_mut().filter(|(_, due)| *due) {
            fits(room.push_frame(FrameType::Where, ChannelId(0), 0, payload))?;
            *due = false;
        }
        if room.left() < FrameHeader::BYTES + 512 {
            return Err(Full);
        }
        if let Some((code, reason)) = self.ending.take_end(now) {
            let payload = End { code, reason, ext: Ext::none() }.encode().unwrap_or_default();
            fits(room.push_frame(FrameType::End, ChannelId(0), 0, &payload))?;
        }
        Ok(())
    }

    /// OPEN, OPENED, ACK, SKIP and RESET of every channel that is bound here; all of them before any DATA.
    fn write_channels(&mut self, key: PathKey, now: Moment, room: &mut Room<'_>) -> Result<(), Full> {
        for (id, channel) in self.table.open.iter_mut().filter(|(_, channel)| channel.bound == Some(key)) {
            if channel.offer_due {
                if channel.opened_here {
                    let payload = channel.open.encode().unwrap_or_default();
                    fits(room.push_frame(FrameType::Open, *id, 0, &payload))?;
                    channel.offered = true;
                } else {
                    fits(room.push_frame(FrameType::Opened, *id, 0, &[]))?;
                }
                channel.offer_due = false;
            }
            if channel.ack.is_due(now) {
                if room.left() < FrameHeader::BYTES + AckBody::BYTES_MAX {
                    return Err(Full);
                }
                let ahead = self.config.flaw().is(Mutant::AckAhead);
                let next = channel.receiver.next() + u64::from(ahead);
                let max = channel.grant();
                let mut payload = Vec::with_capacity(AckBody::BYTES_MAX);
                AckBody { max, hash: channel.receiver.hash() }.write_to(&mut payload);
                fits(room.push_frame(FrameType::Ack, *id, next, &payload))?;
                channel.ack.told(next, max);
            }
            if channel.sender.has_skip() {
                if room.left() < FrameHeader::BYTES {
                    return Err(Full);
                }
                if let Some(to) = channel.sender.take_skip() {
                    fits(room.push_frame(FrameType::Skip, *id, to, &[]))?;
                }
            }
        }
        for ack in self.table.final_acks.iter_mut().filter(|ack| ack.bound == Some(key) && ack.due) {
            fits(room.push_frame(FrameType::Ack, ack.id, ack.next, &ack.next.to_be_bytes()))?;
            ack.due = false;
        }
        for (id, reset) in
            self.table.resets.iter_mut().filter(|(_, reset)| reset.bound == Some(key) && reset.due)
        {
            let body = Reset { code: reset.code, reason: reset.reason.clone(), ext: Ext::none() };
            let payload = body.encode().unwrap_or_default();
            fits(room.push_frame(FrameType::Reset, *id, reset.final_size, &payload))?;
            reset.due = false;
        }
        Ok(())
    }

    /// Returns whether more waits than the budget and the window took.
    fn write_data(&mut self, key: PathKey, now: Moment, room: &mut Room<'_>) -> bool {
        let limit = self.config.frame_payload_bytes_max;
        let frame_max = self.paths.path(key).map_or(limit, |path| path.payload_max(limit));
        self.write_window_ping(key, now, room);
        loop {
            let limit = room.left().saturating_sub(FrameHeader::BYTES).min(frame_max);
            let is_open = self.is_window_open(key, frame_max, now);
            let waiting = || {
                let bound = self.table.open.iter().filter(|(_, channel)| channel.bound == Some(key));
                bound
                    .filter(|(_, channel)| channel.sender.has_data())
                    .map(|(id, channel)| (*id, channel.class()))
            };
            let held_back = !is_open && waiting().any(|(_, class)| is_windowed(class));
            let may_go = || waiting().filter(|(_, class)| is_open || !is_windowed(*class));
            let bulk_waits = may_go().any(|(_, class)| is_bulk(class));
            let Some(path) = self.paths.path_mut(key) else { return false };
            let Some((id, class)) = path.schedule.choose(may_go(), frame_max) else {
                if !held_back {
                    path.window.idle();
                }
                return held_back;
            };
            if limit == 0 {
                return true;
            }
            let Some(channel) = self.table.open.get_mut(&id) else { return false };
            let Some(segment) = channel.sender.next_segment(limit) else { return false };
            let is_cut = segment.length == limit && limit < frame_max.min(SPLIT_BYTES_MIN);
            if is_cut && !room.is_empty() {
                return true;
            }
            let fin = if segment.fin { FLAG_FIN } else { 0 };
            let end_of_message = if segment.end_of_message { FLAG_END_OF_MESSAGE } else { 0 };
            let header = FrameHeader {
                flags: fin | end_of_message,
                length: u16::try_from(segment.length).unwrap_or(u16::MAX),
                ..FrameHeader::new(FrameType::Data, id, segment.offset)
            };
            room.out.extend_from_slice(&header.to_bytes());
            let repeated = channel.sender.send(segment, room.out);
            self.totals.bytes_repeated += repeated;
            path.schedule.served(id, class, segment.length, bulk_waits);
            path.liveness.data(now);
            path.liveness.sent(now);
            if is_windowed(class) {
                let end = segment.offset + segment.length as u64;
                let fresh = (repeated == 0).then_some((id, end));
                path.window.sent(segment.length as u64, self.table.in_flight(key), fresh, now);
            }
        }
    }

    /// Whether the window of a path lets a frame of at most `frame` bytes go.
    fn is_window_open(&mut self, key: PathKey, frame: usize, now: Moment) -> bool {
        let in_flight = self.table.in_flight(key);
        self.paths.path_mut(key).is_some_and(|path| path.window.is_open(in_flight, frame, now))
    }

    /// A PING now and then while bulk is under way.
    fn write_window_ping(&mut self, key: PathKey, now: Moment, room: &mut Room<'_>) {
        let in_flight = self.table.in_flight(key);
        let Some(path) = self.paths.path_mut(key).filter(|path| in_flight > 0 && path.window.has_ping(now))
        else {
            return;
        };
        if room.left() >= FrameHeader::BYTES + 8
            && let Some(nonce) = path.window.take_ping(in_flight, now)
        {
            room.push_frame(FrameType::Ping, ChannelId(0), 0, &nonce.to_be_bytes());
        }
    }
}

/// PONG, PING and the answers for channels that are closed here.
fn write_answers(path: &mut Path, now: Moment, room: &mut Room<'_>) -> Result<(), Full> {
    while let Some(nonce) = path.owed.pongs.front() {
        fits(room.push_frame(FrameType::Pong, ChannelId(0), 0, &nonce.to_be_bytes()))?;
        path.owed.pongs.pop_front();
    }
    if path.liveness.has_ping() && room.left() >= FrameHeader::BYTES + 8 {
        let nonce = path.liveness.take_ping(now).unwrap_or_default();
        fits(room.push_frame(FrameType::Ping, ChannelId(0), 0, &nonce.to_be_bytes()))?;
    }
    while let Some((id, answer)) = path.owed.answers.first_key_value().map(|(id, answer)| (*id, *answer)) {
        let bytes = answer_frame(id, answer);
        fits(room.push(&bytes))?;
        path.owed.answers.remove(&id);
    }
    Ok(())
}

fn answer_frame(id: ChannelId, answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Ack(next) => frame(FrameType::Ack, id, next, &next.to_be_bytes()),
        Answer::Reset => {
            let code = crate::wire::codes::ResetCode::CANCELLED;
            let body = Reset { code, reason: String::new(), ext: Ext::none() };
            let payload = body.encode().unwrap_or_default();
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            let header =
                FrameHeader { flags: FLAG_ANSWER, length, ..FrameHeader::new(FrameType::Reset, id, 0) };
            let mut bytes = header.to_bytes().to_vec();
            bytes.extend_from_slice(&payload);
            bytes
        }
    }
}
