//! The Target's first step on a path, before it knows the session: reading the ATTACH.

use crate::wire::Envelope;
use crate::wire::frame::{Attach, EndToEnd, EndToEndError, Refused};
use crate::wire::limits::ATTACH_BYTES_MAX;

/// Why the first bytes of a path are not an ATTACH.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirstEnvelopeError {
    /// The envelope is larger than the first one may be.
    #[error("the first envelope is larger than {ATTACH_BYTES_MAX} bytes")]
    TooLarge,
    /// A version that this side does not speak: answer REFUSED(Version).
    #[error("type {kind} version {version} is not spoken here")]
    Version {
        /// The type.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// Not an envelope of this version.
    #[error("malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// An answer where a request was expected.
    #[error("the first envelope is not an ATTACH")]
    NotAttach,
}

/// Reads the ATTACH that starts `bytes`: with it, how many bytes it took; `None` when more are needed.
///
/// # Errors
/// When the bytes cannot become an ATTACH; close the path.
pub fn read_first(bytes: &[u8]) -> Result<Option<(Attach, usize)>, FirstEnvelopeError> {
    let mut skipped = 0;
    loop {
        let rest = bytes.get(skipped..).unwrap_or(&[]);
        let Some((envelope, used)) =
            Envelope::parse_prefix(rest, ATTACH_BYTES_MAX).map_err(|_| FirstEnvelopeError::TooLarge)?
        else {
            return if bytes.len() > 2 * ATTACH_BYTES_MAX {
                Err(FirstEnvelopeError::TooLarge)
            } else {
                Ok(None)
            };
        };
        skipped += used;
        match EndToEnd::from_envelope(&envelope) {
            Ok(Some(EndToEnd::Attach(attach))) => return Ok(Some((attach, skipped))),
            Ok(Some(EndToEnd::Attached(_) | EndToEnd::Refused(_))) => {
                return Err(FirstEnvelopeError::NotAttach);
            }
            Ok(None) => {}
            Err(EndToEndError::Unknown { kind, version }) => {
                return Err(FirstEnvelopeError::Version { kind, version });
            }
            Err(error) => return Err(FirstEnvelopeError::Malformed { what: error.to_string() }),
        }
    }
}

impl Refused {
    /// The bytes that answer an ATTACH which came first on its path.
    pub fn to_bytes(&self) -> Vec<u8> {
        let whole = EndToEnd::Refused(self.clone()).to_bytes();
        let bare = || {
            let refused = Self::new(self.code, self.instance);
            EndToEnd::Refused(refused).to_bytes().unwrap_or_default()
        };
        whole.unwrap_or_else(|_| bare())
    }
}
