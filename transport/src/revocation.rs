//! Certificate revocation lists: who signed one, which number it has, and whom it names.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateDer;
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};

use crate::certificate::{CertificateFacts, extension_parts, sha256};
use crate::der::{self, DerError, Element, Elements};

/// id-ce-cRLNumber.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// `[0]`, constructed: the extensions.
const CONTEXT_0: u8 = 0xa0;

/// A revocation list whose signature holds.
#[derive(Debug)]
pub struct RevocationList {
    /// As webpki reads it.
    pub(crate) parsed: CertRevocationList<'static>,
    /// SHA-256 of the issuer's name (DER).
    pub(crate) issuer_sha256: [u8; 32],
    number: u64,
    next_update: Option<SystemTime>,
    der: Vec<u8>,
}

/// Why a revocation list is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Not a list that can be read.
    #[error("the revocation list cannot be read: {reason}")]
    Unreadable {
        /// What the parser found.
        reason: String,
    },
    /// None of our CAs signed it.
    #[error("none of the CAs signed the revocation list")]
    NotSigned,
}

impl From<DerError> for RevocationError {
    fn from(error: DerError) -> Self {
        Self::Unreadable { reason: error.to_string() }
    }
}

/// The raw fields of a list.
struct Fields<'a> {
    signed: &'a [u8],
    algorithm: Element<'a>,
    signature: &'a [u8],
    issuer: Element<'a>,
    number: u64,
    next_update: Option<SystemTime>,
}

impl RevocationList {
    /// Reads a list and verifies that one of `authorities` signed it.
    pub(crate) fn verify(
        der: &[u8],
        authorities: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Self, RevocationError> {
        let fields = Fields::parse(der)?;
        let is_signed = authorities.iter().any(|authority| fields.is_signed_by(authority, algorithms));
        if !is_signed {
            return Err(RevocationError::NotSigned);
        }
        let parsed = OwnedCertRevocationList::from_der(der)
            .map_err(|error| RevocationError::Unreadable { reason: error.to_string() })?;
        Ok(Self {
            parsed: parsed.into(),
            issuer_sha256: sha256(fields.issuer.raw),
            number: fields.number,
            next_update: fields.next_update,
            der: der.to_vec(),
        })
    }

    /// SHA-256 of the issuer's distinguished name (DER), as [`rc_proto::wire::message::Crl`] has it.
    pub fn issuer_sha256(&self) -> [u8; 32] {
        self.issuer_sha256
    }

    /// Its number; the highest verified one of an issuer wins.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When the next one is due.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.next_update
    }

    /// The list itself, to spread.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Puts it among `lists` in place of an older one of its issuer; false when one of its number, or a newer one,
    /// is there.
    pub(crate) fn adopt_into(self, lists: &mut Vec<Arc<Self>>) -> bool {
        match lists.iter_mut().find(|list| list.issuer_sha256 == self.issuer_sha256) {
            Some(known) if known.number >= self.number => return false,
            Some(known) => *known = Arc::new(self),
            None => lists.push(Arc::new(self)),
        }
        true
    }

    /// Whether it names a serial number, given as DER has it.
    pub(crate) fn names(&self, serial: &[u8]) -> bool {
        // An entry that cannot be read refuses: the list was signed, so the doubt is ours.
        self.parsed.find_serial(serial).map_or(true, |found| found.is_some())
    }
}

impl<'a> Fields<'a> {
    fn parse(list: &'a [u8]) -> Result<Self, DerError> {
        let outer = Elements::of(list).expect(der::SEQUENCE, "CertificateList")?;
        let mut parts = Elements::of(outer.value);
        let tbs = parts.expect(der::SEQUENCE, "tbsCertList")?;
        let algorithm = parts.expect(der::SEQUENCE, "signatureAlgorithm")?;
        let signature = parts.expect(der::BIT_STRING, "signature")?;
        let mut fields = Elements::of(tbs.value);
        fields.take_if(der::INTEGER, "version")?;
        fields.expect(der::SEQUENCE, "signature")?;
        let issuer = fields.expect(der::SEQUENCE, "issuer")?;
        fields.next("thisUpdate")?;
        let mut next_update = None;
        let mut number = 0;
        while !fields.is_empty() {
            let field = fields.next("tbsCertList")?;
            match field.tag {
                // The revoked certificates.
                der::SEQUENCE => {}
                CONTEXT_0 => number = read_number(field)?,
                _ => {
                    next_update =
                        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(der::unix_seconds(field)?))
                }
            }
        }
        Ok(Self {
            signed: tbs.raw,
            algorithm,
            signature: signature.value.strip_prefix(&[0]).ok_or(DerError("signature"))?,
            issuer,
            number,
            next_update,
        })
    }

    fn is_signed_by(&self, authority: &CertificateDer<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let is_issuer =
            CertificateFacts::subject_sha256(authority).is_ok_and(|hash| hash == sha256(self.issuer.raw));
        let Ok(certificate) = EndEntityCert::try_from(authority) else { return false };
        is_issuer
            && (algorithms.all.iter())
                .filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm.value)
                .any(|algorithm| {
                    certificate.verify_signature(*algorithm, self.signed, self.signature).is_ok()
                })
    }
}

fn read_number(field: Element<'_>) -> Result<u64, DerError> {
    let list = Elements::of(field.value).expect(der::SEQUENCE, "crlExtensions")?;
    let mut extensions = Elements::of(list.value);
    while !extensions.is_empty() {
        let (id, value) = extension_parts(extensions.expect(der::SEQUENCE, "extension")?)?;
        if id == CRL_NUMBER {
            let number = Elements::of(value).expect(der::INTEGER, "crlNumber")?;
            // A number of more than eight bytes counts as the highest.
            return Ok((number.value.iter())
                .try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)))
                .unwrap_or(u64::MAX));
        }
    }
    Ok(0)
}
