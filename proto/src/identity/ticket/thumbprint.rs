//! The thumbprint that binds a ticket to the key in a Controller's certificate.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::TicketKeysError;

/// RFC 7638 SHA-256 thumbprint of a public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyThumbprint(pub [u8; 32]);

impl FromStr for KeyThumbprint {
    type Err = TicketKeysError;

    fn from_str(text: &str) -> Result<Self, TicketKeysError> {
        decode_32(text).map(Self).ok_or(TicketKeysError::Thumbprint)
    }
}

impl fmt::Display for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyThumbprint({self})")
    }
}

/// A public key of one of the kinds that leaf certificates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicJwk {
    /// Ed25519 (RFC 8037).
    Ed25519 {
        /// The public key.
        x: [u8; 32],
    },
    /// ECDSA over P-256 (RFC 7518 section 6.2).
    P256 {
        /// First coordinate, big-endian.
        x: [u8; 32],
        /// Second coordinate, big-endian.
        y: [u8; 32],
    },
    /// ECDSA over P-384.
    P384 {
        /// First coordinate, big-endian.
        x: [u8; 48],
        /// Second coordinate, big-endian.
        y: [u8; 48],
    },
}

/// DER of a `SubjectPublicKeyInfo` up to the key bits: Ed25519 (RFC 8410).
const ED25519_SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The same for an uncompressed P-256 point (RFC 5480).
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// The same for an uncompressed P-384 point.
const P384_SPKI_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];

impl PublicJwk {
    /// The key in a DER `SubjectPublicKeyInfo`; `None` for any other kind of key or encoding.
    pub fn from_spki_der(spki: &[u8]) -> Option<Self> {
        if let Some(point) = spki.strip_prefix(ED25519_SPKI_PREFIX) {
            return Some(Self::Ed25519 { x: point.try_into().ok()? });
        }
        if let Some(point) = spki.strip_prefix(P256_SPKI_PREFIX) {
            let (x, y) = point.split_at_checked(32)?;
            return Some(Self::P256 { x: x.try_into().ok()?, y: y.try_into().ok()? });
        }
        let (x, y) = spki.strip_prefix(P384_SPKI_PREFIX)?.split_at_checked(48)?;
        Some(Self::P384 { x: x.try_into().ok()?, y: y.try_into().ok()? })
    }

    /// The text whose SHA-256 is the key's [`KeyThumbprint`] (RFC 7638 section 3).
    pub fn thumbprint_input(&self) -> String {
        match self {
            Self::Ed25519 { x } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(x))
            }
            Self::P256 { x, y } => elliptic("P-256", x, y),
            Self::P384 { x, y } => elliptic("P-384", x, y),
        }
    }
}

fn elliptic(curve: &str, x: &[u8], y: &[u8]) -> String {
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

pub(super) fn decode_32(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
