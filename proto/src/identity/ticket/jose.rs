//! Compact JWS (RFC 7515) as far as tickets need it: one algorithm, strict base64url, no duplicate members.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

use super::keys::KeyId;
use super::unique::UniqueMembers;

/// Length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// The only signature algorithm there is (RFC 8037).
const ALGORITHM: &str = "EdDSA";
/// How much of a foreign text an error repeats, in characters.
const QUOTE_CHARS_MAX: usize = 80;

/// A part of the compact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketPart {
    /// The first.
    Header,
    /// The second.
    Payload,
    /// The third.
    Signature,
}

impl fmt::Display for TicketPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// Why a text is not an authentic ticket or deny list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Longer than its limit.
    #[error("it has {length} bytes, more than {limit}")]
    Oversize {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Not three parts separated by dots.
    #[error("it has {parts} dot-separated parts instead of 3: not a compact JWS")]
    Shape {
        /// How many parts it has; 4 stands for more.
        parts: usize,
    },
    /// A part is not canonical base64url without padding.
    #[error("its {part} is not base64url without padding")]
    Base64 {
        /// Which one.
        part: TicketPart,
    },
    /// A part is not the JSON that it should be.
    #[error("its {part} is malformed: {detail}")]
    Json {
        /// Which one.
        part: TicketPart,
        /// Shortened message of the parser, without control characters.
        detail: String,
    },
    /// Another signature algorithm than `EdDSA`.
    #[error("its algorithm is {found:?}; only EdDSA is accepted")]
    Algorithm {
        /// The shortened `alg`.
        found: String,
    },
    /// Another kind of token.
    #[error("its type is {found:?} instead of {wanted:?}")]
    Type {
        /// The shortened `typ`.
        found: String,
        /// What is wanted here.
        wanted: &'static str,
    },
    /// It has a `crit` header; no extension is known to this version.
    #[error("it has critical header extensions, none of which is supported")]
    Critical,
    /// The signature does not have 64 bytes.
    #[error("its signature has {length} bytes instead of 64")]
    SignatureLength {
        /// Its length.
        length: usize,
    },
    /// No configured key has its `kid`.
    #[error("it is signed by the key {kid:?}, which is not among the configured ticket keys")]
    UnknownKey {
        /// The key it names.
        kid: KeyId,
    },
    /// The signature does not hold.
    #[error("its signature by the key {kid:?} does not hold")]
    BadSignature {
        /// The key it names.
        kid: KeyId,
    },
    /// A claim breaks its rule.
    #[error("its claim {claim} does not hold: {rule}")]
    Claim {
        /// The claim's name.
        claim: &'static str,
        /// The rule.
        rule: &'static str,
    },
}

/// What the holder of the keys says about one signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerdict {
    /// The key is configured and the signature holds.
    Holds,
    /// The key is configured and the signature does not hold.
    BadSignature,
    /// No configured key has this id.
    UnknownKey,
}

/// Checks an Ed25519 signature: (key id, signed bytes, signature) → verdict.
pub type SignatureCheck<'a> = dyn Fn(&KeyId, &[u8], &[u8; SIGNATURE_BYTES]) -> KeyVerdict + 'a;

/// Header and payload of a token that is still to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningInput {
    text: String,
    limit: usize,
}

impl SigningInput {
    /// Encodes `claims` under a header that names `kid`.
    pub(super) fn encode(
        typ: &'static str,
        kid: &KeyId,
        claims: &impl serde::Serialize,
        limit: usize,
    ) -> Result<Self, TicketError> {
        let header = serde_json::json!({ "alg": ALGORITHM, "typ": typ, "kid": kid });
        let payload = serde_json::to_vec(claims).map_err(|error| json_error(TicketPart::Payload, &error))?;
        let text =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let length = text.len() + 1 + SIGNATURE_BYTES.div_ceil(3) * 4 - 2;
        if length > limit {
            return Err(TicketError::Oversize { length, limit });
        }
        Ok(Self { text, limit })
    }

    /// The bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The finished token.
    pub fn sign_with(self, signature: &[u8; SIGNATURE_BYTES]) -> String {
        let token = format!("{}.{}", self.text, URL_SAFE_NO_PAD.encode(signature));
        debug_assert!(token.len() <= self.limit);
        token
    }
}

/// A token whose form is right and whose signature nobody checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompactJws {
    kid: KeyId,
    signing_input: String,
    payload: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: KeyId,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Any value at all, `null` too, counts as present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl CompactJws {
    pub(super) fn parse(text: &str, typ: &'static str, limit: usize) -> Result<Self, TicketError> {
        if text.len() > limit {
            return Err(TicketError::Oversize { length: text.len(), limit });
        }
        let mut parts = text.splitn(4, '.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TicketError::Shape { parts: text.splitn(4, '.').count() });
        };
        let header: Header = parse_json(TicketPart::Header, &decode(TicketPart::Header, header)?)?;
        header.check(typ)?;
        let signature = decode(TicketPart::Signature, signature)?;
        let signature = <[u8; SIGNATURE_BYTES]>::try_from(signature)
            .map_err(|bytes| TicketError::SignatureLength { length: bytes.len() })?;
        let payload = decode(TicketPart::Payload, payload)?;
        let signed_bytes = text.rfind('.').unwrap_or(0);
        let signing_input = text.get(..signed_bytes).unwrap_or_default().to_owned();
        Ok(Self { kid: header.kid, signing_input, payload, signature })
    }

    pub(super) fn kid(&self) -> &KeyId {
        &self.kid
    }

    pub(super) fn check_signature(&self, check: &SignatureCheck<'_>) -> Result<(), TicketError> {
        match check(&self.kid, self.signing_input.as_bytes(), &self.signature) {
            KeyVerdict::Holds => Ok(()),
            KeyVerdict::BadSignature => Err(TicketError::BadSignature { kid: self.kid.clone() }),
            KeyVerdict::UnknownKey => Err(TicketError::UnknownKey { kid: self.kid.clone() }),
        }
    }

    pub(super) fn claims<T: DeserializeOwned>(&self) -> Result<T, TicketError> {
        parse_json(TicketPart::Payload, &self.payload)
    }
}

impl Header {
    fn check(&self, typ: &'static str) -> Result<(), TicketError> {
        if self.alg != ALGORITHM {
            return Err(TicketError::Algorithm { found: quote(&self.alg) });
        }
        if self.typ != typ {
            return Err(TicketError::Type { found: quote(&self.typ), wanted: typ });
        }
        if self.crit { Err(TicketError::Critical) } else { Ok(()) }
    }
}

fn decode(part: TicketPart, text: &str) -> Result<Vec<u8>, TicketError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TicketError::Base64 { part })
}

/// Parses an object, refusing a member that stands twice at any depth (RFC 7515 section 4).
fn parse_json<T: DeserializeOwned>(part: TicketPart, bytes: &[u8]) -> Result<T, TicketError> {
    serde_json::from_slice::<UniqueMembers>(bytes).map_err(|error| json_error(part, &error))?;
    serde_json::from_slice(bytes).map_err(|error| json_error(part, &error))
}

fn json_error(part: TicketPart, error: &serde_json::Error) -> TicketError {
    TicketError::Json { part, detail: quote(&error.to_string()) }
}

fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(QUOTE_CHARS_MAX).collect()
}
