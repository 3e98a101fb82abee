//! Our own certificate, key, CA and revocation lists, checked when they are loaded: what every peer would refuse is
//! refused here first, with the file's name.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::message::CertificateRef;
use rc_proto::wire::{Role, TrustDomain};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, UnixTime};
use zeroize::Zeroizing;

use crate::certificate::{CertificateFacts, hex};
use crate::platform;
use crate::revocation::{RevocationError, RevocationList};
use crate::tls::{self, Listeners, TlsIdentity};
use crate::trust::{Peer, PeerFault, Trust, Usage};

/// Largest file that is read, in bytes; a revocation list may be long.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A certificate is low when this part of its life is left.
const LOW_LIFE_DIVISOR: u32 = 5;

/// Where the credentials of one process are; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Own certificate, then any intermediates.
    pub certificate: PathBuf,
    /// Own private key (PKCS#8); readable by its owner only.
    pub key: PathBuf,
    /// CAs that peers are judged by.
    pub ca: PathBuf,
    /// Revocation lists of these CAs.
    pub crl: Option<PathBuf>,
}

/// How much life a certificate has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeLeft {
    /// More than a fifth of its life.
    Ample(Duration),
    /// A fifth or less: time to renew.
    Low(Duration),
    /// None.
    Over,
}

/// Names our own certificate to a user whose peer refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// Identity.
    pub id: SpiffeId,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// End of validity.
    pub not_after: SystemTime,
    /// The file that it was loaded from.
    pub file: PathBuf,
}

impl fmt::Display for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (serial {}, from {}", self.id, self.serial, self.file.display())?;
        match self.not_after.duration_since(SystemTime::now()) {
            Ok(left) => write!(f, ", valid for another {} s)", left.as_secs()),
            Err(over) => write!(f, ", expired {} s ago: renew it)", over.duration().as_secs()),
        }
    }
}

/// Why credentials cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key can be read by others.
    #[error("{}: the private key can be read by others (mode {mode:04o}): chmod 600 it", file.display())]
    KeyExposed {
        /// The key's file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file holds no PEM item of the kind that it should, or one that is damaged.
    #[error("{}: {reason}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What was looked for and what is wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error(
        "{}: this key does not belong to the certificate in {}: name the pair that was issued together",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// Our own certificate would be refused by every peer.
    #[error("{}: holds a certificate that {fault}", file.display())]
    Certificate {
        /// The certificate's file.
        file: PathBuf,
        /// Why.
        fault: PeerFault,
    },
}

/// A process's own certificate and key, and the CAs that it judges others by. It does not change: what is renewed
/// is loaded anew and swapped in.
pub struct Credentials {
    identity: TlsIdentity,
    listeners: Listeners,
    facts: CertificateFacts,
    id: SpiffeId,
    files: CredentialFiles,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Loads and checks the files: the key is private and belongs to the certificate; the certificate chains to
    /// the CA, is valid now, and has exactly one SPIFFE id and the key usages of its role.
    ///
    /// # Errors
    /// The first thing that does not hold, with the file.
    pub fn load(files: &CredentialFiles) -> Result<Self, CredentialError> {
        let own = |fault| CredentialError::Certificate { file: files.certificate.clone(), fault };
        let provider = tls::provider();
        let chain = read_certificates(&files.certificate)?;
        let (first, intermediates) =
            chain.split_first().ok_or_else(|| pem(&files.certificate, "holds no CERTIFICATE"))?;
        let trust = Trust::load(files, trust_domain_of(first).map_err(own)?, &provider)?;
        let (peer, facts) = trust.judge(first, intermediates, UnixTime::now(), Usage::Client).map_err(own)?;
        Self::assemble(files, chain, facts, peer.id, trust, provider)
    }

