//! A throw-away CA for tests.

use rc_proto::identity::SpiffeId;

use crate::credentials::{CredentialFiles, Credentials};

/// A CA in a temporary directory that is removed with it.
#[derive(Debug)]
pub struct TestCa;

impl TestCa {
    /// A fresh CA of `trust_domain`, with an empty revocation list.
    pub fn new(_trust_domain: &str) -> Self {
        unimplemented!()
    }

    /// A certificate for `id` with the key usages of its role, valid for a day.
    pub fn issue(&self, _id: &SpiffeId, _dns_names: &[&str]) -> CredentialFiles {
        unimplemented!()
    }

    /// The same, loaded.
    pub fn credentials(&self, _uri: &str, _dns_names: &[&str]) -> Credentials {
        unimplemented!()
    }
}
