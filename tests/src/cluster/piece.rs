//! What travels: steps of handshakes, messages, records of end-to-end TLS, and ends.

use rc_proto::wire::message::Message;

/// What a message costs on the wire, roughly.
const MESSAGE_BYTES: usize = 200;

/// What a record of end-to-end TLS holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordBody {
    ClientHello,
    ServerHello,
    Data(Vec<u8>),
}

/// A record of end-to-end TLS: its keys, its number and whether anybody changed it on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) keys: u64,
    pub(super) number: u64,
    pub(super) body: RecordBody,
    pub(super) is_tampered: bool,
}

impl Record {
    pub(super) fn bytes(&self) -> usize {
        match &self.body {
            RecordBody::ClientHello | RecordBody::ServerHello => 1500,
            RecordBody::Data(bytes) => bytes.len() + 22,
        }
    }
}

/// One piece on its way.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// A step of the TCP and TLS handshakes.
    Step(u8),
    Message(Box<Message>),
    Record(Record),
    Fin,
    Rst,
}

impl Payload {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Step(_) => 800,
            Self::Message(_) => MESSAGE_BYTES,
            Self::Record(record) => record.bytes(),
            Self::Fin | Self::Rst => 40,
        }
    }
}
