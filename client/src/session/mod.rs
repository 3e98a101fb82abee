//! One session: the pure core behind a lock, the pumps that move its bytes, and its channels.
//!
//! ```text
//! Channel ─read/write─▶ SessionCore (lock: pure Session, waiters) ◀─bytes─▶ Pump, one task per path ◀─▶ stream
//!                            ▲ handle_timeout: one timer task
//! ```
//! An application's bytes cross one lock and no task of ours until the pump writes them. A session has
//! several paths at once, each with its own pump; without one it waits for the next until its resume window runs out.

mod channel;
mod core;
mod handle;
mod mover;
mod moves;
mod paths;
mod pump;
#[cfg(test)]
mod resuming;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use self::core::SessionCore;
pub use channel::{Channel, ChannelReset};
pub(crate) use handle::ended;
pub use handle::{OfferQueue, OpenOptions, PendingChannel, SessionHandle, Withdrawn};
pub(crate) use mover::Mover;
pub use mover::TicketRenewal;
pub use paths::AttachRequest;
pub(crate) use start::{Beginning, SessionSetup, Unread, admit, attach, read_attach, refuse};
pub(crate) use state::PathFacts;
