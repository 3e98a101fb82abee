//! Round trips that clients measured and reported, by their network.
//!
//! A report tells how far its sender is from locations. Reports of one network (/24, /48) are averaged; what only a
//! few reported is not used; what is old is forgotten. Memory is bounded: of too many networks the one that has been
//! silent for longest goes first. Whoever takes reports authenticates their senders.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::Moment;

use super::place::{Location, RoundTrips};
use super::ranges::{AddressRange, RangeMap};

/// Bits of a network.
const NETWORK_BITS_V4: u8 = 24;
const NETWORK_BITS_V6: u8 = 48;
/// No round trip on Earth takes longer; a report that says so is mistaken or worse.
const ROUND_TRIP_MS_MAX: u32 = 10_000;
/// Locations of one network.
const LOCATIONS_MAX: usize = 64;
/// A new measurement counts for one in this many, so that no single report moves an average far.
const AVERAGE_OVER: u32 = 8;
/// Parts of a ms that averages are kept in.
const PARTS: u32 = 256;

/// What is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedLimits {
    /// Networks at once.
    pub networks_max: usize,
    /// Measurements of a location before it is used.
    pub samples_min: u32,
    /// A measurement is of no use after this long, neither on its way here nor here.
    pub age_max: Duration,
}

impl Default for LearnedLimits {
    /// 65,536 networks, 3 measurements, one day.
    fn default() -> Self {
        Self { networks_max: 65_536, samples_min: 3, age_max: Duration::from_secs(86_400) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Average {
    /// In [`PARTS`] of a ms.
    value: u32,
    samples: u32,
    measured: Moment,
}

#[derive(Debug)]
struct Network {
    heard: Moment,
    averages: BTreeMap<Location, Average>,
}

/// What clients reported.
#[derive(Debug)]
pub struct Learned {
    limits: LearnedLimits,
    networks: BTreeMap<AddressRange, Network>,
    by_age: BTreeSet<(Moment, AddressRange)>,
}

impl Learned {
    /// Nothing yet.
    pub const fn new(limits: LearnedLimits) -> Self {
        Self { limits, networks: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// Takes in what somebody at `from` measured `age` ago, each a location and a round trip in ms.
    pub fn report<'s>(
        &mut self,
        from: IpAddr,
        scores: impl IntoIterator<Item = (&'s Location, u32)>,
        age: Duration,
        now: Moment,
    ) {
        let sound: Vec<_> = scores.into_iter().filter(|(_, ms)| *ms <= ROUND_TRIP_MS_MAX).collect();
        if age > self.limits.age_max || sound.is_empty() || self.limits.networks_max == 0 {
            return;
        }
        let network = network_of(from);
        self.make_room(&network);
        let entry = self.networks.entry(network).or_insert(Network { heard: now, averages: BTreeMap::new() });
        self.by_age.remove(&(entry.heard, network));
        entry.heard = now;
        self.by_age.insert((now, network));
        for (location, ms) in sound {
            let is_full = entry.averages.len() >= LOCATIONS_MAX;
            match entry.averages.get_mut(location) {
                Some(average) => average.add(ms, now),
                None if !is_full => {
                    let first = Average { value: ms * PARTS, samples: 1, measured: now };
                    entry.averages.insert(location.clone(), first);
                }
                None => {}
            }
        }
    }

    /// Forgets everything about the networks in `range`.
    pub fn forget(&mut self, range: &AddressRange) {
        self.networks.retain(|network, _| !network.overlaps(range));
        self.by_age.retain(|(_, network)| !network.overlaps(range));
    }

    /// Networks that something is known of.
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether nothing is known of any network.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// What answers are decided by now; drops what is too old.
    pub fn table(&mut self, now: Moment) -> RangeMap<Arc<RoundTrips>> {
        let age_max = self.limits.age_max;
        while let Some((heard, network)) = self.by_age.first().copied()
            && now.since(heard) > age_max
        {
            self.by_age.remove(&(heard, network));
            self.networks.remove(&network);
        }
        let rows = self.networks.iter_mut().filter_map(|(network, entry)| {
            entry.averages.retain(|_, average| now.since(average.measured) <= age_max);
            let used =
                entry.averages.iter().filter(|(_, average)| average.samples >= self.limits.samples_min);
            let row: RoundTrips =
                used.map(|(location, average)| (location.clone(), average.value / PARTS)).collect();
            (!row.is_empty()).then(|| (*network, Arc::new(row)))
        });
        rows.collect()
    }

    fn make_room(&mut self, network: &AddressRange) {
        while self.networks.len() >= self.limits.networks_max && !self.networks.contains_key(network) {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.networks.remove(&oldest);
        }
    }
}

impl Average {
    fn add(&mut self, ms: u32, now: Moment) {
        self.samples = self.samples.saturating_add(1);
        self.measured = now;
        // The first few count alike.
        let over = self.samples.min(AVERAGE_OVER);
        self.value = self.value - self.value / over + ms * PARTS / over;
    }
}

fn network_of(address: IpAddr) -> AddressRange {
    let address = address.to_canonical();
    AddressRange::around(address, if address.is_ipv4() { NETWORK_BITS_V4 } else { NETWORK_BITS_V6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(1_000_000 + seconds))
    }

    fn location(text: &str) -> Location {
        text.parse().unwrap()
    }

    fn report(learned: &mut Learned, from: &str, ms: u32, now: Moment) {
        let eu = location("eu");
        learned.report(from.parse().unwrap(), [(&eu, ms)], Duration::ZERO, now);
    }

    fn known(learned: &mut Learned, address: &str, now: Moment) -> Option<u32> {
        let table = learned.table(now);
        table.get(address.parse().unwrap()).value?.get(&location("eu")).copied()
    }

    #[test]
    fn a_few_reports_of_one_network_are_used_for_all_of_it_and_for_nothing_else() {
        let mut learned = Learned::new(LearnedLimits::default());
        for (from, ms) in [("198.51.100.1", 10), ("198.51.100.2", 20), ("198.51.100.3", 30)] {
            assert_eq!(known(&mut learned, "198.51.100.200", at(0)), None);
            report(&mut learned, from, ms, at(0));
        }
        let found = known(&mut learned, "198.51.100.200", at(0)).unwrap();
        assert!((19..=21).contains(&found), "{found}");
        assert_eq!(known(&mut learned, "198.51.101.1", at(0)), None);
    }

    #[test]
    fn one_liar_among_many_moves_the_average_by_an_eighth_of_what_he_says() {
        let mut learned = Learned::new(LearnedLimits::default());
        for _ in 0..50 {
            report(&mut learned, "2001:db8::1", 80, at(0));
        }
        report(&mut learned, "2001:db8::2", 0, at(0));
        let found = known(&mut learned, "2001:db8::3", at(0)).unwrap();
        assert!((69..=71).contains(&found), "{found}");
        report(&mut learned, "2001:db8::2", ROUND_TRIP_MS_MAX + 1, at(0));
        assert_eq!(known(&mut learned, "2001:db8::3", at(0)), Some(found));
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_forgotten_is_gone() {
        let mut learned = Learned::new(LearnedLimits { samples_min: 1, ..LearnedLimits::default() });
        report(&mut learned, "198.51.100.1", 10, at(0));
        report(&mut learned, "203.0.113.1", 10, at(50_000));
        assert_eq!(known(&mut learned, "198.51.100.1", at(86_400)), Some(10));
        assert_eq!(known(&mut learned, "198.51.100.1", at(86_401)), None);
        assert_eq!(learned.len(), 1);
        learned.forget(&"203.0.0.0/16".parse().unwrap());
        assert!(learned.is_empty() && learned.by_age.is_empty());
        let eu = location("eu");
        learned.report("198.51.100.1".parse().unwrap(), [(&eu, 1)], Duration::from_secs(86_401), at(0));
        assert!(learned.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_longest_silent_network_goes_first() {
        let mut learned =
            Learned::new(LearnedLimits { networks_max: 10, samples_min: 1, ..LearnedLimits::default() });
        for n in 0..100 {
            report(&mut learned, "10.0.0.1", 5, at(n));
            report(&mut learned, &format!("192.0.{n}.1"), 5, at(n));
            assert!(learned.len() <= 10 && learned.by_age.len() == learned.len());
        }
        assert_eq!(known(&mut learned, "10.0.0.9", at(100)), Some(5));
        assert_eq!(known(&mut learned, "192.0.99.9", at(100)), Some(5));
        assert_eq!(known(&mut learned, "192.0.80.9", at(100)), None);
        for n in 0..1000 {
            let place = location(&format!("p{n}"));
            learned.report("10.0.0.1".parse().unwrap(), [(&place, 1)], Duration::ZERO, at(101));
        }
        assert_eq!(learned.networks[&network_of("10.0.0.1".parse().unwrap())].averages.len(), LOCATIONS_MAX);
    }
}
