//! What the peer sent: bytes to frames, frames to the machines.

use std::time::Duration;

use super::channel::{Channel, Consent, Resetting};
use super::event::{PathFault, PathKey, SessionEvent};
use super::life::{SCATTERED, Session, Side};
use super::path::{Answer, Stage};
use super::reader::FrameReader;
use super::receiver::Rejected;
use super::table::{Known, RESETS_MAX};
use crate::Moment;
use crate::wire::codes::{AbortCode, RepathReason, ResetCode};
use crate::wire::frame::{
    Abort, AckBody, BodyError, End, EndToEnd, FLAG_ANSWER, FLAG_END_OF_MESSAGE, FLAG_FIN, FrameHeader,
    FrameType, Open, Repath, Reset, Where,
};
use crate::wire::{ChannelId, Envelope, Epoch};

/// Gaps within this time are counted together.
const GAP_SPAN: Duration = Duration::from_secs(60);
/// That many gaps end the session.
const GAPS_MAX: usize = 3;

impl Session {
    /// Takes bytes that came on `path`, in the order in which they came.
    ///
    /// # Errors
    /// When the path cannot be followed any more: it is removed, close its leg; the session goes on.
    pub fn handle_bytes(&mut self, path: PathKey, bytes: &[u8], now: Moment) -> Result<(), PathFault> {
        self.expire(now);
        let Some(state) = self.paths.path_mut(path) else { return Err(PathFault::UnknownPath) };
        if bytes.is_empty() {
            return Ok(());
        }
        if state.liveness.received(now) {
            self.events.push(SessionEvent::Recovered(path));
            self.rebind(now);
        }
        let mut reader = self.paths.path_mut(path).map(|state| std::mem::take(&mut state.reader));
        let result = match reader.as_mut() {
            Some(reader) => self.read_frames(path, reader, bytes, now),
            None => Ok(()),
        };
        if let (Some(state), Some(reader)) = (self.paths.path_mut(path), reader) {
            state.reader = reader;
        }
        if result.is_err() {
            self.path_lost(path, now);
        }
        self.settle();
        result
    }

    fn read_frames(
        &mut self,
        key: PathKey,
        reader: &mut FrameReader,
        bytes: &[u8],
        now: Moment,
    ) -> Result<(), PathFault> {
        let mut rest = bytes;
        loop {
            let Some(path) = self.paths.path(key) else { return Ok(()) };
            if path.stage == Stage::Judging {
                return reader.hold(rest);
            }
            if path.first_exchange {
                let Some(message) = reader.next_envelope(&mut rest)? else { return Ok(()) };
                self.handle_answer(key, message, now)?;
                continue;
            }
            let Some((header, payload)) = reader.next_frame(&mut rest)? else { return Ok(()) };
            self.handle_frame(key, header, payload, now)?;
        }
    }

    fn handle_frame(
        &mut self,
        key: PathKey,
        header: FrameHeader,
        payload: &[u8],
        now: Moment,
    ) -> Result<(), PathFault> {
        let Some(kind) = header.frame_type() else {
            return if header.critical {
                Err(PathFault::UnknownCritical { kind: header.kind })
            } else {
                Ok(())
            };
        };
        let carries = self.paths.path(key).is_some_and(super::path::Path::carries);
        match kind {
            FrameType::Ping => self.handle_ping(key, payload),
            FrameType::Pong => self.handle_pong(key, payload, now),
            FrameType::End if carries => self.handle_end(key, payload),
            _ if self.ending.is_over() => Ok(()),
            FrameType::Envelope => self.handle_envelope(key, payload, now),
            _ if !carries => Err(PathFault::OutOfPlace { what: "a frame on a path that carries nothing" }),
            FrameType::Open => self.handle_open(header, payload),
            FrameType::Opened => self.handle_opened(header.channel),
            FrameType::Data => self.handle_data(key, header, payload, now),
            FrameType::Ack => self.handle_ack(key, header, payload, now),
            FrameType::Skip => self.handle_skip(header),
            FrameType::Reset => self.handle_reset(key, header, payload),
            FrameType::Retire => {
                if let Some(retired) = self.paths.by_epoch(Epoch(header.offset)) {
                    self.drop_path(retired, SessionEvent::PathRetired(retired), now);
                }
                Ok(())
            }
            FrameType::Repath => self.handle_repath(payload, now),
            FrameType::Where => self.handle_where(payload),
            FrameType::EndAck => self.handle_end_ack(),
            FrameType::Abort => self.handle_abort(payload),
            FrameType::End => Ok(()),
        }
    }

