//! Why an authority does not do what it is asked.

use std::path::PathBuf;
use std::time::Duration;

use rc_proto::identity::SpiffeError;
use rc_proto::identity::ticket::{KeyId, TicketError, TicketKeysError};
use rc_proto::wire::{Role, TrustDomain};
use rc_transport::TicketSignerError;

use crate::files::FileError;

/// Why an operation of the authority failed.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{}: {reason}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory holds no authority.
    #[error("{}: no certificate authority here: make one with `rc-certs init {} --trust-domain NAME`", dir.display(), dir.display())]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// The id in a request is not valid.
    #[error(transparent)]
    Identity(#[from] SpiffeError),
    /// A certificate belongs to another mesh.
    #[error("{}: is of trust domain {theirs}, this authority is for {ours}", file.display())]
    OtherTrustDomain {
        /// The certificate's file.
        file: PathBuf,
        /// Its trust domain.
        theirs: TrustDomain,
        /// Ours.
        ours: TrustDomain,
    },
    /// A certificate was issued by another CA.
    #[error("{}: was not issued by this authority", file.display())]
    OtherAuthority {
        /// The certificate's file.
        file: PathBuf,
    },
    /// A certificate has run out and cannot be renewed.
    #[error("{}: ran out at {ended}: issue a new one with `rc-certs issue`", file.display())]
    Expired {
        /// The certificate's file.
        file: PathBuf,
        /// When, RFC 3339.
        ended: String,
    },
    /// A DNS name is not valid.
    #[error("{name:?} is not a DNS name (labels of a-z, 0-9 and inner '-', no wildcard, no address)")]
    DnsName {
        /// The refused text, shortened.
        name: String,
    },
    /// DNS names are for brokers and the RC server.
    #[error("a certificate of role {role} has no DNS names: only broker and rc-server are dialled by name")]
    DnsNameForRole {
        /// The role.
        role: Role,
    },
    /// Too many DNS names.
    #[error("{count} DNS names; at most {limit} fit in one certificate")]
    TooManyDnsNames {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The life of a leaf is outside its range.
    #[error("a life of {} is outside 5s to 90days", humantime::format_duration(*life))]
    Life {
        /// The life that was asked for.
        life: Duration,
    },
    /// The leaf would outlive the CA.
    #[error(
        "the CA itself ends on {ca_end}, before this certificate would: ask for a shorter life, or make a new CA"
    )]
    OutlivesAuthority {
        /// End of the CA, in RFC 3339.
        ca_end: String,
    },
    /// The system's clock, or a time asked for, cannot stand in a certificate.
    #[error("the time is outside 1970 to 9999: check this machine's clock and the times asked for")]
    Clock,
    /// A key does not belong to its certificate.
    #[error("{}: does not belong to {}: name the pair that was issued together", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate is revoked.
    #[error("the certificate {serial} is revoked and stays so: issue a new one with `rc-certs issue`")]
    Revoked {
        /// Its serial in hexadecimal.
        serial: String,
    },
    /// Nothing was issued that fits.
    #[error("this authority issued nothing that is still valid to {what}")]
    NothingToRevoke {
        /// What was asked for.
        what: String,
    },
    /// No ticket key of that id has its private half here.
    #[error("no ticket key {kid} here: `rc-certs ticket-key --list` shows those that are")]
    NoSuchTicketKey {
        /// The id.
        kid: KeyId,
    },
    /// The authority has no ticket key at all.
    #[error("{}: no ticket key here: make one with `rc-certs ticket-key`", dir.display())]
    NoTicketKey {
        /// The directory.
        dir: PathBuf,
    },
    /// The certificate's key is of a kind that tickets cannot be bound to.
    #[error("{}: its key is neither P-256, P-384 nor Ed25519", file.display())]
    KeyKind {
        /// The certificate's file.
        file: PathBuf,
    },
    /// A ticket's times are not in order.
    #[error("start-by ({}) must be at least 1s and at most exp ({})", humantime::format_duration(*start_by), humantime::format_duration(*life))]
    TicketTimes {
        /// How long a session may be started.
        start_by: Duration,
        /// How long it may run.
        life: Duration,
    },
    /// A ticket permits nothing.
    #[error("a ticket that permits no service is of no use: name at least one")]
    NoPermission,
    /// The ticket cannot be made or read.
    #[error("the ticket: {0}")]
    Ticket(#[from] TicketError),
    /// The set of ticket keys does not hold.
    #[error("the ticket keys: {0}")]
    TicketKeys(#[from] TicketKeysError),
    /// A ticket key cannot be made or read.
    #[error("the ticket key: {0}")]
    TicketSigner(#[from] TicketSignerError),
    /// The certificate library failed.
    #[error("the certificate could not be made: {0}")]
    Generator(String),
}

impl From<rcgen::Error> for CertsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generator(error.to_string())
    }
}

impl CertsError {
    /// Whether what was asked is at fault, rather than this machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::File(FileError::Write { .. })
            | Self::Generator(_)
            | Self::TicketSigner(_)
            | Self::Clock => false,
            Self::File(
                FileError::Read { .. }
                | FileError::NotText { .. }
                | FileError::Exposed { .. }
                | FileError::Exists { .. },
            )
            | Self::Content { .. }
            | Self::NoAuthority { .. }
            | Self::Identity(_)
            | Self::OtherTrustDomain { .. }
            | Self::OtherAuthority { .. }
            | Self::Expired { .. }
            | Self::DnsName { .. }
            | Self::DnsNameForRole { .. }
            | Self::TooManyDnsNames { .. }
            | Self::Life { .. }
            | Self::OutlivesAuthority { .. }
            | Self::KeyMismatch { .. }
            | Self::Revoked { .. }
            | Self::NothingToRevoke { .. }
            | Self::NoSuchTicketKey { .. }
            | Self::NoTicketKey { .. }
            | Self::KeyKind { .. }
            | Self::TicketTimes { .. }
            | Self::NoPermission
            | Self::Ticket(_)
            | Self::TicketKeys(_) => true,
        }
    }
}
