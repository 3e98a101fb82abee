//! Messages that open, join and close a path.

use std::net::SocketAddr;

use crate::wire::codec::{Decode, Encode};
use crate::wire::codes::{Lane, PathEnd, PathFailure, Purpose};
use crate::wire::ext::Ext;
use crate::wire::ids::{BrokerId, EndpointId, InstanceId, JoinSecret, PathId};

/// A Controller asks for a path. First frame of a leg.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenPath {
    /// Drawn by the Controller.
    pub path_id: PathId,
    /// Who is wanted.
    pub target: EndpointId,
    /// Compact JWS, at most [`crate::wire::limits::TICKET_BYTES_MAX`].
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