    fn handle_ping(&mut self, key: PathKey, payload: &[u8]) -> Result<(), PathFault> {
        let nonce = nonce(payload)?;
        if let Some(path) = self.paths.path_mut(key) {
            path.owed.pong(nonce);
        }
        Ok(())
    }

    fn handle_pong(&mut self, key: PathKey, payload: &[u8], now: Moment) -> Result<(), PathFault> {
        let nonce = nonce(payload)?;
        let Some(path) = self.paths.path_mut(key) else { return Ok(()) };
        if path.window.pong(nonce, now) {
            return Ok(());
        }
        let answered = path.liveness.answered().0;
        let cleared = path.liveness.pong(nonce, now);
        let (count, round_trip) = path.liveness.answered();
        if count != answered {
            path.window.round_trip(round_trip, now);
        }
        if std::mem::take(&mut path.doubted) || cleared {
            self.events.push(SessionEvent::Recovered(key));
            self.rebind(now);
        }
        Ok(())
    }

    fn handle_envelope(&mut self, key: PathKey, payload: &[u8], now: Moment) -> Result<(), PathFault> {
        let parsed = Envelope::parse_prefix(payload, payload.len())
            .map_err(|error| PathFault::Malformed { what: error.to_string() })?;
        let Some((envelope, used)) = parsed else {
            return Err(PathFault::Malformed { what: "an ENVELOPE ends inside its envelope".to_owned() });
        };
        if used != payload.len() {
            return Err(PathFault::Malformed { what: "bytes behind the envelope of an ENVELOPE".to_owned() });
        }
        let message = EndToEnd::from_envelope(&envelope)
            .map_err(|error| PathFault::Malformed { what: error.to_string() })?;
        match (message, self.identity.side) {
            (None, _) => Ok(()),
            (Some(message), Side::Controller) => self.handle_answer(key, message, now),
            (Some(EndToEnd::Attach(attach)), Side::Target) => {
                let Some(path) = self.paths.path_mut(key).filter(|path| path.stage == Stage::Standby) else {
                    return Err(PathFault::OutOfPlace { what: "ATTACH on a path that does not stand by" });
                };
                path.stage = Stage::Judging;
                self.events.push(SessionEvent::AttachRequested { path: key, attach: Box::new(attach) });
                Ok(())
            }
            (Some(_), Side::Target) => Err(PathFault::OutOfPlace { what: "an answer from a Controller" }),
        }
    }

    /// Whether `id` is one that the peer may open.
    fn is_peers(&self, id: ChannelId) -> bool {
        let odd = id.0 % 2 == 1;
        id != ChannelId(0)
            && match self.identity.side {
                Side::Controller => !odd,
                Side::Target => odd,
            }
    }

    fn handle_open(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), PathFault> {
        let id = header.channel;
        let open = Open::decode(payload).map_err(malformed("OPEN"))?;
        if !self.is_peers(id) {
            self.abort(AbortCode::PROTOCOL, "OPEN of an id that is not the peer's to open");
            return Ok(());
        }
        match self.table.known(id) {
            Known::Closed | Known::Resetting => {}
            Known::Open => {
                if let Some(channel) = self.table.open.get_mut(&id) {
                    if channel.open != open {
                        self.abort(AbortCode::OPEN_DIFFERS, "a second OPEN differs from the first");
                    } else if channel.consent == Consent::Agreed {
                        channel.offer_due = true;
                    }
                }
            }
            Known::Never => self.take_offer(id, open),
        }
        Ok(())
    }

