//! Finding a broker: drivers around the machines of `rc_proto::select`.
//!
//! [`Locator`] holds what is known between looks: names, scores, ejections, the last-known-good list. One look
//! resolves, races, measures and chooses, and leaves a record of the choice.

mod known_good;
mod locator;
mod measure;
mod probe_link;
mod race;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use locator::{Located, Locator, probe_contact};
pub(crate) use probe_link::ProbeLink;
