//! Why an operation failed, one type per operation; each says what, where and what to do, and whose fault it is.

use std::net::SocketAddr;
use std::time::Duration;

use rc_proto::wire::codes::{Denial, PathFailure};
use rc_proto::wire::{BrokerId, EndpointId, ServiceName};

use crate::failure::FailureKind;
use crate::status::SessionEnd;

/// Why this process cannot start: its own files or settings.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SetupError {
    /// A certificate, key or authority file cannot be used.
    #[error("the credentials cannot be used: {reason}")]
    Credentials {
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// The certificate is of another role.
    #[error(
        "the certificate is of {found}, a {wanted} certificate is needed: issue one with `rc-certs issue`"
    )]
    Role {
        /// The certificate's identity.
        found: String,
        /// The role needed.
        wanted: &'static str,
    },
    /// No service name and no static address is configured.
    #[error("no broker is configured: name at least one service name or static address")]
    NoBrokers,
    /// The DNS resolver cannot be set up.
    #[error("the DNS resolver cannot be set up: {reason}")]
    Resolver {
        /// Why.
        reason: String,
    },
    /// A file of ticket keys cannot be used.
    #[error("the ticket keys in {file} cannot be used: {reason}")]
    TicketKeys {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of revoked tickets cannot be used.
    #[error("the list of revoked tickets in {file} cannot be used: {reason}")]
    DenyList {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error("the state directory {path} cannot be used: {reason}")]
    StateDir {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
}

impl SetupError {
    /// Its exit code's kind: always a matter of configuration.
    pub fn kind(&self) -> FailureKind {
        FailureKind::Configuration
    }
}

/// Why no broker could be pinned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LocateError {
    /// No name resolved and there is no static address and no last-known-good list.
    #[error("no broker address is known: {}", list(.failures))]
    NoAddress {
        /// Each name and why it did not resolve.
        failures: Vec<(String, String)>,
    },
    /// Addresses were found, none of them is a usable broker.
    #[error("no broker of {} is usable: {}", .wanted.join(", "), candidates(.failures))]
    NoBroker {
        /// Where brokers were looked for: service names, and static addresses.
        wanted: Vec<String>,
        /// Each address tried and why it is not usable.
        failures: Vec<CandidateFailure>,
    },
    /// No broker was pinned within the time given, and the first look has not ended.
    #[error(
        "no broker of {} was found within {waited:?}; is the network up, and are the brokers?",
        .wanted.join(", ")
    )]
    Deadline {
        /// Where brokers were looked for: service names, and static addresses.
        wanted: Vec<String>,
        /// How long.
        waited: Duration,
    },
    /// The endpoint is shutting down.
    #[error("this endpoint is shutting down")]
    Stopped,
}

impl LocateError {
    /// The kind of failure: a matter of configuration when brokers answered and refused our own certificate.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoBroker { failures, .. }
                if failures.iter().any(|failure| failure.fault == CandidateFault::RefusedUs) =>
            {
                FailureKind::Configuration
            }
            Self::NoAddress { .. } | Self::NoBroker { .. } | Self::Deadline { .. } => {
                FailureKind::Unreachable
            }
            Self::Stopped => FailureKind::Internal,
        }
    }
}

/// Why one address is not a usable broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateFailure {
    /// Where.
    pub address: SocketAddr,
    /// Whose fault it is.
    pub fault: CandidateFault,
    /// What happened.
    pub reason: String,
}

/// Whose fault it is that an address is not a usable broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateFault {
    /// Nothing there serves us now.
    Unusable,
    /// Whoever is there cannot be trusted.
    Untrusted,
    /// It refused our own certificate.
    RefusedUs,
}

/// Failures that one line tells; of the others it tells how many there are.
const FAILURES_TOLD_MAX: usize = 4;

