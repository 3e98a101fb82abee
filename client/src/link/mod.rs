//! The control links: kept alive, registered at, lost, and found again. One always, a second one in session.

mod alongside;
mod contact;
mod control;
mod enrol;
mod establish;
mod held;
mod keeper;
mod leave;
mod linker;
mod register;
mod reserve;
mod second;
mod shared;
#[cfg(test)]
mod tests;
mod vigil;

pub(crate) use contact::{BrokerContact, dial_leg, resolve_own_name};
pub(crate) use held::{Draining, Held, LinkNews, Links, PinState};
pub(crate) use keeper::start;
pub(crate) use shared::Shared;
