//! The control link: kept alive, registered at, lost, and found again.

mod contact;
mod control;
mod keeper;
mod register;
#[cfg(test)]
mod tests;

pub(crate) use contact::{BrokerContact, dial_leg};
pub(crate) use keeper::{Held, Keeper, PinState, Shared};
