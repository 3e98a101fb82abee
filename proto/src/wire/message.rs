//! The control messages, one frozen struct per (type, version). All are version 1.
//!
//! Units are in the field names' docs: round trips are u32 µs, other spans u32 ms, wall times u64 unix ms, load
//! u16 per mille. Deadlines are milliseconds that remain, reduced at each hop.

use std::net::SocketAddr;

use super::authority::MessageKind;
use super::codec::{self, Decode, DecodeError, Encode, EncodeError};
use super::codes::{Lane, PathEnd, PathFailure, Purpose, RegistrationRole};
use super::envelope::Envelope;
use super::ext::Ext;
use super::ids::{BrokerId, EndpointId, Generation, Incarnation, InstanceId, JoinSecret, PathId};
use super::limits;

/// First message of a link, from whoever dialled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Lowest and highest protocol version that the sender speaks.
    pub versions: (u16, u16),
    /// Feature bits that the sender offers.
    pub features: u64,
    /// On mesh links the sender's own incarnation; 0 from endpoints.
    pub incarnation: Incarnation,
    /// On mesh links the name that others dial; empty from endpoints.
    pub name: String,
    /// On mesh links the addresses that others dial.
    pub addresses: Vec<SocketAddr>,
    /// Later additions.
    pub ext: Ext,
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version in force on this link and its legs.
    pub version: u16,
    /// The feature bits in force: those both offered.
    pub features: u64,
    /// Who answers; the certificate must say the same.
    pub broker: BrokerId,
    /// The broker's current incarnation.
    pub incarnation: Incarnation,
    /// The broker's own DNS name and port, as others dial it.
    pub name: String,
    /// The broker's own addresses.
    pub addresses: Vec<SocketAddr>,
    /// Load per mille.
    pub load: u16,
    /// How often the endpoint should send a Ping on this link, in ms.
    pub keep_alive_ms: u32,
    /// Over how long idle endpoints spread their return after this broker is lost, in ms.
    pub reconnect_spread_ms: u32,
    /// Brokers to use when this one fails: id and name.
    pub alternates: Vec<(BrokerId, String)>,
    /// Later additions.
    pub ext: Ext,
}

/// A probe and keep-alive.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// Returned unchanged.
    pub nonce: u64,
    /// Later additions.
    pub ext: Ext,
}

/// Answer to [`Ping`]: the broker's state as its data path sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// The ping's nonce.
    pub nonce: u64,
    /// Who answers.
    pub broker: BrokerId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Load per mille.
    pub load: u16,
    /// Paths open now.
    pub paths: u32,
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// When draining: ms until it stops.
    pub drain_deadline_ms: Option<u32>,
    /// Whether it sees more than half of the mesh.
    pub mesh_healthy: bool,
    /// Later additions.
    pub ext: Ext,
}

/// A Target says that it can be reached here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// This run of the process.
    pub instance: InstanceId,
    /// When this run started, unix ms.
    pub instance_started_ms: u64,
    /// Counts this instance's registrations.
    pub generation: Generation,
    /// What the registration is for.
    pub role: RegistrationRole,
    /// What the Target measured: broker and score in ms, at most [`limits::SCORES_MAX`].
    pub scores: Vec<(BrokerId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// The registration stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Registered {
    /// Of the registration that stands.
    pub generation: Generation,
    /// Its role.
    pub role: RegistrationRole,
    /// Later additions.
    pub ext: Ext,
}

/// Another instance of the same identity, started later, has taken the registration.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Superseded {
    /// The instance that won.
    pub by: InstanceId,
    /// Wait at least this long before registering again, in ms.
    pub back_off_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// Not now: come back after the time given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetryAfter {
    /// The sender's slot, in ms from now.
    pub after_ms: u32,
    /// Other brokers to try.
    pub alternates: Vec<(BrokerId, String)>,
    /// Later additions.
    pub ext: Ext,
}

