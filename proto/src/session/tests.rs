//! Rules of the session by claim, on a pair of sessions or against raw frames.

use std::time::Duration;

use super::life::frame;
use super::sim::{End, Pair, run_seed};
use super::*;
use crate::Moment;
use crate::wire::codes::{AbortCode, Class, EndCode, Lane, Purpose, RepathReason, ResetCode};
use crate::wire::frame::{
    Attach, EndToEnd, FLAG_FIN, FrameHeader, FrameType, Open, OpenOptions, Refused, Reset,
};
use crate::wire::{ChannelId, Epoch, Ext, InstanceId, SessionId};

const C: End = End::Controller;
const T: End = End::Target;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn attached() -> (Pair, PathKey) {
    Pair::attached(SessionConfig::default()).unwrap()
}

/// A channel that is open at both ends, its OPEN answered.
fn opened(pair: &mut Pair, class: Class, may_skip_ms: Option<u32>) -> ChannelId {
    let id = pair.open(C, class, may_skip_ms).unwrap();
    pair.run_for(ms(100)).unwrap();
    id
}

fn finish_both(pair: &mut Pair, id: ChannelId) {
    pair.finish(C, id).unwrap();
    pair.finish(T, id).unwrap();
}

/// Runs and reads until both directions of `id` have ended.
fn drain(pair: &mut Pair, id: ChannelId) {
    for _ in 0..200 {
        pair.run_for(ms(50)).unwrap();
        pair.read_all().unwrap();
        if pair.flow(id, C).ended && pair.flow(id, T).ended {
            return;
        }
    }
    panic!("not drained: {:?} {:?}", pair.controller.status(), pair.target.as_ref().unwrap().status());
}

fn heard(pair: &Pair, end: End, wanted: impl Fn(&SessionEvent) -> bool) -> usize {
    pair.heard.get(&end).map_or(0, |heard| heard.events.iter().filter(|event| wanted(event)).count())
}

/// A Target's session with one live path and no simulation around it, for frames that no honest peer sends.
struct Bare {
    session: Session,
    path: PathKey,
    now: Moment,
}

fn attach_of(epoch: u64) -> Attach {
    Attach {
        session: SessionId([7; 16]),
        epoch: Epoch(epoch),
        kind: crate::wire::codes::AttachKind::NEW,
        lane: Lane::INTERACTIVE,
        instance: InstanceId([1; 16]),
        ticket: String::new(),
        channels: Vec::new(),
        features: 0,
        ext: Ext::none(),
    }
}

fn open_body(service: &str) -> Vec<u8> {
    let options = OpenOptions::default();
    Open { service: service.parse().unwrap(), class: Class::BULK, options, ext: Ext::none() }
        .encode()
        .unwrap()
}

impl Bare {
    fn new() -> Self {
        let now = Moment::from_origin(Duration::from_secs(100));
        let mut session =
            Session::target(SessionConfig::default(), SessionId([7; 16]), InstanceId([2; 16]), now);
        session
            .accept_attach(PathKey(1), &attach_of(1), |service| service.as_str() != "forbidden", now)
            .unwrap();
        Self { session, path: PathKey(1), now }
    }

    fn send(&mut self, kind: FrameType, channel: u32, offset: u64, payload: &[u8]) -> Result<(), PathFault> {
        self.session.handle_bytes(self.path, &frame(kind, ChannelId(channel), offset, payload), self.now)
    }

    fn send_flags(&mut self, kind: FrameType, flags: u8, channel: u32, offset: u64, payload: &[u8]) {
        let mut bytes = frame(kind, ChannelId(channel), offset, payload);
        bytes[1] = flags;
        self.session.handle_bytes(self.path, &bytes, self.now).unwrap();
    }

    fn open(&mut self, channel: u32) -> ChannelId {
        self.send(FrameType::Open, channel, 0, &open_body("echo")).unwrap();
        ChannelId(channel)
    }

    fn aborted(&mut self) -> Option<AbortCode> {
        std::iter::from_fn(|| self.session.poll_event()).find_map(|event| {
            if let SessionEvent::Aborted { code, by_peer: false, .. } = event { Some(code) } else { None }
        })
    }

    /// Frames that the session sends now: type, flags, channel, offset.
    fn sent(&mut self) -> Vec<(FrameType, u8, u32, u64)> {
        let mut out = Vec::new();
        while self.session.poll_transmit(self.path, self.now, 64 * 1024, &mut out) {}
        frames_in(&out)
    }
}

fn frames_in(mut bytes: &[u8]) -> Vec<(FrameType, u8, u32, u64)> {
    // The first exchange is outside any frame; its type's high byte has the critical bit.
    if bytes.first() == Some(&0x80) {
        let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        bytes = &bytes[8 + length..];
    }
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let header = FrameHeader::parse(*head);
        found.push((header.frame_type().unwrap(), header.flags, header.channel.0, header.offset));
        bytes = &rest[usize::from(header.length)..];
    }
    found
}

#[test]
fn random_histories_keep_every_invariant() {
    for seed in 0..100 {
        run_seed(seed, SessionConfig::default()).unwrap();
    }
}

#[test]
fn bytes_cross_one_path_both_ways_and_the_channel_closes() {
    let (mut pair, _) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    for round in 0..50 {
        assert_eq!(pair.write(C, id, 60_000).unwrap(), 60_000, "{round}");
        assert_eq!(pair.write(T, id, 60_000).unwrap(), 60_000, "{round}");
        pair.run_for(ms(50)).unwrap();
        pair.read_all().unwrap();
    }
    finish_both(&mut pair, id);
    drain(&mut pair, id);
    assert_eq!((pair.flow(id, C).read, pair.flow(id, T).read), (3_000_000, 3_000_000));
    assert_eq!(pair.controller.status().channels, 0);
    assert_eq!(pair.controller.status().bytes_repeated, 0);
    assert_eq!(heard(&pair, C, |event| *event == SessionEvent::Closed(id)), 1);
}

