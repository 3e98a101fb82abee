//! What a leaf certificate says, by role; its limits.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::{Role, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::error::CertsError;
use crate::files::Existing;

/// Shortest life of a leaf.
pub const LEAF_LIFE_MIN: Duration = Duration::from_secs(5);
/// Longest life of a leaf.
pub const LEAF_LIFE_MAX: Duration = Duration::from_secs(90 * DAY_S);
/// How far a certificate's begin lies before its issue, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(60);
pub(crate) const DAY_S: u64 = 24 * 60 * 60;
const SERVER_LIFE: Duration = Duration::from_secs(30 * DAY_S);
const ENDPOINT_LIFE: Duration = Duration::from_secs(2 * DAY_S);
const COMMON_NAME_CHARS_MAX: usize = 64;
const DNS_NAMES_MAX: usize = 32;

/// The kind of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA over P-256.
    #[default]
    P256,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    pub(crate) fn generate(self) -> Result<KeyPair, CertsError> {
        let algorithm = match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        };
        Ok(KeyPair::generate_for(algorithm)?)
    }
}

/// How long a leaf of `role` lives when nothing else is said: 48 h for endpoints, 30 days for the others.
pub fn default_life(role: Role) -> Duration {
    match role {
        Role::Controller | Role::Target => ENDPOINT_LIFE,
        Role::Broker | Role::RcServer | Role::TrafficManager => SERVER_LIFE,
    }
}

/// A leaf to issue.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// What its owner is.
    pub role: Role,
    /// `<region>/<id>` for a broker, one segment for the others.
    pub id: String,
    /// DNS names, for roles that are dialled by name: broker and rc-server.
    pub dns_names: Vec<String>,
    /// Kind of its key.
    pub key_kind: KeyKind,
    /// Its life, from [`LEAF_LIFE_MIN`] to [`LEAF_LIFE_MAX`]; `None` for the role's default.
    pub life: Option<Duration>,
    /// When that life begins; `None` for now. The certificate's own begin lies [`BACKDATE`] before.
    pub starts_at: Option<SystemTime>,
    /// Where its files go; `None` for the authority's directory.
    pub out_dir: Option<PathBuf>,
    /// What to do with files of the same names.
    pub existing: Existing,
}

impl LeafRequest {
    /// A leaf of the role's default life with a P-256 key, in the authority's directory, replacing nothing.
    pub fn new(role: Role, id: impl Into<String>) -> Self {
        Self {
            role,
            id: id.into(),
            dns_names: Vec::new(),
            key_kind: KeyKind::default(),
            life: None,
            starts_at: None,
            out_dir: None,
            existing: Existing::Keep,
        }
    }

    /// Adds a DNS name.
    #[must_use]
    pub fn dns_name(mut self, name: impl Into<String>) -> Self {
        self.dns_names.push(name.into());
        self
    }

    /// Sets its life.
    #[must_use]
    pub fn life(self, life: Duration) -> Self {
        Self { life: Some(life), ..self }
    }

    /// Sets the kind of its key.
    #[must_use]
    pub fn key_kind(self, key_kind: KeyKind) -> Self {
        Self { key_kind, ..self }
    }

    /// Sets where its files go.
    #[must_use]
    pub fn out_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { out_dir: Some(dir.into()), ..self }
    }

    /// Sets when its life begins.
    #[must_use]
    pub fn starts_at(self, start: SystemTime) -> Self {
        Self { starts_at: Some(start), ..self }
    }

    /// Replaces files of the same names.
    #[must_use]
    pub fn replacing(self) -> Self {
        Self { existing: Existing::Replace, ..self }
    }

    /// Names of its files without the ending: `<role>-<id>`, with `-` for the `/` of a broker.
    pub(crate) fn file_stem(&self) -> String {
        format!("{}-{}", self.role, self.id.replace('/', "-"))
    }

    pub(crate) fn profile(
        &self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<LeafProfile, CertsError> {
        let id: SpiffeId = format!("spiffe://{trust_domain}/{}/{}", self.role, self.id).parse()?;
        let dns_names =
            self.dns_names.iter().map(|name| check_dns_name(name)).collect::<Result<Vec<_>, _>>()?;
        if !dns_names.is_empty() && !matches!(self.role, Role::Broker | Role::RcServer) {
            return Err(CertsError::DnsNameForRole { role: self.role });
        }
        if dns_names.len() > DNS_NAMES_MAX {
            return Err(CertsError::TooManyDnsNames { count: dns_names.len(), limit: DNS_NAMES_MAX });
        }
        let life = self.life.unwrap_or_else(|| default_life(self.role));
        if !(LEAF_LIFE_MIN..=LEAF_LIFE_MAX).contains(&life) {
            return Err(CertsError::Life { life });
        }
        let start = whole_seconds(self.starts_at.unwrap_or(now))?;
        let not_after = whole_seconds(self.starts_at.unwrap_or(now) + life)?;
        Ok(LeafProfile { id, dns_names, not_before: start - BACKDATE, not_after })
    }
}

/// A checked request: everything a leaf says but its key and serial.
#[derive(Debug, Clone)]
pub(crate) struct LeafProfile {
    pub(crate) id: SpiffeId,
    pub(crate) dns_names: Vec<String>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl LeafProfile {
    pub(crate) fn params(&self, serial: &[u8]) -> Result<CertificateParams, CertsError> {
        let mut params = CertificateParams::default();
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name());
        params.subject_alt_names = vec![SanType::URI(self.id.to_string().try_into()?)];
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if self.id.role().is_tls_server() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// For people who look at the certificate; nothing of ours reads it.
    fn common_name(&self) -> String {
        let id = self.id.to_string();
        let path = id.splitn(4, '/').nth(3).unwrap_or_default();
        path.chars().take(COMMON_NAME_CHARS_MAX).collect()
    }
}

/// Lower-case labels of letters, digits and inner hyphens; no wildcard, since each broker has a name of its own.
fn check_dns_name(name: &str) -> Result<String, CertsError> {
    let lower = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label_holds = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
    };
    // A name that ends in a number would be read as an address.
    let ends_in_number =
        lower.rsplit('.').next().is_some_and(|label| label.chars().all(|c| c.is_ascii_digit()));
    if lower.len() > 253 || ends_in_number || !lower.split('.').all(label_holds) {
        return Err(CertsError::DnsName { name: name.chars().take(255).collect() });
    }
    Ok(lower)
}

/// X.509 times have whole seconds.
pub(crate) fn whole_seconds(time: SystemTime) -> Result<OffsetDateTime, CertsError> {
    unix_seconds(time)
        .and_then(|seconds| i64::try_from(seconds).ok())
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(CertsError::Clock)
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}
