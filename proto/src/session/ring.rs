//! Plaintext bytes in order, in chunks that are wiped when their memory is given back.
//!
//! Every chunk but the last is full, so a position is found by division. Memory follows what is held; a few
//! emptied chunks are kept for reuse, so a steady stream allocates and wipes nothing.

use std::collections::VecDeque;

use zeroize::Zeroizing;

const CHUNK_BYTES: usize = 16 * 1024;
/// Emptied chunks kept for reuse.
const SPARE_CHUNKS_MAX: usize = 4;

type Chunk = Zeroizing<Vec<u8>>;

/// A byte queue with access by distance from its front.
#[derive(Debug, Default)]
pub(super) struct ByteRing {
    chunks: VecDeque<Chunk>,
    /// Bytes of the front chunk that are gone already.
    head: usize,
    length: usize,
    spare: Vec<Chunk>,
}

impl ByteRing {
    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends all of `bytes`.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
            if room == 0 {
                let chunk =
                    self.spare.pop().unwrap_or_else(|| Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)));
                self.chunks.push_back(chunk);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(chunk) = self.chunks.back_mut() {
                chunk.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    /// Drops up to `count` bytes at the front.
    pub(super) fn discard(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        self.head += count;
        if self.length == 0 {
            self.head = 0;
            while let Some(chunk) = self.chunks.pop_front() {
                self.recycle(chunk);
            }
            return;
        }
        while self.head >= CHUNK_BYTES {
            self.head -= CHUNK_BYTES;
            if let Some(chunk) = self.chunks.pop_front() {
                self.recycle(chunk);
            }
        }
    }

    /// Keeps the first `count` bytes and drops what is behind them.
    pub(super) fn truncate(&mut self, count: usize) {
        if count >= self.length {
            return;
        }
        if count == 0 {
            self.discard(self.length);
            return;
        }
        self.length = count;
        let stored = self.head + count;
        while (self.chunks.len() - 1) * CHUNK_BYTES >= stored {
            let Some(chunk) = self.chunks.pop_back() else { break };
            self.recycle(chunk);
        }
        let before_last = (self.chunks.len() - 1) * CHUNK_BYTES;
        if let Some(last) = self.chunks.back_mut() {
            last.truncate(stored - before_last);
        }
    }

    fn recycle(&mut self, mut chunk: Chunk) {
        if self.spare.len() < SPARE_CHUNKS_MAX {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    /// The longest run of bytes that lies together at `distance` from the front, at most `limit` long.
    pub(super) fn run(&self, distance: usize, limit: usize) -> &[u8] {
        let left = self.length.saturating_sub(distance);
        let stored = self.head + distance;
        let within = stored % CHUNK_BYTES;
        let chunk = self.chunks.get(stored / CHUNK_BYTES).map_or(&[][..], |chunk| chunk.as_slice());
        let end = chunk.len().min(within + limit.min(left));
        chunk.get(within..end).unwrap_or(&[])
    }

    /// Hands `visit` the `count` bytes at `distance` from the front, run by run.
    pub(super) fn visit(&self, mut distance: usize, mut count: usize, mut visit: impl FnMut(&[u8])) {
        while count > 0 {
            let run = self.run(distance, count);
            if run.is_empty() {
                return;
            }
            visit(run);
            distance += run.len();
            count -= run.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(ring: &ByteRing) -> Vec<u8> {
        let mut out = Vec::new();
        ring.visit(0, ring.len(), |run| out.extend_from_slice(run));
        out
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_chunks_do() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let mut ring = ByteRing::default();
        let mut model: VecDeque<u8> = VecDeque::new();
        let mut counter = 0_u8;
        for _ in 0..2_000 {
            let count = rng.random_range(0..40_000_usize);
            match rng.random_range(0..5) {
                0 | 1 if model.len() < 200_000 => {
                    let bytes: Vec<u8> = (0..count)
                        .map(|_| {
                            counter = counter.wrapping_add(1);
                            counter
                        })
                        .collect();
                    ring.push(&bytes);
                    model.extend(&bytes);
                }
                2 => {
                    ring.truncate(count);
                    model.truncate(count);
                }
                _ => {
                    ring.discard(count);
                    model.drain(..count.min(model.len()));
                }
            }
            assert_eq!(ring.len(), model.len());
            assert_eq!(ring.is_empty(), model.is_empty());
        }
        assert_eq!(contents(&ring), model.make_contiguous());
    }

    #[test]
    fn a_run_starts_where_it_is_asked_to_and_ends_at_a_chunk() {
        let mut ring = ByteRing::default();
        ring.push(&vec![1; CHUNK_BYTES - 1]);
        ring.push(&[2, 3, 4]);
        assert_eq!(ring.run(CHUNK_BYTES - 2, 10), [1, 2]);
        assert_eq!(ring.run(CHUNK_BYTES, 10), [3, 4]);
        assert_eq!(ring.run(CHUNK_BYTES, 1), [3]);
        assert!(ring.run(CHUNK_BYTES + 2, 10).is_empty());
    }
}