#[test]
fn a_new_channel_takes_64_kib_before_any_answer() {
    let mut pair = Pair::new(SessionConfig::default());
    let id = pair.open(C, Class::BULK, None).unwrap();
    assert_eq!(pair.write(C, id, 65_535), Ok(65_535));
    assert_eq!(pair.write(C, id, 2), Ok(1));
    assert_eq!(pair.write(C, id, 1), Ok(0));
}

#[test]
fn a_writer_waits_at_the_cap_and_is_told_of_room() {
    let config = SessionConfig { send_cap_bytes: 1000, ..SessionConfig::default() };
    let (mut pair, _) = Pair::attached(config).unwrap();
    let id = opened(&mut pair, Class::BULK, None);
    assert_eq!(pair.write(C, id, 1001), Ok(1000));
    pair.run_for(ms(100)).unwrap();
    assert_eq!(heard(&pair, C, |event| *event == SessionEvent::Writable(id)), 1);
    assert_eq!(pair.write(C, id, 1000), Ok(1000));
}

#[test]
fn resume_replays_unacked_bytes_in_order() {
    let (mut pair, path) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    pair.write(C, id, 60_000).unwrap();
    pair.write(T, id, 60_000).unwrap();
    pair.pump().unwrap();
    pair.kill(path, 20_000, Some(ms(5)));
    pair.run_for(ms(50)).unwrap();
    assert_eq!(pair.controller.status().state, SessionState::Detached);
    pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    finish_both(&mut pair, id);
    drain(&mut pair, id);
    assert!(pair.controller.status().bytes_repeated > 0);
}

#[test]
fn data_beyond_the_grant_aborts_and_up_to_it_does_not() {
    for (count, code) in [(3, None), (4, None), (5, Some(AbortCode::CREDIT))] {
        let mut bare = Bare::new();
        bare.open(1);
        for chunk in 0..count {
            bare.send(FrameType::Data, 1, chunk * 16_384, &[0; 16_384]).unwrap();
        }
        assert_eq!(bare.aborted(), code, "{count} frames");
    }
}

#[test]
fn a_pending_offer_holds_bytes_and_grants_no_more() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.send(FrameType::Data, 1, 0, b"held").unwrap();
    assert_eq!(bare.session.read(id, &mut [0; 10]), Ok(ReadOutcome::Empty));
    let granted = bare.session.table.open[&id].receiver.granted();
    bare.sent();
    assert_eq!(bare.session.table.open[&id].receiver.granted(), granted);
    bare.session.accept(id).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(bare.session.read(id, &mut buffer), Ok(ReadOutcome::Bytes(4)));
    assert_eq!(&buffer[..4], b"held");
    assert!(bare.sent().contains(&(FrameType::Opened, 0, 1, 0)));
    assert_eq!(
        bare.session.table.open[&id].receiver.granted(),
        4 + SessionConfig::default().receive_window_bytes
    );
}

#[test]
fn an_identical_open_is_ignored_and_a_different_one_aborts() {
    let mut bare = Bare::new();
    bare.open(1);
    bare.open(1);
    assert_eq!(bare.session.status().channels, 1);
    bare.send(FrameType::Open, 1, 0, &open_body("other")).unwrap();
    assert_eq!(bare.aborted(), Some(AbortCode::OPEN_DIFFERS));
}

#[test]
fn only_odd_ids_are_the_controllers_to_open() {
    for (id, code) in [(1, None), (0, Some(AbortCode::PROTOCOL)), (2, Some(AbortCode::PROTOCOL))] {
        let mut bare = Bare::new();
        bare.open(id);
        assert_eq!(bare.aborted(), code, "{id}");
    }
}

#[test]
fn the_65th_channel_is_reset_and_the_64th_is_not() {
    let mut bare = Bare::new();
    for index in 0..65 {
        bare.open(1 + 2 * index);
    }
    assert_eq!(bare.session.status().channels, 64);
    let resets: Vec<u32> =
        bare.sent().into_iter().filter(|sent| sent.0 == FrameType::Reset).map(|sent| sent.2).collect();
    assert_eq!(resets, [129]);
    assert_eq!(
        bare.session.open("x".parse().unwrap(), Class::BULK, OpenOptions::default()),
        Err(ChannelError::TooMany)
    );
}

#[test]
fn what_the_ticket_does_not_permit_is_reset() {
    let mut bare = Bare::new();
    bare.open(1);
    bare.send(FrameType::Open, 3, 0, &open_body("forbidden")).unwrap();
    assert_eq!(bare.session.status().channels, 1);
    assert!(bare.sent().contains(&(FrameType::Reset, 0, 3, 0)));
    bare.session.accept_attach(PathKey(2), &attach_of(2), |_| false, bare.now).unwrap();
    assert_eq!(bare.session.status().channels, 0);
}

#[test]
fn an_ack_beyond_the_end_aborts_and_one_below_base_is_normal() {
    for (next, code) in [(4, None), (5, None), (6, Some(AbortCode::ACK_BEYOND_END))] {
        let mut bare = Bare::new();
        let id = bare.open(1);
        bare.session.accept(id).unwrap();
        bare.session.write(id, b"hello").unwrap();
        bare.send(FrameType::Ack, 1, next, &100_000_u64.to_be_bytes()).unwrap();
        bare.send(FrameType::Ack, 1, 1, &100_u64.to_be_bytes()).unwrap();
        assert_eq!(bare.aborted(), code, "{next}");
    }
}

#[test]
fn a_wrong_hash_claim_aborts_as_corrupt() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.session.accept(id).unwrap();
    bare.session.write(id, b"hello").unwrap();
    let mut payload = 100_000_u64.to_be_bytes().to_vec();
    payload.extend(42_u64.to_be_bytes());
    bare.send(FrameType::Ack, 1, 5, &payload).unwrap();
    assert_eq!(bare.aborted(), Some(AbortCode::CORRUPT));
}

