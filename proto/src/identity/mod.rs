//! Who is who, and what a ticket lets a Controller do. Signatures are checked by a function handed in.

mod spiffe;
pub mod ticket;

pub use spiffe::{SpiffeError, SpiffeId};
