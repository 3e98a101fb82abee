//! The resumable session: what a Controller and a Target say inside end-to-end TLS, as a pure machine.
//!
//! A [`Session`] owns channels (ordered streams with absolute offsets, credit and a bounded replay buffer) and
//! the set of paths that carry them. A path is a byte pipe that the caller reads and writes; it may die at any
//! byte. No path's death loses, repeats or changes a byte of a channel, as long as another path comes before the
//! resume window runs out. Time is an argument, nothing here blocks, and nothing is sized by a peer's number.
//!
//! # How a driver uses it
//!
//! ```text
//! Controller
//!     let mut s = Session::controller(config, session_id, own_instance, now);
//!     s.attach(path, Purpose::NEW, Lane::INTERACTIVE, ticket, now)?;      // queues ATTACH, returns its epoch
//!
//! Target (end-to-end TLS is up)
//!     let Some((attach, used)) = attach::read_first(&buffer)? else { read more };
//!     // The caller checks identity, ticket, jti and Tombstones. An unknown session with kind NEW is a new one:
//!     let mut s = Session::target(config, attach.session, own_instance, now);
//!     // Every ATTACH, the first included:
//!     match s.accept_attach(path, &attach, permits, now) {
//!         Ok(_epoch) => s.handle_bytes(path, &buffer[used..], now)?,      // ATTACHED is queued
//!         Err(refused) => { write(refused.to_bytes()); close }
//!     }
//!
//! both, forever, one loop, `now` read once per turn:
//!     while let Some(event) = s.poll_event() { … }
//!     for path in s.paths() { s.poll_transmit(path, now, budget, &mut out); }   // whole frames, false: nothing
//!     arm a timer at s.poll_timeout()
//!     wait for: bytes → s.handle_bytes(path, &bytes, now)          Err(PathFault): close that leg, already removed
//!               leg ended → s.path_lost(path, now)
//!               timer → s.handle_timeout(now)
//!               the application → open / accept / refuse / write / write_message / read / finish / reset / end
//! ```
//!
//! * [`PathKey`] is the driver's own number for a path; it is never used twice in one session.
//! * `write` takes what fits (replay cap and the peer's credit) and returns how much; after a short write a
//!   `Writable` event follows. `read` returns `ReadOutcome::{Bytes, Empty, Finished}`; after `Empty` a `Readable`
//!   event follows. Reading grants new credit.
//! * A channel that the peer opened comes as `Offered { channel, service, class, options }` and waits for
//!   `accept` or `refuse`; until then its bytes are held. The opener hears `Opened(channel)`, or `Reset { … }`.
//! * `PeerFinished(channel)` says that FIN came; `Closed(channel)` that both directions are finished and
//!   acknowledged. A closed channel reads as finished. After `Reset` the bytes that came in order before it are still
//!   there, and the FIN if that came: read on while `has_left` says so, or `forget` them. They count as a channel.
//! * `peek` and `consume` read without a copy. Channels opened with `may_skip_ms` use `write_message` and
//!   `read_message` instead of `write` and `read`.
//! * `Suspect(path)` and `RepathWanted` ask the Controller's driver for another path; it answers with
//!   `attach(new_path, Purpose::RESUME | HANDOVER | STANDBY, …)`; `activate` turns a standby path into a live one.
//!   `retire(path)` starts the planned end of an old path.
//! * `Dead(path)`: the path is already removed, close its leg. `PathRetired(path)`: flush and close it.
//! * `AttachRequested { path, attach }` (Target): an ATTACH that came on a standby path; check ticket, then call
//!   `accept_attach` or `refuse_attach`.
//! * `end` ends the session once every channel is closed, `cut` resets them first and waits 30 s at most. A budget of
//!   `transmit_budget` lets input wait behind one frame. After `Ended` or `Aborted`:
//!   transmit what is left, keep the session for 30 s to answer a repeated END, then close every path; a Target
//!   puts the session into [`Tombstones`]. Unread bytes stay readable.

mod accept;
mod ack;
mod application;
pub mod attach;
mod channel;
mod closed;
mod config;
mod ending;
mod event;
mod hash;
mod inbound;
mod life;
mod liveness;
mod outbound;
mod pace;
mod path;
mod reader;
mod reading;
mod receiver;
mod ring;
mod schedule;
mod sender;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod table;
#[cfg(test)]
mod tests;
mod tombstone;
mod window;

pub use config::{Mutant, SessionConfig};
pub use event::{
    AttachError, ChannelError, PathFault, PathKey, PathStatus, ReadOutcome, SessionEvent, SessionState,
    SessionStatus,
};
pub use life::Session;
pub use liveness::IDLE_SILENCE;
pub use receiver::MessageRead;
pub use tombstone::{TOMBSTONE_MIN, TOMBSTONES_MAX, Tombstones};