#[test]
fn a_gap_ends_its_path_and_the_third_within_a_minute_the_session() {
    for (apart, code) in [(29, Some(AbortCode::GAPS)), (30, None), (31, None)] {
        let mut bare = Bare::new();
        bare.open(1);
        let mut epoch = 1;
        for gap in 0..3 {
            let result = bare.send(FrameType::Data, 1, 9, b"x");
            if gap < 2 {
                assert_eq!(result, Err(PathFault::Gap { channel: ChannelId(1), offset: 9 }));
            }
            epoch += 1;
            bare.now += Duration::from_secs(apart);
            bare.path = PathKey(epoch);
            bare.session.accept_attach(bare.path, &attach_of(epoch), |_| true, bare.now).ok();
        }
        assert_eq!(bare.aborted(), code, "{apart} s apart");
    }
}

#[test]
fn frames_of_a_channel_that_never_was_end_the_path() {
    for kind in [FrameType::Data, FrameType::Ack, FrameType::Skip, FrameType::Opened] {
        let mut bare = Bare::new();
        let result = bare.send(kind, 9, 0, &[0; 8]);
        assert_eq!(result, Err(PathFault::UnknownChannel { channel: ChannelId(9) }), "{kind:?}");
        assert!(bare.session.paths().is_empty());
    }
}

#[test]
fn a_closed_channel_answers_fin_and_reset_and_nothing_else() {
    let mut bare = Bare::new();
    bare.open(1);
    let reset =
        Reset { code: ResetCode::CANCELLED, reason: String::new(), ext: Ext::none() }.encode().unwrap();
    bare.send(FrameType::Reset, 1, 0, &reset).unwrap();
    assert!(bare.sent().contains(&(FrameType::Reset, 4, 1, 0)));
    bare.send(FrameType::Data, 1, 0, b"late").unwrap();
    bare.send(FrameType::Open, 1, 0, &open_body("other")).unwrap();
    bare.send(FrameType::Ack, 1, 77, &[0; 8]).unwrap();
    assert_eq!(bare.sent(), []);
    bare.send_flags(FrameType::Data, FLAG_FIN, 1, 10, b"late");
    assert_eq!(bare.sent(), [(FrameType::Ack, 0, 1, 15)]);
    bare.send(FrameType::Reset, 1, 0, &reset).unwrap();
    assert_eq!(bare.sent(), [(FrameType::Reset, 4, 1, 0)]);
    assert_eq!(bare.aborted(), None);
}

#[test]
fn a_second_different_end_aborts() {
    for (offset, payload, code) in [
        (0_u64, &b"abc"[..], None),
        (0, b"ab", Some(AbortCode::END_DIFFERS)),
        (3, b"d", Some(AbortCode::END_DIFFERS)),
    ] {
        let mut bare = Bare::new();
        bare.open(1);
        bare.send_flags(FrameType::Data, FLAG_FIN, 1, 0, b"abc");
        bare.send_flags(FrameType::Data, FLAG_FIN, 1, offset, payload);
        assert_eq!(bare.aborted(), code, "{offset} {payload:?}");
    }
}

fn reset_body() -> Vec<u8> {
    Reset { code: ResetCode::CANCELLED, reason: String::new(), ext: Ext::none() }.encode().unwrap()
}

#[test]
fn what_came_in_order_before_a_reset_stays_readable() {
    for fin in [false, true] {
        let mut bare = Bare::new();
        let id = bare.open(1);
        bare.session.accept(id).unwrap();
        bare.send_flags(FrameType::Data, if fin { FLAG_FIN } else { 0 }, 1, 0, b"last words");
        bare.send(FrameType::Reset, 1, 10, &reset_body()).unwrap();
        assert!(bare.sent().contains(&(FrameType::Reset, 4, 1, 0)));
        assert!(bare.session.has_left(id));
        assert_eq!(bare.session.read(id, &mut []), Ok(ReadOutcome::Empty));
        let mut buffer = [0; 20];
        assert_eq!(bare.session.read(id, &mut buffer[..4]), Ok(ReadOutcome::Bytes(4)));
        assert_eq!(bare.session.read(id, &mut buffer[4..]), Ok(ReadOutcome::Bytes(6)));
        assert_eq!(&buffer[..10], b"last words");
        // With a finish the reader has still to see the end; without one there is none to see.
        assert_eq!(bare.session.has_left(id), fin);
        assert_eq!(bare.session.read(id, &mut buffer), Ok(ReadOutcome::Finished));
        assert!(!bare.session.has_left(id));
        assert_eq!(bare.session.write(id, b"x"), Err(ChannelError::NotOpen(id)));
    }
}

#[test]
fn whole_messages_before_a_reset_stay_readable() {
    let (mut pair, _) = attached();
    let id = opened(&mut pair, Class::SCREEN, Some(60_000));
    pair.write_message(C, id, 100).unwrap();
    pair.write_message(C, id, 200).unwrap();
    pair.run_for(ms(100)).unwrap();
    pair.controller.reset(id, ResetCode::CANCELLED, "").unwrap();
    pair.run_for(ms(100)).unwrap();
    let target = pair.target.as_mut().unwrap();
    assert!(matches!(target.read_message(id), Ok(MessageRead::Message(message)) if message.len() == 100));
    assert!(matches!(target.read_message(id), Ok(MessageRead::Message(message)) if message.len() == 200));
    assert!(!target.has_left(id));
    assert_eq!(target.read_message(id), Ok(MessageRead::Finished));
}

#[test]
fn what_resets_have_left_counts_as_channels_until_it_is_read_or_forgotten() {
    let mut bare = Bare::new();
    for index in 0..64 {
        let id = bare.open(1 + 2 * index);
        bare.session.accept(id).unwrap();
        bare.send(FrameType::Data, id.0, 0, b"left").unwrap();
        bare.send(FrameType::Reset, id.0, 4, &reset_body()).unwrap();
    }
    bare.sent();
    assert_eq!(bare.session.status().channels, 0);
    bare.open(129);
    assert!(bare.sent().contains(&(FrameType::Reset, 0, 129, 0)));
    bare.session.forget(ChannelId(1));
    bare.open(131);
    assert_eq!(bare.session.status().channels, 1);
}

