//! The wire format inside end-to-end TLS: golden bytes of each frame and envelope, round trips, truncation, flipped
//! bits.
//!
//! The goldens are what shipped versions send: a difference is a break of the wire, not a file to refresh.
//! `RC_WRITE_GOLDENS=1` writes files that do not exist yet, and never touches one that does.
#![expect(clippy::unwrap_used, reason = "a test that meets none may panic")]

use std::fmt::Write as _;
use std::path::PathBuf;

use rc_proto::wire::codes::{
    AbortCode, AttachKind, Class, Denial, EndCode, Lane, Refusal, RegistrationRole, RepathReason, ResetCode,
};
use rc_proto::wire::frame::{
    Abort, AckBody, Attach, Attached, BodyError, ChannelClaim, End, EndToEnd, EndToEndError, FLAG_ANSWER,
    FLAG_END_OF_MESSAGE, FLAG_FIN, FrameHeader, FrameType, Open, OpenOptions, Refused, Repath, Reset, Where,
};
use rc_proto::wire::{ChannelId, Envelope, Epoch, Ext, Incarnation, InstanceId, SessionId};

fn ext() -> Ext {
    Ext(vec![(7, vec![0xde, 0xad])])
}

fn frame(kind: FrameType, flags: u8, channel: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let header = FrameHeader { flags, length, ..FrameHeader::new(kind, ChannelId(channel), offset) };
    [&header.to_bytes()[..], payload].concat()
}

fn open() -> Open {
    let options = OpenOptions { may_skip_ms: Some(300) };
    Open { service: "tcp:ssh".parse().unwrap(), class: Class::SCREEN, options, ext: ext() }
}

fn reset() -> Reset {
    Reset { code: ResetCode::REFUSED, reason: "not now".into(), ext: ext() }
}

fn repath() -> Repath {
    Repath { reason: RepathReason::SUSPECT, epoch: Epoch(300), ext: ext() }
}

fn place() -> Where {
    let places = vec![
        ("eu/b1".parse().unwrap(), Incarnation(u64::MAX), RegistrationRole::PRIMARY),
        ("us/b2".parse().unwrap(), Incarnation(1), RegistrationRole::STANDBY),
    ];
    Where { instance: InstanceId([0x22; 16]), places, ext: ext() }
}

fn end() -> End {
    End { code: EndCode::SHUTDOWN, reason: "restart".into(), ext: ext() }
}

fn abort() -> Abort {
    Abort { code: AbortCode::CORRUPT, reason: "hash".into(), ext: ext() }
}

fn claims() -> Vec<ChannelClaim> {
    vec![
        ChannelClaim { channel: ChannelId(1), next: 70_000, max: 1 << 20, hash: u64::MAX },
        ChannelClaim { channel: ChannelId(2), next: 0, max: 65_536, hash: 0 },
    ]
}

fn attach() -> Attach {
    Attach {
        session: SessionId([0x11; 16]),
        epoch: Epoch(5),
        kind: AttachKind::RESUME,
        lane: Lane::BULK,
        instance: InstanceId([0x33; 16]),
        ticket: "aaaa.bbbb.cccc".into(),
        channels: claims(),
        features: 1 << 40,
        ext: ext(),
    }
}

fn attached() -> Attached {
    Attached {
        epoch: Epoch(5),
        instance: InstanceId([0x22; 16]),
        channels: claims(),
        resume_window_ms: 150_000,
        features: 3,
        ext: ext(),
    }
}

fn refused() -> Refused {
    Refused {
        code: Refusal::DENIED,
        highest: Epoch(9),
        ended: Some(EndCode::DONE),
        denial: Some(Denial::TICKET_USED),
        reason: "used".into(),
        instance: InstanceId([0x22; 16]),
        ext: ext(),
    }
}

fn envelopes() -> Vec<(&'static str, EndToEnd)> {
    vec![
        ("attach", EndToEnd::Attach(attach())),
        ("attached", EndToEnd::Attached(attached())),
        ("refused", EndToEnd::Refused(refused())),
        ("refused-stale", EndToEnd::Refused(Refused::stale_epoch(Epoch(4), InstanceId([0x22; 16])))),
    ]
}

