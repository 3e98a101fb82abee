//! Every way in which a ticket is bad, by name. The signature here is a hash keyed with the key's number: what is
//! tested is the judgement, not the cryptography.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::identity::SpiffeId;
use crate::wire::codes::Denial;
use crate::wire::limits::TICKET_BYTES_MAX;
use crate::wire::{Jti, ServiceName, SessionId};

const NOW: u64 = 1_800_000_000;
const KEY: u64 = 11;
const OTHER_KEY: u64 = 12;

fn kid() -> KeyId {
    "k1".parse().unwrap()
}

fn controller() -> SpiffeId {
    "spiffe://mesh.test/controller/alice".parse().unwrap()
}

fn target() -> SpiffeId {
    "spiffe://mesh.test/target/pc-17".parse().unwrap()
}

const JKT: KeyThumbprint = KeyThumbprint([9; 32]);

fn claims() -> TicketClaims {
    TicketClaims {
        iss: "spiffe://mesh.test/rc-server/main".to_owned(),
        sub: controller(),
        aud: target(),
        iat: NOW,
        nbf: NOW,
        jti: Jti([7; 16]),
        perm: vec!["shell".parse().unwrap(), "tcp:*".parse().unwrap()],
        cnf: JKT,
        start_by: NOW + 300,
        exp: NOW + 43_200,
    }
}

fn signature(key: u64, signed: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let mut signature = [0; SIGNATURE_BYTES];
    for (index, chunk) in signature.chunks_mut(8).enumerate() {
        let seed = key.wrapping_mul(1000) + index as u64;
        chunk.copy_from_slice(&xxhash_rust::xxh64::xxh64(signed, seed).to_be_bytes());
    }
    signature
}

fn check(id: &KeyId, signed: &[u8], given: &[u8; SIGNATURE_BYTES]) -> KeyVerdict {
    if *id != kid() {
        return KeyVerdict::UnknownKey;
    }
    if *given == signature(KEY, signed) { KeyVerdict::Holds } else { KeyVerdict::BadSignature }
}

fn sign(input: SigningInput) -> String {
    let signature = signature(KEY, input.as_bytes());
    input.sign_with(&signature)
}

fn text_of(claims: &TicketClaims) -> String {
    sign(claims.to_signing_input(&kid()).unwrap())
}

fn ticket(claims: &TicketClaims) -> Ticket {
    Ticket::parse(&text_of(claims)).unwrap().verify(&check).unwrap()
}