#[test]
fn a_reset_of_an_offer_that_nobody_took_leaves_nothing() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.send(FrameType::Data, 1, 0, b"held").unwrap();
    bare.send(FrameType::Reset, 1, 4, &reset_body()).unwrap();
    assert!(!bare.session.has_left(id));
}

#[test]
fn a_channel_is_delivered_with_its_last_byte_and_acknowledged_with_its_finish() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.session.accept(id).unwrap();
    bare.session.write(id, b"hello").unwrap();
    assert!(!bare.session.is_acknowledged(id) && !bare.session.is_delivered(id));
    bare.session.finish(id).unwrap();
    for (next, delivered, acknowledged) in [(4_u64, false, false), (5, true, false), (6, true, true)] {
        bare.send(FrameType::Ack, 1, next, &100_000_u64.to_be_bytes()).unwrap();
        assert_eq!(bare.session.is_delivered(id), delivered, "{next}");
        assert_eq!(bare.session.is_acknowledged(id), acknowledged, "{next}");
    }
}

#[test]
fn a_cut_session_ends_within_30_s_though_the_peer_answers_pings_and_nothing_else() {
    for end_first in [false, true] {
        let mut bare = Bare::new();
        let id = bare.open(1);
        bare.session.accept(id).unwrap();
        bare.sent();
        let start = bare.now;
        if end_first {
            bare.session.end(EndCode::DONE, "");
        }
        bare.session.cut(EndCode::DISCONNECTED, "stop", start);
        let mut ended = None;
        for _ in 0..200 {
            let mut out = Vec::new();
            while bare.session.poll_transmit(bare.path, bare.now, 64 * 1024, &mut out) {}
            for nonce in nonces_in(&out) {
                bare.send(FrameType::Pong, 0, 0, &nonce.to_be_bytes()).unwrap();
            }
            while let Some(event) = bare.session.poll_event() {
                if let SessionEvent::Ended { code, by_peer: false, .. } = event {
                    ended = ended.or(Some((code, bare.now.since(start))));
                }
            }
            let Some(next) = bare.session.poll_timeout() else { break };
            bare.now = bare.now.max(next);
            bare.session.handle_timeout(bare.now);
        }
        assert_eq!(ended, Some((EndCode::DISCONNECTED, Duration::from_secs(30))), "{end_first}");
    }
}

#[test]
fn a_cut_while_its_end_waits_for_a_path_is_over_in_30_s() {
    let (mut pair, path) = attached();
    pair.kill(path, 0, Some(ms(0)));
    pair.run_for(ms(1)).unwrap();
    pair.controller.end(EndCode::DONE, "");
    let now = pair.now;
    pair.controller.cut(EndCode::DISCONNECTED, "", now);
    pair.run_for(Duration::from_millis(29_999)).unwrap();
    assert_eq!(pair.controller.status().state, SessionState::Ending);
    pair.run_for(ms(2)).unwrap();
    assert_eq!(pair.controller.status().state, SessionState::Over);
}

/// The nonces of the PINGs in a run of frames.
fn nonces_in(mut bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let header = FrameHeader::parse(*head);
        if header.frame_type() == Some(FrameType::Ping) {
            found.push(u64::from_be_bytes(rest[..8].try_into().unwrap()));
        }
        bytes = &rest[usize::from(header.length)..];
    }
    found
}

#[test]
fn unknown_frames_are_skipped_unless_critical() {
    for (kind, result) in [(0x70, Ok(())), (0xf0, Err(PathFault::UnknownCritical { kind: 0x70 }))] {
        let mut bare = Bare::new();
        let mut bytes = frame(FrameType::Ping, ChannelId(0), 0, b"whatever");
        bytes[0] = kind;
        assert_eq!(bare.session.handle_bytes(bare.path, &bytes, bare.now), result);
    }
}

#[test]
fn an_oversize_frame_is_refused_by_its_header_alone() {
    let mut bare = Bare::new();
    let header = FrameHeader { length: 16_385, ..FrameHeader::new(FrameType::Data, ChannelId(1), 0) };
    let result = bare.session.handle_bytes(bare.path, &header.to_bytes(), bare.now);
    assert_eq!(result, Err(PathFault::Oversize { length: 16_385 }));
}

#[test]
fn frames_survive_any_cut_of_the_stream() {
    let mut stream = frame(FrameType::Open, ChannelId(1), 0, &open_body("echo"));
    stream.extend(frame(FrameType::Data, ChannelId(1), 0, b"hello"));
    stream.extend(frame(FrameType::Data, ChannelId(1), 5, b" world"));
    for cut in 0..stream.len() {
        let mut bare = Bare::new();
        bare.session.handle_bytes(bare.path, &stream[..cut], bare.now).unwrap();
        bare.session.handle_bytes(bare.path, &stream[cut..], bare.now).unwrap();
        bare.session.accept(ChannelId(1)).unwrap();
        let mut buffer = [0; 20];
        assert_eq!(bare.session.read(ChannelId(1), &mut buffer), Ok(ReadOutcome::Bytes(11)), "{cut}");
        assert_eq!(&buffer[..11], b"hello world");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let mut stream = frame(FrameType::Open, ChannelId(1), 0, &open_body("echo"));
    stream.extend(frame(FrameType::Data, ChannelId(1), 0, b"hello"));
    stream.extend(frame(FrameType::Ack, ChannelId(1), 0, &[0; 16]));
    stream.extend(frame(FrameType::Ping, ChannelId(0), 0, &[0; 8]));
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut bare = Bare::new();
        if bare.session.handle_bytes(bare.path, &flipped, bare.now).is_err() {
            assert!(bare.session.paths().is_empty(), "bit {bit}");
        }
        bare.sent();
    }
}