    /// Loads a certificate that peers will refuse, so that tests can see them do it. Peers are judged as ever.
    #[cfg(feature = "testing")]
    pub(crate) fn load_unchecked(files: &CredentialFiles, id: SpiffeId) -> Result<Self, CredentialError> {
        let provider = tls::provider();
        let chain = read_certificates(&files.certificate)?;
        let first = chain.first().ok_or_else(|| pem(&files.certificate, "holds no CERTIFICATE"))?;
        let facts =
            CertificateFacts::parse(first).map_err(|error| pem(&files.certificate, &error.to_string()))?;
        let trust = Trust::load(files, id.trust_domain().clone(), &provider)?;
        Self::assemble(files, chain, facts, id, trust, provider)
    }

    fn assemble(
        files: &CredentialFiles,
        chain: Vec<CertificateDer<'static>>,
        facts: CertificateFacts,
        id: SpiffeId,
        trust: Trust,
        provider: CryptoProvider,
    ) -> Result<Self, CredentialError> {
        let signing_key = provider
            .key_provider
            .load_private_key(read_key(&files.key)?)
            .map_err(|error| pem(&files.key, &format!("holds a key that cannot be used ({error})")))?;
        let certified_key = CertifiedKey::new(chain, signing_key);
        certified_key.keys_match().map_err(|_| CredentialError::Mismatch {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
        })?;
        let identity = TlsIdentity {
            trust: Arc::new(trust),
            provider: Arc::new(provider),
            certified_key: Arc::new(certified_key),
        };
        let listeners = Listeners::new(&identity)
            .map_err(|error| pem(&files.certificate, &format!("cannot be used for TLS ({error})")))?;
        Ok(Self { identity, listeners, facts, id, files: files.clone() })
    }

    /// The revocation lists in use, one for each issuer.
    pub fn revocation_lists(&self) -> &[Arc<RevocationList>] {
        &self.identity.trust.lists
    }

    /// The same credentials with a list that came over the mesh; `None` when it is no newer than the one in use.
    /// Live connections are then to be judged again by [`Self::recheck`].
    ///
    /// # Errors
    /// When the list cannot be read, or no CA of ours signed it.
    pub fn with_revocation_list(&self, list: &[u8]) -> Result<Option<Self>, RevocationError> {
        let mut trust = Trust::clone(&self.identity.trust);
        let verified = RevocationList::verify(list, &trust.authorities, &trust.algorithms)?;
        if !verified.adopt_into(&mut trust.lists) {
            return Ok(None);
        }
        let identity = TlsIdentity {
            trust: Arc::new(trust),
            provider: Arc::clone(&self.identity.provider),
            certified_key: Arc::clone(&self.identity.certified_key),
        };
        let listeners = Listeners::new(&identity)
            .map_err(|error| RevocationError::Unreadable { reason: error.to_string() })?;
        let (facts, id, files) = (self.facts.clone(), self.id.clone(), self.files.clone());
        Ok(Some(Self { identity, listeners, facts, id, files }))
    }

    /// Our identity.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.id
    }

    /// Our role.
    pub fn role(&self) -> Role {
        self.id.role()
    }

    /// DNS names in our certificate, lower-case.
    pub fn dns_names(&self) -> &[String] {
        &self.facts.dns_names
    }

    /// End of our certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        self.facts.not_after
    }

    /// How much of the certificate's life is left at `now`; a fifth or less is low.
    pub fn life_left(&self, now: SystemTime) -> LifeLeft {
        let life = self.facts.not_after.duration_since(self.facts.not_before).unwrap_or_default();
        match self.facts.not_after.duration_since(now) {
            Ok(left) if left > life / LOW_LIFE_DIVISOR => LifeLeft::Ample(left),
            Ok(left) if !left.is_zero() => LifeLeft::Low(left),
            Ok(_) | Err(_) => LifeLeft::Over,
        }
    }

    /// RFC 7638 thumbprint of our public key (SHA-256).
    pub fn key_thumbprint(&self) -> [u8; 32] {
        self.facts.key_thumbprint.unwrap_or_default()
    }

    /// Names our certificate.
    pub fn certificate_ref(&self) -> CertificateRef {
        self.facts.certificate_ref()
    }

    /// Names our certificate to a user.
    pub fn own_certificate(&self) -> OwnCertificate {
        OwnCertificate {
            id: self.id.clone(),
            serial: hex(&self.facts.serial),
            not_after: self.facts.not_after,
            file: self.files.certificate.clone(),
        }
    }

    /// Judges a live connection's peer again: revoked by a list that came later, or expired.
    ///
    /// # Errors
    /// [`PeerFault::Revoked`] or [`PeerFault::Expired`].
    pub fn recheck(&self, peer: &Peer, now: SystemTime) -> Result<(), PeerFault> {
        self.identity.trust.recheck(&peer.certificate, now)
    }

    /// The same for a certificate that another broker proved: what `MeshOpen` names.
    ///
    /// # Errors
    /// [`PeerFault::Revoked`] or [`PeerFault::Expired`].
    pub fn recheck_certificate(
        &self,
        certificate: &CertificateRef,
        now: SystemTime,
    ) -> Result<(), PeerFault> {
        self.identity.trust.recheck(certificate, now)
    }

    /// The file that holds our certificate.
    pub fn certificate_file(&self) -> &Path {
        &self.files.certificate
    }

    pub(crate) fn identity(&self) -> &TlsIdentity {
        &self.identity
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }
}

