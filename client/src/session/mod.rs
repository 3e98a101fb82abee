//! One session: the pure core behind a lock, the pumps that move its bytes, and its channels.

mod channel;
mod core;
mod handle;

pub use channel::{Channel, ChannelReset};
pub use handle::{OpenOptions, PendingChannel, SessionHandle};
