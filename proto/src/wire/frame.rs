//! Frames inside end-to-end TLS: a fixed 16-byte header, then at most 16 KiB of payload.
//!
//! ```text
//! u8 type | u8 flags | u16 len | u32 channel | u64 offset        (big-endian)
//! ```
//! Bit 7 of the type is *critical*: an unknown critical frame ends its path, any other unknown one is skipped.
//! Payloads that are structs are frozen, as everywhere in [`super`]; the goldens hold their bytes.

mod exchange;

pub use exchange::{Attach, Attached, ChannelClaim, EndToEnd, EndToEndError, Refused};

use super::codec::{self, Decode, DecodeError, Encode, EncodeError};
use super::codes::{AbortCode, Class, EndCode, RegistrationRole, RepathReason, ResetCode};
use super::ext::Ext;
use super::ids::{BrokerId, ChannelId, Epoch, Incarnation, InstanceId, ServiceName};
use super::limits::{FRAME_PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX, WHERE_PLACES_MAX};

/// Bit of a type that says "end the path when you do not know this type".
const CRITICAL_BIT: u8 = 0x80;

/// DATA: the channel's direction ends behind this payload. It takes one position.
pub const FLAG_FIN: u8 = 1;
/// DATA: the payload's last byte ends a message.
pub const FLAG_END_OF_MESSAGE: u8 = 2;
/// RESET: answers one; never itself answered.
pub const FLAG_ANSWER: u8 = 4;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameType {
    /// Opens a channel: [`Open`].
    Open = 1,
    /// The opener's offer was accepted; empty.
    Opened = 2,
    /// Bytes of a channel from `offset` on.
    Data = 3,
    /// `offset` is the next position wanted; the payload is [`AckBody`].
    Ack = 4,
    /// `offset` is the boundary up to which a message channel's bytes will not come.
    Skip = 5,
    /// Aborts both directions, `offset` is the sender's final size: [`Reset`].
    Reset = 6,
    /// Unbinds the path whose epoch is `offset`; empty.
    Retire = 7,
    /// The Target asks for another path: [`Repath`].
    Repath = 8,
    /// Where the Target is registered: [`Where`].
    Where = 9,
    /// An 8-byte nonce.
    Ping = 10,
    /// The nonce of a ping that came on this path.
    Pong = 11,
    /// Ends the session: [`End`].
    End = 12,
    /// Answers END; empty.
    EndAck = 13,
    /// The peer broke a rule; the session cannot go on: [`Abort`].
    Abort = 14,
    /// One whole [`EndToEnd`] envelope.
    Envelope = 15,
}

impl FrameType {
    /// Every type that this version knows.
    pub const ALL: [Self; 15] = [
        Self::Open,
        Self::Opened,
        Self::Data,
        Self::Ack,
        Self::Skip,
        Self::Reset,
        Self::Retire,
        Self::Repath,
        Self::Where,
        Self::Ping,
        Self::Pong,
        Self::End,
        Self::EndAck,
        Self::Abort,
        Self::Envelope,
    ];

    /// The type of a number without its critical bit.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Type number without its critical bit.
    pub kind: u8,
    /// Whether a receiver that does not know the type must end the path.
    pub critical: bool,
    /// `FLAG_*` bits; unknown ones are ignored.
    pub flags: u8,
    /// Payload bytes.
    pub length: u16,
    /// The channel; 0 is the session itself.
    pub channel: ChannelId,
    /// A position of the channel, or what the type says.
    pub offset: u64,
}

impl FrameHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 16;

    /// A header of a known type with no payload.
    pub fn new(kind: FrameType, channel: ChannelId, offset: u64) -> Self {
        Self { kind: kind as u8, critical: false, flags: 0, length: 0, channel, offset }
    }

    /// Reads a header; every bit pattern is one.
    pub fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let [kind, flags, l0, l1, c0, c1, c2, c3, o0, o1, o2, o3, o4, o5, o6, o7] = bytes;
        Self {
            kind: kind & !CRITICAL_BIT,
            critical: kind & CRITICAL_BIT != 0,
            flags,
            length: u16::from_be_bytes([l0, l1]),
            channel: ChannelId(u32::from_be_bytes([c0, c1, c2, c3])),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
        }
    }

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let kind = if self.critical { self.kind | CRITICAL_BIT } else { self.kind };
        let [l0, l1] = self.length.to_be_bytes();
        let [c0, c1, c2, c3] = self.channel.0.to_be_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_be_bytes();
        [kind, self.flags, l0, l1, c0, c1, c2, c3, o0, o1, o2, o3, o4, o5, o6, o7]
    }

    /// Whether the payload is larger than any frame may be.
    pub fn is_oversize(self) -> bool {
        usize::from(self.length) > FRAME_PAYLOAD_BYTES_MAX
    }

    /// The known type, if this version knows it.
    pub fn frame_type(self) -> Option<FrameType> {
        FrameType::from_number(self.kind)
    }
}