/// A token with any header and payload, rightly signed.
fn raw(header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = signature(KEY, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"rc-ticket+jwt","kid":"k1"}"#;

fn verified(text: &str) -> Result<Ticket, TicketError> {
    Ticket::parse(text)?.verify(&check)
}

fn at_broker(claims: &TicketClaims, now: u64) -> Result<(), TicketRefusal> {
    let (controller, target) = (controller(), target());
    let presented = Presented { controller: &controller, key: &JKT, target: &target };
    judge_at_broker(&ticket(claims), &presented, now, &DenyLists::default())
}

fn at_target(
    claims: &TicketClaims,
    now: u64,
    start: Start,
    used: &mut UsedTickets,
) -> Result<Option<Claim>, TicketRefusal> {
    let (controller, target) = (controller(), target());
    let presented = Presented { controller: &controller, key: &JKT, target: &target };
    judge_at_target(&ticket(claims), &presented, now, &DenyLists::default(), start, used)
}

const SESSION: SessionId = SessionId([1; 16]);
const OTHER_SESSION: SessionId = SessionId([2; 16]);

fn fresh() -> UsedTickets {
    UsedTickets::restored([])
}

#[test]
fn a_good_ticket_is_read_back_and_accepted_by_both() {
    let read = ticket(&claims());
    assert_eq!(read.claims(), &claims());
    assert_eq!(read.kid(), &kid());
    assert_eq!(at_broker(&claims(), NOW), Ok(()));
    let claim = at_target(&claims(), NOW, Start::New(SESSION), &mut fresh()).unwrap().unwrap();
    let until_unix_s = NOW + 300 + LEEWAY_S;
    assert_eq!(claim, Claim::First(UsedTicket { jti: Jti([7; 16]), session: SESSION, until_unix_s }));
}

#[test]
fn a_ticket_for_another_target_is_refused() {
    let mut other = claims();
    other.aud = "spiffe://mesh.test/target/pc-18".parse().unwrap();
    let refusal = at_broker(&other, NOW).unwrap_err();
    assert_eq!(refusal, TicketRefusal::OtherTarget { permitted: other.aud.clone(), wanted: target() });
    assert_eq!(refusal.denial(), Denial::NOT_PERMITTED);
    assert_eq!(at_target(&other, NOW, Start::Resume, &mut fresh()), Err(refusal));
    other.aud = "spiffe://other.test/target/pc-17".parse().unwrap();
    assert!(matches!(at_broker(&other, NOW), Err(TicketRefusal::OtherTarget { .. })));
}

#[test]
fn a_ticket_of_another_controller_is_refused() {
    let mut other = claims();
    other.sub = "spiffe://mesh.test/controller/bob".parse().unwrap();
    let refusal = at_broker(&other, NOW).unwrap_err();
    assert_eq!(
        refusal,
        TicketRefusal::OtherController { wanted: other.sub.clone(), presented: controller() }
    );
    assert_eq!(refusal.denial(), Denial::NOT_PERMITTED);
    assert_eq!(at_target(&other, NOW, Start::New(SESSION), &mut fresh()), Err(refusal));
}

#[test]
fn a_ticket_bound_to_another_key_is_refused() {
    let mut stolen = claims();
    stolen.cnf = KeyThumbprint([8; 32]);
    let refusal = at_broker(&stolen, NOW).unwrap_err();
    assert_eq!(refusal, TicketRefusal::OtherKey { bound: stolen.cnf, presented: JKT });
    assert_eq!(refusal.denial(), Denial::NOT_PERMITTED);
    assert_eq!(at_target(&stolen, NOW, Start::New(SESSION), &mut fresh()), Err(refusal));
}

#[test]
fn an_expired_ticket_is_refused_everywhere_after_the_leeway() {
    let exp = claims().exp;
    for (now, accepted) in
        [(exp, true), (exp + 59, true), (exp + 60, true), (exp + 61, false), (exp + 300, false)]
    {
        assert_eq!(at_broker(&claims(), now).is_ok(), accepted, "exp + {}", now - exp);
        assert_eq!(at_target(&claims(), now, Start::Resume, &mut fresh()).is_ok(), accepted);
    }
    let refusal = at_broker(&claims(), exp + 300).unwrap_err();
    assert_eq!(
        (refusal.denial(), &refusal),
        (Denial::TICKET_EXPIRED, &TicketRefusal::Expired { ago_s: 300 })
    );
}

#[test]
fn a_ticket_starts_a_session_only_until_start_by_and_resumes_after_it() {
    let start_by = claims().start_by;
    for (now, accepted) in [(start_by + 59, true), (start_by + 60, true), (start_by + 61, false)] {
        let start = at_target(&claims(), now, Start::New(SESSION), &mut fresh());
        assert_eq!(start.is_ok(), accepted, "start_by + {}", now - start_by);
        assert_eq!(at_target(&claims(), now, Start::Resume, &mut fresh()), Ok(None));
        assert_eq!(at_broker(&claims(), now), Ok(()), "a broker cannot tell a start from a resume");
    }
    let late = at_target(&claims(), start_by + 300, Start::New(SESSION), &mut fresh()).unwrap_err();
    assert_eq!((late.denial(), &late), (Denial::TICKET_EXPIRED, &TicketRefusal::StartTooLate { ago_s: 300 }));
}

#[test]
fn a_ticket_that_is_not_yet_valid_is_refused_as_a_clock_fault_at_the_target_only() {
    for (early, accepted) in [(59, true), (60, true), (61, false), (300, false)] {
        let verdict = at_target(&claims(), NOW - early, Start::New(SESSION), &mut fresh());
        assert_eq!(verdict.is_ok(), accepted, "{early} s early");
        assert_eq!(at_broker(&claims(), NOW - early), Ok(()));
    }
    let mut future_nbf = claims();
    future_nbf.nbf = NOW + 61;
    let mut future_iat = claims();
    future_iat.iat = NOW + 61;
    for claims in [future_nbf, future_iat] {
        for start in [Start::New(SESSION), Start::Resume] {
            let refusal = at_target(&claims, NOW, start, &mut fresh()).unwrap_err();
            assert_eq!(refusal, TicketRefusal::NotYetValid { ahead_s: 61 });
            assert_eq!(refusal.denial(), Denial::CLOCK);
        }
    }
}

#[test]
fn a_ticket_starts_one_session_and_its_repeat_is_the_same_session() {
    let mut used = fresh();
    assert!(matches!(at_target(&claims(), NOW, Start::New(SESSION), &mut used), Ok(Some(Claim::First(_)))));
    assert_eq!(at_target(&claims(), NOW + 1, Start::New(SESSION), &mut used), Ok(Some(Claim::Again)));
    let refusal = at_target(&claims(), NOW + 2, Start::New(OTHER_SESSION), &mut used).unwrap_err();
    assert_eq!(
        (refusal.denial(), &refusal),
        (Denial::TICKET_USED, &TicketRefusal::Used { jti: Jti([7; 16]) })
    );
    assert_eq!(at_target(&claims(), NOW + 3, Start::Resume, &mut used), Ok(None));
}

#[test]
fn a_used_ticket_is_remembered_across_a_restart_that_kept_it() {
    let mut used = fresh();
    at_target(&claims(), NOW, Start::New(SESSION), &mut used).unwrap();
    let mut restored = UsedTickets::restored(used.iter());
    let replay = at_target(&claims(), NOW + 10, Start::New(OTHER_SESSION), &mut restored);
    assert_eq!(replay, Err(TicketRefusal::Used { jti: Jti([7; 16]) }));
    assert_eq!(at_target(&claims(), NOW + 10, Start::New(SESSION), &mut restored), Ok(Some(Claim::Again)));
}

#[test]
fn without_history_a_ticket_issued_before_the_start_is_refused() {
    for (start, accepted) in [(NOW + 59, true), (NOW + 60, true), (NOW + 61, false)] {
        let mut used = UsedTickets::without_history(start);
        let verdict = at_target(&claims(), start, Start::New(SESSION), &mut used);
        assert_eq!(verdict.is_ok(), accepted, "issued {} s before the start", start - NOW);
        assert_eq!(at_target(&claims(), start, Start::Resume, &mut used), Ok(None));
    }
    let mut used = UsedTickets::without_history(NOW + 61);
    let refusal = at_target(&claims(), NOW + 61, Start::New(SESSION), &mut used).unwrap_err();
    assert_eq!((refusal.denial(), &refusal), (Denial::TICKET_USED, &TicketRefusal::BeforeMemory));
}

#[test]
fn a_used_ticket_is_forgotten_when_it_could_start_nothing_any_more() {
    let mut used = fresh();
    at_target(&claims(), NOW, Start::New(SESSION), &mut used).unwrap();
    used.forget(NOW + 300 + LEEWAY_S);
    assert_eq!(used.len(), 1);
    used.forget(NOW + 300 + LEEWAY_S + 1);
    assert!(used.is_empty());
}

#[test]
fn a_clock_that_jumps_ahead_and_back_lets_no_ticket_start_twice() {
    let mut used = fresh();
    at_target(&claims(), NOW, Start::New(SESSION), &mut used).unwrap();
    used.forget(NOW + 86_400);
    let replay = at_target(&claims(), NOW + 1, Start::New(OTHER_SESSION), &mut used);
    assert_eq!(replay, Err(TicketRefusal::Used { jti: Jti([7; 16]) }));
}

#[test]
fn used_tickets_are_bounded_and_the_excess_is_busy() {
    let mut used = fresh().with_limit(3);
    for (index, accepted) in [(0, true), (1, true), (2, true), (3, false)] {
        let mut claims = claims();
        claims.jti = Jti([index; 16]);
        let verdict = at_target(&claims, NOW, Start::New(SESSION), &mut used);
        assert_eq!(verdict.is_ok(), accepted, "{index}");
        if !accepted {
            assert_eq!(verdict.unwrap_err().denial(), Denial::BUSY);
        }
    }
    let mut next = claims();
    (next.jti, next.iat, next.nbf, next.start_by) = (Jti([9; 16]), NOW + 361, NOW + 361, NOW + 661);
    assert!(at_target(&next, NOW + 361, Start::New(SESSION), &mut used).is_ok(), "old ones make room");
}

#[test]
fn restoring_more_than_the_limit_forgets_the_first_to_end_and_refuses_it() {
    let record = |index: u64| {
        let mut jti = [0; 16];
        jti[..8].copy_from_slice(&index.to_be_bytes());
        UsedTicket { jti: Jti(jti), session: SESSION, until_unix_s: NOW + 360 + index }
    };
    let used = UsedTickets::restored((0..=USED_TICKETS_MAX as u64).map(record));
    assert_eq!(used.len(), USED_TICKETS_MAX);
    let mut used = used;
    let mut dropped = claims();
    dropped.jti = Jti([0; 16]);
    let replay = at_target(&dropped, NOW, Start::New(OTHER_SESSION), &mut used);
    assert_eq!(replay, Err(TicketRefusal::Used { jti: Jti([0; 16]) }));
}

#[test]
fn a_bit_flipped_at_any_position_is_refused() {
    let text = text_of(&claims());
    for position in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1 << bit;
            if let Ok(flipped) = String::from_utf8(bytes) {
                assert!(verified(&flipped).is_err(), "bit {bit} of byte {position}");
            }
        }
    }
}

