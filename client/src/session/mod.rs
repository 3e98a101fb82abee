//! One session: the pure core behind a lock, the pumps that move its bytes, and its channels.
//!
//! ```text
//! Channel ─read/write─▶ SessionCore (lock: pure Session, waiters) ◀─bytes─▶ Pump, one task per path ◀─▶ stream
//!                            ▲ handle_timeout: one timer task
//! ```
//! An application's bytes cross one lock and no task of ours until the pump writes them. The structure is for several
//! paths; a session whose last one ends is over with `PATH_LOST`.

mod channel;
mod core;
mod handle;
mod pump;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use self::core::SessionCore;
pub use channel::{Channel, ChannelReset};
pub(crate) use handle::ended;
pub use handle::{OfferQueue, OpenOptions, PendingChannel, SessionHandle, Withdrawn};
pub(crate) use start::{SessionSetup, Unread, admit, attach, read_attach, refuse};
pub(crate) use state::PathFacts;
