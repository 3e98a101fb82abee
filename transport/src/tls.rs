//! The TLS configurations: 1.3 only, both sides authenticated, nothing resumed, one alert for every bad
//! certificate.
//!
//! A resumed session would not be verified again (revocation, life, trust), so there are no tickets, no session
//! store and no early data. rustls carries the cause of a refusal inside its error and derives the alert from the
//! error's kind: [`CertificateError::Other`] is one kind, so every cause looks the same on the wire and the local
//! event still has it. A certificate that is not shown at all is refused by rustls itself with
//! `certificate_required`: that tells the peer nothing which it does not know.

use std::io;
use std::sync::Arc;

use rc_proto::identity::SpiffeId;
use rc_proto::wire::{Alpn, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};

use crate::certificate::CertificateFacts;
use crate::connector::Expectation;
use crate::trust::{Peer, PeerFault, Trust, Usage};

/// Plaintext, and TLS records, that a connection holds for a peer that does not read, in bytes each.
pub(crate) const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The cryptography of every connection; AES-128-GCM first, since every machine has it in hardware.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Whom a sound certificate must name.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// A broker that meets a dialler's expectation.
    Dialled(Expectation),
    /// Somebody who may dial a broker with this protocol.
    Admitted(Alpn),
    /// Exactly this identity.
    Exactly(SpiffeId),
    /// Anybody of this role.
    Role(Role),
}

impl Wanted {
    fn check(&self, peer: &Peer, facts: &CertificateFacts) -> Result<(), PeerFault> {
        let role = peer.id.role();
        let has_role = match self {
            Self::Dialled(_) => role == Role::Broker,
            Self::Admitted(alpn) => alpn.admits(role),
            Self::Exactly(wanted) => role == wanted.role(),
            Self::Role(wanted) => role == *wanted,
        };
        if !has_role {
            return Err(PeerFault::WrongRole { found: role, id: peer.id.clone() });
        }
        let somebody_else = |wanted: String, shown: String| Err(PeerFault::SomebodyElse { wanted, shown });
        match self {
            Self::Admitted(_) | Self::Role(_) => Ok(()),
            Self::Exactly(wanted) if peer.id == *wanted => Ok(()),
            Self::Exactly(wanted) => somebody_else(wanted.to_string(), peer.id.to_string()),
            Self::Dialled(Expectation::Broker(wanted)) if peer.id.broker_id().as_ref() == Some(wanted) => {
                Ok(())
            }
            Self::Dialled(Expectation::Broker(wanted)) => {
                somebody_else(format!("broker {wanted}"), peer.id.to_string())
            }
            Self::Dialled(Expectation::ServiceName(wanted)) => {
                let name = canonical_name(wanted);
                if facts.dns_names.contains(&name) {
                    return Ok(());
                }
                somebody_else(name, format!("{} with the DNS names {:?}", peer.id, facts.dns_names))
            }
        }
    }
}

/// Lower-case, without the trailing dot.
pub(crate) fn canonical_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Judges a peer's certificate in either direction.
#[derive(Debug)]
pub(crate) struct Verifier {
    trust: Arc<Trust>,
    wanted: Wanted,
}

impl Verifier {
    /// Who is proven by `certificate`, when it is wanted here.
    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), rustls::Error> {
        self.trust
            .judge(certificate, intermediates, now, usage)
            .and_then(|(peer, facts)| self.wanted.check(&peer, &facts))
            .map_err(|fault| refusal(fault, certificate))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.trust.algorithms)
            .map_err(|_| refusal(PeerFault::NoProof, certificate))
    }
}

/// Why a certificate was refused, inside rustls' error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{shown}: {fault}")]
pub(crate) struct Refused {
    /// What is wrong.
    pub(crate) fault: PeerFault,
    /// What the certificate says of itself, unproven.
    pub(crate) shown: String,
}

/// One kind of error, so one alert, for every fault.
fn refusal(fault: PeerFault, certificate: &CertificateDer<'_>) -> rustls::Error {
    let shown = CertificateFacts::parse(certificate)
        .map_or_else(|_| "unreadable".to_owned(), |facts| facts.to_string());
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused { fault, shown }))))
}