fn list<P: std::fmt::Display>(failures: &[(P, String)]) -> String {
    let mut lines: Vec<String> =
        failures.iter().take(FAILURES_TOLD_MAX).map(|(place, reason)| placed(place, reason)).collect();
    if failures.len() > FAILURES_TOLD_MAX {
        lines.push(format!("and {} more", failures.len() - FAILURES_TOLD_MAX));
    }
    lines.join("; ")
}

/// Reasons that name their place already are not told it twice.
fn placed(place: &impl std::fmt::Display, reason: &str) -> String {
    let place = place.to_string();
    if reason.contains(&place) { reason.to_owned() } else { format!("{place}: {reason}") }
}

fn candidates(failures: &[CandidateFailure]) -> String {
    if failures.is_empty() {
        return "those that answer take no sessions now (full, draining or about to start): try again later"
            .to_owned();
    }
    let pairs: Vec<_> = failures.iter().map(|failure| (failure.address, failure.reason.clone())).collect();
    list(&pairs)
}

/// Why a path was not opened or joined.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PathError {
    /// The broker cannot be dialled for a leg.
    #[error("broker {broker} cannot be reached for a path: {reason}")]
    Dial {
        /// Which.
        broker: BrokerId,
        /// Each address tried and what it answered.
        reason: String,
    },
    /// The broker answered with a refusal.
    #[error("broker {broker} refused the path to {target}: {code}{}", advice(*.code))]
    Refused {
        /// Which broker.
        broker: BrokerId,
        /// Who was wanted.
        target: EndpointId,
        /// Why.
        code: PathFailure,
        /// With `retry-after`: when to come back.
        retry_after: Duration,
        /// Other brokers to try: id and name.
        alternates: Vec<(BrokerId, String)>,
    },
    /// The leg broke, or carried something else than the protocol says.
    #[error("the leg to broker {broker} failed: {reason}")]
    Leg {
        /// Which.
        broker: BrokerId,
        /// What happened.
        reason: String,
    },
    /// The path was not there in time.
    #[error("no path to {target} through broker {broker} within {waited:?}")]
    Deadline {
        /// Which broker.
        broker: BrokerId,
        /// Who was wanted.
        target: EndpointId,
        /// How long.
        waited: Duration,
    },
}

fn advice(code: PathFailure) -> &'static str {
    match code {
        PathFailure::NOT_FOUND => {
            " (no such target is registered now: is its name right, and is it running?)"
        }
        PathFailure::UNAUTHORIZED => {
            " (the ticket is not valid for this controller and target now: get a fresh one)"
        }
        PathFailure::VERSION => " (no common protocol version: upgrade the older side)",
        PathFailure::BUSY | PathFailure::RETRY_AFTER => " (try again later)",
        _ => "",
    }
}

impl PathError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Dial { .. } | Self::Leg { .. } => FailureKind::Unreachable,
            Self::Deadline { .. } => FailureKind::Deadline,
            Self::Refused { code, .. } => match *code {
                PathFailure::NOT_FOUND | PathFailure::NOT_HERE => FailureKind::NotFound,
                PathFailure::UNAUTHORIZED | PathFailure::VERSION => FailureKind::Refused,
                PathFailure::TIMEOUT => FailureKind::Deadline,
                _ => FailureKind::Unreachable,
            },
        }
    }

    /// Whether another broker, or the same one later, may give another answer to a session that starts now.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Dial { .. } | Self::Leg { .. } => true,
            Self::Deadline { .. } => false,
            Self::Refused { code, .. } => !code.is_final_for_new(),
        }
    }
}