/// The Target can no longer be reached here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Unregister {
    /// The instance whose registration ends.
    pub instance: InstanceId,
    /// Its generation.
    pub generation: Generation,
    /// Later additions.
    pub ext: Ext,
}

/// A Controller asks for a path. First frame of a leg.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenPath {
    /// Drawn by the Controller.
    pub path_id: PathId,
    /// Who is wanted.
    pub target: EndpointId,
    /// Compact JWS, at most [`limits::TICKET_BYTES_MAX`].
    pub ticket: String,
    /// What the path is for.
    pub purpose: Purpose,
    /// The kind of path.
    pub lane: Lane,
    /// The one instance that is wanted, for a resume.
    pub instance: Option<InstanceId>,
    /// Brokers after the ingress, the Target's last, at most two; empty means locate.
    pub route: Vec<BrokerId>,
    /// Brokers not to use, at most four.
    pub avoid: Vec<BrokerId>,
    /// Time left, in ms.
    pub deadline_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// The same along the route. First frame of a leg between brokers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MeshOpen {
    /// The ingress broker.
    pub origin: BrokerId,
    /// The Controller, as the ingress broker's handshake proved it.
    pub controller: EndpointId,
    /// Issuer, serial and key hash of the Controller's certificate, so that every hop can judge revocation.
    pub controller_certificate: CertificateRef,
    /// The request; each hop takes itself off the front of `route`.
    pub open: OpenPath,
    /// Later additions.
    pub ext: Ext,
}

/// Names one certificate without carrying it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CertificateRef {
    /// SHA-256 of the issuer's distinguished name (DER).
    pub issuer_sha256: [u8; 32],
    /// Serial number, big-endian, at most 20 bytes.
    pub serial: Vec<u8>,
    /// SHA-256 of the subject public key info (DER).
    pub key_sha256: [u8; 32],
    /// End of validity, unix ms.
    pub not_after_ms: u64,
    /// RFC 7638 thumbprint of the public key, SHA-256: what a ticket's `cnf.jkt` is compared with.
    pub key_thumbprint: [u8; 32],
}

/// A broker tells a registered Target that a Controller waits.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Invite {
    /// The path to join.
    pub path_id: PathId,
    /// Proves that the joining leg was invited; single use.
    pub join_secret: JoinSecret,
    /// Who asks, as the ingress broker proved it; the end-to-end handshake proves it again.
    pub controller: EndpointId,
    /// The kind of path.
    pub lane: Lane,
    /// Time left to join, in ms.
    pub deadline_ms: u32,
    /// Where the leg must go.
    pub broker: BrokerId,
    /// That broker's own name.
    pub name: String,
    /// That broker's addresses.
    pub addresses: Vec<SocketAddr>,
    /// Later additions.
    pub ext: Ext,
}

/// A Target's leg for an invite. First frame of a leg.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinPath {
    /// From the invite.
    pub path_id: PathId,
    /// From the invite.
    pub join_secret: JoinSecret,
    /// Later additions.
    pub ext: Ext,
}

/// The path is there; all bytes after it are raw.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PathOpened {
    /// The path.
    pub path_id: PathId,
    /// From the ingress on: each broker and its round trip to the next in µs (the last: to the Target, 0 when it
    /// is not known).
    pub hops: Vec<(BrokerId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// The path is refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PathFailed {
    /// The path.
    pub path_id: PathId,
    /// Why.
    pub code: PathFailure,
    /// With [`PathFailure::RETRY_AFTER`]: the slot, in ms from now.
    pub retry_after_ms: u32,
    /// Other brokers to try.
    pub alternates: Vec<(BrokerId, String)>,
    /// Later additions.
    pub ext: Ext,
}

/// An endpoint is done with a path. Advisory, on control links.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClosePath {
    /// The path.
    pub path_id: PathId,
    /// Why.
    pub reason: PathEnd,
    /// Later additions.
    pub ext: Ext,
}

