//! Reads back a certificate of a file.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use std::path::Path;

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::KeyThumbprint;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::error::CertsError;
use crate::files;

/// What the authority needs to know of a certificate; times are seconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFacts {
    /// Its URI names; a leaf of ours has exactly one.
    pub(crate) uri_names: Vec<String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) serial: String,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) spki_der: Vec<u8>,
    /// `None` for a key of another kind than ours.
    pub(crate) thumbprint: Option<KeyThumbprint>,
    pub(crate) subject_key_id: Vec<u8>,
    pub(crate) authority_key_id: Vec<u8>,
    signed: Signed,
}

/// What proves who issued a certificate.
#[derive(Debug, Clone)]
struct Signed {
    /// The signed part, DER.
    part: Vec<u8>,
    signature: Vec<u8>,
    /// The owner's own public key as its bare bits, for what it signs in turn.
    public_key: Vec<u8>,
}

/// Bytes of an Ed25519 public key; the other kind that an authority has is an uncompressed P-256 point.
const ED25519_PUBLIC_KEY_BYTES: usize = 32;

impl CertificateFacts {
    /// The first certificate of a PEM file.
    pub(crate) fn read(file: &Path) -> Result<Self, CertsError> {
        Self::parse(&files::read(file)?)
            .map_err(|reason| CertsError::Content { file: file.to_owned(), reason: reason.to_owned() })
    }

    pub(crate) fn parse(pem: &str) -> Result<Self, &'static str> {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "holds no PEM item CERTIFICATE")?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| "its certificate is not X.509 in DER")?;
        Self::of(&certificate)
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, &'static str> {
        let spki_der = certificate.public_key().raw.to_vec();
        let mut facts = Self {
            uri_names: Vec::new(),
            dns_names: Vec::new(),
            serial: hex_serial(certificate.raw_serial()),
            not_before: u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0),
            not_after: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0),
            thumbprint: rc_transport::key_thumbprint(&spki_der),
            spki_der,
            subject_key_id: Vec::new(),
            authority_key_id: Vec::new(),
            signed: Signed {
                part: certificate.tbs_certificate.as_ref().to_vec(),
                signature: certificate.signature_value.data.to_vec(),
                public_key: certificate.public_key().subject_public_key.data.to_vec(),
            },
        };
        for extension in certificate.extensions() {
            facts.add(extension.parsed_extension());
        }
        Ok(facts)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's enum lists every extension and name of X.509"
    )]
    fn add(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uri_names.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                        _ => {}
                    }
                }
            }
            ParsedExtension::SubjectKeyIdentifier(id) => id.0.clone_into(&mut self.subject_key_id),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                if let Some(id) = &authority.key_identifier {
                    id.0.clone_into(&mut self.authority_key_id);
                }
            }
            _ => {}
        }
    }

    /// Whether the key of `issuer` made this certificate's signature.
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        let algorithm: &dyn VerificationAlgorithm =
            if issuer.signed.public_key.len() == ED25519_PUBLIC_KEY_BYTES {
                &ED25519
            } else {
                &ECDSA_P256_SHA256_ASN1
            };
        UnparsedPublicKey::new(algorithm, &issuer.signed.public_key)
            .verify(&self.signed.part, &self.signed.signature)
            .is_ok()
    }

    /// The one SPIFFE id of a leaf.
    pub(crate) fn spiffe_id(&self, file: &Path) -> Result<SpiffeId, CertsError> {
        match self.uri_names.as_slice() {
            [uri] => Ok(uri.parse()?),
            names => {
                let reason =
                    format!("its certificate has {} URI names instead of one SPIFFE id", names.len());
                Err(CertsError::Content { file: file.to_owned(), reason })
            }
        }
    }
}

/// A serial number as hexadecimal without leading zero bytes.
pub(crate) fn hex_serial(raw: &[u8]) -> String {
    let start = raw.iter().position(|byte| *byte != 0).unwrap_or(raw.len());
    hex(raw.get(start..).unwrap_or_default())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        })
        .collect()
}
