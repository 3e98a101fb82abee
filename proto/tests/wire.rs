//! The wire format of every control message: golden bytes, round trips, truncation, flipped bits, garbage.
//!
//! The goldens in `tests/goldens` are what shipped versions send. A difference is a break of the wire, not a file
//! to refresh: change the version of the message instead. `RC_WRITE_GOLDENS=1` writes files that do not exist yet,
//! and never touches one that does.

#![expect(clippy::unwrap_used, reason = "a test that meets none may panic")]

use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use rc_proto::wire::codes::{Lane, PathEnd, PathFailure, Purpose, RegistrationRole};
use rc_proto::wire::limits::ENVELOPE_BODY_BYTES_MAX;
use rc_proto::wire::message::{
    Announce, CertificateRef, ClosePath, Crl, Deny, Drain, Hello, Here, Invite, JoinPath, Locate, Matrix,
    MeshOpen, Message, MessageError, NotHere, OpenPath, PathClosed, PathFailed, PathOpened, PeerEntry, Peers,
    Ping, Pong, Register, Registered, RetryAfter, ScoreReport, Superseded, Unregister, Welcome,
};
use rc_proto::wire::{
    BrokerId, DecodeError, Envelope, EnvelopeHeader, Ext, Generation, Incarnation, InstanceId, JoinSecret,
    MessageKind, PathId,
};

fn broker(text: &str) -> BrokerId {
    text.parse().unwrap()
}

fn ext() -> Ext {
    Ext(vec![(7, vec![0xde, 0xad])])
}

fn alternates() -> Vec<(BrokerId, String)> {
    vec![(broker("eu/b2"), "b2.eu.example:443".into()), (broker("us/b1"), "b1.us.example:8443".into())]
}

fn addresses() -> Vec<std::net::SocketAddr> {
    vec!["203.0.113.7:443".parse().unwrap(), "[2001:db8::7]:8443".parse().unwrap()]
}

fn open_path() -> OpenPath {
    OpenPath {
        path_id: PathId([0x11; 16]),
        target: "pc-17".parse().unwrap(),
        ticket: "aaaa.bbbb.cccc".into(),
        purpose: Purpose::RESUME,
        lane: Lane::BULK,
        instance: Some(InstanceId([0x22; 16])),
        route: vec![broker("eu/b2")],
        avoid: vec![broker("us/b1"), broker("us/b2")],
        deadline_ms: 70_000,
        ext: ext(),
    }
}

fn link_messages() -> Vec<(&'static str, Message)> {
    vec![
        (
            "hello",
            Hello {
                versions: (1, 300),
                features: 1 << 40,
                incarnation: Incarnation(u64::MAX),
                name: "b1.eu.example:443".into(),
                addresses: addresses(),
                ext: ext(),
            }
            .into(),
        ),
        (
            "welcome",
            Welcome {
                version: 1,
                features: 0,
                broker: broker("eu/b1"),
                incarnation: Incarnation(251),
                name: "b1.eu.example:443".into(),
                addresses: addresses(),
                load: 1000,
                keep_alive_ms: 15_000,
                reconnect_spread_ms: 60_000,
                alternates: alternates(),
                ext: ext(),
            }
            .into(),
        ),
        ("ping", Ping { nonce: 0x0102_0304_0506_0708, ext: Ext::none() }.into()),
        (
            "pong",
            Pong {
                nonce: 0x0102_0304_0506_0708,
                broker: broker("eu/b1"),
                incarnation: Incarnation(65_536),
                load: 250,
                paths: 12,
                accepting: true,
                drain_deadline_ms: None,
                mesh_healthy: true,
                ext: Ext::none(),
            }
            .into(),
        ),
        (
            "pong-draining",
            Pong {
                nonce: 0,
                broker: broker("eu/b1"),
                incarnation: Incarnation(65_535),
                load: 251,
                paths: 0,
                accepting: false,
                drain_deadline_ms: Some(30_000),
                mesh_healthy: false,
                ext: ext(),
            }
            .into(),
        ),
    ]
}

