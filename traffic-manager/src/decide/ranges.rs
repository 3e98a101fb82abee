//! Values by address range, and how wide an answer about one address holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A span of addresses of one family; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A part of it is no address.
    #[error("{text:?} is no IP address")]
    Address {
        /// The part.
        text: String,
    },
    /// The number behind the slash does not fit the family.
    #[error("{text:?} is no prefix length from 0 to {most}")]
    Length {
        /// The part.
        text: String,
        /// Bits of the family.
        most: u8,
    },
    /// There are set bits behind the prefix.
    #[error("{address}/{length} has bits set behind the prefix; the network is {network}/{length}")]
    HostBits {
        /// The address as given.
        address: IpAddr,
        /// Its prefix length.
        length: u8,
        /// The address with these bits cleared.
        network: IpAddr,
    },
    /// The first address is behind the last.
    #[error("{first} is behind {last}")]
    Backwards {
        /// The first as given.
        first: IpAddr,
        /// The last as given.
        last: IpAddr,
    },
    /// One end is IPv4 and the other IPv6.
    #[error("{first} and {last} are of two families")]
    Families {
        /// The first as given.
        first: IpAddr,
        /// The last as given.
        last: IpAddr,
    },
}

impl AddressRange {
    /// All addresses from `first` to `last`.
    ///
    /// # Errors
    /// When they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(RangeError::Families { first, last });
        }
        if first > last {
            return Err(RangeError::Backwards { first, last });
        }
        Ok(Self { first, last })
    }

    /// The addresses that share the first `length` bits of `address`.
    ///
    /// # Errors
    /// When the family has fewer bits, or `address` has bits set behind the prefix.
    pub fn prefix(address: IpAddr, length: u8) -> Result<Self, RangeError> {
        let most = family_bits(address);
        if length > most {
            return Err(RangeError::Length { text: length.to_string(), most });
        }
        let host = host_mask(most - length);
        let number = number(address);
        if number & host != 0 {
            let network = self::address(number & !host, address.is_ipv4());
            return Err(RangeError::HostBits { address, length, network });
        }
        Ok(Self { first: address, last: self::address(number | host, address.is_ipv4()) })
    }

    /// The addresses that share the first `length` bits of `address`, whatever is behind them.
    pub fn around(address: IpAddr, length: u8) -> Self {
        let most = family_bits(address);
        let host = host_mask(most - length.min(most));
        let end = |number| self::address(number, address.is_ipv4());
        Self { first: end(number(address) & !host), last: end(number(address) | host) }
    }

    /// The first address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    /// Takes `192.0.2.0/24`, `192.0.2.3-192.0.2.9` and `192.0.2.3`.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let address = |text: &str| {
            text.trim().parse::<IpAddr>().map_err(|_| RangeError::Address { text: text.trim().to_owned() })
        };
        if let Some((network, length)) = text.split_once('/') {
            let network = address(network)?;
            let wrong = |_| RangeError::Length { text: length.trim().to_owned(), most: family_bits(network) };
            return Self::prefix(network, length.trim().parse().map_err(wrong)?);
        }
        match text.split_once('-') {
            Some((first, last)) => Self::new(address(first)?, address(last)?),
            None => address(text).and_then(|only| Self::new(only, only)),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = number(self.first) ^ number(self.last);
        let host_bits = u8::try_from(128 - span.leading_zeros()).unwrap_or(0);
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else if Self::around(self.first, family_bits(self.first) - host_bits) == *self {
            write!(f, "{}/{}", self.first, family_bits(self.first) - host_bits)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What a [`RangeMap`] says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InRange<'m, V> {
    /// The value of the innermost range; `None` outside all.
    pub value: Option<&'m V>,
    /// All addresses that share this many bits get the same value; the fewest possible.
    pub prefix: u8,
}

/// A value for each range of addresses; of nested ranges the innermost counts. Both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeMap<V> {
    v4: Vec<(u128, Option<V>)>,
    v6: Vec<(u128, Option<V>)>,
}

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V: Clone + PartialEq> FromIterator<(AddressRange, V)> for RangeMap<V> {
    fn from_iter<I: IntoIterator<Item = (AddressRange, V)>>(entries: I) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(range, _)| range.first.is_ipv4());
        Self { v4: intervals(v4, u128::from(u32::MAX)), v6: intervals(v6, u128::MAX) }
    }
}

impl<V> RangeMap<V> {
    /// What holds for `address`, and for how many others around it.
    pub fn get(&self, address: IpAddr) -> InRange<'_, V> {
        let address = address.to_canonical();
        let starts = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let wanted = number(address);
        let behind = starts.partition_point(|(start, _)| *start <= wanted);
        let current = behind.checked_sub(1).and_then(|at| starts.get(at));
        let before = current.and_then(|(start, _)| start.checked_sub(1));
        let after = starts.get(behind).map(|(start, _)| *start);
        let bits = family_bits(address);
        let excluding = |other: u128| {
            let shared = (wanted ^ other).leading_zeros() + u32::from(bits) - 128;
            u8::try_from(shared + 1).unwrap_or(bits)
        };
        let prefix = before.into_iter().chain(after).map(excluding).max().unwrap_or(0);
        InRange { value: current.and_then(|(_, value)| value.as_ref()), prefix }
    }

    /// Whether there is no range at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Disjoint intervals, each from its start to the next start; the last one ends with the family's last address.
