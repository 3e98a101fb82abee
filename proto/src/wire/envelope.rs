//! The fixed 8-byte header in front of every control message: `u16 type | u16 version | u32 len`, big-endian.

use super::limits::ENVELOPE_BODY_BYTES_MAX;

/// Bit of a type that says "refuse when you do not know this type"; without it an unknown type is skipped.
const CRITICAL_BIT: u16 = 0x8000;

/// The header of one envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// Message type without its critical bit.
    pub kind: u16,
    /// Whether a receiver that does not know the type must refuse.
    pub critical: bool,
    /// Version of the message's struct, from 1.
    pub version: u16,
    /// Bytes of the body.
    pub length: u32,
}

/// Why an envelope cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The body is larger than what is allowed in this state.
    #[error("an envelope of {length} bytes came where {limit} are allowed")]
    TooLarge {
        /// Announced bytes.
        length: usize,
        /// Allowed bytes.
        limit: usize,
    },
}

impl EnvelopeHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 8;

    /// Reads a header; every bit pattern is one.
    pub fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let [t0, t1, v0, v1, l0, l1, l2, l3] = bytes;
        let kind = u16::from_be_bytes([t0, t1]);
        Self {
            kind: kind & !CRITICAL_BIT,
            critical: kind & CRITICAL_BIT != 0,
            version: u16::from_be_bytes([v0, v1]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let kind = if self.critical { self.kind | CRITICAL_BIT } else { self.kind };
        let [t0, t1] = kind.to_be_bytes();
        let [v0, v1] = self.version.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [t0, t1, v0, v1, l0, l1, l2, l3]
    }
}

/// A whole envelope whose body is not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Message type without its critical bit.
    pub kind: u16,
    /// Whether a receiver that does not know the type must refuse.
    pub critical: bool,
    /// Version of the message's struct.
    pub version: u16,
    /// The encoded struct.
    pub body: Vec<u8>,
}

impl Envelope {
    /// Header and body in one buffer. Bodies are bounded where they are made, so the length always fits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let header =
            EnvelopeHeader { kind: self.kind, critical: self.critical, version: self.version, length };
        let mut bytes = Vec::with_capacity(EnvelopeHeader::BYTES + self.body.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Takes the first envelope out of `buffer`, once it is there whole. `limit` bounds the body in bytes; it is
    /// checked as soon as the header is there, so nothing is kept for an oversize body.
    ///
    /// Returns the envelope and how many bytes of `buffer` it took, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] when the announced body exceeds `limit`.
    pub fn parse_prefix(buffer: &[u8], limit: usize) -> Result<Option<(Self, usize)>, EnvelopeError> {
        let limit = limit.min(ENVELOPE_BODY_BYTES_MAX);
        let Some((head, rest)) = buffer.split_first_chunk::<{ EnvelopeHeader::BYTES }>() else {
            return Ok(None);
        };
        let header = EnvelopeHeader::parse(*head);
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > limit {
            return Err(EnvelopeError::TooLarge { length, limit });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let envelope = Self {
            kind: header.kind,
            critical: header.critical,
            version: header.version,
            body: body.to_vec(),
        };
        Ok(Some((envelope, EnvelopeHeader::BYTES + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_eight_big_endian_bytes() {
        let header = EnvelopeHeader { kind: 0x0102, critical: true, version: 3, length: 0x0405 };
        assert_eq!(header.to_bytes(), [0x81, 0x02, 0, 3, 0, 0, 4, 5]);
        assert_eq!(EnvelopeHeader::parse(header.to_bytes()), header);
    }

    #[test]
    fn an_envelope_is_taken_only_when_it_is_there_whole() {
        let envelope = Envelope { kind: 7, critical: false, version: 1, body: vec![1, 2, 3] };
        let mut bytes = envelope.to_bytes();
        bytes.push(0xff);
        for length in 0..11 {
            assert_eq!(Envelope::parse_prefix(&bytes[..length], 100), Ok(None), "{length}");
        }
        assert_eq!(Envelope::parse_prefix(&bytes, 100), Ok(Some((envelope, 11))));
    }

    #[test]
    fn an_oversize_envelope_is_refused_by_its_header_alone() {
        for (length, refused) in [(4095_u32, false), (4096, false), (4097, true), (u32::MAX, true)] {
            let header = EnvelopeHeader { kind: 1, critical: false, version: 1, length };
            let result = Envelope::parse_prefix(&header.to_bytes(), 4096);
            assert_eq!(result.is_err(), refused, "{length}");
        }
    }
}
