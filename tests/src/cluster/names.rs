//! Identities and tickets. A signature here is a checksum of what it covers: what is simulated is the judgement, not the
//! cryptography.

use std::fmt::Display;
use std::str::FromStr;

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{KeyId, KeyThumbprint, KeyVerdict, SIGNATURE_BYTES, TicketClaims};
use rc_proto::wire::{BrokerId, EndpointId, Jti};

/// The key in every Controller's certificate.
pub(super) const KEY: KeyThumbprint = KeyThumbprint([9; 32]);

/// Parses what the simulation itself has written.
fn own<T: FromStr>(text: &str) -> T
where
    T::Err: Display,
{
    match text.parse() {
        Ok(value) => value,
        Err(error) => unreachable!("{text}: {error}"),
    }
}

pub(super) fn broker(region: u8, number: u16) -> BrokerId {
    own(&format!("region-{region}/broker-{number}"))
}

pub(super) fn endpoint(kind: &str, number: u16) -> EndpointId {
    own(&format!("{kind}-{number}"))
}

pub(super) fn controller(id: &EndpointId) -> SpiffeId {
    own(&format!("spiffe://mesh.test/controller/{id}"))
}

pub(super) fn target(id: &EndpointId) -> SpiffeId {
    own(&format!("spiffe://mesh.test/target/{id}"))
}

pub(super) fn service() -> rc_proto::wire::ServiceName {
    own("echo")
}

fn kid() -> KeyId {
    own("k1")
}

fn signature(signed: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let sum = signed.iter().fold(7_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut signature = [0; SIGNATURE_BYTES];
    for (place, byte) in signature.iter_mut().zip(sum.to_be_bytes().iter().cycle()) {
        *place = *byte;
    }
    signature
}

/// The signature check of Targets.
pub(super) fn check_signature(key: &KeyId, signed: &[u8], given: &[u8; SIGNATURE_BYTES]) -> KeyVerdict {
    if *key != kid() {
        KeyVerdict::UnknownKey
    } else if *given == signature(signed) {
        KeyVerdict::Holds
    } else {
        KeyVerdict::BadSignature
    }
}

/// A ticket for one new session, to be started within five minutes.
pub(super) fn ticket(from: &EndpointId, to: &EndpointId, jti: Jti, now_unix_s: u64) -> String {
    let claims = TicketClaims {
        iss: "simulation".to_owned(),
        sub: controller(from),
        aud: target(to),
        iat: now_unix_s,
        nbf: now_unix_s,
        jti,
        perm: vec![own("*")],
        cnf: KEY,
        start_by: now_unix_s + 300,
        exp: now_unix_s + 43_200,
    };
    match claims.to_signing_input(&kid()) {
        Ok(input) => {
            let signature = signature(input.as_bytes());
            input.sign_with(&signature)
        }
        Err(_) => String::new(),
    }
}