fn intervals<V: Clone + PartialEq>(
    mut entries: Vec<(AddressRange, V)>,
    last_of_all: u128,
) -> Vec<(u128, Option<V>)> {
    // Outer ranges come before the ones inside them.
    entries.sort_by(|(a, _), (b, _)| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut starts: Vec<(u128, Option<V>)> = Vec::new();
    let mut open: Vec<(u128, V)> = Vec::new();
    for (range, value) in entries {
        let (first, last) = (number(range.first), number(range.last));
        close_before(Some(first), &mut open, &mut starts);
        begin(first, Some(value.clone()), &mut starts);
        open.push((last, value));
    }
    close_before(None, &mut open, &mut starts);
    starts.retain(|(start, _)| *start <= last_of_all);
    starts
}

/// Ends the open ranges that have nothing at or behind `position`; without one, all of them.
fn close_before<V: Clone + PartialEq>(
    position: Option<u128>,
    open: &mut Vec<(u128, V)>,
    starts: &mut Vec<(u128, Option<V>)>,
) {
    while let Some((last, _)) = open.last()
        && position.is_none_or(|position| *last < position)
    {
        let ended = *last;
        open.pop();
        while open.last().is_some_and(|(last, _)| *last <= ended) {
            open.pop();
        }
        if let Some(next) = ended.checked_add(1) {
            begin(next, open.last().map(|(_, value)| value.clone()), starts);
        }
    }
}

fn begin<V: PartialEq>(at: u128, value: Option<V>, starts: &mut Vec<(u128, Option<V>)>) {
    if starts.last().is_some_and(|(start, _)| *start == at) {
        starts.pop();
    }
    let standing = starts.last().and_then(|(_, value)| value.as_ref());
    if standing != value.as_ref() {
        starts.push((at, value));
    }
}

const fn family_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn host_mask(host_bits: u8) -> u128 {
    if host_bits >= 128 { u128::MAX } else { (1 << host_bits) - 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, is_v4: bool) -> IpAddr {
    match (is_v4, u32::try_from(number)) {
        (true, Ok(number)) => Ipv4Addr::from(number).into(),
        (true, Err(_)) => Ipv4Addr::BROADCAST.into(),
        (false, _) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn map(entries: &[(&str, u8)]) -> RangeMap<u8> {
        entries.iter().map(|(text, value)| (range(text), *value)).collect()
    }

    fn at(map: &RangeMap<u8>, address: &str) -> (Option<u8>, u8) {
        let found = map.get(address.parse().unwrap());
        (found.value.copied(), found.prefix)
    }

    #[test]
    fn each_form_of_a_range_is_read_and_shown_as_it_was() {
        for text in
            ["192.0.2.0/24", "192.0.2.3-192.0.2.9", "192.0.2.3", "2001:db8:1::/48", "0.0.0.0/0", "::/0"]
        {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("192.0.2.0 - 192.0.2.255").to_string(), "192.0.2.0/24");
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for (text, reason) in [
            ("1.2.3.4/24", "the network is 1.2.3.0/24"),
            ("1.2.3.4/33", "from 0 to 32"),
            ("1.2.3.4-1.2.3.3", "1.2.3.4 is behind 1.2.3.3"),
            ("1.2.3.4-::1", "two families"),
            ("here", "no IP address"),
        ] {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn both_ends_belong_to_a_range_and_the_innermost_counts() {
        let map = map(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3-10.1.2.9", 3)]);
        for (address, value) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(1)),
            ("10.1.0.0", Some(2)),
            ("10.1.2.2", Some(2)),
            ("10.1.2.3", Some(3)),
            ("10.1.2.9", Some(3)),
            ("10.1.2.10", Some(2)),
            ("10.2.0.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", None),
            ("::ffff:10.1.2.9", Some(3)),
            ("::10.1.2.9", None),
        ] {
            assert_eq!(at(&map, address).0, value, "{address}");
        }
    }

    #[test]
    fn the_prefix_is_as_short_as_the_neighbours_allow() {
        let map = map(&[("198.51.100.0/24", 1), ("2001:db8:1::/48", 2)]);
        assert_eq!(at(&map, "198.51.100.7"), (Some(1), 24));
        assert_eq!(at(&map, "198.51.101.7"), (None, 24));
        assert_eq!(at(&map, "10.0.0.1"), (None, 1));
        assert_eq!(at(&map, "2001:db8:1::9"), (Some(2), 48));
        assert_eq!(at(&RangeMap::default(), "10.0.0.1"), (None, 0));
    }

    proptest! {
        #[test]
        fn every_address_within_the_prefix_has_the_same_value(
            entries in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_u8..4), 0..12),
            wanted in any::<u32>(),
            other in any::<u32>(),
        ) {
            let entries: Vec<(AddressRange, u8)> = entries
                .into_iter()
                .map(|(start, length, value)| (AddressRange::around(Ipv4Addr::from(start).into(), length), value))
                .collect();
            let map: RangeMap<u8> = entries.iter().copied().collect();
            let found = map.get(Ipv4Addr::from(wanted).into());
            // By the definition: the longest prefix that contains it; of equal ones the last.
            let contains = |range: &AddressRange, address: u32| {
                let address = IpAddr::from(Ipv4Addr::from(address));
                range.first() <= address && address <= range.last()
            };
            let size = |range: &AddressRange| number(range.last()) - number(range.first());
            let by_hand = |address: u32| {
                let mut best: Option<(u128, u8)> = None;
                for (range, value) in entries.iter().filter(|(range, _)| contains(range, address)) {
                    if best.is_none_or(|(least, _)| size(range) <= least) {
                        best = Some((size(range), *value));
                    }
                }
                best.map(|(_, value)| value)
            };
            prop_assert_eq!(found.value.copied(), by_hand(wanted));
            let inside = if found.prefix == 0 { other } else {
                let keep = u32::MAX << (32 - found.prefix);
                wanted & keep | other & !keep
            };
            prop_assert_eq!(map.get(Ipv4Addr::from(inside).into()), found);
        }
    }
}
