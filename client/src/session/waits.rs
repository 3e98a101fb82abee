//! Who waits for what on one channel, and what has become of it.

use std::task::{Context, Waker};

use rc_proto::wire::ServiceName;
use rc_proto::wire::codes::{Class, ResetCode};

/// Bytes that a dropped channel still takes from its peer before it is reset, once the peer has acknowledged the last of
/// what the channel carried.
const DISCARD_BYTES_MAX: usize = 64 * 1024;

/// What has become of a channel.
///
/// ```text
/// Asked ───────▶ Opened ──▶ Closed           Offered ──accept──▶ Opened
///   └──────────────┴──────▶ Reset               └──────────────▶ Reset
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// This side opened it and waits for the answer.
    Asked,
    /// The peer opened it and waits for the answer.
    Offered,
    /// Both sides use it.
    Opened,
    /// Both directions are done.
    Closed,
    /// The peer gave it up.
    Reset { code: ResetCode, message: String },
}

/// Which half of a channel a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Readable,
    Writable,
    Fate,
}

/// One channel as its holders see it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) service: ServiceName,
    pub(super) class: Class,
    pub(super) fate: Fate,
    /// This side's direction was shut down.
    pub(super) finished: bool,
    /// The reader has seen the end of what the peer sent.
    pub(super) read_to_end: bool,
    /// The holder is gone; how much more of the peer's bytes is discarded once it has acknowledged ours.
    pub(super) released: Option<usize>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watcher: Option<Waker>,
}

impl Slot {
    pub(super) fn new(service: ServiceName, class: Class, fate: Fate) -> Self {
        Self {
            service,
            class,
            fate,
            finished: false,
            read_to_end: false,
            released: None,
            reader: None,
            writer: None,
            watcher: None,
        }
    }

    /// The holder is gone.
    pub(super) fn release(&mut self) {
        self.released = Some(DISCARD_BYTES_MAX);
    }

    /// Whether nothing more can happen.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.fate, Fate::Closed | Fate::Reset { .. })
    }

    pub(super) fn wait(&mut self, wait: Wait, context: &Context<'_>) {
        let waker = match wait {
            Wait::Readable => &mut self.reader,
            Wait::Writable => &mut self.writer,
            Wait::Fate => &mut self.watcher,
        };
        match waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }

    pub(super) fn wake(&mut self, wait: Wait, wakes: &mut Vec<Waker>) {
        let waker = match wait {
            Wait::Readable => &mut self.reader,
            Wait::Writable => &mut self.writer,
            Wait::Fate => &mut self.watcher,
        };
        wakes.extend(waker.take());
    }

    pub(super) fn wake_all(&mut self, wakes: &mut Vec<Waker>) {
        for wait in [Wait::Readable, Wait::Writable, Wait::Fate] {
            self.wake(wait, wakes);
        }
    }
}
