//! A broker that lies, and the proof that it gains nothing.
//!
//! [`EvilBroker`] has a valid broker certificate, takes control links, legs and mesh links as an honest one does, and
//! flips, repeats, leaves out, cuts, holds, mixes up and invents what it is trusted to carry. [`attack`] runs sessions
//! of real Controllers and Targets over it, beside an honest broker, and judges every byte at both applications.

mod attack;
mod broker;
mod deed;
mod imposture;
mod mesh;
mod pipe;

pub use attack::{Attack, Verdict, attack};
pub use broker::EvilBroker;
pub use deed::Deed;
