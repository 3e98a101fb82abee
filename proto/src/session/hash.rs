//! The running hash of one direction: it catches our own offset bugs, the bytes are authentic by TLS.

use xxhash_rust::xxh64::Xxh64;

/// XXH64 with seed 0 over everything so far.
pub(super) struct RunningHash(Xxh64);

impl RunningHash {
    pub(super) fn new() -> Self {
        Self(Xxh64::new(0))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash as it is claimed: 0 means no claim, so a result of 0 is sent as 1.
    pub(super) fn claim(&self) -> u64 {
        self.0.digest().max(1)
    }
}

impl std::fmt::Debug for RunningHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningHash({:016x})", self.claim())
    }
}
