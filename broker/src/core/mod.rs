//! What the broker decides, without sockets, clocks or tasks: time and randomness are arguments.
//!
//! | module | decides |
//! |---|---|
//! | [`registry`] | where a Target is, who waits for it, which invited legs are to come |
//! | [`standing`] | which of two registrations of one identity stands |
//! | [`admission`] | who may open or shake hands now, and whose turn is later |
//! | [`gate`] | a token bucket with classes, and slots for those who have to wait |
//! | [`directory`] | who is told and asked where a Target is |
//! | [`search`] | which brokers an open is tried through, and with which failure it ends |
//! | [`routing`] | how a named route is followed hop by hop |
//! | [`paths`] | which paths are open, how many an identity has, which are idle |
//! | [`drain`] | when each path has to move, who is told, when this broker may stop |
//! | [`alternates`] | which other brokers an endpoint is named |
//! | [`isolation`] | when a Target is to leave a broker that sees too little of the mesh |
//! | [`scores`] | what endpoints measured, by network |
//! | [`watchdog`] | whether a worker is stuck |
//! | [`load`] | the load that probes report |
//! | [`limits`] | the limits that an operator may change |

pub mod admission;
pub mod alternates;
pub mod directory;
pub mod drain;
pub mod gate;
pub mod isolation;
pub mod limits;
pub mod load;
pub mod paths;
mod presence;
pub mod registry;
pub mod routing;
pub mod scores;
pub mod search;
pub mod standing;
pub mod watchdog;