    fn take_offer(&mut self, id: ChannelId, open: Open) {
        let refusal = if self.permits.as_ref().is_some_and(|permits| !permits(&open.service)) {
            Some(ResetCode::NOT_PERMITTED)
        } else if !self.table.has_room() {
            Some(ResetCode::TOO_MANY)
        } else if self.ending.is_closing() {
            Some(ResetCode::CANCELLED)
        } else {
            None
        };
        if let Some(code) = refusal {
            self.queue_reset(id, open.class, code, String::new(), 0);
            return;
        }
        let config = &self.config;
        let mut channel = Channel::new(
            open.clone(),
            false,
            config.send_cap_bytes,
            config.receive_window_bytes,
            config.flaw(),
        );
        channel.bound = self.table.path_of(open.class);
        channel.ack.repeat();
        self.table.open.insert(id, channel);
        let Open { service, class, options, ext: _ } = open;
        self.events.push(SessionEvent::Offered { channel: id, service, class, options });
    }

    /// Puts a RESET in the place of a channel; it is repeated until the peer answers.
    pub(super) fn queue_reset(
        &mut self,
        id: ChannelId,
        class: crate::wire::codes::Class,
        code: ResetCode,
        reason: String,
        final_size: u64,
    ) {
        if self.table.resets.len() >= RESETS_MAX {
            self.abort(AbortCode::PROTOCOL, "too many resets wait for their answer");
            return;
        }
        let bound = self.table.path_of(class);
        let reset = Resetting { class, code, reason, final_size, bound, due: true, peer: None };
        self.table.resets.insert(id, reset);
    }

    fn handle_opened(&mut self, id: ChannelId) -> Result<(), PathFault> {
        let known = self.table.known(id);
        if known == Known::Never {
            return Err(PathFault::UnknownChannel { channel: id });
        }
        if let Some(channel) = self.table.open.get_mut(&id).filter(|channel| channel.opened_here)
            && channel.consent != Consent::Agreed
        {
            channel.consent = Consent::Agreed;
            channel.offer_due = false;
            self.events.push(SessionEvent::Opened(id));
        }
        Ok(())
    }

    fn handle_data(
        &mut self,
        key: PathKey,
        header: FrameHeader,
        payload: &[u8],
        now: Moment,
    ) -> Result<(), PathFault> {
        let id = header.channel;
        let fin = header.flags & FLAG_FIN != 0;
        match self.table.known(id) {
            Known::Never => return Err(PathFault::UnknownChannel { channel: id }),
            Known::Resetting => return Ok(()),
            Known::Closed if fin => {
                let end = header.offset.saturating_add(payload.len() as u64).saturating_add(1);
                return self.answer(key, id, Answer::Ack(end));
            }
            Known::Closed => return Ok(()),
            Known::Open => {}
        }
        let Some(channel) = self.table.open.get_mut(&id) else { return Ok(()) };
        channel.note_answered();
        let had_fin = channel.receiver.is_finished();
        let end_of_message = header.flags & FLAG_END_OF_MESSAGE != 0;
        match channel.receiver.accept(header.offset, payload, fin, end_of_message) {
            Ok(new) => {
                let at_once = fin || channel.class().is_interactive();
                channel.ack.received(channel.receiver.next(), at_once, now);
                channel.note_credit();
                let bound = channel.bound;
                self.totals.bytes_in += new as u64;
                self.table.hasten_acks(bound);
                if let Some(path) = self.paths.path_mut(key) {
                    path.liveness.data(now);
                }
                self.tell_reader(id, fin && !had_fin);
                Ok(())
            }
            Err(Rejected::Gap) => self.note_gap(id, header.offset, now),
            Err(Rejected::Abort(code)) => {
                self.abort(code, "DATA breaks its channel's credit or end");
                Ok(())
            }
        }
    }