impl Trust {
    fn load(
        files: &CredentialFiles,
        trust_domain: TrustDomain,
        provider: &CryptoProvider,
    ) -> Result<Self, CredentialError> {
        let authorities = read_certificates(&files.ca)?;
        let anchors = (authorities.iter())
            .map(|authority| webpki::anchor_from_trusted_cert(authority).map(|anchor| anchor.to_owned()))
            .collect::<Result<Vec<TrustAnchor<'static>>, _>>()
            .map_err(|error| {
                pem(&files.ca, &format!("holds a CA certificate that cannot be read ({error})"))
            })?;
        let algorithms = provider.signature_verification_algorithms;
        let mut lists = Vec::new();
        if let Some(file) = &files.crl {
            let text = read(file)?;
            for list in CertificateRevocationListDer::pem_slice_iter(&text) {
                let list = list.map_err(|error| pem(file, &format!("is damaged ({error})")))?;
                let verified = RevocationList::verify(&list, &authorities, &algorithms)
                    .map_err(|error| pem(file, &error.to_string()))?;
                verified.adopt_into(&mut lists);
            }
            if lists.is_empty() {
                return Err(pem(file, "holds no X509 CRL"));
            }
        }
        Ok(Self { anchors, authorities, lists, trust_domain, algorithms })
    }
}

/// Our own trust domain is what our own certificate says.
fn trust_domain_of(certificate: &CertificateDer<'_>) -> Result<TrustDomain, PeerFault> {
    let facts = CertificateFacts::parse(certificate)
        .map_err(|error| PeerFault::Unreadable { reason: error.to_string() })?;
    let [uri] = facts.uri_names.as_slice() else {
        return Err(PeerFault::UriNames { count: facts.uri_names.len() });
    };
    let id: SpiffeId = uri.parse().map_err(PeerFault::Identity)?;
    Ok(id.trust_domain().clone())
}

fn pem(file: &Path, reason: &str) -> CredentialError {
    CredentialError::Pem { file: file.to_owned(), reason: reason.to_owned() }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let error = |source| CredentialError::Read { file: file.to_owned(), source };
    if fs::metadata(file).map_err(error)?.len() > FILE_BYTES_MAX {
        return Err(pem(file, "is larger than 16 MiB"));
    }
    fs::read(file).map(Zeroizing::new).map_err(error)
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let text = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(file, &format!("is damaged ({error})")))?;
    if certificates.is_empty() {
        return Err(pem(file, "holds no CERTIFICATE"));
    }
    Ok(certificates)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let exposed = platform::exposed_mode(file)
        .map_err(|source| CredentialError::Read { file: file.to_owned(), source })?;
    if let Some(mode) = exposed {
        return Err(CredentialError::KeyExposed { file: file.to_owned(), mode });
    }
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| pem(file, &format!("holds no PRIVATE KEY ({error})")))
}
