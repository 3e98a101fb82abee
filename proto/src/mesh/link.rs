//! Which of two links between the same two brokers stays.
//!
//! Both ends see the same two links and must decide alike without talking: a new incarnation of the peer replaces
//! what an older process left behind; of two links between the same two processes the one dialled by the smaller
//! id stays, and a dialler that dials again has given its first link up.

use crate::wire::{BrokerId, Incarnation};

/// What decides about one link, known after its Hello and Welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkClaim {
    /// Incarnation of the peer's process.
    pub incarnation: Incarnation,
    /// Whether the peer dialled; else this broker did.
    pub dialled_by_peer: bool,
}

/// What to do with a link whose Hello has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDecision {
    /// Keep it; there is no other one.
    Keep,
    /// Keep it and close the one that stood.
    ReplaceExisting,
    /// Close it; the one that stands stays.
    CloseNew,
    /// Close it: the peer is this broker itself.
    CloseOwn,
    /// Close it: it belongs to a process that a later one has replaced.
    CloseOutdated,
}

/// Decides about `new`, a link between the brokers `own` and `peer`. `existing` is the link that stands, `replaced`
/// the incarnations of `peer` that later ones replaced.
pub fn decide_link(
    own: &BrokerId,
    peer: &BrokerId,
    existing: Option<&LinkClaim>,
    replaced: &[Incarnation],
    new: &LinkClaim,
) -> LinkDecision {
    if own == peer {
        return LinkDecision::CloseOwn;
    }
    if replaced.contains(&new.incarnation) {
        return LinkDecision::CloseOutdated;
    }
    let Some(existing) = existing else { return LinkDecision::Keep };
    let same_process = existing.incarnation == new.incarnation;
    let same_dialler = existing.dialled_by_peer == new.dialled_by_peer;
    if !same_process || same_dialler {
        return LinkDecision::ReplaceExisting;
    }
    let smaller_dialled_new = new.dialled_by_peer == (peer < own);
    if smaller_dialled_new { LinkDecision::ReplaceExisting } else { LinkDecision::CloseNew }
}