    /// Tells the application what came, unless it has not agreed to the channel yet.
    pub(super) fn tell_reader(&mut self, id: ChannelId, finished: bool) {
        let Some(channel) = self.table.open.get_mut(&id) else { return };
        if channel.consent == Consent::Pending {
            return;
        }
        if channel.receiver.has_readable() && !channel.told.readable {
            channel.told.readable = true;
            self.events.push(SessionEvent::Readable(id));
        }
        if finished {
            self.events.push(SessionEvent::PeerFinished(id));
        }
    }

    /// A gap ends its path; three within a minute end the session.
    fn note_gap(&mut self, channel: ChannelId, offset: u64, now: Moment) -> Result<(), PathFault> {
        let gaps = &mut self.clock.gaps;
        gaps.retain(|at| now.since(*at) < GAP_SPAN);
        gaps.push_back(now);
        if gaps.len() >= GAPS_MAX {
            self.abort(AbortCode::GAPS, "three gaps within a minute");
            return Ok(());
        }
        Err(PathFault::Gap { channel, offset })
    }

    fn answer(&mut self, key: PathKey, id: ChannelId, answer: Answer) -> Result<(), PathFault> {
        let noted = self.paths.path_mut(key).is_none_or(|path| path.owed.answer(id, answer));
        if noted { Ok(()) } else { Err(PathFault::TooManyAnswers) }
    }

    fn handle_ack(
        &mut self,
        key: PathKey,
        header: FrameHeader,
        payload: &[u8],
        now: Moment,
    ) -> Result<(), PathFault> {
        let Some(body) = AckBody::parse(payload) else {
            return Err(PathFault::Malformed { what: "ACK".to_owned() });
        };
        if self.table.known(header.channel) == Known::Never {
            return Err(PathFault::UnknownChannel { channel: header.channel });
        }
        let id = header.channel;
        let before = self.table.acked(id, key);
        self.apply_ack(id, header.offset, body.max, body.hash);
        if let (Some(before), Some(path)) = (before, self.paths.path_mut(key)) {
            path.window.acked(id, header.offset.saturating_sub(before), header.offset, now);
        }
        if self.paths.path(key).is_some_and(|path| path.replaces_older) {
            self.retire_older(key, now);
        }
        Ok(())
    }

    /// An acknowledgement, whichever way it came; of a channel that is not open it says nothing.
    pub(super) fn apply_ack(&mut self, id: ChannelId, next: u64, max: u64, hash: Option<u64>) {
        let Some(channel) = self.table.open.get_mut(&id) else { return };
        channel.note_answered();
        match channel.sender.handle_ack(next, max, hash) {
            Ok(_) => {
                if channel.told.wants_room && channel.sender.room() > 0 {
                    channel.told.wants_room = false;
                    self.events.push(SessionEvent::Writable(id));
                }
            }
            Err(code) => self.abort(code, "an acknowledgement does not fit what was sent"),
        }
    }

    fn handle_skip(&mut self, header: FrameHeader) -> Result<(), PathFault> {
        let id = header.channel;
        if self.table.known(id) == Known::Never {
            return Err(PathFault::UnknownChannel { channel: id });
        }
        let Some(channel) = self.table.open.get_mut(&id) else { return Ok(()) };
        channel.note_answered();
        match channel.receiver.skip(header.offset) {
            Ok(_) => {
                channel.ack.repeat();
                channel.note_credit();
                self.tell_reader(id, false);
            }
            Err(code) => self.abort(code, "SKIP does not fit its channel"),
        }
        Ok(())
    }

