//! The served zones: what stands at which name.
//!
//! Built once from the configuration and only read afterwards. A name that has something below it exists, even when
//! nothing stands at it (RFC 8020), so every name between a zone's apex and an entry is there as [`Node::Empty`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::decide::{Profile, Ttl};
use crate::name::DnsName;

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Nothing; something stands below it.
    Empty,
    /// Fixed addresses.
    Addresses {
        /// How long they may be cached.
        ttl: Ttl,
        /// Both families.
        addresses: Vec<IpAddr>,
    },
    /// A profile, by its position among all profiles.
    Profile(usize),
    /// Another name for something (CNAME), in our zones or elsewhere.
    Alias {
        /// How long it may be cached.
        ttl: Ttl,
        /// The other name.
        target: DnsName,
    },
    /// The addresses that a profile answers, without its name being seen; with the profile's TTL.
    Flattened(usize),
}

/// A part of the name space that we are the authority for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its topmost name.
    pub apex: DnsName,
    /// Names of the servers that answer for it; at least one. The first stands in the SOA record.
    pub name_servers: Vec<DnsName>,
    /// Mail address of who is responsible, with a dot for the `@`.
    pub contact: DnsName,
    /// Version of the zone, for the SOA record.
    pub serial: u32,
    /// How long the zone's own records may be cached.
    pub ttl: Ttl,
    /// How long the absence of something may be cached.
    pub negative_ttl: Ttl,
    nodes: BTreeMap<DnsName, Node>,
}

/// Why something cannot stand at a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// The name is in none of the zones.
    #[error("{name} is in none of the served zones")]
    OutsideZones {
        /// The name.
        name: DnsName,
    },
    /// Something stands there already.
    #[error("{name} is used twice")]
    Taken {
        /// The name.
        name: DnsName,
    },
    /// An alias cannot stand beside the records that a zone's topmost name always has.
    #[error("{name} is the top of a zone and cannot be an alias")]
    AliasAtApex {
        /// The name.
        name: DnsName,
    },
    /// There is no profile of this name.
    #[error("there is no profile {name}")]
    NoProfile {
        /// The name.
        name: DnsName,
    },
    /// The zone is there already.
    #[error("zone {apex} is there twice")]
    SecondZone {
        /// The zone.
        apex: DnsName,
    },
}

impl Zone {
    /// A zone with nothing in it.
    pub fn new(apex: DnsName, name_servers: Vec<DnsName>, contact: DnsName, serial: u32, ttl: Ttl) -> Self {
        Self { apex, name_servers, contact, serial, ttl, negative_ttl: ttl, nodes: BTreeMap::new() }
    }

    /// Every name that exists in it, with what stands there; the apex only when something does.
    pub fn nodes(&self) -> impl Iterator<Item = (&DnsName, &Node)> {
        self.nodes.iter()
    }

    fn insert(&mut self, name: &DnsName, node: Node) -> Result<(), ZoneError> {
        let standing = self.nodes.entry(name.clone()).or_insert(Node::Empty);
        match (&mut *standing, node) {
            (Node::Empty, node) => *standing = node,
            (Node::Addresses { addresses, .. }, Node::Addresses { addresses: more, .. }) => {
                for address in more {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            (Node::Addresses { .. } | Node::Profile(_) | Node::Alias { .. } | Node::Flattened(_), _) => {
                return Err(ZoneError::Taken { name: name.clone() });
            }
        }
        for above in name.with_ancestors().skip(1) {
            if above == self.apex.as_str() {
                break;
            }
            if !self.nodes.contains_key(above) {
                self.nodes.insert(DnsName::of_canonical(above), Node::Empty);
            }
        }
        Ok(())
    }
}

/// What a name is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'z> {
    /// In none of our zones.
    OutOfZone,
    /// In a zone of ours, and it does not exist.
    Absent(&'z Zone),
    /// It exists.
    Present(&'z Zone, &'z Node),
}

/// All zones and profiles.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    zones: BTreeMap<DnsName, Zone>,
    profiles: Vec<Profile>,
}

impl Zones {
    /// Adds a zone.
    ///
    /// # Errors
    /// [`ZoneError::SecondZone`] when it is there.
    pub fn add_zone(&mut self, zone: Zone) -> Result<(), ZoneError> {
        if self.zones.contains_key(&zone.apex) {
            return Err(ZoneError::SecondZone { apex: zone.apex });
        }
        self.zones.insert(zone.apex.clone(), zone);
        Ok(())
    }

