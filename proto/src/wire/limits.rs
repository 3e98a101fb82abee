//! Every limit of the wire, in one place. Each has a test at limit − 1, limit and limit + 1.
//!
//! Limits that an operator may change live in each daemon's configuration; these are the protocol's own.

use std::time::Duration;

/// Largest body of a control envelope on an accepted link, in bytes.
pub const ENVELOPE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body before the first Hello, OpenPath, JoinPath or MeshOpen was accepted, in bytes.
pub const ENVELOPE_BODY_BYTES_BEFORE_HELLO_MAX: usize = 4096;
/// Bytes of messages that a peer may send before one of them was accepted; the handshake has a bound of its own.
pub const PRE_AUTH_BYTES_MAX: usize = 8 * 1024;
/// Time a peer has for the TLS handshake and, on a control link, its first envelope together; a proven leg may wait
/// longer for its first.
pub const PRE_AUTH_DEADLINE: Duration = Duration::from_secs(5);
/// Longest text field of a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 255;
/// Longest ticket (compact JWS), in bytes.
pub const TICKET_BYTES_MAX: usize = 2048;
/// End-to-end bytes that the inviting broker holds until the Target's leg joins, per open.
pub const EARLY_BYTES_MAX: usize = 16 * 1024;
/// Brokers named after the ingress in a route.
pub const ROUTE_BROKERS_MAX: usize = 2;
/// Brokers that an OpenPath may ask to avoid.
pub const AVOID_BROKERS_MAX: usize = 4;
/// Longest time that an ingress broker parks an open for an absent Target.
pub const PARK_MAX: Duration = Duration::from_secs(10);
/// Attempts to reach an absent Target that one Controller may have parked at one broker.
pub const PARKED_PER_CONTROLLER_MAX: usize = 4;
/// Opens parked for one Target.
pub const PARKED_PER_TARGET_MAX: usize = 8;
/// Invites that a Target has pending at one broker.
pub const PENDING_JOINS_PER_TARGET_MAX: usize = 8;
/// Registrations that one identity holds at one broker.
pub const REGISTRATIONS_PER_IDENTITY_MAX: usize = 2;
/// Paths of one identity at one broker.
pub const PATHS_PER_IDENTITY_MAX: usize = 64;
/// Paths of one identity that were opened with purpose new.
pub const NEW_PATHS_PER_IDENTITY_MAX: usize = 16;
/// Opens a second that one identity may ask for, after the burst.
pub const OPENS_PER_SECOND_MAX: u32 = 5;
/// Opens that one identity may ask for at once.
pub const OPENS_BURST_MAX: u32 = 20;
/// Alternates that a Welcome, Drain or PathFailed names.
pub const ALTERNATES_MAX: usize = 16;
/// Addresses that a broker tells of itself or of a peer.
pub const ADDRESSES_MAX: usize = 16;
/// Peers in one Peers message.
pub const PEERS_MAX: usize = 256;
/// Entries of one Matrix message.
pub const MATRIX_ENTRIES_MAX: usize = 1024;
/// Scores in a Register or ScoreReport.
pub const SCORES_MAX: usize = 64;

/// Payload of one end-to-end frame, in bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// First end-to-end envelope (ATTACH, ATTACHED, REFUSED), in bytes.
pub const ATTACH_BYTES_MAX: usize = 16 * 1024;
/// Time for the first end-to-end envelope after PathOpened.
pub const ATTACH_DEADLINE: Duration = Duration::from_secs(5);
/// Channels open at once in a session.
pub const CHANNELS_MAX: usize = 64;
/// Credit of a new channel in each direction, in bytes, before any answer.
pub const CHANNEL_INITIAL_CREDIT_BYTES: u64 = 64 * 1024;
/// Channels that one ATTACH or ATTACHED speaks of: the open ones and as many whose reset is not answered yet.
pub const CHANNEL_CLAIMS_MAX: usize = 2 * CHANNELS_MAX;
/// Registrations that one WHERE names.
pub const WHERE_PLACES_MAX: usize = 8;
