//! A certificate authority in a directory: it issues and renews leaf certificates.
//!
//! Several processes may use one directory at once: each operation holds the directory's lock, reads the register,
//! and writes it before what depends on it, so a number never comes twice.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::Rng as _;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::KeyThumbprint;
use rc_proto::wire::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::error::CertsError;
use crate::files::{self, Existing, FileError, Readers};
use crate::leaf::{BACKDATE, DAY_S, KeyKind, LeafProfile, LeafRequest, unix_seconds, whole_seconds};
use crate::reading::{CertificateFacts, hex};
use crate::register::{Issued, Register};

/// Life of a CA certificate.
pub const CA_LIFE: Duration = Duration::from_secs(3650 * DAY_S);
const SERIAL_BYTES: usize = 16;
const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const LOCK: &str = ".lock";

/// How to make a CA.
#[derive(Debug, Clone, Copy)]
pub struct AuthorityOptions {
    /// Kind of its key.
    pub key_kind: KeyKind,
    /// What to do with a CA that is there already. A replaced one is gone, and with it every certificate it issued.
    pub existing: Existing,
}

impl Default for AuthorityOptions {
    fn default() -> Self {
        Self { key_kind: KeyKind::P256, existing: Existing::Keep }
    }
}

/// A certificate authority, its revocations and its ticket keys.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    trust_domain: TrustDomain,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    facts: CertificateFacts,
}

/// The files of an issued leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    /// Its owner.
    pub id: SpiffeId,
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, 0600.
    pub key: PathBuf,
    /// The CA's certificate, PEM.
    pub ca: PathBuf,
    /// The CA's revocation list, PEM.
    pub crl: PathBuf,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// End of its life.
    pub not_after: SystemTime,
    /// RFC 7638 thumbprint of its key, for tickets.
    pub thumbprint: KeyThumbprint,
}

/// A leaf to issue again.
#[derive(Debug, Clone)]
pub struct RenewRequest {
    /// Its present certificate; it is replaced.
    pub certificate: PathBuf,
    /// Its key; `None` for the certificate's name with the ending `.key`.
    pub key: Option<PathBuf>,
    /// Draw a new key instead of keeping it.
    pub new_key: bool,
    /// Its next life; `None` for as long as before.
    pub life: Option<Duration>,
}

impl RenewRequest {
    /// Renews `certificate` with the key beside it, for as long as before.
    pub fn new(certificate: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: None, new_key: false, life: None }
    }
}

/// Where a leaf goes.
struct Place {
    certificate: PathBuf,
    key: PathBuf,
    key_is_new: bool,
    existing: Existing,
}

/// Held while the register is read and written.
pub(crate) struct DirLock {
    /// The operating system releases the lock with the file.
    _file: File,
}

impl Authority {
    /// Makes a CA of 10 years with an empty revocation list in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When there is one already, or a file cannot be written.
    pub fn create(dir: &Path, trust_domain: &TrustDomain) -> Result<Self, CertsError> {
        Self::create_with(dir, trust_domain, AuthorityOptions::default())
    }