/// A broker says that a path has ended. Advisory, on control links.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PathClosed {
    /// The path.
    pub path_id: PathId,
    /// Why.
    pub reason: PathEnd,
    /// Later additions.
    pub ext: Ext,
}

/// A broker asks a peer whether it holds a Target.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Locate {
    /// The asker's number for this question.
    pub query: u64,
    /// Who is wanted.
    pub target: EndpointId,
    /// The one instance that is wanted.
    pub instance: Option<InstanceId>,
    /// Keep the question open this long, and answer when the Target registers, in ms.
    pub watch_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// The Target is registered here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Here {
    /// The question.
    pub query: u64,
    /// The instance found.
    pub instance: InstanceId,
    /// Role of its registration.
    pub role: RegistrationRole,
    /// Round trip from this broker to the Target, in µs.
    pub cost_us: u32,
    /// Later additions.
    pub ext: Ext,
}

/// The Target is not registered here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NotHere {
    /// The question.
    pub query: u64,
    /// Later additions.
    pub ext: Ext,
}

/// A registration came or went at the sender.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Announce {
    /// Incarnation of the sender.
    pub incarnation: Incarnation,
    /// Whose registration.
    pub target: EndpointId,
    /// Its instance.
    pub instance: InstanceId,
    /// When the instance started, unix ms.
    pub instance_started_ms: u64,
    /// Its generation.
    pub generation: Generation,
    /// Its role.
    pub role: RegistrationRole,
    /// False when the registration ended; removal compares incarnation, instance and generation.
    pub present: bool,
    /// Later additions.
    pub ext: Ext,
}

/// One member of the mesh, as the sender knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PeerEntry {
    /// The broker.
    pub broker: BrokerId,
    /// Its own name.
    pub name: String,
    /// Its addresses; hints only.
    pub addresses: Vec<SocketAddr>,
    /// Its incarnation as last seen.
    pub incarnation: Incarnation,
    /// Ms since the sender was last linked to it.
    pub age_ms: u32,
}

/// The members that the sender knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Peers {
    /// At most [`limits::PEERS_MAX`].
    pub peers: Vec<PeerEntry>,
    /// Later additions.
    pub ext: Ext,
}

/// The round trips that the sender measured to its peers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Matrix {
    /// Peer and round trip in µs, at most [`limits::MATRIX_ENTRIES_MAX`].
    pub round_trips: Vec<(BrokerId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// Part of a CA-signed certificate revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Crl {
    /// SHA-256 of the issuer's distinguished name (DER).
    pub issuer_sha256: [u8; 32],
    /// CRL number; the highest verified one wins.
    pub number: u64,
    /// Which part this is, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// This part of the DER.
    pub der: Vec<u8>,
    /// Later additions.
    pub ext: Ext,
}

/// Part of a signed list of revoked tickets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Deny {
    /// The key that signed it.
    pub kid: String,
    /// List number; the highest verified one wins.
    pub number: u64,
    /// Which part this is, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// This part of the compact JWS.
    pub jws: String,
    /// Later additions.
    pub ext: Ext,
}

/// The sender is about to stop.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// Ms until it stops.
    pub deadline_ms: u32,
    /// Where to go.
    pub alternates: Vec<(BrokerId, String)>,
    /// Each of the receiver's paths and its slot for moving, in ms from now.
    pub slots: Vec<(PathId, u32)>,
    /// Later additions.
    pub ext: Ext,
}

/// What an endpoint measured, for the traffic manager's latency table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ScoreReport {
    /// Broker and score in ms, at most [`limits::SCORES_MAX`].
    pub scores: Vec<(BrokerId, u32)>,
    /// Age of the measurement, in ms.
    pub age_ms: u32,
    /// Later additions.
    pub ext: Ext,
}

