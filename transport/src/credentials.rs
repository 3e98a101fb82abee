//! Our own certificate, key, CA and revocation lists, checked when they are loaded.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rc_proto::identity::SpiffeId;
use rc_proto::wire::Role;
use rc_proto::wire::message::CertificateRef;

use crate::trust::{Peer, PeerFault};

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

/// A process's own certificate and key, and the CAs that it judges others by.
#[derive(Debug)]
pub struct Credentials;

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

impl Credentials {
    /// Loads and checks the files: the key is private and belongs to the certificate; the certificate chains to
    /// the CA, is valid now, and has exactly one SPIFFE id and the key usages of its role.
    ///
    /// # Errors
    /// The first thing that does not hold, with the file.
    pub fn load(_files: &CredentialFiles) -> Result<Self, CredentialError> {
        unimplemented!()
    }

    /// Our identity.
    pub fn spiffe_id(&self) -> &SpiffeId {
        unimplemented!()
    }

    /// Our role.
    pub fn role(&self) -> Role {
        self.spiffe_id().role()
    }

    /// DNS names in our certificate, lower-case.
    pub fn dns_names(&self) -> &[String] {
        unimplemented!()
    }

    /// End of our certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        unimplemented!()
    }

    /// How much of the certificate's life is left at `now`; a fifth or less is low.
    pub fn life_left(&self, _now: SystemTime) -> LifeLeft {
        unimplemented!()
    }

    /// RFC 7638 thumbprint of our public key (SHA-256).
    pub fn key_thumbprint(&self) -> [u8; 32] {
        unimplemented!()
    }

    /// Names our certificate.
    pub fn certificate_ref(&self) -> CertificateRef {
        unimplemented!()
    }

    /// Names our certificate to a user.
    pub fn own_certificate(&self) -> OwnCertificate {
        unimplemented!()
    }

    /// Judges a live connection's peer again: revoked by a list that came later, or expired.
    ///
    /// # Errors
    /// [`PeerFault::Revoked`] or [`PeerFault::Expired`].
    pub fn recheck(&self, _peer: &Peer, _now: SystemTime) -> Result<(), PeerFault> {
        unimplemented!()
    }

    /// The file that holds our certificate.
    pub fn certificate_file(&self) -> &Path {
        unimplemented!()
    }
}