#[test]
fn an_old_epoch_is_stale_and_names_the_highest() {
    let mut bare = Bare::new();
    for (epoch, highest) in [(1, Some(1)), (5, None), (4, Some(5)), (5, Some(5)), (6, None)] {
        let path = PathKey(100 + bare.session.paths().len() as u64 + epoch * 10);
        let result = bare.session.accept_attach(path, &attach_of(epoch), |_| true, bare.now);
        let expected =
            highest.map(|highest| Box::new(Refused::stale_epoch(Epoch(highest), InstanceId([2; 16]))));
        assert_eq!(result.err(), expected, "{epoch}");
    }
}

#[test]
fn input_waits_behind_one_frame_at_most_when_bulk_saturates() {
    let (mut pair, path) = attached();
    let bulk = opened(&mut pair, Class::BULK, None);
    let input = opened(&mut pair, Class::INPUT, None);
    pair.controller.paths.path_mut(path).unwrap().window.hold_open();
    let now = pair.now;
    for round in 0..40 {
        pair.write(C, bulk, 300_000).unwrap();
        let mut out = Vec::new();
        pair.controller.poll_transmit(path, now, 20_000, &mut out);
        assert!(out.len() <= 20_000, "{round}");
        pair.write(C, input, 20).unwrap();
        out.clear();
        pair.controller.poll_transmit(path, now, 64 * 1024, &mut out);
        let data: Vec<u32> =
            frames_in(&out).iter().filter(|sent| sent.0 == FrameType::Data).map(|sent| sent.2).collect();
        let before = data.iter().position(|channel| *channel == input.0).unwrap();
        assert!(before <= 1, "round {round}: {before} frames in front of input");
    }
}

#[test]
fn frames_are_small_while_a_path_is_slow() {
    // 20 kB a poll: at 200 ms apart that is 0.8 Mbit/s, at 100 ms 1.6 Mbit/s.
    for (apart, largest) in [(200, 4096), (100, 16_384)] {
        let (mut pair, path) = attached();
        let bulk = opened(&mut pair, Class::BULK, None);
        pair.controller.paths.path_mut(path).unwrap().window.hold_open();
        pair.write(C, bulk, 1_000_000).unwrap();
        let mut last = 0;
        for round in 0..20 {
            let mut out = Vec::new();
            let now = pair.now + ms(apart * round);
            pair.controller.poll_transmit(path, now, 20_000, &mut out);
            let offsets: Vec<u64> =
                frames_in(&out).iter().filter(|sent| sent.0 == FrameType::Data).map(|sent| sent.3).collect();
            last = offsets.get(1).map_or(last, |second| second - offsets[0]);
        }
        assert_eq!(last, largest, "{apart}");
    }
}

#[test]
fn the_budget_of_a_path_is_one_frame_at_its_pace() {
    for (apart, budget) in [(200, 4096 + 16), (100, 16_384 + 16)] {
        let (mut pair, path) = attached();
        let bulk = opened(&mut pair, Class::BULK, None);
        pair.controller.paths.path_mut(path).unwrap().window.hold_open();
        pair.write(C, bulk, 1_000_000).unwrap();
        for round in 0..20 {
            let now = pair.now + ms(apart * round);
            pair.controller.poll_transmit(path, now, 20_000, &mut Vec::new());
        }
        assert_eq!(pair.controller.transmit_budget(path), budget, "{apart}");
    }
    let tiny = SessionConfig { frame_payload_bytes_max: 1, ..SessionConfig::default() };
    let (mut pair, path) = Pair::attached(tiny).unwrap();
    assert_eq!(pair.controller.transmit_budget(path), 1024);
    pair.controller.end(EndCode::DONE, &"x".repeat(255));
    let mut out = Vec::new();
    let budget = pair.controller.transmit_budget(path);
    pair.controller.poll_transmit(path, pair.now, budget, &mut out);
    assert!(frames_in(&out).iter().any(|sent| sent.0 == FrameType::End));
}

#[test]
fn a_one_way_freeze_is_suspected_and_a_further_path_delivers() {
    for towards in [C, T] {
        let (mut pair, path) = attached();
        let id = opened(&mut pair, Class::INPUT, None);
        pair.freeze(path, towards, true);
        pair.write(C, id, 100).unwrap();
        pair.write(T, id, 100).unwrap();
        pair.run_for(ms(1700)).unwrap();
        let told = heard(&pair, C, |event| {
            *event == SessionEvent::Suspect(path)
                || matches!(event, SessionEvent::RepathWanted { reason: RepathReason::SUSPECT, .. })
        });
        assert!(told >= 1, "{towards:?}");
        pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
        finish_both(&mut pair, id);
        drain(&mut pair, id);
    }
}

#[test]
fn schedule_attach_built_before_an_ack_that_arrives_on_the_old_path() {
    let (mut pair, _) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    pair.write(C, id, 50_000).unwrap();
    pair.write(T, id, 50_000).unwrap();
    pair.pump().unwrap();
    let newer = pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.wires.get_mut(&newer).unwrap().delay = ms(500);
    finish_both(&mut pair, id);
    drain(&mut pair, id);
}

#[test]
fn schedule_stale_credit_after_newer_credit_at_zero_window() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.session.accept(id).unwrap();
    assert_eq!(bare.session.write(id, &[0; 70_000]), Ok(65_536));
    bare.send(FrameType::Ack, 1, 0, &100_000_u64.to_be_bytes()).unwrap();
    bare.send(FrameType::Ack, 1, 0, &65_536_u64.to_be_bytes()).unwrap();
    assert_eq!(bare.session.write(id, &[0; 70_000]), Ok(100_000 - 65_536));
}

