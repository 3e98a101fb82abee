//! The mesh as one broker sees it: who is a member, what a hop costs, who holds a Target.
//!
//! | module | decides |
//! |---|---|
//! | [`members`] | who counts as a member, and whether this broker sees enough of the mesh |
//! | [`dialling`] | whom to dial next: seeds, DNS and members that are not linked |
//! | [`link`] | which of two links to the same broker stays |
//! | [`matrix`] | measured round trips between brokers |
//! | [`route`] | the cheapest path over one to three brokers, and when moving to it pays |
//! | [`locate`] | asking every peer for a Target, and what the answers mean |
//!
//! Everything a peer says is a hint: addresses are proved by the certificate of whoever answers, a location by the
//! link that holds the Target and by the end-to-end identity.

pub mod dialling;
pub mod link;
pub mod locate;
pub mod matrix;
pub mod members;
pub mod route;

pub use dialling::{Dial, DialKey, Dialling};
pub use link::{LinkClaim, LinkDecision, decide_link};
pub use locate::{LocateEvent, LocateKind, LocateQuery, Location, Question, rendezvous};
pub use matrix::Matrix;
pub use members::{GossipTimer, MemberHint, Members, MeshCounts};
pub use route::{MovePolicy, PathMove, Route, RouteRequest};

#[cfg(test)]
mod tests;
