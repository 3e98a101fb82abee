//! A throw-away CA for tests, so that no private key is kept in the repository.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its certificates has nothing else to do")]
#![expect(clippy::missing_panics_doc, reason = "as above")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::{Role, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::credentials::{CredentialFiles, Credentials};

/// Life of a test certificate.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How far its beginning lies back.
const BACKDATED: Duration = Duration::from_secs(60);

/// What a test certificate says; by default everything is right.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// URI names; exactly one SPIFFE id is right.
    pub uri_names: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Beginning of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Whether TLS client authentication is allowed.
    pub client_auth: bool,
    /// Whether TLS server authentication is allowed.
    pub server_auth: bool,
    /// Whether the key is Ed25519 instead of P-256.
    pub ed25519: bool,
}

impl Blueprint {
    /// A right certificate for `id`.
    pub fn of(id: &SpiffeId, dns_names: &[&str]) -> Self {
        let role = id.role();
        Self {
            uri_names: vec![id.to_string()],
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            not_before: SystemTime::now() - BACKDATED,
            not_after: SystemTime::now() + LIFE,
            client_auth: true,
            server_auth: matches!(role, Role::Broker | Role::Target | Role::RcServer),
            ed25519: false,
        }
    }
}

/// A CA in a temporary directory that is removed with it.
pub struct TestCa {
    directory: tempfile::TempDir,
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    count: AtomicU64,
    revoked: Mutex<Vec<u64>>,
}

impl std::fmt::Debug for TestCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCa").field("directory", &self.directory.path()).finish_non_exhaustive()
    }
}

impl TestCa {
    /// A fresh CA of `trust_domain`, with an empty revocation list.
    pub fn new(trust_domain: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("test CA of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        let ca = Self {
            directory,
            trust_domain: trust_domain.parse().unwrap(),
            issuer: Issuer::new(params, key),
            count: AtomicU64::new(1),
            revoked: Mutex::default(),
        };
        ca.write_revocation_list();
        ca
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The identity `path` in its trust domain, for example `target/pc-17` or `broker/in/broker-3`.
    pub fn id(&self, path: &str) -> SpiffeId {
        format!("spiffe://{}/{path}", self.trust_domain).parse().unwrap()
    }

    /// A certificate for `id` with the key usages of its role, valid for a day.
    pub fn issue(&self, id: &SpiffeId, dns_names: &[&str]) -> CredentialFiles {
        self.issue_as(&Blueprint::of(id, dns_names))
    }

    /// A certificate that may be wrong.
    pub fn issue_as(&self, blueprint: &Blueprint) -> CredentialFiles {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let algorithm = if blueprint.ed25519 { &rcgen::PKCS_ED25519 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("test leaf {count}"));
        params.serial_number = Some(SerialNumber::from(count));
        params.not_before = OffsetDateTime::from(blueprint.not_before);
        params.not_after = OffsetDateTime::from(blueprint.not_after);
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = (blueprint
            .uri_names
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().unwrap())))
        .chain(blueprint.dns_names.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap())))
        .collect();
        if blueprint.client_auth {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if blueprint.server_auth {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.files(&count.to_string());
        fs::write(&files.certificate, certificate.pem()).unwrap();
        write_private(&files.key, &key.serialize_pem());
        files
    }

    /// A certificate for the identity `path`, loaded.
    pub fn credentials(&self, path: &str, dns_names: &[&str]) -> Credentials {
        Credentials::load(&self.issue(&self.id(path), dns_names)).unwrap()
    }

    /// Credentials that peers refuse: only what TLS itself needs is checked. They judge peers by this CA, whoever
    /// issued them.
    pub fn unchecked(&self, files: &CredentialFiles) -> Credentials {
        let files = CredentialFiles { ca: self.ca_file(), crl: None, ..files.clone() };
        Credentials::load_unchecked(&files, self.id("target/unchecked")).unwrap()
    }

    /// Revokes a certificate made by [`Self::issue`], and writes the list.
    pub fn revoke(&self, files: &CredentialFiles) {
        let count = files.certificate.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap();
        self.revoked.lock().unwrap().push(count);
        self.write_revocation_list();
    }

    fn files(&self, stem: &str) -> CredentialFiles {
        let directory = self.directory.path();
        CredentialFiles {
            certificate: directory.join(format!("{stem}.pem")),
            key: directory.join(format!("{stem}.key")),
            ca: self.ca_file(),
            crl: Some(directory.join("crl.pem")),
        }
    }

    fn write_revocation_list(&self) {
        let now = OffsetDateTime::now_utc();
        let revoked = self.revoked.lock().unwrap();
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATED,
            next_update: now + LIFE,
            crl_number: SerialNumber::from(revoked.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: now - BACKDATED,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        fs::write(self.directory.path().join("crl.pem"), list.pem().unwrap()).unwrap();
    }
}

#[cfg(unix)]
fn write_private(file: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

#[cfg(not(unix))]
fn write_private(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}
