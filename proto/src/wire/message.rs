//! The control messages, one frozen struct per (type, version). All are version 1.
//!
//! Units are in the field names' docs: round trips are u32 µs, other spans u32 ms, wall times u64 unix ms, load
//! u16 per mille. Deadlines are milliseconds that remain, reduced at each hop.

mod link;
mod mesh;
mod path;
mod ranges;

use super::authority::MessageKind;
use super::codec::{self, DecodeError, EncodeError};
use super::envelope::Envelope;
use super::ext::Ext;
use super::limits;

pub use link::{
    Drain, Hello, Ping, Pong, Register, Registered, RetryAfter, ScoreReport, Superseded, Unregister, Welcome,
};
pub use mesh::{Announce, Crl, Deny, Here, Locate, Matrix, NotHere, PeerEntry, Peers, Place};
pub use path::{
    CertificateRef, ClosePath, Invite, JoinPath, MeshOpen, OpenPath, PathClosed, PathFailed, PathOpened,
};

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
    Hello,
    Welcome,
    Ping,
    Pong,
    Register,
    Registered,
    Superseded,
    RetryAfter,
    Unregister,
    OpenPath,
    MeshOpen,
    Invite,
    JoinPath,
    PathOpened,
    PathFailed,
    ClosePath,
    PathClosed,
    Locate,
    Here,
    NotHere,
    Announce,
    Peers,
    Matrix,
    Crl,
    Deny,
    Drain,
    ScoreReport,
);

/// Version of every struct in this module.
const STRUCT_VERSION: u16 = 1;

impl Message {
    /// The first extension that must be understood and is not; none is known to version 1.
    fn unknown_critical_extension(&self) -> Option<u16> {
        let inner =
            if let Self::MeshOpen(message) = self { message.open.ext.unknown_critical(&[]) } else { None };
        self.ext().unknown_critical(&[]).or(inner)
    }

    /// The envelope of this message.
    ///
    /// # Errors
    /// When the body exceeds [`limits::ENVELOPE_BODY_BYTES_MAX`] or a text field its 255 bytes.
    pub fn to_envelope(&self) -> Result<Envelope, EncodeError> {
        if let Err(field) = ranges::check(self) {
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
        let message =
            Self::decode_body(kind, &envelope.body).map_err(|source| MessageError::Body { kind, source })?;
        ranges::check(&message).map_err(|field| MessageError::Field { kind, field })?;
        match message.unknown_critical_extension() {
            Some(tag) => Err(MessageError::UnknownExtension { kind, tag }),
            None => Ok(Some(message)),
        }
    }
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