    /// As [`Self::create`], with options.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with(
        dir: &Path,
        trust_domain: &TrustDomain,
        options: AuthorityOptions,
    ) -> Result<Self, CertsError> {
        files::make_dir(dir)?;
        let lock = lock(dir)?;
        for name in [CA_CERTIFICATE, CA_KEY, crate::revocation::CRL] {
            files::require_free(&dir.join(name), options.existing)?;
        }
        let now = SystemTime::now();
        let key = options.key_kind.generate()?;
        let certificate = ca_params(trust_domain, &key, now)?.self_signed(&key)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        files::write(&dir.join(CA_KEY), &key_pem, Readers::Owner, options.existing)?;
        files::write(&dir.join(CA_CERTIFICATE), &certificate.pem(), Readers::Everybody, options.existing)?;
        let mut register = Register::new(trust_domain.clone());
        register.store(dir, options.existing, unix_seconds(now).ok_or(CertsError::Clock)?)?;
        crate::ticketing::forget_keys(dir)?;
        drop(lock);
        let authority = Self::open(dir)?;
        authority.write_crl(crate::revocation::CRL_LIFE)?;
        Ok(authority)
    }

    /// Opens the CA in `dir`.
    ///
    /// # Errors
    /// When there is none, its key can be read by others, or a file is damaged.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let register = Register::load(dir)?;
        let certificate = dir.join(CA_CERTIFICATE);
        let certificate_pem = files::read(&certificate)?;
        let facts = CertificateFacts::read(&certificate)?;
        let key_file = dir.join(CA_KEY);
        let key = read_key(&key_file)?;
        if key.subject_public_key_info() != facts.spki_der {
            return Err(CertsError::KeyMismatch { key: key_file, certificate });
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok(Self { dir: dir.to_owned(), trust_domain: register.trust_domain, issuer, facts })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The trust domain of every identity it issues.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join(CA_CERTIFICATE)
    }

    /// Issues a leaf with a new key.
    ///
    /// # Errors
    /// When the request does not hold, or a file is there already or cannot be written.
    pub fn issue(&self, request: &LeafRequest) -> Result<IssuedFiles, CertsError> {
        self.issue_as(request, |_| {})
    }

    /// Issues a leaf that every peer must refuse.
    ///
    /// # Errors
    /// As [`Self::issue`].
    #[cfg(feature = "testing")]
    pub fn issue_flawed(&self, request: &LeafRequest, flaw: crate::Flaw) -> Result<IssuedFiles, CertsError> {
        self.issue_as(request, |params| flaw.apply(params))
    }

    fn issue_as(
        &self,
        request: &LeafRequest,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Result<IssuedFiles, CertsError> {
        let profile = request.profile(&self.trust_domain, SystemTime::now())?;
        let dir = request.out_dir.as_deref().unwrap_or(&self.dir);
        files::make_dir(dir)?;
        let stem = request.file_stem();
        let place = Place {
            certificate: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
            key_is_new: true,
            existing: request.existing,
        };
        files::require_free(&place.certificate, request.existing)?;
        files::require_free(&place.key, request.existing)?;
        let key = request.key_kind.generate()?;
        self.sign_leaf(&profile, &key, place, alter)
    }

    /// Issues a leaf again: same identity and names, same key unless a new one is asked for.
    ///
    /// # Errors
    /// When it is not of this authority or revoked, the key is not its own, or a file cannot be written.
    pub fn renew(&self, request: &RenewRequest) -> Result<IssuedFiles, CertsError> {
        let certificate = &request.certificate;
        let facts = CertificateFacts::read(certificate)?;
        let id = facts.spiffe_id(certificate)?;
        if *id.trust_domain() != self.trust_domain {
            let (theirs, ours) = (id.trust_domain().clone(), self.trust_domain.clone());
            return Err(CertsError::OtherTrustDomain { file: certificate.clone(), theirs, ours });
        }
        if !self.issued_by_us(&facts) {
            return Err(CertsError::OtherAuthority { file: certificate.clone() });
        }
        // The register forgets what has run out, revocations included.
        if unix_seconds(SystemTime::now()).is_none_or(|now| facts.not_after <= now) {
            let ended = rfc3339(facts.not_after);
            return Err(CertsError::Expired { file: certificate.clone(), ended });
        }
        if Register::load(&self.dir)?.revoked.contains_key(&facts.serial) {
            return Err(CertsError::Revoked { serial: facts.serial });
        }
        let key_file = request.key.clone().unwrap_or_else(|| certificate.with_extension("key"));
        let old_key = read_key(&key_file)?;
        if old_key.subject_public_key_info() != facts.spki_der {
            return Err(CertsError::KeyMismatch { key: key_file, certificate: certificate.clone() });
        }
        let key = if request.new_key { kind_of(&old_key).generate()? } else { old_key };
        let name = id.to_string();
        let leaf = LeafRequest {
            dns_names: facts.dns_names.clone(),
            life: Some(request.life.unwrap_or_else(|| facts.life())),
            ..LeafRequest::new(id.role(), name.splitn(5, '/').nth(4).unwrap_or_default())
        };
        let profile = leaf.profile(&self.trust_domain, SystemTime::now())?;
        let place = Place {
            certificate: certificate.clone(),
            key: key_file,
            key_is_new: request.new_key,
            existing: Existing::Replace,
        };
        self.sign_leaf(&profile, &key, place, |_| {})
    }

    fn sign_leaf(
        &self,
        profile: &LeafProfile,
        key: &KeyPair,
        place: Place,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Result<IssuedFiles, CertsError> {
        let ca_end = self.facts.not_after;
        let not_after = u64::try_from(profile.not_after.unix_timestamp()).map_err(|_| CertsError::Clock)?;
        if not_after > ca_end {
            return Err(CertsError::OutlivesAuthority { ca_end: rfc3339(ca_end) });
        }
        let serial = new_serial();
        let mut params = profile.params(&serial)?;
        alter(&mut params);
        let leaf = params.signed_by(key, &self.issuer)?;
        let serial = hex(&serial);
        self.update(|register| {
            register.issued.insert(serial.clone(), Issued { id: profile.id.clone(), not_after });
            Ok(())
        })?;
        if place.key_is_new {
            let key_pem = Zeroizing::new(key.serialize_pem());
            files::write(&place.key, &key_pem, Readers::Owner, place.existing)?;
        }
        files::write(&place.certificate, &leaf.pem(), Readers::Everybody, place.existing)?;
        let thumbprint = rc_transport::key_thumbprint(&key.subject_public_key_info())
            .ok_or_else(|| CertsError::KeyKind { file: place.certificate.clone() })?;
        Ok(IssuedFiles {
            id: profile.id.clone(),
            certificate: place.certificate,
            key: place.key,
            ca: self.ca_file(),
            crl: self.crl_file(),
            serial,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
            thumbprint,
        })
    }

    pub(crate) fn issued_by_us(&self, facts: &CertificateFacts) -> bool {
        facts.authority_key_id == self.facts.subject_key_id && facts.is_signed_by(&self.facts)
    }

    /// Changes the register under the directory's lock.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Register) -> Result<T, CertsError>,
    ) -> Result<T, CertsError> {
        let _lock = lock(&self.dir)?;
        let now = unix_seconds(SystemTime::now()).ok_or(CertsError::Clock)?;
        let mut register = Register::load(&self.dir)?;
        let result = change(&mut register)?;
        register.store(&self.dir, Existing::Replace, now)?;
        Ok(result)
    }
}

