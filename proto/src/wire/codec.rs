//! The only file that names bincode: `standard()` (little-endian varints), with a byte limit, all input
//! consumed, and text ids validated on decode.

pub(super) use bincode::{BorrowDecode, Decode, Encode};

/// Claims of a decoder count each integer at its full width, so the budget is a multiple of the largest body.
const DECODE_CLAIM_BYTES_MAX: usize = 8 * super::limits::ENVELOPE_BODY_BYTES_MAX;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODE_CLAIM_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODE_CLAIM_BYTES_MAX>();

/// Why bytes are not the body of the message that their header announces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the struct does, or break its rules.
    #[error("malformed body: {reason}")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// Bytes are left after the struct.
    #[error("{count} bytes are left behind the body")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The bytes decode, but this is not how the struct is written: one value must have one encoding.
    #[error("the body is not in its one canonical form")]
    NotCanonical,
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The encoded body is larger than the limit in force.
    #[error("the message takes {length} bytes, {limit} are allowed")]
    TooLarge {
        /// Bytes of the encoded body.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A text field is longer than 255 bytes, or a value cannot be represented.
    #[error("the message cannot be encoded: {reason}")]
    Unrepresentable {
        /// What the encoder found.
        reason: String,
    },
}

/// Encodes one frozen struct.
///
/// # Errors
/// [`EncodeError::Unrepresentable`] when a field cannot be encoded.
pub(super) fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, EncodeError> {
    bincode::encode_to_vec(value, CONFIG)
        .map_err(|error| EncodeError::Unrepresentable { reason: error.to_string() })
}

/// Decodes one frozen struct that fills `bytes` exactly and is written in the one way that [`encode`] writes it.
///
/// # Errors
/// When the bytes are malformed, too short, longer than the struct, or hold a number in more bytes than it needs.
pub(super) fn decode<T: Decode<()> + Encode>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used): (T, usize) = bincode::decode_from_slice(bytes, CONFIG)
        .map_err(|error| DecodeError::Malformed { reason: error.to_string() })?;
    if used < bytes.len() {
        return Err(DecodeError::TrailingBytes { count: bytes.len() - used });
    }
    if encode(&value).is_ok_and(|canonical| canonical == bytes) {
        Ok(value)
    } else {
        Err(DecodeError::NotCanonical)
    }
}

/// Encodes a validated text id as a string, and validates it again on decode.
macro_rules! text_codec {
    ($name:ident) => {
        impl Encode for $name {
            fn encode<E: bincode::enc::Encoder>(
                &self,
                encoder: &mut E,
            ) -> Result<(), bincode::error::EncodeError> {
                self.as_str().encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text = <String as Decode<C>>::decode(decoder)?;
                text.parse()
                    .map_err(|error: IdError| bincode::error::DecodeError::OtherString(error.to_string()))
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                Decode::decode(decoder)
            }
        }
    };
}
pub(super) use text_codec;
