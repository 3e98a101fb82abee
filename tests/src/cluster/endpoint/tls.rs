//! End-to-end TLS as a model: whoever changed, repeated, left out or moved a record is noticed at once.

use crate::cluster::net::{Record, RecordBody};

/// One end of one path's TLS.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Tls {
    keys: u64,
    is_client: bool,
    sent: u64,
    received: u64,
    is_up: bool,
}

/// Keys differ by direction: what comes back to its sender is no record of the other end.
const OTHER_WAY: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// Why a path is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) struct BadRecord;

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Said {
    /// The Controller starts the handshake.
    Hello,
    /// The Target has answered: the handshake is done.
    Up,
    /// Bytes of the session.
    Bytes(Vec<u8>),
}

impl Tls {
    /// The Controller's end, with keys that nobody else draws.
    pub(in crate::cluster) fn client(keys: u64) -> Self {
        Self { keys, is_client: true, ..Self::default() }
    }

    /// The next record to send.
    pub(in crate::cluster) fn seal(&mut self, body: RecordBody) -> Record {
        self.is_up |= body == RecordBody::ServerHello;
        let number = self.sent;
        self.sent += 1;
        let keys = if self.is_client { self.keys } else { self.keys ^ OTHER_WAY };
        Record { keys, number, body, is_tampered: false }
    }

    /// Opens the next record.
    pub(in crate::cluster) fn open(&mut self, record: Record) -> Result<Said, BadRecord> {
        if !self.is_client && self.keys == 0 && record.body == RecordBody::ClientHello {
            self.keys = record.keys;
        }
        let keys = if self.is_client { self.keys ^ OTHER_WAY } else { self.keys };
        if record.is_tampered || record.keys != keys || record.number != self.received {
            return Err(BadRecord);
        }
        self.received += 1;
        match record.body {
            RecordBody::ClientHello if self.sent == 0 => Ok(Said::Hello),
            RecordBody::ServerHello if !self.is_up => {
                self.is_up = true;
                Ok(Said::Up)
            }
            RecordBody::Data(bytes) if self.is_up => Ok(Said::Bytes(bytes)),
            RecordBody::ClientHello | RecordBody::ServerHello | RecordBody::Data(_) => Err(BadRecord),
        }
    }
}