fn registration_messages() -> Vec<(&'static str, Message)> {
    let instance = InstanceId([0x22; 16]);
    vec![
        (
            "drain",
            Drain {
                deadline_ms: 30_000,
                alternates: alternates(),
                slots: vec![(PathId([0x11; 16]), 0), (PathId([0x12; 16]), 1500)],
                ext: ext(),
            }
            .into(),
        ),
        ("score-report", ScoreReport { scores: scores(), age_ms: 5000, ext: ext() }.into()),
        ("retry-after", RetryAfter { after_ms: 250, alternates: alternates(), ext: ext() }.into()),
        (
            "register",
            Register {
                instance,
                instance_started_ms: 1_785_000_000_000,
                generation: Generation(3),
                role: RegistrationRole::STANDBY,
                scores: scores(),
                ext: ext(),
            }
            .into(),
        ),
        (
            "registered",
            Registered { generation: Generation(3), role: RegistrationRole::PRIMARY, ext: ext() }.into(),
        ),
        ("superseded", Superseded { by: instance, back_off_ms: 60_000, ext: ext() }.into()),
        ("unregister", Unregister { instance, generation: Generation(4), ext: ext() }.into()),
    ]
}

fn scores() -> Vec<(BrokerId, u32)> {
    vec![(broker("eu/b1"), 12), (broker("us/b1"), 100_000)]
}

fn path_messages() -> Vec<(&'static str, Message)> {
    let path_id = PathId([0x11; 16]);
    vec![
        ("open-path", open_path().into()),
        (
            "open-path-new",
            OpenPath {
                purpose: Purpose::NEW,
                lane: Lane::INTERACTIVE,
                instance: None,
                route: vec![],
                avoid: vec![],
                ext: Ext::none(),
                ..open_path()
            }
            .into(),
        ),
        (
            "mesh-open",
            MeshOpen {
                origin: broker("eu/b1"),
                controller: "alice".parse().unwrap(),
                controller_certificate: CertificateRef {
                    issuer_sha256: [0x31; 32],
                    serial: vec![1, 0, 0xff],
                    key_sha256: [0x32; 32],
                    not_after_ms: 1_785_000_000_000,
                    key_thumbprint: [0x33; 32],
                },
                open: open_path(),
                ext: ext(),
            }
            .into(),
        ),
        (
            "invite",
            Invite {
                path_id,
                join_secret: JoinSecret([0x44; 16]),
                controller: "alice".parse().unwrap(),
                lane: Lane::INTERACTIVE,
                deadline_ms: 5000,
                broker: broker("eu/b2"),
                name: "b2.eu.example:443".into(),
                addresses: addresses(),
                ext: ext(),
            }
            .into(),
        ),
        ("join-path", JoinPath { path_id, join_secret: JoinSecret([0x44; 16]), ext: ext() }.into()),
        (
            "path-opened",
            PathOpened { path_id, hops: vec![(broker("eu/b1"), 20_000), (broker("eu/b2"), 0)], ext: ext() }
                .into(),
        ),
        (
            "path-failed",
            PathFailed {
                path_id,
                code: PathFailure::RETRY_AFTER,
                retry_after_ms: 1500,
                alternates: alternates(),
                ext: ext(),
            }
            .into(),
        ),
        ("close-path", ClosePath { path_id, reason: PathEnd::CLOSED, ext: ext() }.into()),
        ("path-closed", PathClosed { path_id, reason: PathEnd(900), ext: ext() }.into()),
    ]
}

