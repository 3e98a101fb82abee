//! Which addresses are worth dialling, and in which order.
//!
//! Addresses come from DNS answers, the configuration and the last-known-good list, and any of these may be wrong
//! or hostile: [`merge`] takes at most [`CANDIDATES_MAX`], fairly from every source, refuses what cannot be a
//! broker, and orders the rest (history first, else shuffled, families interleaved).
//!
//! ```text
//! let found = candidate::merge(&sources, &history, config.allow_loopback, &mut rng);
//! let race = Race::new(found.taken, now);
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::wire::BrokerId;

/// Port of a broker when the configuration names none.
pub const DEFAULT_PORT: u16 = 443;
/// Candidates taken from all sources together.
pub const CANDIDATES_MAX: usize = 16;
/// Addresses looked at per source; what an answer holds beyond them is not read.
pub const SOURCE_ADDRESSES_MAX: usize = 64;
/// Refused addresses kept for the record; more are only counted.
pub const REFUSED_KEPT_MAX: usize = 16;

/// What the certificate of whoever answers must show, besides chain, role and trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// A service name: any broker with this DNS name in its certificate.
    Name(String),
    /// Exactly this broker.
    Broker(BrokerId),
}

/// Addresses that one name, one static entry or one remembered list gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What the certificate must show.
    pub expectation: Expectation,
    /// The addresses, in the order of the answer.
    pub addresses: Vec<SocketAddr>,
}

/// One address to dial and what to expect there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Candidate {
    /// Where to dial.
    pub address: SocketAddr,
    /// What the certificate must show.
    pub expectation: Expectation,
}

/// Why an address is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// Port 0, multicast or broadcast: nothing can listen there.
    NotDialable,
    /// Loopback, link-local, unspecified or v4-mapped, and `allow_loopback` is off.
    NotPublic,
    /// The same address with the same expectation stands earlier.
    Duplicate,
    /// [`CANDIDATES_MAX`] are taken already.
    TooMany,
}

/// What [`merge`] made of the sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// In the order in which to dial; at most [`CANDIDATES_MAX`].
    pub taken: Vec<Candidate>,
    /// The first [`REFUSED_KEPT_MAX`] that were refused.
    pub refused: Vec<(Candidate, RefusalReason)>,
    /// How many were refused in all.
    pub refused_count: usize,
}

impl Candidates {
    fn refuse(&mut self, candidate: Candidate, reason: RefusalReason) {
        self.refused_count += 1;
        if self.refused.len() < REFUSED_KEPT_MAX {
            self.refused.push((candidate, reason));
        }
    }
}

/// Takes candidates from all `sources` in turn, so that a source with many addresses crowds out none.
///
/// `history` holds the addresses that worked on this network, latest first: they are dialled first, in that
/// order, if a source still names them.
pub fn merge(
    sources: &[Source],
    history: &[SocketAddr],
    allow_loopback: bool,
    rng: &mut impl Rng,
) -> Candidates {
    let mut found = Candidates::default();
    let mut queues = Vec::with_capacity(sources.len());
    let mut known = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources {
        let (remembered, fresh) = screen(source, history, allow_loopback, &mut seen, &mut found);
        known.extend(remembered);
        queues.push(interleave_families(shuffled(fresh, rng), None).into_iter());
    }
    known.sort_by_key(|candidate| history.iter().position(|address| *address == candidate.address));
    for surplus in known.split_off(known.len().min(CANDIDATES_MAX)) {
        found.refuse(surplus, RefusalReason::TooMany);
    }
    let mut fresh = Vec::new();
    loop {
        let before = fresh.len() + found.refused_count;
        for candidate in queues.iter_mut().filter_map(Iterator::next) {
            if known.len() + fresh.len() < CANDIDATES_MAX {
                fresh.push(candidate);
            } else {
                found.refuse(candidate, RefusalReason::TooMany);
            }
        }
        if fresh.len() + found.refused_count == before {
            break;
        }
    }
    let last = known.last().map(|candidate| candidate.address);
    found.taken = known;
    found.taken.extend(interleave_families(shuffled(fresh, rng), last));
    found
}

/// Drops what cannot or may not be dialled and splits the rest into (in the history, not in it).
fn screen(
    source: &Source,
    history: &[SocketAddr],
    allow_loopback: bool,
    seen: &mut BTreeSet<Candidate>,
    found: &mut Candidates,
) -> (Vec<Candidate>, Vec<Candidate>) {
    let mut kept = Vec::new();
    for address in source.addresses.iter().take(SOURCE_ADDRESSES_MAX) {
        let candidate = Candidate { address: *address, expectation: source.expectation.clone() };
        if let Some(reason) = refusal(*address, allow_loopback) {
            found.refuse(candidate, reason);
        } else if seen.insert(candidate.clone()) {
            kept.push(candidate);
        } else {
            found.refuse(candidate, RefusalReason::Duplicate);
        }
    }
    found.refused_count += source.addresses.len().saturating_sub(SOURCE_ADDRESSES_MAX);
    kept.into_iter().partition(|candidate| history.contains(&candidate.address))
}

/// Why `address` must not be dialled; `None` when it may.
pub fn refusal(address: SocketAddr, allow_loopback: bool) -> Option<RefusalReason> {
    let ip = address.ip();
    let canonical = ip.to_canonical();
    let broadcast = canonical == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.port() == 0 || canonical.is_multicast() || broadcast {
        return Some(RefusalReason::NotDialable);
    }
    let mapped = canonical != ip;
    let private_use = match canonical {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || is_this_network(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || is_v4_compatible(v6)
        }
    };
    (!allow_loopback && (mapped || private_use)).then_some(RefusalReason::NotPublic)
}

/// 0.0.0.0/8, whose first address is the unspecified one.
fn is_this_network(v4: Ipv4Addr) -> bool {
    let [first, ..] = v4.octets();
    first == 0
}

/// The deprecated `::a.b.c.d` form, another spelling of an IPv4 address.
fn is_v4_compatible(v6: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = v6.segments();
    [a, b, c, d, e, f] == [0; 6]
}

fn shuffled(mut candidates: Vec<Candidate>, rng: &mut impl Rng) -> Vec<Candidate> {
    candidates.shuffle(rng);
    candidates
}

/// Alternates between the families as long as both last, and keeps the order inside each. Starts with the family
/// that `previous` is not of, else with that of the first candidate.
fn interleave_families(candidates: Vec<Candidate>, previous: Option<SocketAddr>) -> Vec<Candidate> {
    let v6_first = match (previous, candidates.first()) {
        (Some(previous), _) => !previous.is_ipv6(),
        (None, Some(first)) => first.address.is_ipv6(),
        (None, None) => return candidates,
    };
    let (v6, v4): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.address.is_ipv6());
    let (mut one, mut other) =
        if v6_first { (v6.into_iter(), v4.into_iter()) } else { (v4.into_iter(), v6.into_iter()) };
    let mut ordered = Vec::with_capacity(one.len() + other.len());
    loop {
        match (one.next(), other.next()) {
            (None, None) => return ordered,
            (first, second) => ordered.extend(first.into_iter().chain(second)),
        }
    }
}
