//! Which addresses Azure takes for endpoints: those that the public Internet can reach.

use std::net::IpAddr;

use crate::decide::AddressRange;

/// Ranges that are private, reserved, for documentation, benchmarks or multicast, as network and prefix length: RFC
/// 1918, 6890, 5737, 3068, 2544, 5771 and their likes for IPv6.
const NOT_PUBLIC: [&str; 26] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Whether the public Internet can reach an address.
pub(super) fn is_public(address: IpAddr) -> bool {
    let only = AddressRange::around(address, u8::MAX);
    !NOT_PUBLIC
        .iter()
        .filter_map(|range| range.parse::<AddressRange>().ok())
        .any(|range| range.overlaps(&only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_the_list_is_read_and_only_these_are_not_public() {
        for range in NOT_PUBLIC {
            let range: AddressRange = range.parse().unwrap();
            assert!(!is_public(range.first()) && !is_public(range.last()), "{range}");
        }
        for public in ["8.8.8.8", "203.0.114.1", "172.32.0.1", "2606:4700::1", "223.255.255.255"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
