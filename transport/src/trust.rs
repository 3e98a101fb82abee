//! Judges a certificate: chain, life, revocation, key usage, and the one identity in it. Both directions of every
//! handshake, and our own certificate when it is loaded, are judged here; nothing turns it off.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_proto::identity::{SpiffeError, SpiffeId};
use rc_proto::wire::message::CertificateRef;
use rc_proto::wire::{Role, TrustDomain};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::certificate::{CLIENT_AUTH, CertificateFacts, SERVER_AUTH, der_serial, hex};
use crate::revocation::RevocationList;

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
    #[error("another CA issued ({issuer:?}): check `ca` on both sides")]
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
    /// Its extended key usage does not allow what its role, or this side of a handshake, does.
    #[error("does not allow {missing}: issue it again for its role")]
    Purpose {
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

/// Which side of a handshake a certificate is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
}

impl Usage {
    fn object_id(self) -> &'static [u8] {
        match self {
            Self::Client => CLIENT_AUTH,
            Self::Server => SERVER_AUTH,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Client => "TLS client authentication",
            Self::Server => "TLS server authentication",
        }
    }
}

/// The CAs, their revocation lists and the trust domain that certificates are judged by.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// The CAs.
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    /// The CAs' certificates, which revocation lists are verified with.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// Their lists, verified; one for each issuer.
    pub(crate) lists: Vec<Arc<RevocationList>>,
    /// Our own trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Signature algorithms.
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// Judges everything about a certificate but whether it is the one that is wanted.
    pub(crate) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(Peer, CertificateFacts), PeerFault> {
        let facts = CertificateFacts::parse(certificate)
            .map_err(|error| PeerFault::Unreadable { reason: error.to_string() })?;
        self.judge_chain(certificate, intermediates, now, usage, &facts)?;
        let id = self.judge_identity(&facts)?;
        if facts.key_thumbprint.is_none() {
            return Err(PeerFault::KeyKind);
        }
        Ok((Peer { id, certificate: facts.certificate_ref() }, facts))
    }

    fn judge_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
        facts: &CertificateFacts,
    ) -> Result<(), PeerFault> {
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().map(|list| &list.parsed).collect();
        // An unknown status passes and the age of a list is judged elsewhere: one list must not shut out the
        // certificates of an issuer whose list has not come yet.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let leaf = EndEntityCert::try_from(certificate)
            .map_err(|error| PeerFault::Unreadable { reason: error.to_string() })?;
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::required(usage.object_id()),
            revocation,
            None,
        )
        .map(|_| ())
        .map_err(|error| chain_fault(&error, usage, facts))
    }

    fn judge_identity(&self, facts: &CertificateFacts) -> Result<SpiffeId, PeerFault> {
        let [uri] = facts.uri_names.as_slice() else {
            return Err(PeerFault::UriNames { count: facts.uri_names.len() });
        };
        let id: SpiffeId = uri.parse().map_err(PeerFault::Identity)?;
        if *id.trust_domain() != self.trust_domain {
            return Err(PeerFault::OtherTrustDomain {
                theirs: id.trust_domain().clone(),
                ours: self.trust_domain.clone(),
            });
        }
        // A broker dials too, so both usages go with its role and not with the side it is on now.
        if !facts.client_auth {
            return Err(PeerFault::Purpose { missing: Usage::Client.words() });
        }
        if id.role().is_tls_server() && !facts.server_auth {
            return Err(PeerFault::Purpose { missing: Usage::Server.words() });
        }
        Ok(id)
    }

    /// Judges a live connection's certificate again.
    pub(crate) fn recheck(&self, certificate: &CertificateRef, now: SystemTime) -> Result<(), PeerFault> {
        let serial = der_serial(&certificate.serial);
        let is_revoked = (self.lists.iter())
            .filter(|list| list.issuer_sha256 == certificate.issuer_sha256)
            .any(|list| list.names(&serial));
        if is_revoked {
            return Err(PeerFault::Revoked { serial: hex(&certificate.serial) });
        }
        match unix_ms(now).checked_sub(certificate.not_after_ms) {
            Some(over @ 1..) => Err(PeerFault::Expired { ago_seconds: over / 1000 }),
            Some(0) | None => Ok(()),
        }
    }
}

fn chain_fault(error: &webpki::Error, usage: Usage, facts: &CertificateFacts) -> PeerFault {
    use webpki::Error as E;
    // The type is open-ended: what is not named here is some other rule of RFC 5280.
    #[expect(clippy::wildcard_enum_match_arm, reason = "webpki::Error is non-exhaustive")]
    match error {
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => {
            PeerFault::OtherAuthority { issuer: facts.issuer.clone() }
        }
        E::CertExpired { time, not_after } => {
            PeerFault::Expired { ago_seconds: seconds_between(*not_after, *time) }
        }
        E::CertNotValidYet { time, not_before } => {
            PeerFault::NotYetValid { ahead_seconds: seconds_between(*time, *not_before) }
        }
        E::CertRevoked => PeerFault::Revoked { serial: hex(&facts.serial) },
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            PeerFault::Purpose { missing: usage.words() }
        }
        other => PeerFault::Chain { reason: other.to_string() },
    }
}

fn seconds_between(from: UnixTime, to: UnixTime) -> u64 {
    to.as_secs().saturating_sub(from.as_secs())
}

/// Unix milliseconds of a time; 0 before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
