//! The signature part of a ticket: Ed25519 public keys by `kid`.

use std::path::{Path, PathBuf};

/// Why a key cannot be used or a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum TicketKeyError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no Ed25519 public key.
    #[error("{}: holds no Ed25519 public key (PEM, PUBLIC KEY)", file.display())]
    NotAKey {
        /// The file.
        file: PathBuf,
    },
}

/// The public keys that tickets are verified with.
#[derive(Debug, Clone, Default)]
pub struct TicketKeys;

impl TicketKeys {
    /// No key: every ticket is refused.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// Adds the keys of one PEM file. A key's `kid` is the base64url RFC 7638 thumbprint of its JWK.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn add_file(&mut self, _file: &Path) -> Result<(), TicketKeyError> {
        unimplemented!()
    }

    /// Adds one raw Ed25519 public key; returns its `kid`.
    pub fn add(&mut self, _public: [u8; 32]) -> String {
        unimplemented!()
    }

    /// Whether `signature` over `signed` is by the key that `kid` names.
    pub fn verify(&self, _kid: &str, _signed: &[u8], _signature: &[u8]) -> bool {
        unimplemented!()
    }
}