/// Every frame type once, in wire order.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut ack = Vec::new();
    AckBody { max: 1 << 20, hash: Some(0x0102_0304_0506_0708) }.write_to(&mut ack);
    let envelope = EndToEnd::Attach(attach()).to_bytes().unwrap();
    vec![
        ("open", frame(FrameType::Open, 0, 3, 0, &open().encode().unwrap())),
        ("opened", frame(FrameType::Opened, 0, 3, 0, &[])),
        ("data", frame(FrameType::Data, FLAG_FIN | FLAG_END_OF_MESSAGE, 3, 1 << 40, b"hello")),
        ("ack", frame(FrameType::Ack, 0, 3, 70_000, &ack)),
        ("skip", frame(FrameType::Skip, 0, 3, 90_000, &[])),
        ("reset", frame(FrameType::Reset, FLAG_ANSWER, 3, 12, &reset().encode().unwrap())),
        ("retire", frame(FrameType::Retire, 0, 0, 4, &[])),
        ("repath", frame(FrameType::Repath, 0, 0, 0, &repath().encode().unwrap())),
        ("where", frame(FrameType::Where, 0, 0, 0, &place().encode().unwrap())),
        ("ping", frame(FrameType::Ping, 0, 0, 0, &7_u64.to_be_bytes())),
        ("pong", frame(FrameType::Pong, 0, 0, 0, &7_u64.to_be_bytes())),
        ("end", frame(FrameType::End, 0, 0, 0, &end().encode().unwrap())),
        ("end-ack", frame(FrameType::EndAck, 0, 0, 0, &[])),
        ("abort", frame(FrameType::Abort, 0, 0, 0, &abort().encode().unwrap())),
        ("envelope", frame(FrameType::Envelope, 0, 0, 0, &envelope)),
    ]
}

fn check_golden(name: &str, bytes: &[u8]) {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.push(format!("tests/goldens/session/{name}.hex"));
    let mut hex = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex.push('\n');
    }
    if std::env::var_os("RC_WRITE_GOLDENS").is_some() && !path.exists() {
        std::fs::write(&path, &hex).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(hex, golden, "{name}");
}

/// How many of the decoders take the payload; what matters is that each returns.
fn decoders_that_take(payload: &[u8]) -> usize {
    let envelope = Envelope::parse_prefix(payload, 16 * 1024)
        .is_ok_and(|parsed| parsed.is_some_and(|(envelope, _)| EndToEnd::from_envelope(&envelope).is_ok()));
    let taken = [
        Open::decode(payload).is_ok(),
        Reset::decode(payload).is_ok(),
        Repath::decode(payload).is_ok(),
        Where::decode(payload).is_ok(),
        End::decode(payload).is_ok(),
        Abort::decode(payload).is_ok(),
        AckBody::parse(payload).is_some(),
        envelope,
    ];
    taken.into_iter().filter(|taken| *taken).count()
}

#[test]
fn every_frame_has_its_golden_bytes() {
    for (name, bytes) in frames() {
        check_golden(name, &bytes);
    }
    let numbers: Vec<u8> = frames().iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(numbers, (1..=15).collect::<Vec<u8>>());
}

#[test]
fn every_envelope_has_its_golden_bytes() {
    for (name, message) in envelopes() {
        check_golden(&format!("envelope-{name}"), &message.to_bytes().unwrap());
    }
    let numbers: Vec<u16> = envelopes().iter().map(|(_, message)| message.number()).collect();
    assert_eq!(numbers, [64, 65, 66, 66]);
}