impl CertificateFacts {
    /// The life it was issued with, without the backdating.
    fn life(&self) -> Duration {
        Duration::from_secs(self.not_after.saturating_sub(self.not_before)).saturating_sub(BACKDATE)
    }
}

pub(crate) fn lock(dir: &Path) -> Result<DirLock, CertsError> {
    let path = dir.join(LOCK);
    let failed = |source| FileError::Write { file: path.clone(), source };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(DirLock { _file: file })
}

fn read_key(file: &Path) -> Result<KeyPair, CertsError> {
    let pem = files::read_private(file)?;
    KeyPair::from_pem(&pem).map_err(|_| CertsError::Content {
        file: file.to_owned(),
        reason: "holds no private key in PKCS#8 PEM (PRIVATE KEY)".to_owned(),
    })
}

pub(crate) fn kind_of(key: &KeyPair) -> KeyKind {
    if key.is_compatible(&rcgen::PKCS_ED25519) { KeyKind::Ed25519 } else { KeyKind::P256 }
}

/// The name has a part of the key in it, so a CA made again is another issuer to everybody.
fn ca_params(
    trust_domain: &TrustDomain,
    key: &KeyPair,
    now: SystemTime,
) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    params.not_before = whole_seconds(now)? - BACKDATE;
    params.not_after = whole_seconds(now + CA_LIFE)?;
    let serial = new_serial();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let key_part = params.key_identifier(key);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    let name = format!("RC Mesh CA {}", hex(key_part.get(..4).unwrap_or_default()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Positive, and of full length in DER.
fn new_serial() -> [u8; SERIAL_BYTES] {
    let mut serial = [0; SERIAL_BYTES];
    rand::rng().fill(&mut serial);
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    serial
}

/// A time for people.
pub(crate) fn rfc3339(unix_s: u64) -> String {
    i64::try_from(unix_s)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_s} s after 1970"))
}