/// Why an envelope is not a message that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A type that this version does not know, marked critical.
    #[error("message type {kind} is unknown and critical")]
    UnknownCritical {
        /// The type.
        kind: u16,
    },
    /// A version of a known type that this version does not know.
    #[error("{kind:?} has version {version}, this side knows version 1")]
    UnknownVersion {
        /// The type.
        kind: MessageKind,
        /// The version found.
        version: u16,
    },
    /// The body is not the struct.
    #[error("{kind:?}: {source}")]
    Body {
        /// The type.
        kind: MessageKind,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A field is outside its range.
    #[error("{kind:?}: {field} is outside its range")]
    Field {
        /// The type.
        kind: MessageKind,
        /// The field.
        field: &'static str,
    },
    /// An extension that must be understood is not.
    #[error("{kind:?}: extension {tag} is unknown and critical")]
    UnknownExtension {
        /// The type.
        kind: MessageKind,
        /// The extension's tag.
        tag: u16,
    },
}

/// Declares [`Message`] and its codec from the list of kinds.
macro_rules! messages {
    ($( $name:ident ),+ $(,)?) => {
        /// A control message.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant wraps the documented struct of its name")]
        pub enum Message { $( $name($name) ),+ }

        $( impl From<$name> for Message {
            fn from(message: $name) -> Self { Self::$name(message) }
        } )+

        impl Message {
            /// The message's kind.
            pub fn kind(&self) -> MessageKind {
                match self { $( Self::$name(_) => MessageKind::$name ),+ }
            }

            fn ext(&self) -> &Ext {
                match self { $( Self::$name(message) => &message.ext ),+ }
            }

            fn encode_body(&self) -> Result<Vec<u8>, EncodeError> {
                match self { $( Self::$name(message) => codec::encode(message) ),+ }
            }

            fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Self, DecodeError> {
                match kind { $( MessageKind::$name => codec::decode(body).map(Self::$name) ),+ }
            }
        }
    };
}

messages!(
    Hello, Welcome, Ping, Pong, Register, Registered, Superseded, RetryAfter, Unregister, OpenPath, MeshOpen,
    Invite, JoinPath, PathOpened, PathFailed, ClosePath, PathClosed, Locate, Here, NotHere, Announce, Peers, Matrix,
    Crl, Deny, Drain, ScoreReport,
);

/// Version of every struct in this module.
const STRUCT_VERSION: u16 = 1;

impl Message {
    /// The envelope of this message.
    ///
    /// # Errors
    /// When the body exceeds [`limits::ENVELOPE_BODY_BYTES_MAX`] or a text field its 255 bytes.
    pub fn to_envelope(&self) -> Result<Envelope, EncodeError> {
        if let Err(field) = self.check_ranges() {
            return Err(EncodeError::Unrepresentable { reason: format!("{field} is outside its range") });
        }
        let body = self.encode_body()?;
        if body.len() > limits::ENVELOPE_BODY_BYTES_MAX {
            return Err(EncodeError::TooLarge { length: body.len(), limit: limits::ENVELOPE_BODY_BYTES_MAX });
        }
        Ok(Envelope { kind: self.kind().number(), critical: true, version: STRUCT_VERSION, body })
    }

