//! The envelopes that bind a path to a session: ATTACH, ATTACHED and REFUSED.

use crate::wire::codec::{self, Decode, DecodeError, Encode, EncodeError};
use crate::wire::codes::{AttachKind, Denial, EndCode, Lane, Refusal};
use crate::wire::envelope::Envelope;
use crate::wire::ext::Ext;
use crate::wire::ids::{ChannelId, Epoch, InstanceId, SessionId};
use crate::wire::limits::{ATTACH_BYTES_MAX, CHANNEL_CLAIMS_MAX, TEXT_BYTES_MAX, TICKET_BYTES_MAX};

/// What one side knows of a channel when a path is attached: the content of an ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ChannelClaim {
    /// The channel.
    pub channel: ChannelId,
    /// Next position that the sender of the claim wants.
    pub next: u64,
    /// Highest position that it lets its peer write up to.
    pub max: u64,
    /// XXH64 over the bytes before `next`; 0 is no claim.
    pub hash: u64,
}

/// The Controller binds this path to a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attach {
    /// Drawn by the Controller.
    pub session: SessionId,
    /// Fences older paths; 0 for standby.
    pub epoch: Epoch,
    /// What is asked for.
    pub kind: AttachKind,
    /// The kind of this path.
    pub lane: Lane,
    /// The Controller's own instance.
    pub instance: InstanceId,
    /// A ticket that is valid now, compact JWS.
    pub ticket: String,
    /// Every channel that is not closed, ids ascending.
    pub channels: Vec<ChannelClaim>,
    /// Feature bits that the Controller offers end to end.
    pub features: u64,
    /// Later additions.
    pub ext: Ext,
}

/// The Target took the path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attached {
    /// The epoch of the ATTACH that this answers.
    pub epoch: Epoch,
    /// The Target's instance; the Controller pins it.
    pub instance: InstanceId,
    /// Every channel that is not closed, ids ascending.
    pub channels: Vec<ChannelClaim>,
    /// How long the Target keeps the session without a path, in ms.
    pub resume_window_ms: u32,
    /// Feature bits in force end to end.
    pub features: u64,
    /// Later additions.
    pub ext: Ext,
}

/// The Target did not take the path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refused {
    /// Why.
    pub code: Refusal,
    /// With a stale epoch the highest epoch seen, else 0.
    pub highest: Epoch,
    /// With Ended how the session ended.
    pub ended: Option<EndCode>,
    /// With Denied what failed.
    pub denial: Option<Denial>,
    /// The same for people, at most 255 bytes.
    pub reason: String,
    /// The Target's instance.
    pub instance: InstanceId,
    /// Later additions.
    pub ext: Ext,
}

impl Refused {
    /// A refusal that carries nothing but its code.
    pub fn new(code: Refusal, instance: InstanceId) -> Self {
        let highest = Epoch(0);
        Self { code, highest, ended: None, denial: None, reason: String::new(), instance, ext: Ext::none() }
    }

    /// Another ATTACH with a higher epoch was accepted before.
    pub fn stale_epoch(highest: Epoch, instance: InstanceId) -> Self {
        Self { highest, ..Self::new(Refusal::STALE_EPOCH, instance) }
    }

    /// The session has ended.
    pub fn ended(code: EndCode, instance: InstanceId) -> Self {
        Self { ended: Some(code), ..Self::new(Refusal::ENDED, instance) }
    }

    /// Authorisation failed.
    pub fn denied(denial: Denial, instance: InstanceId) -> Self {
        Self { denial: Some(denial), ..Self::new(Refusal::DENIED, instance) }
    }
}

/// An envelope that travels inside end-to-end TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndToEnd {
    /// Type 64.
    Attach(Attach),
    /// Type 65.
    Attached(Attached),
    /// Type 66.
    Refused(Refused),
}