fn mesh_messages() -> Vec<(&'static str, Message)> {
    let instance = InstanceId([0x22; 16]);
    let target = || "pc-17".parse().unwrap();
    vec![
        (
            "locate",
            Locate { query: 300, target: target(), instance: Some(instance), watch_ms: 10_000, ext: ext() }
                .into(),
        ),
        (
            "locate-any",
            Locate { query: 0, target: target(), instance: None, watch_ms: 0, ext: Ext::none() }.into(),
        ),
        (
            "here",
            Here { query: 300, instance, role: RegistrationRole::PRIMARY, cost_us: 12_345, ext: ext() }
                .into(),
        ),
        ("not-here", NotHere { query: 300, ext: ext() }.into()),
        (
            "announce",
            Announce {
                incarnation: Incarnation(9),
                target: target(),
                instance,
                instance_started_ms: 1_785_000_000_000,
                generation: Generation(3),
                role: RegistrationRole::RESUME,
                present: true,
                ext: ext(),
            }
            .into(),
        ),
        (
            "peers",
            Peers {
                peers: vec![PeerEntry {
                    broker: broker("eu/b2"),
                    name: "b2.eu.example:443".into(),
                    addresses: addresses(),
                    incarnation: Incarnation(10),
                    age_ms: 600_000,
                }],
                ext: ext(),
            }
            .into(),
        ),
        (
            "matrix",
            Matrix { round_trips: vec![(broker("eu/b2"), 20_000), (broker("us/b1"), 90_000)], ext: ext() }
                .into(),
        ),
        (
            "crl",
            Crl {
                issuer_sha256: [0x51; 32],
                number: 7,
                part: 1,
                parts: 3,
                der: vec![0x30, 0x03, 1, 2, 3],
                ext: ext(),
            }
            .into(),
        ),
        (
            "deny",
            Deny { kid: "key-1".into(), number: 8, part: 0, parts: 1, jws: "aa.bb.cc".into(), ext: ext() }
                .into(),
        ),
    ]
}

/// At least one of each kind, every field away from its default somewhere.
fn samples() -> Vec<(&'static str, Message)> {
    [link_messages(), registration_messages(), path_messages(), mesh_messages()].concat()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn read(bytes: &[u8]) -> Result<Option<Message>, MessageError> {
    let (envelope, used) = Envelope::parse_prefix(bytes, ENVELOPE_BODY_BYTES_MAX).unwrap().unwrap();
    assert_eq!(used, bytes.len());
    Message::from_envelope(&envelope)
}

fn envelope(kind: MessageKind, body: &[u8]) -> Envelope {
    Envelope { kind: kind.number(), critical: true, version: 1, body: body.to_vec() }
}

#[test]
fn every_kind_has_a_sample() {
    let sampled: std::collections::BTreeSet<_> =
        samples().iter().map(|(_, message)| message.kind()).collect();
    assert_eq!(sampled.into_iter().collect::<Vec<_>>(), MessageKind::ALL);
}

#[test]
fn every_message_has_its_golden_bytes() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let writes = std::env::var_os("RC_WRITE_GOLDENS").is_some();
    for (name, message) in samples() {
        let path = directory.join(format!("{name}.hex"));
        let bytes = hex(&message.to_bytes().unwrap());
        if writes && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(bytes, golden, "{name}: the wire format has changed");
    }
}

#[test]
fn every_golden_is_read_as_the_message_it_was_written_from() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    for (name, message) in samples() {
        let golden = std::fs::read_to_string(directory.join(format!("{name}.hex"))).unwrap();
        let digits: Vec<u8> = golden.bytes().filter(|byte| *byte != b'\n').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        assert_eq!(read(&bytes), Ok(Some(message)), "{name}");
    }
}

#[test]
fn every_message_survives_the_wire() {
    for (name, message) in samples() {
        assert_eq!(read(&message.to_bytes().unwrap()), Ok(Some(message)), "{name}");
    }
}

#[test]
fn an_envelope_cut_at_any_length_waits_for_more() {
    for (name, message) in samples() {
        let bytes = message.to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(
                Envelope::parse_prefix(&bytes[..length], ENVELOPE_BODY_BYTES_MAX),
                Ok(None),
                "{name} {length}"
            );
        }
    }
}

#[test]
fn a_body_cut_at_any_length_is_an_error() {
    for (name, message) in samples() {
        let body = message.to_envelope().unwrap().body;
        for length in 0..body.len() {
            let result = Message::from_envelope(&envelope(message.kind(), &body[..length]));
            assert!(matches!(result, Err(MessageError::Body { .. })), "{name} at {length}: {result:?}");
        }
    }
}

#[test]
fn bytes_behind_a_body_are_refused() {
    for (name, message) in samples() {
        for extra in 1..3 {
            let mut body = message.to_envelope().unwrap().body;
            body.extend(vec![0; extra]);
            let expected = MessageError::Body {
                kind: message.kind(),
                source: DecodeError::TrailingBytes { count: extra },
            };
            assert_eq!(Message::from_envelope(&envelope(message.kind(), &body)), Err(expected), "{name}");
        }
    }
}

