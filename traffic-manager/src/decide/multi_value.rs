//! MultiValue: several healthy addresses at once, in random order.
//!
//! ```text
//! in rotation ─▶ available, or all of them when none is ─▶ of the asked family
//!             ─▶ seeing the mesh, or all of them when none does ─▶ shuffled ─▶ the first max_return
//! ```
//! The mesh is looked at behind the family, so a client with one family is not left without an answer because the
//! other family's brokers see more of the mesh: a broker that sees little of it still serves its own Targets.

use std::net::IpAddr;

use rand::Rng;
use rand::seq::SliceRandom;

use super::answer::{Answer, AskedType};
use super::profile::{MaxReturn, Profile, Target};
use super::snapshot::{Health, Snapshot};

pub(super) fn answer(
    profile: &Profile,
    snapshot: &Snapshot,
    asked: AskedType,
    max_return: MaxReturn,
    rng: &mut impl Rng,
) -> Answer {
    let mut candidates: Vec<(IpAddr, Health)> = profile
        .endpoints
        .iter()
        .map(|endpoint| {
            let Target::Address(address) = endpoint.target;
            (address, snapshot.health(endpoint.index))
        })
        .filter(|(_, health)| health.is_in_rotation())
        .collect();
    keep_if_any(&mut candidates, |health| health.is_available());
    candidates.retain(|(address, _)| is_asked(*address, asked));
    keep_if_any(&mut candidates, |health| health.mesh_healthy);
    // Two endpoints may be one address at different ports; an answer has no ports.
    candidates.sort_unstable_by_key(|(address, _)| *address);
    candidates.dedup_by_key(|(address, _)| *address);
    let (chosen, _) = candidates.partial_shuffle(rng, max_return.count());
    if chosen.is_empty() {
        return Answer::NoData;
    }
    Answer::Addresses(chosen.iter().map(|(address, _)| *address).collect())
}

/// Keeps those whose health passes, or all when none does.
fn keep_if_any(candidates: &mut Vec<(IpAddr, Health)>, passes: impl Fn(&Health) -> bool) {
    if candidates.iter().any(|(_, health)| passes(health)) {
        candidates.retain(|(_, health)| passes(health));
    }
}

const fn is_asked(address: IpAddr, asked: AskedType) -> bool {
    match asked {
        AskedType::A => address.is_ipv4(),
        AskedType::Aaaa => address.is_ipv6(),
        AskedType::Any => true,
        AskedType::Other => false,
    }
}
