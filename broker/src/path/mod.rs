//! Paths through this broker: the first frame of a leg, the search for the far end, and the splice.
//!
//! ```text
//! leg --OpenPath--> ingress --+                        +--> invite here, JoinPath answers
//! leg --MeshOpen--> transit --+--> opening (far end) --+--> MeshOpen to the next broker
//! leg --JoinPath--> join: hands its leg to the opening that invited it
//! opening --PathOpened back--> relay, in a task of its own --> end
//! ```

mod early;
mod far;
mod first_frame;
mod ingress;
mod opening;
mod race;
mod table;
mod transit;
mod waiting;
mod watch;

pub(crate) use first_frame::serve;
pub(crate) use opening::tell_closed;
pub(crate) use table::{PathHandle, Paths};
