//! The claims of a ticket and the way from text to an authentic [`Ticket`].

use serde::{Deserialize, Serialize};

use super::jose::{CompactJws, SignatureCheck, SigningInput, TicketError};
use super::keys::KeyId;
use super::permission::Permission;
use super::thumbprint::KeyThumbprint;
use super::{LEEWAY_S, PERMISSIONS_MAX};
use crate::identity::SpiffeId;
use crate::wire::limits::{TEXT_BYTES_MAX, TICKET_BYTES_MAX};
use crate::wire::{Jti, Role, ServiceName};

const TYPE: &str = "rc-ticket+jwt";

/// What a ticket says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// Who issued it; for people and logs, 1 to 255 bytes.
    pub iss: String,
    /// The Controller that may use it.
    pub sub: SpiffeId,
    /// The Target that it opens.
    pub aud: SpiffeId,
    /// When it was issued.
    pub iat: u64,
    /// When it begins to be valid.
    pub nbf: u64,
    /// What makes it usable for one session only.
    #[serde(with = "jti_text")]
    pub jti: Jti,
    /// The services it permits, at most [`PERMISSIONS_MAX`].
    pub perm: Vec<Permission>,
    /// The key that must be in the Controller's certificate.
    #[serde(with = "cnf_member")]
    pub cnf: KeyThumbprint,
    /// Until then a new session may start with it.
    pub start_by: u64,
    /// Until then paths of that session may be opened with it.
    pub exp: u64,
}

impl TicketClaims {
    /// The header and payload for the key `kid` to sign.
    ///
    /// # Errors
    /// When a claim breaks its rule, or the finished ticket would exceed [`TICKET_BYTES_MAX`].
    pub fn to_signing_input(&self, kid: &KeyId) -> Result<SigningInput, TicketError> {
        self.check()?;
        SigningInput::encode(TYPE, kid, self, TICKET_BYTES_MAX)
    }

    fn check(&self) -> Result<(), TicketError> {
        let rule =
            |holds: bool, claim, rule| if holds { Ok(()) } else { Err(TicketError::Claim { claim, rule }) };
        rule(!self.iss.is_empty() && self.iss.len() <= TEXT_BYTES_MAX, "iss", "it has 1 to 255 bytes")?;
        rule(!self.iss.chars().any(char::is_control), "iss", "it holds no control characters")?;
        rule(self.sub.role() == Role::Controller, "sub", "it is the SPIFFE id of a controller")?;
        rule(self.aud.role() == Role::Target, "aud", "it is the SPIFFE id of a target")?;
        rule(self.perm.len() <= PERMISSIONS_MAX, "perm", "it has at most 32 entries")?;
        rule(self.nbf <= self.exp, "nbf", "it is not after exp")
    }
}

/// A ticket whose form is right and whose signature nobody checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedTicket(CompactJws);

impl UnverifiedTicket {
    /// The key that it says signed it.
    pub fn kid(&self) -> &KeyId {
        self.0.kid()
    }

    /// What it claims, for display only: nobody vouches for it.
    ///
    /// # Errors
    /// When the claims are malformed.
    pub fn unverified_claims(&self) -> Result<TicketClaims, TicketError> {
        let claims: TicketClaims = self.0.claims()?;
        claims.check()?;
        Ok(claims)
    }

    /// The authentic ticket, when `check` says that the signature holds.
    ///
    /// # Errors
    /// When the key is unknown, the signature does not hold, or the claims behind it are malformed.
    pub fn verify(self, check: &SignatureCheck<'_>) -> Result<Ticket, TicketError> {
        self.0.check_signature(check)?;
        Ok(Ticket { claims: self.unverified_claims()?, kid: self.0.kid().clone() })
    }
}

/// A ticket that a configured key signed; whether it fits here and now is for the judgements to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    kid: KeyId,
    claims: TicketClaims,
}

impl Ticket {
    /// Reads the compact form, without checking its signature.
    ///
    /// # Errors
    /// When the text is not a compact JWS of at most [`TICKET_BYTES_MAX`] with an acceptable header.
    pub fn parse(text: &str) -> Result<UnverifiedTicket, TicketError> {
        CompactJws::parse(text, TYPE, TICKET_BYTES_MAX).map(UnverifiedTicket)
    }

    /// The key that signed it.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// What it says.
    pub fn claims(&self) -> &TicketClaims {
        &self.claims
    }

    /// Whether it permits opening a channel to `service`.
    pub fn permits(&self, service: &ServiceName) -> bool {
        self.claims.perm.iter().any(|permission| permission.covers(service))
    }

    /// When a session that last attached with it ends, in seconds since 1970.
    pub fn session_end_unix_s(&self) -> u64 {
        self.claims.exp.saturating_add(LEEWAY_S)
    }

    /// Until when it could start a session at a Target whose clock is right, leeway included.
    pub(super) fn startable_until_unix_s(&self) -> u64 {
        self.claims.start_by.min(self.claims.exp).saturating_add(LEEWAY_S)
    }
}

/// A jti is 16 bytes in base64url.
pub(super) mod jti_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Jti;

    pub(in crate::identity::ticket) fn serialize<S: Serializer>(
        jti: &Jti,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(jti.0))
    }

    pub(in crate::identity::ticket) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Jti, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("a jti is 16 bytes in base64url"))
    }

    pub(in crate::identity::ticket) fn parse(text: &str) -> Option<Jti> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        <[u8; 16]>::try_from(bytes).ok().map(Jti)
    }
}

/// `cnf` is an object with the one member `jkt`.
mod cnf_member {
    use super::KeyThumbprint;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Confirmation {
        jkt: KeyThumbprint,
    }

    pub(super) fn serialize<S: Serializer>(jkt: &KeyThumbprint, serializer: S) -> Result<S::Ok, S::Error> {
        Confirmation { jkt: *jkt }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyThumbprint, D::Error> {
        Confirmation::deserialize(deserializer).map(|cnf| cnf.jkt)
    }
}