    fn handle_reset(&mut self, key: PathKey, header: FrameHeader, payload: &[u8]) -> Result<(), PathFault> {
        let id = header.channel;
        let reset = Reset::decode(payload).map_err(malformed("RESET"))?;
        let known = self.table.known(id);
        if header.flags & FLAG_ANSWER != 0 {
            if known == Known::Resetting {
                self.close_channel(id);
            }
            return Ok(());
        }
        match known {
            Known::Closed => {}
            Known::Never if self.is_peers(id) => self.close_channel(id),
            Known::Never => return Err(PathFault::UnknownChannel { channel: id }),
            Known::Resetting => {
                let says = (reset.code, header.offset);
                if let Some(resetting) = self.table.resets.get_mut(&id)
                    && *resetting.peer.get_or_insert(says) != says
                {
                    self.abort(AbortCode::END_DIFFERS, "a second RESET differs from the first");
                }
            }
            Known::Open => {
                if self.table.open.get(&id).is_some_and(|channel| !channel.receiver.may_end_at(header.offset))
                {
                    self.abort(AbortCode::END_DIFFERS, "RESET with another final size than was sent");
                    return Ok(());
                }
                if let Err(code) = self.table.close_reset(id) {
                    self.abort(code, SCATTERED);
                    return Ok(());
                }
                self.events.push(SessionEvent::Reset { channel: id, code: reset.code, reason: reset.reason });
            }
        }
        self.answer(key, id, Answer::Reset)
    }

    fn handle_repath(&mut self, payload: &[u8], now: Moment) -> Result<(), PathFault> {
        if self.identity.side != Side::Controller {
            return Err(PathFault::OutOfPlace { what: "REPATH from a Controller" });
        }
        let Repath { reason, epoch, ext: _ } = Repath::decode(payload).map_err(malformed("REPATH"))?;
        if reason == RepathReason::SUSPECT
            && let Some(key) = self.paths.by_epoch(epoch)
            && let Some(path) = self.paths.path_mut(key)
        {
            path.doubted = true;
            path.liveness.ask(now);
            self.rebind(now);
        }
        self.events.push(SessionEvent::RepathWanted { reason, epoch });
        Ok(())
    }

    fn handle_where(&mut self, payload: &[u8]) -> Result<(), PathFault> {
        if self.identity.side != Side::Controller {
            return Err(PathFault::OutOfPlace { what: "WHERE from a Controller" });
        }
        let place = Where::decode(payload).map_err(malformed("WHERE"))?;
        self.events.push(SessionEvent::Where(Box::new(place)));
        Ok(())
    }

    fn handle_end(&mut self, key: PathKey, payload: &[u8]) -> Result<(), PathFault> {
        let End { code, reason, ext: _ } = End::decode(payload).map_err(malformed("END"))?;
        self.frames.end_ack = Some(key);
        self.finish_session(code, reason, true);
        Ok(())
    }

    fn handle_end_ack(&mut self) -> Result<(), PathFault> {
        let super::ending::Ending::Sent { code, reason, .. } = &self.ending else {
            return Err(PathFault::OutOfPlace { what: "END_ACK without an END" });
        };
        let (code, reason) = (*code, reason.clone());
        self.finish_session(code, reason, false);
        Ok(())
    }

    fn handle_abort(&mut self, payload: &[u8]) -> Result<(), PathFault> {
        let Abort { code, reason, ext: _ } = Abort::decode(payload).map_err(malformed("ABORT"))?;
        self.close_down(crate::wire::codes::EndCode::INTERNAL);
        self.events.push(SessionEvent::Aborted { code, reason, by_peer: true });
        Ok(())
    }
}

fn nonce(payload: &[u8]) -> Result<u64, PathFault> {
    let bytes = payload.try_into().map_err(|_| PathFault::Malformed { what: "nonce".to_owned() })?;
    Ok(u64::from_be_bytes(bytes))
}

fn malformed(what: &'static str) -> impl Fn(BodyError) -> PathFault {
    move |error| PathFault::Malformed { what: format!("{what}: {error}") }
}