    /// Puts a profile at its name.
    ///
    /// # Errors
    /// When the name is outside all zones or taken.
    pub fn add_profile(&mut self, profile: Profile) -> Result<(), ZoneError> {
        let node = Node::Profile(self.profiles.len());
        self.zone_mut(&profile.name)?.insert(&profile.name, node)?;
        self.profiles.push(profile);
        Ok(())
    }

    /// Puts addresses at a name; several calls for one name add up, and the first TTL counts. Without a TTL it is the
    /// zone's.
    ///
    /// # Errors
    /// When the name is outside all zones, or a profile stands there.
    pub fn add_addresses(
        &mut self,
        name: &DnsName,
        ttl: Option<Ttl>,
        addresses: Vec<IpAddr>,
    ) -> Result<(), ZoneError> {
        let zone = self.zone_mut(name)?;
        let ttl = ttl.unwrap_or(zone.ttl);
        zone.insert(name, Node::Addresses { ttl, addresses })
    }

    /// Makes `name` another name of `target`. Without a TTL it is the zone's.
    ///
    /// # Errors
    /// When the name is outside all zones, taken, or the apex of a zone, which has records of its own.
    pub fn add_alias(&mut self, name: &DnsName, ttl: Option<Ttl>, target: DnsName) -> Result<(), ZoneError> {
        let zone = self.zone_mut(name)?;
        if zone.apex == *name {
            return Err(ZoneError::AliasAtApex { name: name.clone() });
        }
        let ttl = ttl.unwrap_or(zone.ttl);
        zone.insert(name, Node::Alias { ttl, target })
    }

    /// Lets `name` answer the addresses of the profile of this name.
    ///
    /// # Errors
    /// When the name is outside all zones or taken, or there is no such profile.
    pub fn add_flattened(&mut self, name: &DnsName, profile: &DnsName) -> Result<(), ZoneError> {
        let position = self.profiles.iter().position(|known| known.name == *profile);
        let position = position.ok_or_else(|| ZoneError::NoProfile { name: profile.clone() })?;
        self.zone_mut(name)?.insert(name, Node::Flattened(position))
    }

    /// What `name` is to us; of nested zones the innermost counts.
    pub fn find(&self, name: &DnsName) -> Found<'_> {
        let Some(zone) = name.with_ancestors().find_map(|above| self.zones.get(above)) else {
            return Found::OutOfZone;
        };
        match zone.nodes.get(name) {
            Some(node) => Found::Present(zone, node),
            None if zone.apex == *name => Found::Present(zone, &Node::Empty),
            None => Found::Absent(zone),
        }
    }

    /// A profile by its position.
    pub fn profile(&self, position: usize) -> Option<&Profile> {
        self.profiles.get(position)
    }