#[test]
fn a_ticket_cut_at_any_length_or_with_anything_behind_is_refused() {
    let text = text_of(&claims());
    for length in 0..text.len() {
        assert!(verified(&text[..length]).is_err(), "{length}");
    }
    for tail in [".", "=", " ", "\n", "A", ".AAAA"] {
        assert!(verified(&format!("{text}{tail}")).is_err(), "{tail:?}");
    }
    assert_eq!(Ticket::parse("a.b"), Err(TicketError::Shape { parts: 2 }));
    assert_eq!(Ticket::parse("a.b.c.d.e"), Err(TicketError::Shape { parts: 4 }));
}

#[test]
fn algorithm_confusion_is_refused_before_any_key_is_asked() {
    let payload = serde_json::to_string(&claims()).unwrap();
    for alg in ["none", "None", "NONE", "HS256", "ES256", "RS256", "eddsa", "Ed25519", ""] {
        let text = raw(&HEADER.replace("EdDSA", alg), &payload);
        assert_eq!(Ticket::parse(&text), Err(TicketError::Algorithm { found: alg.to_owned() }));
    }
    let unsigned = text_of(&claims()).rsplit_once('.').map(|(signed, _)| format!("{signed}.")).unwrap();
    assert_eq!(Ticket::parse(&unsigned), Err(TicketError::SignatureLength { length: 0 }));
}

