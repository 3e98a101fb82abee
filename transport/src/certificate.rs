//! The fields of a certificate that identity and revocation are judged by, read from the raw DER.
//!
//! Names are counted here and not by an iterator that skips what it cannot read: a certificate with one good and
//! one odd URI name has two.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rc_proto::wire::message::CertificateRef;

use crate::der::{self, DerError, Element, Elements};
use crate::ticket_key::key_thumbprint;

const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// id-kp-serverAuth.
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth.
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// `[0]`, constructed.
const CONTEXT_0: u8 = 0xa0;
/// `[3]`, constructed: the extensions.
const CONTEXT_3: u8 = 0xa3;
/// `[2]`: a DNS name.
const DNS_NAME: u8 = 0x82;
/// `[6]`: a URI.
const URI_NAME: u8 = 0x86;

/// Longest serial number, in bytes (RFC 5280, 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// What a certificate says of itself; nothing of it is proven by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// SHA-256 of the issuer's name (DER).
    pub(crate) issuer_sha256: [u8; 32],
    /// The issuer's common name, printable.
    pub(crate) issuer: String,
    /// Serial number without leading zeros.
    pub(crate) serial: Vec<u8>,
    /// Beginning of validity.
    pub(crate) not_before: SystemTime,
    /// End of validity.
    pub(crate) not_after: SystemTime,
    /// SHA-256 of the subject public key info (DER).
    pub(crate) key_sha256: [u8; 32],
    /// RFC 7638 thumbprint; `None` for a kind of key that is not ours.
    pub(crate) key_thumbprint: Option<[u8; 32]>,
    /// Every URI name.
    pub(crate) uri_names: Vec<String>,
    /// Every DNS name, lower-case.
    pub(crate) dns_names: Vec<String>,
    /// Whether TLS client authentication is allowed explicitly.
    pub(crate) client_auth: bool,
    /// Whether TLS server authentication is allowed explicitly.
    pub(crate) server_auth: bool,
}

impl CertificateFacts {
    /// Reads a certificate.
    pub(crate) fn parse(certificate: &[u8]) -> Result<Self, DerError> {
        let outer = Elements::of(certificate).expect(der::SEQUENCE, "certificate")?;
        let tbs = Elements::of(outer.value).expect(der::SEQUENCE, "tbsCertificate")?;
        let mut fields = Elements::of(tbs.value);
        fields.take_if(CONTEXT_0, "version")?;
        let serial = fields.expect(der::INTEGER, "serialNumber")?;
        fields.expect(der::SEQUENCE, "signature")?;
        let issuer = fields.expect(der::SEQUENCE, "issuer")?;
        let validity = fields.expect(der::SEQUENCE, "validity")?;
        fields.expect(der::SEQUENCE, "subject")?;
        let key = fields.expect(der::SEQUENCE, "subjectPublicKeyInfo")?;
        let mut times = Elements::of(validity.value);
        let mut facts = Self {
            issuer_sha256: sha256(issuer.raw),
            issuer: common_name(issuer)?,
            serial: canonical_serial(serial.value)?,
            not_before: system_time(times.next("notBefore")?)?,
            not_after: system_time(times.next("notAfter")?)?,
            key_sha256: sha256(key.raw),
            key_thumbprint: key_thumbprint(key.raw).map(|thumbprint| thumbprint.0),
            uri_names: Vec::new(),
            dns_names: Vec::new(),
            client_auth: false,
            server_auth: false,
        };
        while !fields.is_empty() {
            let field = fields.next("extensions")?;
            if field.tag == CONTEXT_3 {
                facts.read_extensions(field)?;
            }
        }
        Ok(facts)
    }