    /// All profiles, in the order of the configuration.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// All zones.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values()
    }

    fn zone_mut(&mut self, name: &DnsName) -> Result<&mut Zone, ZoneError> {
        let apex =
            name.with_ancestors().find(|above| self.zones.contains_key(*above)).map(DnsName::of_canonical);
        apex.and_then(|apex| self.zones.get_mut(&apex))
            .ok_or_else(|| ZoneError::OutsideZones { name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{MaxReturn, Method};

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    fn zone(apex: &str) -> Zone {
        let under = |label: &str| name(&format!("{label}.{apex}"));
        Zone::new(name(apex), vec![under("ns")], under("hostmaster"), 1, Ttl::from_seconds(60).unwrap())
    }

    fn profile(text: &str) -> Profile {
        let method = Method::MultiValue { max_return: MaxReturn::DEFAULT };
        Profile::new(name(text), method, Ttl::from_seconds(300).unwrap(), Vec::new())
    }

    fn zones() -> Zones {
        let mut zones = Zones::default();
        zones.add_zone(zone("mesh.test")).unwrap();
        zones.add_zone(zone("inner.mesh.test")).unwrap();
        zones.add_profile(profile("brokers.mesh.test")).unwrap();
        zones
            .add_addresses(&name("broker-3.in.mesh.test"), None, vec!["203.0.113.3".parse().unwrap()])
            .unwrap();
        zones
    }

    #[test]
    fn l_11_a_name_in_the_zone_without_an_entry_is_absent() {
        assert!(
            matches!(zones().find(&name("nosuch.mesh.test")), Found::Absent(zone) if zone.apex == name("mesh.test"))
        );
        assert!(matches!(zones().find(&name("x.brokers.mesh.test")), Found::Absent(_)));
    }

    #[test]
    fn d_02_a_name_outside_all_zones_is_not_ours() {
        for other in ["other.test", "test", "xmesh.test"] {
            assert_eq!(zones().find(&name(other)), Found::OutOfZone, "{other}");
        }
        assert_eq!(zones().find(&DnsName::from_labels([])), Found::OutOfZone);
    }

    #[test]
    fn a_name_between_apex_and_entry_exists_and_is_empty() {
        assert!(matches!(zones().find(&name("in.mesh.test")), Found::Present(_, Node::Empty)));
        assert!(matches!(zones().find(&name("mesh.test")), Found::Present(_, Node::Empty)));
    }

    #[test]
    fn of_nested_zones_the_innermost_counts() {
        let zones = zones();
        let apex = |text: &str| match zones.find(&name(text)) {
            Found::Absent(zone) | Found::Present(zone, _) => zone.apex.to_string(),
            Found::OutOfZone => panic!("{text} is ours"),
        };
        assert_eq!(apex("a.inner.mesh.test"), "inner.mesh.test");
        assert_eq!(apex("a.mesh.test"), "mesh.test");
    }

    #[test]
    fn addresses_of_one_name_add_up_and_nothing_else_does() {
        let mut zones = zones();
        let broker = name("broker-3.in.mesh.test");
        for address in ["2001:db8::3", "203.0.113.3"] {
            zones.add_addresses(&broker, None, vec![address.parse().unwrap()]).unwrap();
        }
        assert!(
            matches!(zones.find(&broker), Found::Present(_, Node::Addresses { addresses, .. }) if addresses.len() == 2)
        );
        assert_eq!(
            zones.add_profile(profile("broker-3.in.mesh.test")),
            Err(ZoneError::Taken { name: broker })
        );
        let second = zones.add_profile(profile("Brokers.mesh.test"));
        assert_eq!(second, Err(ZoneError::Taken { name: name("brokers.mesh.test") }));
        assert_eq!(zones.profiles().len(), 1);
        let outside = zones.add_profile(profile("p.other.test"));
        assert_eq!(outside, Err(ZoneError::OutsideZones { name: name("p.other.test") }));
        assert_eq!(zones.add_zone(zone("mesh.test")), Err(ZoneError::SecondZone { apex: name("mesh.test") }));
    }

    #[test]
    fn an_alias_stands_alone_and_not_at_the_top_of_a_zone() {
        let mut zones = zones();
        let (www, target) = (name("www.mesh.test"), name("brokers.mesh.test"));
        zones.add_alias(&www, None, target.clone()).unwrap();
        assert!(
            matches!(zones.find(&www), Found::Present(_, Node::Alias { ttl, .. }) if ttl.seconds() == 60)
        );
        let apex = name("mesh.test");
        let refused = zones.add_alias(&apex, None, target.clone());
        assert_eq!(refused, Err(ZoneError::AliasAtApex { name: apex.clone() }));
        zones.add_flattened(&apex, &target).unwrap();
        assert!(matches!(zones.find(&apex), Found::Present(_, Node::Flattened(0))));
        assert_eq!(zones.add_flattened(&www, &target), Err(ZoneError::Taken { name: www.clone() }));
        assert_eq!(zones.add_flattened(&name("a.mesh.test"), &www), Err(ZoneError::NoProfile { name: www }));
    }

    #[test]
    fn an_entry_at_an_empty_name_takes_its_place() {
        let mut zones = zones();
        zones.add_profile(profile("in.mesh.test")).unwrap();
        assert!(matches!(zones.find(&name("in.mesh.test")), Found::Present(_, Node::Profile(1))));
        zones.add_profile(profile("mesh.test")).unwrap();
        assert!(matches!(zones.find(&name("mesh.test")), Found::Present(_, Node::Profile(2))));
    }
}