    /// Header and body in one buffer.
    ///
    /// # Errors
    /// As [`Self::to_envelope`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        self.to_envelope().map(|envelope| envelope.to_bytes())
    }

    /// Reads an envelope; `None` is a type of a later version that may be skipped.
    ///
    /// # Errors
    /// When the type or an extension is critical and unknown, or the body is not the struct or breaks a range.
    pub fn from_envelope(envelope: &Envelope) -> Result<Option<Self>, MessageError> {
        let Some(kind) = MessageKind::from_number(envelope.kind) else {
            if envelope.critical {
                return Err(MessageError::UnknownCritical { kind: envelope.kind });
            }
            return Ok(None);
        };
        if envelope.version != STRUCT_VERSION {
            if envelope.critical {
                return Err(MessageError::UnknownVersion { kind, version: envelope.version });
            }
            return Ok(None);
        }
        let message = Self::decode_body(kind, &envelope.body)
            .map_err(|source| MessageError::Body { kind, source })?;
        message.check_ranges().map_err(|field| MessageError::Field { kind, field })?;
        match message.ext().unknown_critical(&[]) {
            Some(tag) => Err(MessageError::UnknownExtension { kind, tag }),
            None => Ok(Some(message)),
        }
    }

    /// Holds every list and text to its limit; names the first field that breaks it.
    fn check_ranges(&self) -> Result<(), &'static str> {
        match self {
            Self::Hello(m) => check_name_and_addresses(&m.name, &m.addresses),
            Self::Welcome(m) => {
                check_name_and_addresses(&m.name, &m.addresses)?;
                check_alternates(&m.alternates)
            }
            Self::Register(m) => at_most(&m.scores, limits::SCORES_MAX, "scores"),
            Self::ScoreReport(m) => at_most(&m.scores, limits::SCORES_MAX, "scores"),
            Self::RetryAfter(m) => check_alternates(&m.alternates),
            Self::Drain(m) => check_alternates(&m.alternates),
            Self::PathFailed(m) => check_alternates(&m.alternates),
            Self::OpenPath(m) => check_open(m),
            Self::MeshOpen(m) => {
                if m.controller_certificate.serial.len() > 20 {
                    return Err("serial");
                }
                check_open(&m.open)
            }
            Self::Invite(m) => check_name_and_addresses(&m.name, &m.addresses),
            Self::PathOpened(m) => at_most(&m.hops, limits::ROUTE_BROKERS_MAX + 1, "hops"),
            Self::Peers(m) => {
                at_most(&m.peers, limits::PEERS_MAX, "peers")?;
                m.peers.iter().try_for_each(|peer| check_name_and_addresses(&peer.name, &peer.addresses))
            }
            Self::Matrix(m) => at_most(&m.round_trips, limits::MATRIX_ENTRIES_MAX, "round_trips"),
            Self::Deny(m) => {
                if m.kid.len() > limits::TEXT_BYTES_MAX {
                    return Err("kid");
                }
                check_part(m.part, m.parts)
            }
            Self::Crl(m) => check_part(m.part, m.parts),
            Self::Ping(_)
            | Self::Pong(_)
            | Self::Registered(_)
            | Self::Superseded(_)
            | Self::Unregister(_)
            | Self::JoinPath(_)
            | Self::ClosePath(_)
            | Self::PathClosed(_)
            | Self::Locate(_)
            | Self::Here(_)
            | Self::NotHere(_)
            | Self::Announce(_) => Ok(()),
        }
    }
}

fn at_most<T>(list: &[T], limit: usize, field: &'static str) -> Result<(), &'static str> {
    if list.len() > limit { Err(field) } else { Ok(()) }
}

fn check_name_and_addresses(name: &str, addresses: &[SocketAddr]) -> Result<(), &'static str> {
    if name.len() > limits::TEXT_BYTES_MAX {
        return Err("name");
    }
    at_most(addresses, limits::ADDRESSES_MAX, "addresses")
}

fn check_alternates(alternates: &[(BrokerId, String)]) -> Result<(), &'static str> {
    at_most(alternates, limits::ALTERNATES_MAX, "alternates")?;
    if alternates.iter().any(|(_, name)| name.len() > limits::TEXT_BYTES_MAX) {
        return Err("alternates");
    }
    Ok(())
}

fn check_open(open: &OpenPath) -> Result<(), &'static str> {
    at_most(open.ticket.as_bytes(), limits::TICKET_BYTES_MAX, "ticket")?;
    at_most(&open.route, limits::ROUTE_BROKERS_MAX, "route")?;
    at_most(&open.avoid, limits::AVOID_BROKERS_MAX, "avoid")
}

fn check_part(part: u16, parts: u16) -> Result<(), &'static str> {
    if part < parts { Ok(()) } else { Err("part") }
}
