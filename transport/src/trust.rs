//! Judges a peer's certificate.

use std::time::SystemTime;

use rc_proto::identity::{SpiffeError, SpiffeId};
use rc_proto::wire::message::CertificateRef;
use rc_proto::wire::{Role, TrustDomain};

/// Who is at the other end, proven by the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// Its certificate: what a live connection is judged by when a revocation list changes.
    pub certificate: CertificateRef,
}

/// What is wrong with a peer's certificate. Reads on from "a certificate that …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Not a certificate that can be read.
    #[error("cannot be read ({reason})")]
    Unreadable {
        /// What the parser found.
        reason: String,
    },
    /// It does not chain to one of our CAs.
    #[error("another CA issued ({issuer}): check `ca` on both sides")]
    OtherAuthority {
        /// The issuer that it names.
        issuer: String,
    },
    /// Its life, or that of a CA between, is over.
    #[error("expired {ago_seconds} s ago: renew it, or set this machine's clock")]
    Expired {
        /// Seconds since the end, by this machine's clock.
        ago_seconds: u64,
    },
    /// Its life has not begun.
    #[error("becomes valid in {ahead_seconds} s: check the clocks of both machines")]
    NotYetValid {
        /// Seconds to the beginning, by this machine's clock.
        ahead_seconds: u64,
    },
    /// A revocation list names it.
    #[error("is revoked (serial {serial}): issue a new one")]
    Revoked {
        /// Its serial number in hexadecimal.
        serial: String,
    },
    /// Its extended key usage does not allow what its role does.
    #[error("does not allow {missing}, which role {role} needs: issue it again for that role")]
    Purpose {
        /// Role in its SPIFFE id.
        role: Role,
        /// The usage that is not there.
        missing: &'static str,
    },
    /// It has no, or several, URI names.
    #[error("has {count} URI names where exactly one SPIFFE id is required")]
    UriNames {
        /// How many it has.
        count: usize,
    },
    /// Its URI name is not a SPIFFE id of this project.
    #[error("names no identity of this mesh: {0}")]
    Identity(SpiffeError),
    /// It belongs to another mesh.
    #[error("is of trust domain {theirs}, not {ours}")]
    OtherTrustDomain {
        /// Its trust domain.
        theirs: TrustDomain,
        /// Ours.
        ours: TrustDomain,
    },
    /// Its role may not do this.
    #[error("is of role {found} ({id}), which may not do this")]
    WrongRole {
        /// Its role.
        found: Role,
        /// Its identity.
        id: SpiffeId,
    },
    /// It is a sound certificate of somebody else.
    #[error("belongs to {shown}, not to {wanted}")]
    SomebodyElse {
        /// Who was expected.
        wanted: String,
        /// Who it names.
        shown: String,
    },
    /// Its key is neither P-256, P-384 nor Ed25519.
    #[error("has a key that is neither P-256, P-384 nor Ed25519")]
    KeyKind,
    /// The peer does not hold its key.
    #[error("was shown without proof of its key")]
    NoProof,
    /// A chain that breaks another rule of RFC 5280.
    #[error("does not hold: {reason}")]
    Chain {
        /// Which rule.
        reason: String,
    },
}

/// Unix milliseconds of a time; 0 before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
