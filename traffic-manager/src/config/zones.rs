//! The zones, and what stands in them besides profiles.

use std::net::IpAddr;

use rc_daemon::clock;
use rc_daemon::config::Reader;

use crate::decide::{Target, Ttl};
use crate::name::DnsName;
use crate::zone::{Zone, Zones};

pub(super) const NAME_FIX: &str = "write a DNS name such as \"brokers.mesh.example\"";
pub(super) const ADDRESS_FIX: &str = "write an IPv4 or IPv6 address";
/// How far the profiles below a flattened one are followed; deeper nesting is refused elsewhere.
const FOLLOWED_MAX: usize = 16;

pub(super) fn zones(reader: &mut Reader<'_>, zones: &mut Zones) {
    let made_ms = clock::unix_ms();
    // A zone's serial has 32 bits and wraps around (RFC 1982).
    let made = u32::try_from(made_ms / 1000 % (1 << 32)).unwrap_or(0);
    reader.each("zone", |reader| {
        let apex: Option<DnsName> = reader.parsed("name", NAME_FIX);
        let mut name_servers: Vec<DnsName> = reader.parsed_list("name_servers", NAME_FIX);
        let contact: Option<DnsName> = reader.parsed("contact", NAME_FIX);
        let serial = reader.optional("serial").unwrap_or(made);
        let (ttl, negative_ttl) = (ttl(reader, "ttl"), ttl(reader, "negative_ttl"));
        let Some(apex) = apex else { return };
        if name_servers.is_empty() {
            name_servers.push(below(&apex, "ns"));
        }
        let contact = contact.unwrap_or_else(|| below(&apex, "hostmaster"));
        let mut zone = Zone::new(apex, name_servers, contact, serial, ttl);
        zone.negative_ttl = negative_ttl;
        if let Err(error) = zones.add_zone(zone) {
            reader.reject("name", error, "remove one of the two");
        }
    });
    if zones.zones().next().is_none() && !reader.is_set("zone") {
        reader.reject("zone", "there is no zone to serve", "add a [[zone]] table with a name");
    }
}

pub(super) fn records(reader: &mut Reader<'_>, zones: &mut Zones) {
    reader.each("record", |reader| {
        let name: Option<DnsName> = reader.parsed("name", NAME_FIX);
        let addresses: Vec<IpAddr> = reader.parsed_list("addresses", ADDRESS_FIX);
        let ttl = reader.optional("ttl").and_then(Ttl::from_seconds);
        if addresses.is_empty() {
            reader.reject("addresses", "there is no address", ADDRESS_FIX);
        }
        let Some(name) = name else { return };
        if let Err(error) = zones.add_addresses(&name, ttl, addresses) {
            reader.reject("name", error, "add the [[zone]], or correct the name");
        }
    });
}

/// Reads the aliases; the profiles are in the zones already.
pub(super) fn aliases(reader: &mut Reader<'_>, zones: &mut Zones) {
    reader.each("alias", |reader| {
        let name: Option<DnsName> = reader.parsed("name", NAME_FIX);
        let target: Option<DnsName> = reader.parsed("target", NAME_FIX);
        let ttl = reader.optional("ttl").and_then(Ttl::from_seconds);
        let flatten: bool = reader.read("flatten");
        let (Some(name), Some(target)) = (name, target) else { return };
        let added = if flatten {
            if gives_names(zones, &target) {
                let what = format_args!("{target} answers names, and a flattened name has addresses only");
                reader.reject("target", what, "use a profile whose endpoints are addresses");
            }
            zones.add_flattened(&name, &target)
        } else {
            zones.add_alias(&name, ttl, target)
        };
        if let Err(error) = added {
            let key =
                if matches!(error, crate::zone::ZoneError::NoProfile { .. }) { "target" } else { "name" };
            reader.reject(key, error, "add what is missing, correct the name, or remove the alias");
        }
    });
}

/// Whether an answer of the profile can be a name.
fn gives_names(zones: &Zones, profile: &DnsName) -> bool {
    let position = zones.profiles().iter().position(|known| known.name == *profile);
    let mut open: Vec<(usize, usize)> = position.into_iter().map(|position| (position, 0)).collect();
    while let Some((position, depth)) = open.pop() {
        for endpoint in zones.profile(position).map(crate::decide::Profile::endpoints).unwrap_or_default() {
            match endpoint.target {
                Target::Name(_) => return true,
                Target::Nested { profile, .. } if depth < FOLLOWED_MAX => open.push((profile, depth + 1)),
                Target::Nested { .. } | Target::Address(_) => {}
            }
        }
    }
    false
}

pub(super) fn ttl(reader: &mut Reader<'_>, path: &str) -> Ttl {
    Ttl::from_seconds(reader.read(path)).unwrap_or(Ttl::MAX)
}

fn below(zone: &DnsName, label: &str) -> DnsName {
    DnsName::from_labels(std::iter::once(label.as_bytes()).chain(zone.as_str().split('.').map(str::as_bytes)))
}
