//! Limits of the messages, on the sender's and on the receiver's side.

use std::net::SocketAddr;

use super::*;
use crate::wire::codes::{Lane, Purpose, RegistrationRole};
use crate::wire::ids::{BrokerId, Generation, Incarnation, InstanceId, PathId};

fn broker(place: usize) -> BrokerId {
    format!("r/b{place}").parse().unwrap()
}

fn brokers(count: usize) -> Vec<BrokerId> {
    (0..count).map(broker).collect()
}

fn numbered(count: usize) -> Vec<(BrokerId, u32)> {
    (0..count).map(|place| (broker(place), 1)).collect()
}

fn alternates(count: usize) -> Vec<(BrokerId, String)> {
    (0..count).map(|place| (broker(place), "b.example:443".to_owned())).collect()
}

fn addresses(count: usize) -> Vec<SocketAddr> {
    vec!["203.0.113.1:443".parse().unwrap(); count]
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

fn hello(name: String, addresses: Vec<SocketAddr>) -> Message {
    Hello { versions: (1, 1), features: 0, incarnation: Incarnation(0), name, addresses, ext: Ext::none() }
        .into()
}

fn welcome(name: String, addresses: Vec<SocketAddr>, alternates: Vec<(BrokerId, String)>) -> Message {
    Welcome {
        version: 1,
        features: 0,
        broker: broker(0),
        incarnation: Incarnation(1),
        name,
        addresses,
        load: 0,
        keep_alive_ms: 15_000,
        reconnect_spread_ms: 0,
        alternates,
        ext: Ext::none(),
    }
    .into()
}

fn open(ticket: String, route: Vec<BrokerId>, avoid: Vec<BrokerId>) -> OpenPath {
    OpenPath {
        path_id: PathId([1; 16]),
        target: "t".parse().unwrap(),
        ticket,
        purpose: Purpose::NEW,
        lane: Lane::INTERACTIVE,
        instance: None,
        route,
        avoid,
        deadline_ms: 1000,
        ext: Ext::none(),
    }
}

fn mesh_open(open: OpenPath, serial_length: usize) -> Message {
    MeshOpen {
        origin: broker(0),
        controller: "c".parse().unwrap(),
        controller_certificate: CertificateRef {
            issuer_sha256: [1; 32],
            serial: vec![1; serial_length],
            key_sha256: [2; 32],
            not_after_ms: 1,
            key_thumbprint: [3; 32],
        },
        open,
        ext: Ext::none(),
    }
    .into()
}

fn peers(count: usize, name: &str, addresses: &[SocketAddr]) -> Message {
    let peer = |place| PeerEntry {
        broker: broker(place),
        name: name.to_owned(),
        addresses: addresses.to_vec(),
        incarnation: Incarnation(1),
        age_ms: 0,
    };
    Peers { peers: (0..count).map(peer).collect(), ext: Ext::none() }.into()
}

fn register(scores: Vec<(BrokerId, u32)>) -> Message {
    Register {
        instance: InstanceId([1; 16]),
        instance_started_ms: 1,
        generation: Generation(1),
        role: RegistrationRole::PRIMARY,
        scores,
        ext: Ext::none(),
    }
    .into()
}

fn path_failed(alternates: Vec<(BrokerId, String)>) -> Message {
    PathFailed {
        path_id: PathId([1; 16]),
        code: crate::wire::codes::PathFailure::BUSY,
        retry_after_ms: 0,
        alternates,
        ext: Ext::none(),
    }
    .into()
}

fn invite(name: String, addresses: Vec<SocketAddr>) -> Message {
    Invite {
        path_id: PathId([1; 16]),
        join_secret: crate::wire::JoinSecret([2; 16]),
        controller: "c".parse().unwrap(),
        lane: Lane::BULK,
        deadline_ms: 1,
        broker: broker(0),
        name,
        addresses,
        ext: Ext::none(),
    }
    .into()
}

fn deny(kid: String, part: u16, parts: u16) -> Message {
    Deny { kid, number: 1, part, parts, jws: "a.b.c".to_owned(), ext: Ext::none() }.into()
}

fn crl(part: u16, parts: u16, der: usize) -> Message {
    Crl { issuer_sha256: [1; 32], number: 1, part, parts, der: vec![7; der], ext: Ext::none() }.into()
}

/// What a receiver makes of a message whose sender checked nothing.
fn received(message: &Message) -> Result<Option<Message>, MessageError> {
    let body = message.encode_body().unwrap();
    let envelope = Envelope { kind: message.kind().number(), critical: true, version: STRUCT_VERSION, body };
    Message::from_envelope(&envelope)
}

/// `make(n)` must pass on both sides up to `limit` and be refused on both sides above it, for `field`.
fn holds_at(limit: usize, field: &str, make: impl Fn(usize) -> Message) {
    for count in [limit - 1, limit] {
        let message = make(count);
        assert!(
            message.to_envelope().is_ok(),
            "{:?} {field} {count}: {:?}",
            message.kind(),
            message.to_envelope()
        );
        assert_eq!(received(&message), Ok(Some(message)), "{field} {count}");
    }
    let message = make(limit + 1);
    let kind = message.kind();
    assert!(
        matches!(message.to_envelope(), Err(EncodeError::Unrepresentable { reason }) if reason.starts_with(field)),
        "{kind:?} {field}"
    );
    match received(&message) {
        Err(MessageError::Field { kind: found, field: refused }) => {
            assert_eq!((found, refused), (kind, field))
        }
        other => panic!("{kind:?} {field}: {other:?}"),
    }
}

#[test]
fn names_have_at_most_255_bytes() {
    let limit = limits::TEXT_BYTES_MAX;
    holds_at(limit, "name", |n| hello(text(n), vec![]));
    holds_at(limit, "name", |n| welcome(text(n), vec![], vec![]));
    holds_at(limit, "name", |n| invite(text(n), vec![]));
    holds_at(limit, "name", |n| peers(2, &text(n), &[]));
    holds_at(limit, "alternates", |n| path_failed(vec![(broker(1), text(n))]));
    holds_at(limit, "kid", |n| deny(text(n), 0, 1));
}

#[test]
fn a_broker_tells_at_most_16_addresses() {
    let limit = limits::ADDRESSES_MAX;
    holds_at(limit, "addresses", |n| hello(String::new(), addresses(n)));
    holds_at(limit, "addresses", |n| welcome(String::new(), addresses(n), vec![]));
    holds_at(limit, "addresses", |n| invite(String::new(), addresses(n)));
    holds_at(limit, "addresses", |n| peers(2, "", &addresses(n)));
}

#[test]
fn at_most_16_alternates_are_named() {
    let limit = limits::ALTERNATES_MAX;
    let retry = |n| RetryAfter { after_ms: 1, alternates: alternates(n), ext: Ext::none() }.into();
    let drain =
        |n| Drain { deadline_ms: 1, alternates: alternates(n), slots: vec![], ext: Ext::none() }.into();
    holds_at(limit, "alternates", |n| welcome(String::new(), vec![], alternates(n)));
    holds_at(limit, "alternates", retry);
    holds_at(limit, "alternates", drain);
    holds_at(limit, "alternates", |n| path_failed(alternates(n)));
}

#[test]
fn at_most_64_scores_are_reported() {
    holds_at(limits::SCORES_MAX, "scores", |n| register(numbered(n)));
    holds_at(limits::SCORES_MAX, "scores", |n| {
        ScoreReport { scores: numbered(n), age_ms: 0, ext: Ext::none() }.into()
    });
}

#[test]
fn an_open_is_bounded_in_ticket_route_and_avoided_brokers() {
    let wraps: [fn(OpenPath) -> Message; 2] = [Message::from, |open| mesh_open(open, 20)];
    for wrap in wraps {
        holds_at(limits::TICKET_BYTES_MAX, "ticket", |n| wrap(open(text(n), vec![], vec![])));
        holds_at(limits::ROUTE_BROKERS_MAX, "route", |n| wrap(open(String::new(), brokers(n), vec![])));
        holds_at(limits::AVOID_BROKERS_MAX, "avoid", |n| wrap(open(String::new(), vec![], brokers(n))));
    }
    holds_at(20, "serial", |n| mesh_open(open(String::new(), vec![], vec![]), n));
}

#[test]
fn a_path_has_at_most_three_hops() {
    holds_at(limits::ROUTE_BROKERS_MAX + 1, "hops", |n| {
        PathOpened { path_id: PathId([1; 16]), hops: numbered(n), ext: Ext::none() }.into()
    });
}

#[test]
fn the_mesh_view_is_bounded() {
    holds_at(limits::PEERS_MAX, "peers", |n| peers(n, "b.example:443", &addresses(2)));
    holds_at(limits::MATRIX_ENTRIES_MAX, "round_trips", |n| {
        Matrix { round_trips: numbered(n), ext: Ext::none() }.into()
    });
}

#[test]
fn a_part_lies_below_the_number_of_parts() {
    for (part, parts, valid) in [
        (0, 0, false),
        (0, 1, true),
        (1, 1, false),
        (u16::MAX - 1, u16::MAX, true),
        (u16::MAX, u16::MAX, false),
    ] {
        for message in [deny(String::new(), part, parts), crl(part, parts, 3)] {
            assert_eq!(message.to_envelope().is_ok(), valid, "{part} of {parts}");
            assert_eq!(received(&message).is_ok(), valid, "{part} of {parts}");
        }
    }
}

#[test]
fn a_body_has_at_most_64_kib() {
    let overhead = crl(0, 1, 60_000).encode_body().unwrap().len() - 60_000;
    let limit = limits::ENVELOPE_BODY_BYTES_MAX;
    for (length, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let message = crl(0, 1, length - overhead);
        let encoded = message.to_envelope();
        if fits {
            assert_eq!(encoded.unwrap().body.len(), length);
            assert_eq!(received(&message), Ok(Some(message)));
        } else {
            assert_eq!(encoded, Err(EncodeError::TooLarge { length, limit }));
        }
    }
}

/// The budget of the decoder leaves room for every message that the limits allow.
#[test]
fn the_largest_lists_still_decode() {
    let long = |place: usize| -> BrokerId { format!("{:a>64}/{place:b>64}", "a").parse().unwrap() };
    let names = (0..16).map(|place| (long(place), text(255))).collect();
    let largest = welcome(text(255), addresses(16), names);
    assert_eq!(received(&largest), Ok(Some(largest)));
    let slots = (0..3000_u16).map(|n| (PathId([n.to_be_bytes()[1]; 16]), u32::MAX)).collect();
    let drain = Drain { deadline_ms: 1, alternates: vec![], slots, ext: Ext::none() }.into();
    assert_eq!(received(&drain), Ok(Some(drain)));
}

#[test]
fn a_critical_extension_that_is_not_known_refuses_the_message() {
    let ext = |tag| Ext(vec![(tag, vec![1, 2])]);
    let ping = |tag| Message::from(Ping { nonce: 1, ext: ext(tag) });
    assert_eq!(received(&ping(7)), Ok(Some(ping(7))));
    let refused = |kind| Err(MessageError::UnknownExtension { kind, tag: 0x8007 });
    assert_eq!(received(&ping(0x8007)), refused(MessageKind::Ping));
    let mut inner = open(String::new(), vec![], vec![]);
    inner.ext = ext(0x8007);
    assert_eq!(
        received(&mesh_open(inner, 1)),
        refused(MessageKind::MeshOpen),
        "the request inside counts too"
    );
}

#[test]
fn unknown_types_and_versions_are_skipped_unless_critical() {
    let envelope = |kind, critical, version| Envelope { kind, critical, version, body: vec![] };
    assert_eq!(Message::from_envelope(&envelope(999, false, 1)), Ok(None));
    assert_eq!(
        Message::from_envelope(&envelope(999, true, 1)),
        Err(MessageError::UnknownCritical { kind: 999 })
    );
    let ping = MessageKind::Ping;
    for version in [0, 2, u16::MAX] {
        assert_eq!(Message::from_envelope(&envelope(ping.number(), false, version)), Ok(None));
        assert_eq!(
            Message::from_envelope(&envelope(ping.number(), true, version)),
            Err(MessageError::UnknownVersion { kind: ping, version })
        );
    }
}