/// Why the two ends of a path did not become a session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttachError {
    /// The end-to-end handshake failed: the peer is not who it must be, or the path broke.
    #[error("the end-to-end handshake with {peer} failed: {reason}")]
    Handshake {
        /// Who was expected.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// The Target refused the ticket or the identity.
    #[error("{target} refused the session: {denial}{}", denial_advice(*.denial, reason))]
    Denied {
        /// Who refused.
        target: EndpointId,
        /// Why.
        denial: Denial,
        /// In the Target's words; may be empty.
        reason: String,
    },
    /// The Target refused for another reason.
    #[error("{target} refused the session: {refusal}")]
    Refused {
        /// Who refused.
        target: EndpointId,
        /// Why.
        refusal: String,
    },
    /// The peer sent something else than the protocol says.
    #[error("{peer} broke the protocol: {reason}")]
    Protocol {
        /// Who.
        peer: String,
        /// What it sent.
        reason: String,
    },
    /// The path ended before the answer came.
    #[error("the path to {peer} ended before its answer: {reason}")]
    PathEnded {
        /// Who was to answer.
        peer: String,
        /// How it ended.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("{peer} did not answer within {waited:?}")]
    Deadline {
        /// Who.
        peer: String,
        /// How long.
        waited: Duration,
    },
}

fn denial_advice(denial: Denial, reason: &str) -> String {
    if !reason.is_empty() {
        return format!(" ({reason})");
    }
    let advice = match denial {
        Denial::TICKET_USED => " (the ticket already started a session: get a fresh one)",
        Denial::TICKET_EXPIRED => " (get a fresh ticket)",
        Denial::CLOCK => " (the ticket is not valid yet: set the clocks of the issuer and the target)",
        Denial::BUSY => " (the target has reached a limit: try again later)",
        Denial::REVOKED => " (ticket or certificate was revoked: ask the issuer)",
        Denial::NOT_PERMITTED => " (the ticket is not for this controller and target, or permits nothing)",
        _ => "",
    };
    advice.to_owned()
}

impl AttachError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Handshake { .. } | Self::Denied { .. } | Self::Refused { .. } => FailureKind::Refused,
            Self::Protocol { .. } => FailureKind::Internal,
            Self::PathEnded { .. } => FailureKind::SessionLost,
            Self::Deadline { .. } => FailureKind::Deadline,
        }
    }
}

/// Why a channel was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The Target offers no such service.
    #[error("the target offers no service {service}")]
    NotOffered {
        /// What was asked for.
        service: ServiceName,
    },
    /// The ticket does not permit the service.
    #[error("the ticket does not permit {service}: get one that does")]
    NotPermitted {
        /// What was asked for.
        service: ServiceName,
    },
    /// The person in front of the Target, or its policy, said no.
    #[error("{service} was refused{}", colon(.reason))]
    Refused {
        /// What was asked for.
        service: ServiceName,
        /// In the words of the one who refused; may be empty.
        reason: String,
    },
    /// The session has as many channels as it may.
    #[error("{service}: the session has as many channels as it may, close one first")]
    TooMany {
        /// What was asked for.
        service: ServiceName,
    },
    /// The service exists and failed to start.
    #[error("{service} failed at the target{}", colon(.reason))]
    ServiceFailed {
        /// What was asked for.
        service: ServiceName,
        /// In the service's words.
        reason: String,
    },
    /// No answer within the time that the caller gave.
    #[error("{service} was not answered within {waited:?}")]
    Deadline {
        /// What was asked for.
        service: ServiceName,
        /// How long.
        waited: Duration,
    },
    /// The session ended before the answer.
    #[error("{service}: {end}")]
    SessionEnded {
        /// What was asked for.
        service: ServiceName,
        /// How it ended.
        end: SessionEnd,
    },
}

fn colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl OpenError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotOffered { .. } => FailureKind::NotFound,
            Self::NotPermitted { .. }
            | Self::Refused { .. }
            | Self::TooMany { .. }
            | Self::ServiceFailed { .. } => FailureKind::Refused,
            Self::Deadline { .. } => FailureKind::Deadline,
            Self::SessionEnded { end, .. } => end.kind(),
        }
    }
}

impl SessionEnd {
    /// The kind of failure that an unwanted end is.
    pub fn kind(&self) -> FailureKind {
        use rc_proto::wire::codes::EndCode;
        match self.code {
            EndCode::DISCONNECTED | EndCode::REVOKED | EndCode::REFUSED | EndCode::TICKET_EXPIRED => {
                FailureKind::Refused
            }
            _ => FailureKind::SessionLost,
        }
    }
}