#[test]
fn a_header_is_sixteen_big_endian_bytes() {
    let bytes = [0x83, 5, 0x01, 0x02, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
    let header = FrameHeader::parse(bytes);
    assert_eq!((header.kind, header.critical, header.flags, header.length), (3, true, 5, 0x0102));
    assert_eq!((header.channel, header.offset), (ChannelId(9), 0x0102_0304_0506_0708));
    assert_eq!(header.to_bytes(), bytes);
}

#[test]
fn a_frame_carries_at_most_16_kib() {
    for (length, oversize) in [(16_383, false), (16_384, false), (16_385, true), (u16::MAX, true)] {
        let header = FrameHeader { length, ..FrameHeader::new(FrameType::Data, ChannelId(1), 0) };
        assert_eq!(header.is_oversize(), oversize, "{length}");
    }
}

#[test]
fn every_body_comes_back_as_it_was() {
    assert_eq!(Open::decode(&open().encode().unwrap()), Ok(open()));
    assert_eq!(Reset::decode(&reset().encode().unwrap()), Ok(reset()));
    assert_eq!(Repath::decode(&repath().encode().unwrap()), Ok(repath()));
    assert_eq!(Where::decode(&place().encode().unwrap()), Ok(place()));
    assert_eq!(End::decode(&end().encode().unwrap()), Ok(end()));
    assert_eq!(Abort::decode(&abort().encode().unwrap()), Ok(abort()));
    for (name, message) in envelopes() {
        let bytes = message.to_bytes().unwrap();
        let (envelope, used) = Envelope::parse_prefix(&bytes, 16 * 1024).unwrap().unwrap();
        assert_eq!(used, bytes.len(), "{name}");
        assert_eq!(EndToEnd::from_envelope(&envelope), Ok(Some(message)), "{name}");
    }
}

#[test]
fn a_body_cut_at_any_length_or_with_a_byte_more_is_refused() {
    type Decodes = fn(&[u8]) -> bool;
    let bodies: Vec<(Vec<u8>, Decodes)> = vec![
        (open().encode().unwrap(), |bytes| Open::decode(bytes).is_ok()),
        (reset().encode().unwrap(), |bytes| Reset::decode(bytes).is_ok()),
        (repath().encode().unwrap(), |bytes| Repath::decode(bytes).is_ok()),
        (place().encode().unwrap(), |bytes| Where::decode(bytes).is_ok()),
        (end().encode().unwrap(), |bytes| End::decode(bytes).is_ok()),
        (abort().encode().unwrap(), |bytes| Abort::decode(bytes).is_ok()),
    ];
    for (bytes, decodes) in bodies {
        assert!(decodes(&bytes));
        for length in 0..bytes.len() {
            assert!(!decodes(&bytes[..length]), "{length}");
        }
        assert!(!decodes(&[&bytes[..], &[0]].concat()));
    }
    for (name, message) in envelopes() {
        let bytes = message.to_bytes().unwrap();
        for length in 8..bytes.len() {
            let kind = message.number();
            let envelope = Envelope { kind, critical: true, version: 1, body: bytes[8..length].to_vec() };
            assert!(EndToEnd::from_envelope(&envelope).is_err(), "{name} {length}");
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let mut taken = 0;
    for (_, bytes) in frames() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (head, payload) = flipped.split_first_chunk::<16>().unwrap();
            assert_eq!(FrameHeader::parse(*head).to_bytes(), *head);
            taken += decoders_that_take(payload);
        }
    }
    // Flips inside raw ids, numbers and texts leave a body readable, so some are taken.
    assert!(taken > 1000, "{taken}");
}

#[test]
fn texts_lists_and_extensions_are_held_to_their_limits() {
    for (length, fits) in [(254, true), (255, true), (256, false)] {
        let body = End { reason: "x".repeat(length), ..end() };
        assert_eq!(body.encode().is_ok(), fits, "{length}");
    }
    for (length, fits) in [(2047, true), (2048, true), (2049, false)] {
        let message = EndToEnd::Attach(Attach { ticket: "x".repeat(length), ..attach() });
        assert_eq!(message.to_bytes().is_ok(), fits, "{length}");
    }
    for (count, fits) in [(127, true), (128, true), (129, false)] {
        let claim =
            |id| ChannelClaim { channel: ChannelId(id), next: u64::MAX, max: u64::MAX, hash: u64::MAX };
        let message = EndToEnd::Attach(Attach { channels: (1..=count).map(claim).collect(), ..attach() });
        assert_eq!(message.to_bytes().is_ok(), fits, "{count}");
    }
    let critical = Open { ext: Ext(vec![(0x8001, vec![])]), ..open() };
    assert_eq!(Open::decode(&critical.encode().unwrap()), Err(BodyError::UnknownExtension { tag: 0x8001 }));
}

#[test]
fn claims_ascend_and_name_channels_only() {
    let mut doubled = claims();
    doubled[1].channel = ChannelId(1);
    let mut session = claims();
    session[0].channel = ChannelId(0);
    for channels in [doubled, session] {
        assert!(EndToEnd::Attach(Attach { channels, ..attach() }).to_bytes().is_err());
    }
}

#[test]
fn unknown_envelopes_are_skipped_unless_critical() {
    for (kind, version) in [(67, 1), (64, 2)] {
        let mut envelope = Envelope { kind, critical: false, version, body: vec![1, 2, 3] };
        assert_eq!(EndToEnd::from_envelope(&envelope), Ok(None));
        envelope.critical = true;
        assert_eq!(EndToEnd::from_envelope(&envelope), Err(EndToEndError::Unknown { kind, version }));
    }
}

#[test]
fn an_ack_has_8_or_16_bytes_and_0_claims_nothing() {
    let bytes = [0_u8; 17];
    for length in 0..=17 {
        let parsed = AckBody::parse(&bytes[..length]);
        let expected = (length == 8 || length == 16).then_some(AckBody { max: 0, hash: None });
        assert_eq!(parsed, expected, "{length}");
    }
}
