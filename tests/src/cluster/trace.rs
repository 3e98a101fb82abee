//! What happened, as a hash that two runs of one seed share, and on request as lines.

use std::fmt::Write as _;

use rc_proto::Moment;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Lines of a history, hashed (FNV-1a); with `is_kept` they are kept too.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    line: String,
    is_kept: bool,
    kept: String,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { hash: OFFSET, line: String::new(), is_kept, kept: String::new() }
    }

    pub(super) fn note(&mut self, now: Moment, what: std::fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.line, "{:>10.6} {what}", now.since_origin().as_secs_f64());
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        if self.is_kept {
            self.kept.push_str(&self.line);
        }
    }

    /// Mixes a number in without a line.
    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(PRIME);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }
}
