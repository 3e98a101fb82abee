//! Deny lists: revocation of tickets, by `jti` or by Controller.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use super::claims::{Ticket, jti_text};
use super::jose::{CompactJws, SignatureCheck, SigningInput, TicketError};
use super::keys::KeyId;
use crate::identity::SpiffeId;
use crate::wire::Jti;

const TYPE: &str = "rc-deny+jwt";
/// Longest deny list (compact JWS), in bytes: about 30,000 tickets.
pub const DENY_LIST_BYTES_MAX: usize = 1024 * 1024;
/// Keys whose lists are kept; a list of one more key is refused.
pub const DENY_LISTS_MAX: usize = super::TICKET_KEYS_MAX;

/// What a deny list says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyClaims {
    /// List number; the highest verified one of a key wins.
    pub number: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// The denied tickets.
    #[serde(serialize_with = "write_jtis", deserialize_with = "read_jtis")]
    pub jti: BTreeSet<Jti>,
    /// The Controllers whose every ticket is denied.
    pub sub: BTreeSet<SpiffeId>,
}

#[derive(Serialize, Deserialize)]
struct JtiText(#[serde(with = "jti_text")] Jti);

fn write_jtis<S: serde::Serializer>(jtis: &BTreeSet<Jti>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(jtis.iter().map(|jti| JtiText(*jti)))
}

fn read_jtis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Jti>, D::Error> {
    Ok(Vec::<JtiText>::deserialize(deserializer)?.into_iter().map(|JtiText(jti)| jti).collect())
}

impl DenyClaims {
    /// The header and payload for the key `kid` to sign.
    ///
    /// # Errors
    /// When the finished list would exceed [`DENY_LIST_BYTES_MAX`].
    pub fn to_signing_input(&self, kid: &KeyId) -> Result<SigningInput, TicketError> {
        SigningInput::encode(TYPE, kid, self, DENY_LIST_BYTES_MAX)
    }
}

/// A list whose form is right and whose signature nobody checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedDenyList(CompactJws);

impl UnverifiedDenyList {
    /// The key that it says signed it.
    pub fn kid(&self) -> &KeyId {
        self.0.kid()
    }

    /// What it claims, for display only: nobody vouches for it.
    ///
    /// # Errors
    /// When the claims are malformed.
    pub fn unverified_claims(&self) -> Result<DenyClaims, TicketError> {
        self.0.claims()
    }

    /// The authentic list, when `check` says that the signature holds.
    ///
    /// # Errors
    /// When the key is unknown, the signature does not hold, or the claims behind it are malformed.
    pub fn verify(self, check: &SignatureCheck<'_>) -> Result<DenyList, TicketError> {
        self.0.check_signature(check)?;
        Ok(DenyList { claims: self.0.claims()?, kid: self.0.kid().clone() })
    }
}

/// A deny list that a configured key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyList {
    kid: KeyId,
    claims: DenyClaims,
}

impl DenyList {
    /// Reads the compact form, without checking its signature.
    ///
    /// # Errors
    /// When the text is not a compact JWS of at most [`DENY_LIST_BYTES_MAX`] with an acceptable header.
    pub fn parse(text: &str) -> Result<UnverifiedDenyList, TicketError> {
        CompactJws::parse(text, TYPE, DENY_LIST_BYTES_MAX).map(UnverifiedDenyList)
    }

    /// The key that signed it.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// What it says.
    pub fn claims(&self) -> &DenyClaims {
        &self.claims
    }
}

/// The newest list of every key. A ticket is denied when any of them names it, whichever key signed the ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyLists {
    lists: BTreeMap<KeyId, DenyClaims>,
}

impl DenyLists {
    /// Takes `list` when it is newer than what its key said before; whether it was.
    ///
    /// The list of a key beyond [`DENY_LISTS_MAX`] keys is not taken.
    pub fn adopt(&mut self, list: DenyList) -> bool {
        let newer = match self.lists.get(&list.kid) {
            Some(known) => list.claims.number > known.number,
            None => self.lists.len() < DENY_LISTS_MAX,
        };
        if newer {
            self.lists.insert(list.kid, list.claims);
        }
        newer
    }

    /// The number of the list of `kid`.
    pub fn number(&self, kid: &KeyId) -> Option<u64> {
        self.lists.get(kid).map(|list| list.number)
    }

    /// The list that denies `ticket`: its key and number.
    pub fn denial_of(&self, ticket: &Ticket) -> Option<(&KeyId, u64)> {
        let claims = ticket.claims();
        self.lists
            .iter()
            .find(|(_, list)| list.jti.contains(&claims.jti) || list.sub.contains(&claims.sub))
            .map(|(kid, list)| (kid, list.number))
    }
}
