//! The whole cluster in simulation: brokers, a Controller and a Target on one simulated network, in virtual time.
//!
//! Everything is decided by one seed: two runs of a seed have the same trace hash. The decisions are the product's own:
//! both ends are `rc_proto::session`, brokers are `rc_broker::core` and `rc_proto::mesh`, tickets are judged by
//! `rc_proto::identity`. What the daemons' tasks do around them is modelled as thinly as possible. After every step every
//! invariant is checked.
//!
//! | module | is |
//! |---|---|
//! | `net` | connections, latency, what TCP does when nothing gets through |
//! | `broker` | a broker |
//! | `endpoint` | Controller and Target |
//! | `application` | what applications write |
//! | `oracle` | what must hold |
//! | `faults` | what goes wrong |
//! | `world` | all of it together |
//! | `history` | ten minutes of it, by seed |

mod application;
mod broker;
mod ctx;
mod dns;
mod endpoint;
mod faults;
mod history;
mod many;
mod names;
mod net;
mod oracle;
mod piece;
mod trace;
mod world;

use std::time::Duration;

pub use history::{Options, Report, run_seed};
pub use many::{Failure, run_many};
pub use oracle::Counts;

/// When every simulation starts, on its clock.
const START: Duration = Duration::from_secs(1000);

/// A deliberate bug in what surrounds the sessions. Each one is caught by a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A Target forgets which tickets have started a session.
    TicketUseForgotten,
}