    fn read_extensions(&mut self, field: Element<'_>) -> Result<(), DerError> {
        let list = Elements::of(field.value).expect(der::SEQUENCE, "extensions")?;
        let mut extensions = Elements::of(list.value);
        while !extensions.is_empty() {
            let extension = extensions.expect(der::SEQUENCE, "extension")?;
            let (id, value) = extension_parts(extension)?;
            match id {
                EXTENDED_KEY_USAGE => self.read_key_usages(value)?,
                SUBJECT_ALT_NAME => self.read_names(value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_key_usages(&mut self, value: &[u8]) -> Result<(), DerError> {
        let list = Elements::of(value).expect(der::SEQUENCE, "extKeyUsage")?;
        let mut usages = Elements::of(list.value);
        while !usages.is_empty() {
            let usage = usages.expect(der::OBJECT_ID, "extKeyUsage")?;
            self.client_auth |= usage.value == CLIENT_AUTH;
            self.server_auth |= usage.value == SERVER_AUTH;
        }
        Ok(())
    }

    fn read_names(&mut self, value: &[u8]) -> Result<(), DerError> {
        let list = Elements::of(value).expect(der::SEQUENCE, "subjectAltName")?;
        let mut names = Elements::of(list.value);
        while !names.is_empty() {
            let name = names.next("subjectAltName")?;
            let text = || String::from_utf8_lossy(name.value).into_owned();
            match name.tag {
                URI_NAME => self.uri_names.push(text()),
                DNS_NAME => self.dns_names.push(text().to_ascii_lowercase()),
                _ => {}
            }
        }
        Ok(())
    }

    /// SHA-256 of a CA's own name (DER).
    pub(crate) fn subject_sha256(certificate: &[u8]) -> Result<[u8; 32], DerError> {
        let outer = Elements::of(certificate).expect(der::SEQUENCE, "certificate")?;
        let tbs = Elements::of(outer.value).expect(der::SEQUENCE, "tbsCertificate")?;
        let mut fields = Elements::of(tbs.value);
        fields.take_if(CONTEXT_0, "version")?;
        fields.expect(der::INTEGER, "serialNumber")?;
        for what in ["signature", "issuer", "validity"] {
            fields.expect(der::SEQUENCE, what)?;
        }
        Ok(sha256(fields.expect(der::SEQUENCE, "subject")?.raw))
    }

    /// The certificate's short name for the wire and for revocation.
    pub(crate) fn certificate_ref(&self) -> CertificateRef {
        CertificateRef {
            issuer_sha256: self.issuer_sha256,
            serial: self.serial.clone(),
            key_sha256: self.key_sha256,
            not_after_ms: crate::trust::unix_ms(self.not_after),
            key_thumbprint: self.key_thumbprint.unwrap_or_default(),
        }
    }
}

/// Names the certificate to an operator; what it says is unproven, so nothing that a terminal would obey is shown.
impl fmt::Display for CertificateFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = match self.uri_names.first() {
            Some(name) => name.chars().filter(|c| !c.is_control()).take(255).collect(),
            None => "nobody".to_owned(),
        };
        write!(f, "{name} (serial {}, issued by {:?})", hex(&self.serial), self.issuer)
    }
}

/// Id and contents of one extension.
pub(crate) fn extension_parts(extension: Element<'_>) -> Result<(&[u8], &[u8]), DerError> {
    let mut parts = Elements::of(extension.value);
    let id = parts.expect(der::OBJECT_ID, "extension")?;
    // A BOOLEAN "critical" may stand between.
    while !parts.is_empty() {
        let part = parts.next("extension")?;
        if part.tag == der::OCTET_STRING {
            return Ok((id.value, part.value));
        }
    }
    Err(DerError("extension"))
}

/// A serial number without leading zeros; "0" keeps one.
fn canonical_serial(value: &[u8]) -> Result<Vec<u8>, DerError> {
    let zeros = value.iter().take_while(|byte| **byte == 0).count().min(value.len().saturating_sub(1));
    let serial = value.get(zeros..).unwrap_or_default();
    if serial.is_empty() || serial.len() > SERIAL_BYTES_MAX {
        return Err(DerError("serialNumber"));
    }
    Ok(serial.to_vec())
}

/// A serial number as DER has it: with a zero in front when its first bit is set.
pub(crate) fn der_serial(serial: &[u8]) -> Vec<u8> {
    let mut der = Vec::with_capacity(serial.len() + 1);
    if serial.first().is_some_and(|byte| byte & 0x80 != 0) {
        der.push(0);
    }
    der.extend_from_slice(serial);
    der
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn system_time(time: Element<'_>) -> Result<SystemTime, DerError> {
    let seconds = der::unix_seconds(time)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(DerError("time"))
}

/// The common name of a distinguished name, shortened and without control characters.
fn common_name(name: Element<'_>) -> Result<String, DerError> {
    let mut sets = Elements::of(name.value);
    while !sets.is_empty() {
        let set = sets.expect(der::SET, "name")?;
        let pair = Elements::of(set.value).expect(der::SEQUENCE, "name")?;
        let mut parts = Elements::of(pair.value);
        let id = parts.expect(der::OBJECT_ID, "name")?;
        let value = parts.next("name")?;
        if id.value == COMMON_NAME {
            let text = String::from_utf8_lossy(value.value);
            return Ok(text.chars().filter(|c| !c.is_control()).take(100).collect());
        }
    }
    Ok("no common name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_canonical_and_bounded() {
        assert_eq!(canonical_serial(&[0, 0x80]), Ok(vec![0x80]));
        assert_eq!(canonical_serial(&[0]), Ok(vec![0]));
        assert_eq!(der_serial(&[0x80]), [0, 0x80]);
        assert_eq!(der_serial(&[0x7f]), [0x7f]);
        for (length, valid) in [(0, false), (1, true), (19, true), (20, true), (21, false)] {
            assert_eq!(canonical_serial(&vec![0x11; length]).is_ok(), valid, "{length}");
        }
    }
}