#[test]
fn schedule_a_new_path_dies_after_partial_acks_and_the_old_one_carries_on() {
    let (mut pair, old) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    let newer = pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.write(C, id, 60_000).unwrap();
    pair.write(T, id, 60_000).unwrap();
    pair.run_for(ms(25)).unwrap();
    pair.kill(newer, 7_000, Some(ms(3)));
    finish_both(&mut pair, id);
    drain(&mut pair, id);
    assert_eq!(pair.controller.paths(), [old]);
}

#[test]
fn schedule_one_side_sees_the_path_dead_and_then_the_old_leg_revives() {
    for end in [C, T] {
        let (mut pair, old) = attached();
        let id = opened(&mut pair, Class::BULK, None);
        pair.freeze(old, end.other(), true);
        pair.write(C, id, 60_000).unwrap();
        pair.write(T, id, 60_000).unwrap();
        pair.run_for(ms(20)).unwrap();
        pair.lose_at(old, end);
        pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
        pair.run_for(ms(30)).unwrap();
        pair.freeze(old, end.other(), false);
        finish_both(&mut pair, id);
        drain(&mut pair, id);
    }
}

#[test]
fn schedule_attached_is_lost_new_and_resume() {
    for first in [true, false] {
        let mut pair = Pair::new(SessionConfig::default());
        if !first {
            let path = pair.attach(Purpose::NEW, Lane::INTERACTIVE).unwrap();
            pair.run_for(ms(100)).unwrap();
            pair.kill(path, 0, Some(ms(0)));
            pair.run_for(ms(1)).unwrap();
        }
        let id = pair.open(C, Class::INPUT, None).unwrap();
        pair.write(C, id, 100).unwrap();
        let lost = pair.attach(Purpose::NEW, Lane::INTERACTIVE).unwrap();
        pair.run_for(ms(15)).unwrap();
        pair.kill(lost, 0, Some(ms(1)));
        pair.run_for(ms(5)).unwrap();
        assert_eq!(pair.target.as_ref().unwrap().status().channels, 1);
        pair.attach(Purpose::NEW, Lane::INTERACTIVE).unwrap();
        pair.run_for(ms(50)).unwrap();
        finish_both(&mut pair, id);
        drain(&mut pair, id);
    }
}

#[test]
fn schedule_a_planned_handover_retires_the_old_path_and_loses_nothing() {
    let (mut pair, old) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    pair.write(C, id, 60_000).unwrap();
    pair.write(T, id, 60_000).unwrap();
    pair.pump().unwrap();
    // RETIRE comes on the new path before what is on its way on the old one.
    pair.wires.get_mut(&old).unwrap().delay = ms(300);
    let newer = pair.attach(Purpose::HANDOVER, Lane::INTERACTIVE).unwrap();
    pair.run_for(ms(200)).unwrap();
    assert_eq!(heard(&pair, T, |event| *event == SessionEvent::PathRetired(old)), 1);
    finish_both(&mut pair, id);
    drain(&mut pair, id);
    pair.run_for(Duration::from_secs(3)).unwrap();
    assert_eq!(heard(&pair, C, |event| *event == SessionEvent::PathRetired(old)), 1);
    assert_eq!(pair.controller.paths(), [newer]);
}

#[test]
fn schedule_two_dials_race_and_the_later_epoch_wins_first() {
    let (mut pair, first) = attached();
    let id = opened(&mut pair, Class::INPUT, None);
    pair.kill(first, 0, Some(ms(0)));
    pair.run_for(ms(1)).unwrap();
    let slow = pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.wires.get_mut(&slow).unwrap().delay = ms(200);
    let fast = pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.write(C, id, 1000).unwrap();
    pair.run_for(ms(500)).unwrap();
    assert_eq!(
        heard(&pair, C, |event| matches!(event, SessionEvent::RefusedByPeer { path, .. } if *path == slow)),
        1
    );
    assert_eq!(pair.controller.paths(), [fast]);
    finish_both(&mut pair, id);
    drain(&mut pair, id);
}

#[test]
fn schedule_open_lost_with_its_path_both_kinds() {
    for opener in [C, T] {
        let (mut pair, path) = attached();
        let id = pair.open(opener, Class::INPUT, None).unwrap();
        pair.write(opener, id, 10).unwrap();
        pair.pump().unwrap();
        pair.kill(path, 0, Some(ms(1)));
        pair.run_for(ms(20)).unwrap();
        pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
        pair.run_for(ms(100)).unwrap();
        finish_both(&mut pair, id);
        drain(&mut pair, id);
        assert_eq!(heard(&pair, opener.other(), |event| matches!(event, SessionEvent::Offered { .. })), 1);
    }
}

#[test]
fn schedule_fin_lost_and_repeated_with_nothing_left() {
    let (mut pair, path) = attached();
    let id = opened(&mut pair, Class::INPUT, None);
    pair.write(C, id, 10).unwrap();
    pair.run_for(ms(100)).unwrap();
    pair.read_all().unwrap();
    finish_both(&mut pair, id);
    pair.pump().unwrap();
    pair.kill(path, 0, Some(ms(1)));
    pair.run_for(ms(20)).unwrap();
    pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    drain(&mut pair, id);
}

#[test]
fn schedule_the_last_ack_dies_on_a_path_that_only_the_target_used() {
    let (mut pair, old) = attached();
    let id = opened(&mut pair, Class::INPUT, None);
    // The Target moves to a path whose answers never come; the Controller gives it up and stays on the old one.
    let newer = pair.attach(Purpose::HANDOVER, Lane::INTERACTIVE).unwrap();
    pair.freeze(newer, C, true);
    pair.run_for(ms(50)).unwrap();
    finish_both(&mut pair, id);
    pair.run_for(ms(50)).unwrap();
    pair.read_all().unwrap();
    pair.lose_at(newer, C);
    drain(&mut pair, id);
    pair.run_for(Duration::from_secs(20)).unwrap();
    assert_eq!(pair.controller.status().channels, 0);
    assert_eq!(pair.controller.paths(), [old]);
}

