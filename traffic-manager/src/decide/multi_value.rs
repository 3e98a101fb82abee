//! MultiValue: several healthy addresses at once, in random order.
//!
//! ```text
//! may be named ─▶ of the asked family ─▶ seeing the mesh, or all of them when none does ─▶ [of the asker's subset]
//!              ─▶ [not shed by load] ─▶ drawn, evenly or [by weight and free capacity], up to max_return
//! ```
//! What is in brackets is off unless configured. The mesh is looked at behind the family, so a client with one family
//! is not left without an answer because the other family's brokers see more of the mesh: a broker that sees little of
//! it still serves its own Targets.

use std::net::IpAddr;

use rand::Rng;
use rand::seq::SliceRandom;
use xxhash_rust::xxh64::xxh64;

use super::answer::Answer;
use super::options::{Draw, Watermarks};
use super::pool::{self, Member, keep_if_any};
use super::profile::{MaxReturn, Profile, Target};
use super::query::Query;
use super::ranges::AddressRange;
use super::snapshot::Health;

/// How many bits of an asker's address say which subset it sees: what one site usually has.
const SITE_BITS_V4: u8 = 24;
const SITE_BITS_V6: u8 = 56;
/// Load at which an endpoint has no capacity left, per mille.
const FULL: u16 = 1000;

struct Candidate {
    address: IpAddr,
    health: Health,
    weight: u16,
}

/// Of several members with one address the first counts: an answer has no ports.
fn candidates<R>(query: &Query<'_, R>, members: &[Member<'_>]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = members
        .iter()
        .filter_map(|(endpoint, health)| match endpoint.target {
            Target::Address(address) if query.asked.takes(address) => {
                Some(Candidate { address, health: *health, weight: endpoint.weight })
            }
            Target::Address(_) | Target::Name(_) | Target::Nested { .. } => None,
        })
        .collect();
    keep_if_any(&mut found, |candidate| candidate.health.mesh_healthy);
    found.sort_by_key(|candidate| candidate.address);
    found.dedup_by_key(|candidate| candidate.address);
    found
}

pub(super) fn answer<R: Rng>(
    query: &mut Query<'_, R>,
    profile: &Profile,
    members: Vec<Member<'_>>,
    max_return: MaxReturn,
) -> Answer {
    let mut found = candidates(query, &members);
    drop(members);
    let Draw { by_weight, by_load, subset } = profile.options.draw;
    if let Some(size) = subset {
        keep_subset(query, profile, size, &mut found);
    }
    if let Some(watermarks) = by_load {
        shed(query, profile, watermarks, &mut found);
    }
    if by_weight || by_load.is_some() {
        order_by_weight(query, by_weight, by_load, &mut found);
    } else {
        found.partial_shuffle(&mut query.rng, max_return.count());
        // The chosen ones are at the end.
        found.reverse();
    }
    found.truncate(max_return.count());
    query.trace.step(&profile.name, || format!("{} were drawn", found.len()));
    if found.is_empty() {
        return Answer::NoData;
    }
    Answer::Addresses(found.iter().map(|candidate| candidate.address).collect())
}

/// Keeps the endpoints that the asker's network sees, unless none of them is left. Which they are depends on all
/// endpoints in rotation, not on their health, so a fault moves only those who saw the faulty one.
fn keep_subset<R>(query: &mut Query<'_, R>, profile: &Profile, size: usize, found: &mut Vec<Candidate>) {
    let bits = if query.address.is_ipv4() { SITE_BITS_V4 } else { SITE_BITS_V6 };
    query.scope = query.scope.max(bits);
    let site = AddressRange::around(query.address, bits).first();
    let mut all: Vec<IpAddr> = candidates_of_all(query, profile);
    all.sort_by_cached_key(|address| (rank(site, *address), *address));
    all.truncate(size);
    keep_if_any(found, |candidate| all.contains(&candidate.address));
    query.trace.step(&profile.name, || format!("{site}/{bits} sees {} of them", found.len()));
}

fn candidates_of_all<R>(query: &Query<'_, R>, profile: &Profile) -> Vec<IpAddr> {
    let members = pool::in_rotation(profile, query.snapshot);
    let addresses = members.iter().filter_map(|(endpoint, _)| match endpoint.target {
        Target::Address(address) if query.asked.takes(address) => Some(address),
        Target::Address(_) | Target::Name(_) | Target::Nested { .. } => None,
    });
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The same for one pair on every server.
fn rank(site: IpAddr, address: IpAddr) -> u64 {
    xxh64(format!("{site} {address}").as_bytes(), 0)
}

/// Leaves out busy endpoints: those above the high mark, and those between the marks by chance. When that would be
/// all, none.
fn shed<R: Rng>(query: &mut Query<'_, R>, profile: &Profile, marks: Watermarks, found: &mut Vec<Candidate>) {
    let span = f64::from(marks.high.saturating_sub(marks.low)).max(1.0);
    let kept: Vec<bool> = found
        .iter()
        .map(|candidate| {
            let over = f64::from(candidate.health.load.saturating_sub(marks.low));
            candidate.health.load < marks.high && query.rng.random::<f64>() >= over / span
        })
        .collect();
    let left = kept.iter().filter(|is_kept| **is_kept).count();
    query.trace.step(&profile.name, || format!("{left} of {} have capacity", kept.len()));
    if left > 0 {
        let mut kept = kept.into_iter();
        found.retain(|_| kept.next().unwrap_or(true));
    }
}

/// Brings the candidates into an order drawn by weight: each next one in proportion to its share of what is left. The
/// key u^(1/w) of a uniform u gives that order.
fn order_by_weight<R: Rng>(
    query: &mut Query<'_, R>,
    by_weight: bool,
    by_load: Option<Watermarks>,
    found: &mut [Candidate],
) {
    found.sort_by_cached_key(|candidate| {
        let weight = if by_weight { f64::from(candidate.weight) } else { 1.0 };
        let free = FULL.saturating_sub(candidate.health.load).max(1);
        let weight = if by_load.is_some() { weight * f64::from(free) / f64::from(FULL) } else { weight };
        // ln(u)/w orders like u^(1/w); negated and not negative, so its bits order like its value.
        let uniform: f64 = query.rng.random::<f64>().max(f64::MIN_POSITIVE);
        (-uniform.ln() / weight).to_bits()
    });
}
