//! Which endpoints of a profile an answer may name, before its method chooses.
//!
//! ```text
//! in rotation ─▶ available, or all of them when none (or too few) are ─▶ seeing the mesh, or all when none does
//! ```

use super::options::AllDown;
use super::profile::{Endpoint, Profile};
use super::snapshot::{Health, Snapshot};

/// An endpoint and its health.
pub(super) type Member<'p> = (&'p Endpoint, Health);

/// The endpoints that may be named.
pub(super) enum Pool<'p> {
    /// These.
    Of(Vec<Member<'p>>),
    /// None is available, and the profile has an own answer for that.
    AllDown(&'p AllDown),
}

/// The endpoints that are in rotation.
pub(super) fn in_rotation<'p>(profile: &'p Profile, snapshot: &Snapshot) -> Vec<Member<'p>> {
    let each = profile.endpoints().iter().map(|endpoint| (endpoint, snapshot.health(endpoint.index)));
    each.filter(|(_, health)| health.is_in_rotation()).collect()
}

/// The available endpoints of a profile, or all in rotation when too few are available.
pub(super) fn available<'p>(profile: &'p Profile, snapshot: &Snapshot) -> Pool<'p> {
    let mut members = in_rotation(profile, snapshot);
    let available = members.iter().filter(|(_, health)| health.is_available()).count();
    if available == 0 && profile.options.all_down != AllDown::ServeAll {
        return Pool::AllDown(&profile.options.all_down);
    }
    let is_enough = available * 1000 >= usize::from(profile.options.min_healthy_per_mille) * members.len();
    if available > 0 && is_enough {
        members.retain(|(_, health)| health.is_available());
    }
    Pool::Of(members)
}

/// Keeps those that pass, or all when none does.
pub(super) fn keep_if_any<T>(items: &mut Vec<T>, passes: impl Fn(&T) -> bool) {
    if items.iter().any(&passes) {
        items.retain(passes);
    }
}

/// Leaves out those that see little of the mesh while another sees more.
pub(super) fn prefer_mesh(members: &mut Vec<Member<'_>>) {
    keep_if_any(members, |(_, health)| health.mesh_healthy);
}