#[test]
fn schedule_end_in_flight_during_a_handover() {
    let (mut pair, old) = attached();
    pair.controller.end(EndCode::DONE, "done");
    pair.pump().unwrap();
    pair.attach(Purpose::HANDOVER, Lane::INTERACTIVE).unwrap();
    pair.kill(old, 0, Some(ms(15)));
    pair.run_for(ms(500)).unwrap();
    for end in [C, T] {
        assert_eq!(pair.heard[&end].ended, Some(EndCode::DONE), "{end:?}");
    }
}

#[test]
fn schedule_both_directions_blocked_and_then_a_path_change() {
    let (mut pair, path) = attached();
    let id = opened(&mut pair, Class::BULK, None);
    let mut written = 0;
    for _ in 0..100 {
        written += pair.write(C, id, 100_000).unwrap() + pair.write(T, id, 100_000).unwrap();
        pair.run_for(ms(30)).unwrap();
    }
    assert_eq!(written, 2 * SessionConfig::default().send_cap_bytes, "one window each way");
    pair.kill(path, 0, Some(ms(1)));
    pair.run_for(ms(5)).unwrap();
    pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    finish_both(&mut pair, id);
    drain(&mut pair, id);
}

#[test]
fn schedule_close_while_detached() {
    let (mut pair, path) = attached();
    let id = opened(&mut pair, Class::INPUT, None);
    pair.kill(path, 0, Some(ms(0)));
    pair.run_for(ms(1)).unwrap();
    pair.write(C, id, 50).unwrap();
    finish_both(&mut pair, id);
    pair.controller.end(EndCode::DONE, "done");
    pair.run_for(Duration::from_secs(40)).unwrap();
    assert_eq!(pair.controller.status().state, SessionState::Ending);
    pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    drain(&mut pair, id);
    pair.run_for(ms(200)).unwrap();
    assert_eq!(pair.heard[&T].ended, Some(EndCode::DONE));
}

#[test]
fn schedule_consent_pending_across_a_handover() {
    let mut bare = Bare::new();
    let id = bare.open(1);
    bare.session.accept_attach(PathKey(2), &attach_of(2), |_| true, bare.now).unwrap();
    bare.path = PathKey(2);
    bare.open(1);
    let offers = std::iter::from_fn(|| bare.session.poll_event())
        .filter(|event| matches!(event, SessionEvent::Offered { .. }))
        .count();
    assert_eq!(offers, 1);
    bare.session.accept(id).unwrap();
    assert!(bare.sent().contains(&(FrameType::Opened, 0, 1, 0)));
}

#[test]
fn schedule_skip_on_a_path_that_dies() {
    let (mut pair, first) = attached();
    let id = opened(&mut pair, Class::SCREEN, Some(50));
    pair.kill(first, 0, Some(ms(0)));
    pair.run_for(ms(1)).unwrap();
    assert_eq!(pair.write_message(C, id, 1000), Ok(true));
    pair.run_for(ms(100)).unwrap();
    assert_eq!(pair.write_message(C, id, 500), Ok(true));
    let second = pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.pump().unwrap();
    pair.kill(second, 0, Some(ms(1)));
    pair.run_for(ms(5)).unwrap();
    pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
    pair.run_for(ms(100)).unwrap();
    let target = pair.target.as_mut().unwrap();
    assert_eq!(target.read_message(id), Ok(MessageRead::Skipped { from: 0, to: 1000 }));
    assert!(matches!(target.read_message(id), Ok(MessageRead::Message(message)) if message.len() == 500));
}

#[test]
fn schedule_two_lanes_on_two_paths_either_dies() {
    for bulk_dies in [true, false] {
        let (mut pair, interactive) = attached();
        let bulk = pair.attach(Purpose::RESUME, Lane::BULK).unwrap();
        pair.run_for(ms(100)).unwrap();
        let file = opened(&mut pair, Class::BULK, None);
        let keys = opened(&mut pair, Class::INPUT, None);
        assert_eq!(pair.controller.table.open[&file].bound, Some(bulk));
        assert_eq!(pair.controller.table.open[&keys].bound, Some(interactive));
        pair.write(C, file, 60_000).unwrap();
        pair.write(C, keys, 100).unwrap();
        pair.pump().unwrap();
        pair.kill(if bulk_dies { bulk } else { interactive }, 3000, Some(ms(1)));
        finish_both(&mut pair, file);
        finish_both(&mut pair, keys);
        drain(&mut pair, file);
        drain(&mut pair, keys);
    }
}

#[test]
fn schedule_a_one_directional_stream_on_a_frozen_broker() {
    for writer in [C, T] {
        for frozen in [&[C][..], &[T], &[C, T]] {
            let (mut pair, path) = attached();
            let id = opened(&mut pair, Class::SCREEN, None);
            // Only one side ever writes, so only acknowledgements flow back.
            for _ in 0..20 {
                pair.write(writer, id, 10_000).unwrap();
                pair.run_for(ms(50)).unwrap();
                pair.read_all().unwrap();
            }
            for end in frozen {
                pair.freeze(path, *end, true);
            }
            for _ in 0..34 {
                pair.write(writer, id, 10_000).unwrap();
                pair.run_for(ms(50)).unwrap();
                pair.read_all().unwrap();
            }
            for end in frozen {
                // Whoever hears nothing suspects the path, the mere reader too.
                let told = heard(&pair, *end, |event| *event == SessionEvent::Suspect(path));
                assert_eq!(told, 1, "{writer:?} writes, nothing reaches {end:?}");
            }
            pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
            finish_both(&mut pair, id);
            drain(&mut pair, id);
            assert_eq!(pair.flow(id, writer.other()).written, 0);
        }
    }
}

