//! What the authority must remember: numbers that only go up, what it issued and what it revoked.

use std::collections::BTreeMap;
use std::path::Path;

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::KeyId;
use rc_proto::wire::TrustDomain;
use serde::{Deserialize, Serialize};

use crate::error::CertsError;
use crate::files::{self, Existing, Readers};

const FILE: &str = "authority.json";
const FORMAT: u32 = 1;
/// How long an entry is kept past its certificate's end, for clocks that are behind.
const KEPT_PAST_END_S: u64 = 24 * 60 * 60;

/// The file `authority.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    format: u32,
    pub(crate) trust_domain: TrustDomain,
    /// Number of the last CRL.
    pub(crate) crl_number: u64,
    /// Number of the last deny list.
    pub(crate) deny_number: u64,
    /// The ticket key that signs when none is named.
    pub(crate) ticket_key: Option<KeyId>,
    /// Certificates that are still valid, by serial in hexadecimal.
    pub(crate) issued: BTreeMap<String, Issued>,
    /// Revoked certificates whose life is not over, by serial in hexadecimal.
    pub(crate) revoked: BTreeMap<String, Revoked>,
    /// Denied tickets by jti in hexadecimal, with the end of each.
    pub(crate) denied_tickets: BTreeMap<String, u64>,
}

/// One certificate; times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issued {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: u64,
}

/// One revocation; times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoked {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: u64,
    pub(crate) revoked_at: u64,
}

impl Register {
    pub(crate) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            format: FORMAT,
            trust_domain,
            crl_number: 0,
            deny_number: 0,
            ticket_key: None,
            issued: BTreeMap::new(),
            revoked: BTreeMap::new(),
            denied_tickets: BTreeMap::new(),
        }
    }

    pub(crate) fn load(dir: &Path) -> Result<Self, CertsError> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Err(CertsError::NoAuthority { dir: dir.to_owned() });
        }
        let content = |reason: String| CertsError::Content { file: file.clone(), reason };
        let register: Self =
            serde_json::from_str(&files::read(&file)?).map_err(|error| content(error.to_string()))?;
        if register.format != FORMAT {
            return Err(content(format!("format {} is of another version of rc-certs", register.format)));
        }
        Ok(register)
    }

    /// Writes the file after dropping what is over.
    pub(crate) fn store(
        &mut self,
        dir: &Path,
        existing: Existing,
        now_unix_s: u64,
    ) -> Result<(), CertsError> {
        let live = |end: u64| end.saturating_add(KEPT_PAST_END_S) >= now_unix_s;
        self.issued.retain(|_, issued| live(issued.not_after));
        self.revoked.retain(|_, revoked| live(revoked.not_after));
        self.denied_tickets.retain(|_, end| live(*end));
        let text =
            serde_json::to_string_pretty(self).map_err(|error| CertsError::Generator(error.to_string()))?;
        Ok(files::write(&dir.join(FILE), &format!("{text}\n"), Readers::Owner, existing)?)
    }
}
