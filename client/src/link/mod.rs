//! The control link: kept alive, registered at, lost, and found again.

mod contact;
mod control;
mod establish;
mod held;
mod keeper;
mod leave;
mod register;
#[cfg(test)]
mod tests;

pub(crate) use contact::{BrokerContact, dial_leg, resolve_own_name};
pub(crate) use held::{Held, LinkNews, Links, PinState};
pub(crate) use keeper::{Keeper, Shared};
