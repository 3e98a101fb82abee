//! Cuts one path's bytes into frames, with at most one incomplete frame kept.

use super::event::PathFault;
use crate::wire::Envelope;
use crate::wire::frame::{EndToEnd, FrameHeader};
use crate::wire::limits::ATTACH_BYTES_MAX;

/// Bytes that may wait behind an ATTACH which the caller has not judged yet.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// The incremental reader of one path.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    partial: Vec<u8>,
    /// `partial` was handed out whole and is to be dropped.
    spent: bool,
    held: Vec<u8>,
}

impl FrameReader {
    /// The next frame of `rest`, which is moved behind it; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the header says more than a frame may carry.
    pub(super) fn next_frame<'a, 'b: 'a>(
        &'a mut self,
        rest: &mut &'b [u8],
    ) -> Result<Option<(FrameHeader, &'a [u8])>, PathFault> {
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
        }
        if self.partial.is_empty() {
            if let Some(whole) = frame_length(rest)?
                && let Some((frame, behind)) = rest.split_at_checked(whole)
            {
                *rest = behind;
                return Ok(split_frame(frame));
            }
            self.partial.extend_from_slice(rest);
            *rest = &[];
            return Ok(None);
        }
        self.fill(FrameHeader::BYTES, rest);
        let Some(whole) = frame_length(&self.partial)? else { return Ok(None) };
        self.fill(whole, rest);
        if self.partial.len() < whole {
            return Ok(None);
        }
        self.spent = true;
        Ok(split_frame(&self.partial))
    }

    /// The first envelope of a path, outside any frame.
    ///
    /// # Errors
    /// When it is too large or not an envelope of this version.
    pub(super) fn next_envelope(&mut self, rest: &mut &[u8]) -> Result<Option<EndToEnd>, PathFault> {
        loop {
            self.fill(envelope_wanted(&self.partial), rest);
            let parsed = Envelope::parse_prefix(&self.partial, ATTACH_BYTES_MAX)
                .map_err(|error| PathFault::Malformed { what: error.to_string() })?;
            let Some((envelope, used)) = parsed else {
                if rest.is_empty() {
                    return Ok(None);
                }
                continue;
            };
            self.partial.drain(..used);
            let message = EndToEnd::from_envelope(&envelope)
                .map_err(|error| PathFault::Malformed { what: error.to_string() })?;
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Keeps bytes that must not be parsed yet.
    ///
    /// # Errors
    /// When more wait than a driver's reads explain.
    pub(super) fn hold(&mut self, rest: &[u8]) -> Result<(), PathFault> {
        if self.held.len() + rest.len() > HELD_BYTES_MAX {
            return Err(PathFault::Malformed {
                what: "too much behind an ATTACH that is not judged".to_owned(),
            });
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    /// Gives back what was held.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Moves bytes from `rest` until `wanted` are there.
    fn fill(&mut self, wanted: usize, rest: &mut &[u8]) {
        let missing = wanted.saturating_sub(self.partial.len()).min(rest.len());
        let (taken, behind) = rest.split_at(missing);
        self.partial.extend_from_slice(taken);
        *rest = behind;
    }
}

fn envelope_wanted(partial: &[u8]) -> usize {
    use crate::wire::EnvelopeHeader;
    let Some(head) = partial.first_chunk::<{ EnvelopeHeader::BYTES }>() else { return EnvelopeHeader::BYTES };
    let length = usize::try_from(EnvelopeHeader::parse(*head).length).unwrap_or(usize::MAX);
    EnvelopeHeader::BYTES + length.min(ATTACH_BYTES_MAX)
}

/// Bytes of the frame that starts `bytes`, once its header is there.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, PathFault> {
    let Some(head) = bytes.first_chunk::<{ FrameHeader::BYTES }>() else { return Ok(None) };
    let header = FrameHeader::parse(*head);
    if header.is_oversize() {
        return Err(PathFault::Oversize { length: header.length });
    }
    Ok(Some(FrameHeader::BYTES + usize::from(header.length)))
}

fn split_frame(frame: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let (head, payload) = frame.split_first_chunk::<{ FrameHeader::BYTES }>()?;
    Some((FrameHeader::parse(*head), payload))
}
