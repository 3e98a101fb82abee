//! The served zones as they are looked up and written on the wire, made once.

use std::collections::HashMap;

use super::message::NAME_BYTES_MAX;
use crate::decide::Ttl;
use crate::name::DnsName;
use crate::zone::{Node, Zone, Zones};

/// How often secondaries would ask, in seconds; there are none, and tools want sensible numbers.
const REFRESH_SECONDS: u32 = 3600;
const RETRY_SECONDS: u32 = 600;
const EXPIRE_SECONDS: u32 = 604_800;

/// A name of a query in lower case, as it is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameKey {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl NameKey {
    /// Of a name on the wire; `None` when it is longer than a name can be.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        // Lengths of labels are below 64, no letter among them.
        bytes.make_ascii_lowercase();
        Some(Self { bytes, length: name.len() })
    }

    /// The name in lower case.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The records at a zone's apex, less their owner.
#[derive(Debug)]
pub(super) struct ZoneRecords {
    /// How many bytes the apex has on the wire: it ends every name of the zone.
    pub(super) apex_bytes: usize,
    /// Data of the SOA record.
    pub(super) soa: Box<[u8]>,
    /// Data of the NS records.
    pub(super) name_servers: Vec<Box<[u8]>>,
    /// How long they may be cached.
    pub(super) ttl: Ttl,
    /// How long the absence of something may be cached (RFC 2308 section 5).
    pub(super) negative_ttl: Ttl,
}

impl ZoneRecords {
    fn of(zone: &Zone) -> Self {
        let apex = wire_name(&zone.apex);
        let mut soa = zone.name_servers.first().map_or_else(|| apex.clone(), wire_name).into_vec();
        soa.extend_from_slice(&wire_name(&zone.contact));
        for number in
            [zone.serial, REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS, zone.negative_ttl.seconds()]
        {
            soa.extend_from_slice(&number.to_be_bytes());
        }
        Self {
            apex_bytes: apex.len(),
            soa: soa.into_boxed_slice(),
            name_servers: zone.name_servers.iter().map(wire_name).collect(),
            ttl: zone.ttl,
            negative_ttl: zone.negative_ttl.min(zone.ttl),
        }
    }
}

#[derive(Debug)]
struct Place {
    zone: usize,
    is_apex: bool,
    node: Node,
}

/// What a name is to us.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'c> {
    /// In none of our zones.
    OutOfZone,
    /// In a zone of ours, and it does not exist.
    Absent(&'c ZoneRecords),
    /// It exists.
    Present {
        /// Its zone.
        zone: &'c ZoneRecords,
        /// Whether it is the zone's topmost name.
        is_apex: bool,
        /// What stands there.
        node: &'c Node,
    },
}

/// All names of all zones.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    zones: Vec<ZoneRecords>,
    places: HashMap<Box<[u8]>, Place>,
}

impl Catalog {
    pub(super) fn of(zones: &Zones) -> Self {
        let mut catalog = Self::default();
        for (at, zone) in zones.zones().enumerate() {
            catalog.zones.push(ZoneRecords::of(zone));
            let apex = Place { zone: at, is_apex: true, node: Node::Empty };
            catalog.places.insert(wire_name(&zone.apex), apex);
            for (name, node) in zone.nodes() {
                let place = Place { zone: at, is_apex: *name == zone.apex, node: node.clone() };
                catalog.places.insert(wire_name(name), place);
            }
        }
        catalog
    }

    /// Looks a lower-case wire name up; of nested zones the innermost counts.
    pub(super) fn find(&self, name: &[u8]) -> Found<'_> {
        if let Some(place) = self.places.get(name) {
            let Some(zone) = self.zones.get(place.zone) else { return Found::OutOfZone };
            return Found::Present { zone, is_apex: place.is_apex, node: &place.node };
        }
        let mut rest = name;
        while let Some((length, behind)) = rest.split_first() {
            let Some(above) = behind.get(usize::from(*length)..) else { break };
            if let Some(place) = self.places.get(above)
                && place.is_apex
                && let Some(zone) = self.zones.get(place.zone)
            {
                return Found::Absent(zone);
            }
            rest = above;
        }
        Found::OutOfZone
    }
}

/// A configured name on the wire: such names have no unusual bytes.
pub(super) fn wire_name(name: &DnsName) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.as_str().len() + 2);
    for label in name.as_str().split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    fn catalog() -> Catalog {
        let mut zones = Zones::default();
        for apex in ["mesh.test", "inner.mesh.test"] {
            let ttl = Ttl::from_seconds(60).unwrap();
            let made =
                Zone::new(name(apex), vec![name("ns.mesh.test")], name("hostmaster.mesh.test"), 1, ttl);
            zones.add_zone(made).unwrap();
        }
        let address = vec!["203.0.113.3".parse().unwrap()];
        zones.add_addresses(&name("broker-3.in.mesh.test"), None, address).unwrap();
        Catalog::of(&zones)
    }

    fn key(text: &str) -> NameKey {
        let mut wire = Vec::new();
        for label in text.split('.') {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        NameKey::of(&wire).unwrap()
    }

    #[test]
    fn names_are_found_whatever_their_letter_case_and_what_lies_between_exists() {
        let catalog = catalog();
        let find = |text: &str| match catalog.find(key(text).as_bytes()) {
            Found::OutOfZone => "out",
            Found::Absent(_) => "absent",
            Found::Present { is_apex: true, .. } => "apex",
            Found::Present { node: Node::Empty, .. } => "empty",
            Found::Present { .. } => "there",
        };
        for (text, expected) in [
            ("Broker-3.IN.mesh.TEST", "there"),
            ("in.mesh.test", "empty"),
            ("mesh.test", "apex"),
            ("x.in.mesh.test", "absent"),
            ("x.broker-3.in.mesh.test", "absent"),
            ("xmesh.test", "out"),
            ("test", "out"),
        ] {
            assert_eq!(find(text), expected, "{text}");
        }
        assert!(matches!(catalog.find(&[0]), Found::OutOfZone));
    }

    #[test]
    fn of_nested_zones_the_innermost_counts() {
        let catalog = catalog();
        for (text, apex) in [("a.inner.mesh.test", "inner.mesh.test"), ("a.mesh.test", "mesh.test")] {
            let Found::Absent(zone) = catalog.find(key(text).as_bytes()) else { panic!("{text} is absent") };
            assert_eq!(zone.apex_bytes, wire_name(&name(apex)).len(), "{text}");
        }
    }
}