#[test]
fn a_ticket_of_another_key_is_refused() {
    let input = claims().to_signing_input(&kid()).unwrap();
    let forged = signature(OTHER_KEY, input.as_bytes());
    assert_eq!(verified(&input.sign_with(&forged)), Err(TicketError::BadSignature { kid: kid() }));
    let unknown: KeyId = "k2".parse().unwrap();
    let text = sign(claims().to_signing_input(&unknown).unwrap());
    assert_eq!(verified(&text), Err(TicketError::UnknownKey { kid: unknown }));
}

#[test]
fn a_header_that_is_not_exactly_ours_is_refused() {
    let payload = serde_json::to_string(&claims()).unwrap();
    let with = |header: &str| Ticket::parse(&raw(header, &payload));
    assert!(with(HEADER).is_ok());
    let member = |member: &str| HEADER.replace('}', &format!(",{member}}}"));
    assert_eq!(with(&member(r#""crit":["b64"]"#)), Err(TicketError::Critical));
    assert_eq!(with(&member(r#""crit":[]"#)), Err(TicketError::Critical));
    assert_eq!(with(&member(r#""crit":null"#)), Err(TicketError::Critical));
    assert!(with(&member(r#""x5t":"ignored""#)).is_ok());
    for twice in [
        r#""alg":"EdDSA""#,
        r#""kid":"k1""#,
        r#""a":1,"a":2"#,
        r#""a":{"b":1,"b":1}"#,
        r#""a":[{"b":1,"b":1}]"#,
    ] {
        assert!(matches!(with(&member(twice)), Err(TicketError::Json { .. })), "{twice}");
    }
    let typ = with(&HEADER.replace("rc-ticket+jwt", "JWT"));
    assert_eq!(typ, Err(TicketError::Type { found: "JWT".to_owned(), wanted: "rc-ticket+jwt" }));
    for broken in [
        "{}",
        "[]",
        "",
        "null",
        r#"{"alg":"EdDSA","kid":"k1"}"#,
        r#"{"alg":"EdDSA","typ":"rc-ticket+jwt"}"#,
        r#"{"alg":"EdDSA","typ":"rc-ticket+jwt","kid":"../k1"}"#,
        r#"{"alg":"EdDSA","typ":"rc-ticket+jwt","kid":""}"#,
        r#"{"alg":1,"typ":"rc-ticket+jwt","kid":"k1"}"#,
        r#"{"alg":"EdDSA","typ":"rc-ticket+jwt","kid":"k1"} x"#,
    ] {
        assert!(matches!(with(broken), Err(TicketError::Json { .. })), "{broken}");
    }
}

#[test]
fn claims_that_break_a_rule_are_refused_even_when_signed() {
    let good = serde_json::to_value(claims()).unwrap();
    let change = |member: &str, value: serde_json::Value| {
        let mut payload = good.clone();
        payload[member] = value;
        verified(&raw(HEADER, &payload.to_string()))
    };
    assert!(change("exp", (NOW + 1).into()).is_ok());
    assert!(change("unknown", 1.into()).is_ok(), "later versions may add claims");
    for (member, value) in [
        ("exp", serde_json::json!(-1)),
        ("exp", serde_json::json!(1.5)),
        ("exp", serde_json::json!("1800000000")),
        ("exp", serde_json::json!(null)),
        ("exp", serde_json::json!(NOW - 1)),
        ("jti", serde_json::json!("AAAA")),
        ("jti", serde_json::json!(URL_SAFE_NO_PAD.encode([1; 17]))),
        ("sub", serde_json::json!("alice")),
        ("sub", serde_json::json!("spiffe://mesh.test/target/alice")),
        ("aud", serde_json::json!(["spiffe://mesh.test/target/pc-17"])),
        ("aud", serde_json::json!("spiffe://mesh.test/broker/in/b")),
        ("cnf", serde_json::json!({})),
        ("cnf", serde_json::json!({"jkt": "short"})),
        ("iss", serde_json::json!("")),
        ("iss", serde_json::json!("a\u{1b}[2J")),
        ("perm", serde_json::json!(["a*b"])),
        ("perm", serde_json::json!([""])),
        ("perm", serde_json::json!("shell")),
    ] {
        assert!(change(member, value.clone()).is_err(), "{member}: {value}");
    }
    for missing in ["iss", "sub", "aud", "iat", "nbf", "jti", "perm", "cnf", "start_by", "exp"] {
        let mut payload = good.clone();
        payload.as_object_mut().unwrap().remove(missing);
        assert!(verified(&raw(HEADER, &payload.to_string())).is_err(), "{missing}");
    }
    let twice = good.to_string().replacen('{', r#"{"exp":9999999999,"#, 1);
    assert!(verified(&raw(HEADER, &twice)).is_err(), "a claim that stands twice");
}

#[test]
fn a_ticket_has_at_most_32_permissions_and_2048_bytes() {
    for (count, accepted) in [(31, true), (32, true), (33, false)] {
        let mut many = claims();
        many.perm = (0..count).map(|index| format!("s{index}").parse().unwrap()).collect();
        assert_eq!(many.to_signing_input(&kid()).is_ok(), accepted, "{count}");
    }
    let mut long = claims();
    long.perm.clear();
    let mut accepted = 0;
    for length in 1..=255 {
        long.iss = "i".repeat(length);
        long.perm = [250, 250, 250, 180].map(|length| "p".repeat(length).parse().unwrap()).into();
        match long.to_signing_input(&kid()) {
            Ok(input) => accepted = accepted.max(sign(input).len()),
            Err(error) => assert!(matches!(error, TicketError::Oversize { length: 2049.., limit: 2048 })),
        }
    }
    assert!((TICKET_BYTES_MAX - 2..=TICKET_BYTES_MAX).contains(&accepted), "{accepted}");
    for (length, oversize) in [(2047, false), (2048, false), (2049, true)] {
        let refused = Ticket::parse(&"a".repeat(length)).unwrap_err();
        assert_eq!(matches!(refused, TicketError::Oversize { .. }), oversize, "{length}");
    }
}

#[test]
fn a_permission_covers_its_name_or_its_prefix() {
    let ticket = ticket(&claims());
    let permits = |name: &str| ticket.permits(&name.parse::<ServiceName>().unwrap());
    assert!(permits("shell") && permits("tcp:ssh") && permits("tcp:"));
    assert!(
        !permits("shell2") && !permits("Shell") && !permits("tcp") && !permits("pipe:x") && !permits("*")
    );
    let all: Permission = "*".parse().unwrap();
    assert!(all.covers(&"anything".parse().unwrap()));
    let mut none = claims();
    none.perm.clear();
    assert!(!super::tests::ticket(&none).permits(&"shell".parse().unwrap()));
}

#[test]
fn a_session_ends_a_leeway_after_exp_however_far_that_is() {
    assert_eq!(ticket(&claims()).session_end_unix_s(), NOW + 43_200 + 60);
    let mut forever = claims();
    (forever.exp, forever.start_by) = (u64::MAX, u64::MAX);
    assert_eq!(ticket(&forever).session_end_unix_s(), u64::MAX);
    assert!(at_target(&forever, u64::MAX, Start::New(SESSION), &mut fresh()).is_ok());
}

fn denied(claims: &DenyClaims) -> DenyList {
    DenyList::parse(&sign(claims.to_signing_input(&kid()).unwrap())).unwrap().verify(&check).unwrap()
}

#[test]
fn a_denied_ticket_or_controller_is_revoked_and_the_higher_number_wins() {
    let (us, them) = (controller(), target());
    let presented = Presented { controller: &us, key: &JKT, target: &them };
    let mut lists = DenyLists::default();
    let judge = |lists: &DenyLists| judge_at_broker(&ticket(&claims()), &presented, NOW, lists);
    let other = DenyClaims { number: 1, iat: NOW, jti: [Jti([1; 16])].into(), sub: [].into() };
    assert!(lists.adopt(denied(&other)));
    assert_eq!(judge(&lists), Ok(()));
    let by_jti = DenyClaims { number: 2, iat: NOW, jti: [Jti([7; 16])].into(), sub: [].into() };
    assert!(lists.adopt(denied(&by_jti)));
    let refusal = judge(&lists).unwrap_err();
    assert_eq!(
        (refusal.denial(), &refusal),
        (Denial::REVOKED, &TicketRefusal::Revoked { kid: kid(), number: 2 })
    );
    assert!(!lists.adopt(denied(&other)), "an older list changes nothing");
    assert!(!lists.adopt(denied(&by_jti)), "nor does the same one");
    assert_eq!(lists.number(&kid()), Some(2));
    let by_sub = DenyClaims { number: 3, iat: NOW, jti: [].into(), sub: [controller()].into() };
    assert!(lists.adopt(denied(&by_sub)));
    assert_eq!(judge(&lists), Err(TicketRefusal::Revoked { kid: kid(), number: 3 }));
    let nobody = DenyClaims { number: 4, iat: NOW, jti: [].into(), sub: [].into() };
    assert!(lists.adopt(denied(&nobody)));
    assert_eq!(judge(&lists), Ok(()));
}

#[test]
fn a_deny_list_is_no_ticket_and_its_bits_cannot_be_flipped() {
    let claims = DenyClaims { number: 1, iat: NOW, jti: [Jti([1; 16])].into(), sub: [controller()].into() };
    let text = sign(claims.to_signing_input(&kid()).unwrap());
    assert!(matches!(Ticket::parse(&text), Err(TicketError::Type { .. })));
    assert!(matches!(DenyList::parse(&text_of(&super::tests::claims())), Err(TicketError::Type { .. })));
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] ^= 1;
        let flipped = String::from_utf8(bytes).unwrap();
        assert!(DenyList::parse(&flipped).and_then(|list| list.verify(&check)).is_err(), "byte {position}");
    }
}

#[test]
fn a_key_file_holds_public_ed25519_keys_with_ids_of_their_own() {
    let mut keys = TicketKeys::default();
    keys.insert(kid(), [3; 32]).unwrap();
    keys.insert("k2".parse().unwrap(), [4; 32]).unwrap();
    assert_eq!(TicketKeys::parse(&keys.to_json()).unwrap(), keys);
    assert_eq!(keys.insert(kid(), [5; 32]), Err(TicketKeysError::Duplicate { kid: kid() }));
    let good = keys.to_json();
    let x = URL_SAFE_NO_PAD.encode([3; 32]);
    assert_eq!(
        TicketKeys::parse(&good.replace(r#""kid": "k1""#, r#""kid": "k1", "d": "AAAA""#)),
        Err(TicketKeysError::Private { kid: kid() })
    );
    assert_eq!(TicketKeys::parse(&good.replace(&x, "AAAA")), Err(TicketKeysError::NotEd25519 { kid: kid() }));
    assert_eq!(
        TicketKeys::parse(&good.replace(r#""k2""#, r#""k1""#)),
        Err(TicketKeysError::Duplicate { kid: kid() })
    );
    assert_eq!(
        TicketKeys::parse(&good.replace("EdDSA", "ES256")),
        Err(TicketKeysError::OtherUse { kid: kid() })
    );
    assert_eq!(
        TicketKeys::parse(&good.replace("\"Ed25519\"", "\"X25519\"")),
        Err(TicketKeysError::NotEd25519 { kid: kid() })
    );
    assert!(matches!(TicketKeys::parse("{"), Err(TicketKeysError::Json { line: 1, .. })));
    for (count, accepted) in
        [(TICKET_KEYS_MAX - 1, true), (TICKET_KEYS_MAX, true), (TICKET_KEYS_MAX + 1, false)]
    {
        let mut keys = TicketKeys::default();
        let all: Result<(), _> =
            (0..count).try_for_each(|index| keys.insert(format!("k{index}").parse().unwrap(), [1; 32]));
        assert_eq!(all.is_ok(), accepted, "{count}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,300}") {
        prop_assert!(verified(&text).is_err());
        prop_assert!(DenyList::parse(&text).is_err());
        prop_assert!(TicketKeys::parse(&text).is_err());
    }

    #[test]
    fn no_signed_payload_makes_the_claims_panic(header in "\\PC{0,80}", payload in "\\PC{0,300}") {
        prop_assert!(verified(&raw(HEADER, &payload)).is_err());
        prop_assert!(Ticket::parse(&raw(&header, &payload)).is_err());
    }

    #[test]
    fn any_times_are_judged_without_overflow(
        now in any::<u64>(), iat in any::<u64>(), nbf in any::<u64>(), start_by in any::<u64>(), length in any::<u32>(),
    ) {
        let mut claims = claims();
        (claims.iat, claims.nbf, claims.start_by) = (iat, nbf, start_by);
        claims.exp = nbf.saturating_add(u64::from(length));
        let mut used = UsedTickets::without_history(now);
        let first = at_target(&claims, now, Start::New(SESSION), &mut used);
        let second = at_target(&claims, now, Start::New(OTHER_SESSION), &mut used);
        prop_assert!(first.is_err() || second.is_err(), "one ticket starts at most one session");
    }
}
