//! What both ends of a wire must agree on: ids, codes, envelopes, messages, frames and limits.
//!
//! Structs once shipped are never edited: a change is a new version of the message, or a tag in its `ext`
//! field. The goldens in `proto/tests/goldens` hold the bytes of each one.

mod authority;
mod codec;
pub mod codes;
mod envelope;
mod ext;
pub mod frame;
mod ids;
pub mod limits;
pub mod message;
pub mod shell;
pub mod version;

pub use authority::{Alpn, MessageKind, Role, may_send};
pub use codec::{DecodeError, EncodeError};
pub use envelope::{Envelope, EnvelopeError, EnvelopeHeader};
pub use ext::Ext;
pub use ids::{
    BrokerId, ChannelId, EndpointId, Epoch, Generation, IdError, Incarnation, InstanceId, JoinSecret, Jti,
    PathId, ServiceName, SessionId, TrustDomain,
};
