//! What the broker decides, without sockets, clocks or tasks: time and randomness are arguments.
//!
//! | module | decides |
//! |---|---|
//! | [`registry`] | where a Target is, who waits for it, which invited legs are to come |
//! | [`standing`] | which of two registrations of one identity stands |
//! | [`admission`] | who may open or shake hands now, and whose turn is later |
//! | [`search`] | which brokers an open is tried through, and with which failure it ends |
//! | [`routing`] | how a named route is followed hop by hop |
//! | [`paths`] | which paths are open, how many an identity has, which are idle |
//! | [`drain`] | when each path has to move, who is told, when this broker may stop |
//! | [`alternates`] | which other brokers an endpoint is named |
//! | [`load`] | the load that probes report |
//! | [`limits`] | the limits that an operator may change |

pub mod admission;
pub mod alternates;
pub mod drain;
pub mod limits;
pub mod load;
pub mod paths;
mod presence;
pub mod registry;
pub mod routing;
pub mod search;
pub mod standing;