/// Payload of ACK: `u64 max`, then optionally `u64 hash`, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckBody {
    /// Highest position that the sender of the ACK lets its peer write up to.
    pub max: u64,
    /// XXH64 over the bytes before `next`; `None` is no claim.
    pub hash: Option<u64>,
}

impl AckBody {
    /// Most bytes of the payload.
    pub const BYTES_MAX: usize = 16;

    /// Reads the payload; anything but 8 or 16 bytes is none.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (max, rest) = payload.split_first_chunk::<8>()?;
        let hash = if rest.is_empty() { None } else { Some(u64::from_be_bytes(rest.try_into().ok()?)) };
        Some(Self { max: u64::from_be_bytes(*max), hash: hash.filter(|claim| *claim != 0) })
    }

    /// Appends the payload.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.max.to_be_bytes());
        if let Some(hash) = self.hash {
            out.extend_from_slice(&hash.to_be_bytes());
        }
    }
}

/// Options of a channel, fixed when it is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct OpenOptions {
    /// The channel carries messages, and those older than this many ms are skipped when it changes its path.
    pub may_skip_ms: Option<u32>,
}

/// Payload of OPEN.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    /// What is wanted.
    pub service: ServiceName,
    /// The channel's priority in both directions.
    pub class: Class,
    /// Its options.
    pub options: OpenOptions,
    /// Later additions.
    pub ext: Ext,
}

/// Payload of RESET.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reset {
    /// Why.
    pub code: ResetCode,
    /// The same for people, at most 255 bytes.
    pub reason: String,
    /// Later additions.
    pub ext: Ext,
}

/// Payload of REPATH.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Repath {
    /// Why.
    pub reason: RepathReason,
    /// The path that it is about; 0 is none in particular.
    pub epoch: Epoch,
    /// Later additions.
    pub ext: Ext,
}

/// Payload of WHERE.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Where {
    /// The Target's instance.
    pub instance: InstanceId,
    /// Its registrations, at most [`WHERE_PLACES_MAX`].
    pub places: Vec<(BrokerId, Incarnation, RegistrationRole)>,
    /// Later additions.
    pub ext: Ext,
}

/// Payload of END.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// Why.
    pub code: EndCode,
    /// The same for people, at most 255 bytes.
    pub reason: String,
    /// Later additions.
    pub ext: Ext,
}

/// Payload of ABORT.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Abort {
    /// Which rule was broken.
    pub code: AbortCode,
    /// The same for people, at most 255 bytes.
    pub reason: String,
    /// Later additions.
    pub ext: Ext,
}

/// Why a frame's payload is not the struct of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The bytes are not the struct.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A field is outside its range.
    #[error("{field} is outside its range")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// An extension that must be understood is not.
    #[error("extension {tag} is unknown and critical")]
    UnknownExtension {
        /// Its tag.
        tag: u16,
    },
}

/// Gives a frozen payload struct its `encode` and `decode`.
macro_rules! frame_body {
    ($name:ident, $check:expr) => {
        impl $name {
            /// The payload's bytes.
            ///
            /// # Errors
            /// When a field is outside its range or the payload is larger than a frame may carry.
            pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
                let check: fn(&Self) -> Result<(), &'static str> = $check;
                check(self).map_err(|field| EncodeError::Unrepresentable {
                    reason: format!("{field} is outside its range"),
                })?;
                let bytes = codec::encode(self)?;
                if bytes.len() > FRAME_PAYLOAD_BYTES_MAX {
                    return Err(EncodeError::TooLarge {
                        length: bytes.len(),
                        limit: FRAME_PAYLOAD_BYTES_MAX,
                    });
                }
                Ok(bytes)
            }

            /// Reads a payload that is exactly this struct.
            ///
            /// # Errors
            /// When the bytes are not the struct, a field is outside its range, or an extension is critical.
            pub fn decode(payload: &[u8]) -> Result<Self, BodyError> {
                let check: fn(&Self) -> Result<(), &'static str> = $check;
                let body: Self = codec::decode(payload)?;
                check(&body).map_err(|field| BodyError::Field { field })?;
                match body.ext.unknown_critical(&[]) {
                    Some(tag) => Err(BodyError::UnknownExtension { tag }),
                    None => Ok(body),
                }
            }
        }
    };
}

frame_body!(Open, |_| Ok(()));
frame_body!(Reset, |body| check_text(&body.reason));
frame_body!(Repath, |_| Ok(()));
frame_body!(Where, |body| if body.places.len() > WHERE_PLACES_MAX { Err("places") } else { Ok(()) });
frame_body!(End, |body| check_text(&body.reason));
frame_body!(Abort, |body| check_text(&body.reason));

fn check_text(reason: &str) -> Result<(), &'static str> {
    if reason.len() > TEXT_BYTES_MAX { Err("reason") } else { Ok(()) }
}