#[test]
fn schedule_paths_die_in_a_fin_flush_with_several_paths() {
    for keep in [0, 1, 20_000, 59_000, 60_100] {
        let (mut pair, _) = attached();
        let id = opened(&mut pair, Class::BULK, None);
        for _ in 0..2 {
            pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
            pair.run_for(ms(50)).unwrap();
        }
        assert_eq!(pair.controller.status().paths.len(), 3);
        pair.write(C, id, 60_000).unwrap();
        pair.write(T, id, 60_000).unwrap();
        finish_both(&mut pair, id);
        pair.pump().unwrap();
        // The bound path dies with the flush on the way, and so does the one that takes it over.
        for _ in 0..2 {
            let bound = pair.controller.table.control.unwrap();
            pair.kill(bound, keep, Some(ms(11)));
            pair.run_for(ms(12)).unwrap();
            assert_ne!(pair.controller.table.control, Some(bound));
        }
        drain(&mut pair, id);
        assert_eq!((pair.flow(id, C).read, pair.flow(id, T).read), (60_000, 60_000), "{keep}");
        pair.run_for(ms(100)).unwrap();
        assert_eq!(heard(&pair, C, |event| *event == SessionEvent::Closed(id)), 1);
        assert_eq!(heard(&pair, T, |event| *event == SessionEvent::Closed(id)), 1);
    }
}

#[test]
fn schedule_a_bit_flipped_by_the_broker_costs_the_path_and_nothing_else() {
    for towards in [C, T] {
        let (mut pair, path) = attached();
        let id = opened(&mut pair, Class::BULK, None);
        pair.write(towards.other(), id, 60_000).unwrap();
        pair.pump().unwrap();
        let before = pair.session(towards).unwrap().status().bytes_in;
        pair.flip_bit(path, towards);
        pair.run_for(ms(15)).unwrap();
        assert_eq!(pair.session(towards).unwrap().status().bytes_in, before, "nothing is delivered");
        assert!(pair.session(towards).unwrap().paths().is_empty(), "the path is gone");
        pair.run_for(ms(50)).unwrap();
        assert_eq!(pair.controller.status().state, SessionState::Detached);
        pair.attach(Purpose::RESUME, Lane::INTERACTIVE).unwrap();
        finish_both(&mut pair, id);
        drain(&mut pair, id);
        assert_eq!(pair.flow(id, towards.other()).read, 60_000);
    }
}

#[test]
fn schedule_suspend_for_two_hours_ends_both_sides_before_they_read() {
    let (mut pair, path) = attached();
    pair.kill(path, 0, Some(ms(0)));
    pair.run_for(ms(1)).unwrap();
    let later = pair.now + Duration::from_secs(7200);
    let refused = pair.target.as_mut().unwrap().accept_attach(PathKey(99), &attach_of(9), |_| true, later);
    assert_eq!(refused, Err(Box::new(Refused::ended(EndCode::WINDOW_EXPIRED, InstanceId([2; 16])))));
    let attach = pair.controller.attach(PathKey(9), Purpose::RESUME, Lane::INTERACTIVE, String::new(), later);
    assert_eq!(attach, Err(AttachError::Over));
}

#[test]
fn the_window_is_the_targets_less_30_s() {
    for (own, theirs, window) in [(120, 150, 120), (120, 149, 119), (120, 20, 0)] {
        let now = Moment::ORIGIN;
        let config =
            |window| SessionConfig { resume_window: Duration::from_secs(window), ..Default::default() };
        let mut controller = Session::controller(config(own), SessionId([7; 16]), InstanceId([1; 16]), now);
        let path = PathKey(1);
        controller.attach(path, Purpose::NEW, Lane::INTERACTIVE, String::new(), now).unwrap();
        let mut target = Session::target(config(theirs), SessionId([7; 16]), InstanceId([2; 16]), now);
        target.accept_attach(path, &attach_of(1), |_| true, now).unwrap();
        let mut out = Vec::new();
        target.poll_transmit(path, now, 64 * 1024, &mut out);
        controller.handle_bytes(path, &out, now).unwrap();
        assert_eq!(controller.clock.window, Duration::from_secs(window), "{own} {theirs}");
    }
}

#[test]
fn a_standby_path_carries_nothing_until_it_is_activated() {
    let (mut pair, first) = attached();
    let id = opened(&mut pair, Class::INPUT, None);
    let standby = pair.attach(Purpose::STANDBY, Lane::INTERACTIVE).unwrap();
    pair.run_for(ms(100)).unwrap();
    pair.write(C, id, 100).unwrap();
    pair.run_for(ms(100)).unwrap();
    assert_eq!(pair.controller.table.open[&id].bound, Some(first));
    pair.kill(first, 0, Some(ms(1)));
    pair.run_for(ms(5)).unwrap();
    pair.write(C, id, 100).unwrap();
    let now = pair.now;
    assert_eq!(pair.controller.activate(standby, String::new(), now), Ok(Epoch(2)));
    finish_both(&mut pair, id);
    drain(&mut pair, id);
    assert_eq!(pair.controller.table.control, Some(standby));
}

#[test]
fn abort_tells_the_peer_and_ends_both_sides() {
    let mut bare = Bare::new();
    bare.open(2);
    assert_eq!(bare.aborted(), Some(AbortCode::PROTOCOL));
    assert!(bare.sent().iter().any(|sent| sent.0 == FrameType::Abort));
    let refused = bare.session.accept_attach(PathKey(2), &attach_of(2), |_| true, bare.now);
    assert_eq!(refused, Err(Box::new(Refused::ended(EndCode::INTERNAL, InstanceId([2; 16])))));
}

#[test]
fn a_first_envelope_is_taken_only_when_it_is_there_whole() {
    let mut bytes = EndToEnd::Attach(attach_of(3)).to_bytes().unwrap();
    let whole = bytes.len();
    bytes.extend(b"more");
    for length in 0..whole {
        assert_eq!(attach::read_first(&bytes[..length]), Ok(None), "{length}");
    }
    assert_eq!(attach::read_first(&bytes), Ok(Some((attach_of(3), whole))));
    let answer = Refused::stale_epoch(Epoch(1), InstanceId([2; 16])).to_bytes();
    assert_eq!(attach::read_first(&answer), Err(attach::FirstEnvelopeError::NotAttach));
}
