//! Wire format and the decisions that both ends of a wire must agree on.
//!
//! Everything here is pure: time and randomness are arguments, no clock is read, no socket is opened and no
//! lock is taken. The modules `identity`, `session`, `select` and `mesh` import only the ids of [`wire`] from
//! each other; `recovery` stands beside `session`.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | ids, codes, envelope, messages, frames, limits, version negotiation |
//! | [`identity`] | SPIFFE ids, roles, ticket and deny-list claims and how they are judged |
//! | [`select`] | candidates, probes, scores, the pin |
//! | [`session`] | the resumable session inside end-to-end TLS |
//! | [`recovery`] | which paths a Controller opens and gives up so that its session outlives any broker |
//! | [`mesh`] | the mesh view: members, measured round trips, routes |
#![forbid(unsafe_code)]

pub mod identity;
pub mod mesh;
mod moment;
pub mod recovery;
pub mod select;
pub mod session;
pub mod wire;

pub use moment::Moment;
