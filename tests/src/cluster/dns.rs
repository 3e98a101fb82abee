//! The service name, as a resolver answers it.

use super::net::Host;

/// How the name is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Dns {
    /// With every broker.
    #[default]
    Fresh,
    /// With brokers that may be dead.
    Stale(Vec<Host>),
    /// Not at all.
    Silent,
}
