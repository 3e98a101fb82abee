//! Certificates that every peer must refuse, for tests of those peers. No release binary enables it.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};

/// What is wrong with a certificate that is otherwise sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its extended key usage allows neither TLS client nor TLS server.
    KeyUsage,
    /// It has no extended key usage at all.
    NoKeyUsage,
    /// It has its URI name and a second one.
    TwoUriNames,
    /// It has no URI name.
    NoUriName,
}

impl Flaw {
    pub(crate) fn apply(self, params: &mut CertificateParams) {
        match self {
            Self::KeyUsage => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            Self::NoKeyUsage => params.extended_key_usages.clear(),
            Self::TwoUriNames => {
                if let Ok(uri) = "spiffe://mesh.test/controller/second".try_into() {
                    params.subject_alt_names.push(SanType::URI(uri));
                }
            }
            Self::NoUriName => params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_))),
        }
    }
}
