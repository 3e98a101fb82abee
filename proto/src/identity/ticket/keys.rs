//! Which keys may sign tickets.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::thumbprint::{KeyThumbprint, decode_32};
use super::unique::UniqueMembers;

/// Keys that a file may hold.
pub const TICKET_KEYS_MAX: usize = 16;
/// Largest key file, in bytes.
pub const TICKET_KEYS_BYTES_MAX: usize = 64 * 1024;
const KEY_ID_BYTES_MAX: usize = 64;

/// Names a ticket key: 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = TicketKeysError;

    fn from_str(text: &str) -> Result<Self, TicketKeysError> {
        let holds = !text.is_empty()
            && text.len() <= KEY_ID_BYTES_MAX
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if holds { Ok(Self(text.to_owned())) } else { Err(TicketKeysError::KeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(KeyId);
text_serde!(KeyThumbprint);

/// Why a key file is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeysError {
    /// Larger than [`TICKET_KEYS_BYTES_MAX`].
    #[error("the key file has {length} bytes, more than 65536")]
    Oversize {
        /// Its length.
        length: usize,
    },
    /// Not a JSON Web Key Set as RFC 7517 and RFC 8037 describe it.
    #[error("line {line}, column {column}: {detail}")]
    Json {
        /// Line of the fault, from 1; 0 when it has no place.
        line: usize,
        /// Column of the fault, from 1; 0 when it has no place.
        column: usize,
        /// What is wrong there.
        detail: String,
    },
    /// A key is not an Ed25519 public key.
    #[error("the key {kid} is not of kty OKP, crv Ed25519 with an x of 32 bytes in base64url")]
    NotEd25519 {
        /// Which one.
        kid: KeyId,
    },
    /// A key names a use other than signing, or another algorithm.
    #[error("the key {kid} is not for EdDSA signatures (alg, use)")]
    OtherUse {
        /// Which one.
        kid: KeyId,
    },
    /// A key holds its private part.
    #[error(
        "the key {kid} holds a private part (d): replace the key, and keep only public keys in this file"
    )]
    Private {
        /// Which one.
        kid: KeyId,
    },
    /// Two keys have one id.
    #[error("the key id {kid} stands twice")]
    Duplicate {
        /// Which one.
        kid: KeyId,
    },
    /// More than [`TICKET_KEYS_MAX`] keys.
    #[error("{count} keys; at most 16 are accepted")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A key id breaks its rule.
    #[error("a key id has 1 to 64 characters of a-z, A-Z, 0-9, '_' and '-'")]
    KeyId,
    /// A thumbprint is not 32 bytes of base64url.
    #[error("a key thumbprint is 32 bytes in base64url without padding")]
    Thumbprint,
}

/// The public keys that may sign tickets and deny lists, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketKeys {
    keys: BTreeMap<KeyId, [u8; 32]>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: KeyId,
    kty: String,
    crv: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    key_use: Option<String>,
    x: String,
    #[serde(default)]
    d: Option<serde::de::IgnoredAny>,
}

impl TicketKeys {
    /// Parses a JSON Web Key Set of Ed25519 public keys.
    ///
    /// # Errors
    /// At the first key that is not a public Ed25519 signing key with an id of its own.
    pub fn parse(text: &str) -> Result<Self, TicketKeysError> {
        if text.len() > TICKET_KEYS_BYTES_MAX {
            return Err(TicketKeysError::Oversize { length: text.len() });
        }
        serde_json::from_str::<UniqueMembers>(text).map_err(|error| json_error(&error))?;
        let set: JwkSet = serde_json::from_str(text).map_err(|error| json_error(&error))?;
        let mut keys = Self::default();
        for jwk in set.keys {
            let public_key = jwk.check()?;
            keys.insert(jwk.kid, public_key)?;
        }
        Ok(keys)
    }

    /// Adds a key.
    ///
    /// # Errors
    /// When its id is taken, or [`TICKET_KEYS_MAX`] keys are there.
    pub fn insert(&mut self, kid: KeyId, public_key: [u8; 32]) -> Result<(), TicketKeysError> {
        if self.keys.contains_key(&kid) {
            return Err(TicketKeysError::Duplicate { kid });
        }
        if self.keys.len() >= TICKET_KEYS_MAX {
            return Err(TicketKeysError::TooMany { count: self.keys.len() + 1 });
        }
        self.keys.insert(kid, public_key);
        Ok(())
    }

    /// Takes a key out; whether it was there.
    pub fn remove(&mut self, kid: &KeyId) -> bool {
        self.keys.remove(kid).is_some()
    }

    /// The Ed25519 public key of `kid`.
    pub fn public_key(&self, kid: &KeyId) -> Option<&[u8; 32]> {
        self.keys.get(kid)
    }

    /// Every key, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &[u8; 32])> {
        self.keys.iter()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no ticket can be accepted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The file's text, as [`Self::parse`] reads it.
    pub fn to_json(&self) -> String {
        let jwk = |(kid, x): (&KeyId, &[u8; 32])| {
            serde_json::json!({
                "kid": kid, "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": URL_SAFE_NO_PAD.encode(x),
            })
        };
        let set = serde_json::json!({ "keys": self.iter().map(jwk).collect::<Vec<_>>() });
        format!("{set:#}\n")
    }
}

impl Jwk {
    fn check(&self) -> Result<[u8; 32], TicketKeysError> {
        let kid = || self.kid.clone();
        if self.d.is_some() {
            return Err(TicketKeysError::Private { kid: kid() });
        }
        let other_use = self.key_use.as_deref().is_some_and(|key_use| key_use != "sig");
        if other_use || self.alg.as_deref().is_some_and(|alg| alg != "EdDSA") {
            return Err(TicketKeysError::OtherUse { kid: kid() });
        }
        if self.kty != "OKP" || self.crv != "Ed25519" {
            return Err(TicketKeysError::NotEd25519 { kid: kid() });
        }
        decode_32(&self.x).ok_or_else(|| TicketKeysError::NotEd25519 { kid: kid() })
    }
}

fn json_error(error: &serde_json::Error) -> TicketKeysError {
    let mut detail: String = error.to_string().chars().filter(|c| !c.is_control()).take(160).collect();
    if let Some(place) = detail.rfind(" at line ") {
        detail.truncate(place);
    }
    TicketKeysError::Json { line: error.line(), column: error.column(), detail }
}