/// Whatever a flipped bit makes of a message, it is refused, skipped, or exactly what its bytes say.
#[test]
fn no_flipped_bit_panics_or_is_read_as_something_else_than_it_writes() {
    let (mut read_as_message, mut refused) = (0, 0);
    for (name, message) in samples() {
        let bytes = message.to_bytes().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(Some((envelope, _))) = Envelope::parse_prefix(&flipped, ENVELOPE_BODY_BYTES_MAX) else {
                continue;
            };
            match Message::from_envelope(&envelope) {
                Ok(Some(found)) => {
                    assert_eq!(found.to_envelope().unwrap().body, envelope.body, "{name}, bit {bit}");
                    read_as_message += 1;
                }
                Ok(None) => {}
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read_as_message > 1000 && refused > 1000, "{read_as_message} read, {refused} refused");
}

#[test]
fn a_number_in_more_bytes_than_it_needs_is_refused() {
    let kind = MessageKind::NotHere;
    let read = |body: &[u8]| Message::from_envelope(&envelope(kind, body));
    assert_eq!(read(&[5, 0]), Ok(Some(NotHere { query: 5, ext: Ext::none() }.into())));
    let long_forms: [&[u8]; 4] =
        [&[251, 5, 0, 0], &[252, 5, 0, 0, 0, 0], &[253, 5, 0, 0, 0, 0, 0, 0, 0, 0], &[5, 251, 0, 0]];
    for body in long_forms {
        let expected = MessageError::Body { kind, source: DecodeError::NotCanonical };
        assert_eq!(read(body), Err(expected), "{body:?}");
    }
}

#[test]
fn a_length_that_the_bytes_cannot_hold_is_refused_before_it_is_reserved() {
    for length in [u32::MAX.into(), u64::MAX, 1 << 40] {
        let mut body = vec![253];
        body.extend(length.to_le_bytes());
        for kind in [MessageKind::Peers, MessageKind::Matrix] {
            let result = Message::from_envelope(&envelope(kind, &body));
            assert!(matches!(result, Err(MessageError::Body { .. })), "{kind:?} {length}: {result:?}");
        }
    }
}

#[test]
fn ids_are_checked_when_they_are_read() {
    let good = Message::from(Locate {
        query: 1,
        target: "pc-17".parse().unwrap(),
        instance: None,
        watch_ms: 0,
        ext: Ext::none(),
    });
    let body = good.to_envelope().unwrap().body;
    for bad in [b'P', b'/', b'_', 0, 0xff] {
        let mut body = body.clone();
        body[2] = bad;
        let result = Message::from_envelope(&envelope(MessageKind::Locate, &body));
        assert!(matches!(result, Err(MessageError::Body { .. })), "{bad}: {result:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), limit in 0_usize..70_000) {
        if let Ok(Some((envelope, used))) = Envelope::parse_prefix(&bytes, limit) {
            prop_assert!(used <= bytes.len() && envelope.body.len() <= limit);
            let again = envelope.to_bytes();
            prop_assert_eq!(&again, &bytes[..used]);
            drop(Message::from_envelope(&envelope));
        }
    }

    #[test]
    fn arbitrary_bodies_of_every_kind_are_refused_or_canonical(
        kind in 1_u16..=27,
        body in prop::collection::vec(prop_oneof![3 => 0_u8..20, 1 => any::<u8>()], 0..300),
    ) {
        let kind = MessageKind::from_number(kind).unwrap();
        if let Ok(Some(message)) = Message::from_envelope(&envelope(kind, &body)) {
            prop_assert_eq!(message.to_envelope().unwrap().body, body);
        }
    }

    #[test]
    fn every_header_survives_the_wire(kind in 0_u16..0x8000, critical: bool, version: u16, length: u32) {
        let header = EnvelopeHeader { kind, critical, version, length };
        prop_assert_eq!(EnvelopeHeader::parse(header.to_bytes()), header);
    }
}