/// TLS 1.2 is not compiled in; rustls asks all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(certificate, intermediates, now, Usage::Server).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(certificate, intermediates, now, Usage::Client).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// What a TLS configuration is made of.
pub(crate) struct TlsIdentity {
    /// Judges the peer.
    pub(crate) trust: Arc<Trust>,
    /// Cryptography.
    pub(crate) provider: Arc<CryptoProvider>,
    /// Our chain and key.
    pub(crate) certified_key: Arc<CertifiedKey>,
}

/// The configuration of one dial.
pub(crate) fn client_config(
    own: &TlsIdentity,
    wanted: Wanted,
    alpn: Alpn,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Verifier { trust: Arc::clone(&own.trust), wanted };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&own.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // rustls' word for "verify by these rules instead of those of the web"
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified_key))));
    config.alpn_protocols = vec![alpn.name().as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The configuration of a listener for one protocol.
pub(crate) fn server_config(
    own: &TlsIdentity,
    wanted: Wanted,
    alpn: Alpn,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = Verifier { trust: Arc::clone(&own.trust), wanted };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&own.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified_key))));
    config.alpn_protocols = vec![alpn.name().as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A configuration for each protocol that we answer to, so that a role that may not speak it gets the alert of
/// every other bad certificate.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<(Alpn, Arc<ServerConfig>)>);

impl Listeners {
    /// The configurations of one identity.
    pub(crate) fn new(own: &TlsIdentity) -> Result<Self, rustls::Error> {
        let configured = Alpn::ALL.into_iter().map(|alpn| {
            let wanted = match alpn {
                Alpn::EndToEnd => Wanted::Role(Role::Controller),
                Alpn::Control | Alpn::Path | Alpn::Mesh => Wanted::Admitted(alpn),
            };
            Ok((alpn, Arc::new(server_config(own, wanted, alpn)?)))
        });
        configured.collect::<Result<_, _>>().map(Self)
    }

    /// The configuration for one protocol.
    pub(crate) fn for_protocol(&self, wanted: Alpn) -> Option<Arc<ServerConfig>> {
        self.0.iter().find(|(alpn, _)| *alpn == wanted).map(|(_, config)| Arc::clone(config))
    }
}

/// The peer that a finished handshake proved, and the protocol it agreed on.
pub(crate) fn proven(
    certificates: Option<&[CertificateDer<'_>]>,
    alpn: Option<&[u8]>,
) -> Option<(Peer, Option<Alpn>)> {
    let facts = CertificateFacts::parse(certificates?.first()?).ok()?;
    let id = facts.uri_names.first()?.parse().ok()?;
    Some((Peer { id, certificate: facts.certificate_ref() }, alpn.and_then(Alpn::from_name)))
}

/// What a TLS error inside an [`io::Error`] is about.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// The peer's certificate.
    Certificate(Refused),
    /// The peer showed none.
    NoCertificate,
    /// The peer refused our certificate, by this alert.
    OwnCertificate(String),
    /// The two sides have no protocol in common.
    Protocol,
    /// Anything else that the peer said by an alert.
    Alert(String),
    /// Bytes that are not TLS 1.3.
    Broken(String),
}

impl TlsFailure {
    /// The TLS failure behind `error`; `None` when the stream itself failed.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        use rustls::AlertDescription as A;
        use rustls::Error as E;
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "rustls::Error and its alerts are non-exhaustive")]
        Some(match error {
            E::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
                cause.downcast_ref::<Refused>().map_or_else(
                    || Self::Broken(error.to_string()),
                    |refused| Self::Certificate(refused.clone()),
                )
            }
            E::InvalidCertificate(other) => Self::Certificate(Refused {
                fault: PeerFault::Unreadable { reason: format!("{other:?}") },
                shown: "unreadable".to_owned(),
            }),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::NoApplicationProtocol | E::AlertReceived(A::NoApplicationProtocol) => Self::Protocol,
            E::AlertReceived(
                alert @ (A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
                | A::CertificateRequired
                | A::DecryptError),
            ) => Self::OwnCertificate(format!("{alert:?}")),
            E::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            other => Self::Broken(other.to_string()),
        })
    }
}