/// Why an envelope is not one that this version reads end to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndToEndError {
    /// A type or version that this version does not know, marked critical.
    #[error("end-to-end envelope type {kind} version {version} is unknown and critical")]
    Unknown {
        /// The type.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// The body is not the struct.
    #[error("end-to-end envelope type {kind}: {source}")]
    Body {
        /// The type.
        kind: u16,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A field is outside its range.
    #[error("end-to-end envelope type {kind}: {field} is outside its range")]
    Field {
        /// The type.
        kind: u16,
        /// The field.
        field: &'static str,
    },
    /// An extension that must be understood is not.
    #[error("end-to-end envelope type {kind}: extension {tag} is unknown and critical")]
    UnknownExtension {
        /// The type.
        kind: u16,
        /// Its tag.
        tag: u16,
    },
}

const ATTACH: u16 = 64;
const ATTACHED: u16 = 65;
const REFUSED: u16 = 66;

/// Version of every struct in this module.
const STRUCT_VERSION: u16 = 1;

impl EndToEnd {
    /// The envelope's type number.
    pub fn number(&self) -> u16 {
        match self {
            Self::Attach(_) => ATTACH,
            Self::Attached(_) => ATTACHED,
            Self::Refused(_) => REFUSED,
        }
    }

    /// Header and body in one buffer.
    ///
    /// # Errors
    /// When a field is outside its range or the whole exceeds [`ATTACH_BYTES_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        self.check_ranges().map_err(|field| EncodeError::Unrepresentable {
            reason: format!("{field} is outside its range"),
        })?;
        let body = match self {
            Self::Attach(message) => codec::encode(message),
            Self::Attached(message) => codec::encode(message),
            Self::Refused(message) => codec::encode(message),
        }?;
        let bytes =
            Envelope { kind: self.number(), critical: true, version: STRUCT_VERSION, body }.to_bytes();
        if bytes.len() > ATTACH_BYTES_MAX {
            return Err(EncodeError::TooLarge { length: bytes.len(), limit: ATTACH_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Reads an envelope; `None` is a type of a later version that may be skipped.
    ///
    /// # Errors
    /// When the type or an extension is critical and unknown, or the body is not the struct or breaks a range.
    pub fn from_envelope(envelope: &Envelope) -> Result<Option<Self>, EndToEndError> {
        let kind = envelope.kind;
        let known = matches!(kind, ATTACH | ATTACHED | REFUSED) && envelope.version == STRUCT_VERSION;
        if !known {
            if envelope.critical {
                return Err(EndToEndError::Unknown { kind, version: envelope.version });
            }
            return Ok(None);
        }
        let message = match kind {
            ATTACH => codec::decode(&envelope.body).map(Self::Attach),
            ATTACHED => codec::decode(&envelope.body).map(Self::Attached),
            _ => codec::decode(&envelope.body).map(Self::Refused),
        }
        .map_err(|source| EndToEndError::Body { kind, source })?;
        message.check_ranges().map_err(|field| EndToEndError::Field { kind, field })?;
        match message.ext().unknown_critical(&[]) {
            Some(tag) => Err(EndToEndError::UnknownExtension { kind, tag }),
            None => Ok(Some(message)),
        }
    }

    fn ext(&self) -> &Ext {
        match self {
            Self::Attach(message) => &message.ext,
            Self::Attached(message) => &message.ext,
            Self::Refused(message) => &message.ext,
        }
    }

    fn check_ranges(&self) -> Result<(), &'static str> {
        match self {
            Self::Attach(message) => {
                if message.ticket.len() > TICKET_BYTES_MAX {
                    return Err("ticket");
                }
                check_claims(&message.channels)
            }
            Self::Attached(message) => check_claims(&message.channels),
            Self::Refused(message) if message.reason.len() > TEXT_BYTES_MAX => Err("reason"),
            Self::Refused(_) => Ok(()),
        }
    }
}

/// At most [`CHANNEL_CLAIMS_MAX`], ids ascending, none of the session itself.
fn check_claims(claims: &[ChannelClaim]) -> Result<(), &'static str> {
    let ascending =
        claims.iter().zip(claims.iter().skip(1)).all(|(left, right)| left.channel < right.channel);
    let first_is_channel = claims.first().is_none_or(|claim| claim.channel != ChannelId(0));
    if claims.len() > CHANNEL_CLAIMS_MAX || !ascending || !first_is_channel {
        Err("channels")
    } else {
        Ok(())
    }
}
