//! The endpoints: each is read, then handed to its profile.

use std::net::IpAddr;

use rc_daemon::config::Reader;

use super::EndpointConfig;
use super::private::is_public;
use super::probes;
use super::profiles::{EndpointDraft, ProfileDraft};
use super::zones::NAME_FIX;
use crate::decide::{Endpoint, EndpointIndex, EndpointStatus, MinimumChildren, Target};
use crate::name::DnsName;

const TARGET_FIX: &str = "give one of address, target and nested";

/// What an endpoint stands for, before the profiles are known.
enum Aim {
    Address(IpAddr),
    Name(DnsName),
    Nested(DnsName),
}

impl Aim {
    /// Puts nested profiles in terms of their position. `None`: there is no such profile.
    fn target(&self, minimum: MinimumChildren, names: &[Option<DnsName>]) -> Option<Target> {
        Some(match self {
            Self::Address(address) => Target::Address(*address),
            Self::Name(name) => Target::Name(name.clone()),
            Self::Nested(child) => {
                let profile = names.iter().position(|name| name.as_ref() == Some(child))?;
                Target::Nested { profile, minimum }
            }
        })
    }
}

/// Reads the endpoints and hands each to its profile.
pub(super) fn endpoints(
    reader: &mut Reader<'_>,
    drafts: &mut [Option<ProfileDraft>],
    is_strict: bool,
) -> Vec<EndpointConfig> {
    let names: Vec<Option<DnsName>> =
        drafts.iter().map(|draft| draft.as_ref().map(|draft| draft.name.clone())).collect();
    let (mut configs, mut at) = (Vec::new(), 0);
    reader.each("endpoint", |reader| {
        let number = at;
        at += 1;
        let of: Option<DnsName> = reader.parsed("profile", NAME_FIX);
        let found = of.as_ref().and_then(|of| names.iter().position(|name| name.as_ref() == Some(of)));
        if let (Some(of), None) = (&of, found) {
            reader.reject("profile", format_args!("there is no profile {of}"), "add it, or correct the name");
        }
        let (aim, minimum) = (aim(reader, is_strict), minimum(reader));
        let probe = probes::endpoint(reader);
        let index = EndpointIndex(configs.len());
        // The target is put right below.
        let mut endpoint = steering(reader, index);
        let (priority, is_azure) = (reader.optional("priority"), reader.read::<String>("kind") == "azure");
        let (Some(position), Some(aim)) = (found, aim) else { return };
        let Some(target) = aim.target(minimum, &names) else {
            if let Aim::Nested(child) = &aim {
                let what = format_args!("there is no profile {child}");
                reader.reject("nested", what, "add it, or correct the name");
            }
            return;
        };
        let Some(draft) = drafts.get_mut(position).and_then(Option::as_mut) else { return };
        if endpoint.always_serve && matches!(aim, Aim::Nested(_)) {
            let what = "the health of a nested profile follows from its endpoints";
            reader.reject("always_serve", what, "set it on these endpoints");
        }
        let status = fixed_status(draft, &endpoint, &aim);
        let watch = draft.probe.watch(status);
        let probe = if status.is_none() { draft.probe.target(&target, probe) } else { None };
        endpoint.target = target;
        endpoint.priority = priority.unwrap_or(1);
        let name = endpoint.name.clone();
        let nested = match aim {
            Aim::Nested(child) => Some((child, minimum)),
            Aim::Address(_) | Aim::Name(_) => None,
        };
        draft.endpoints.push(EndpointDraft { at: number, endpoint, is_azure, priority, nested });
        configs.push(EndpointConfig { profile: position, name, watch, target: probe });
    });
    configs
}

/// The state of an endpoint that is not probed.
const fn fixed_status(draft: &ProfileDraft, endpoint: &Endpoint, aim: &Aim) -> Option<EndpointStatus> {
    if !endpoint.enabled {
        Some(EndpointStatus::Disabled)
    } else if !draft.enabled {
        Some(EndpointStatus::Inactive)
    } else if endpoint.always_serve || matches!(aim, Aim::Nested(_)) {
        Some(EndpointStatus::Unmonitored)
    } else {
        None
    }
}

fn steering(reader: &mut Reader<'_>, index: EndpointIndex) -> Endpoint {
    let target = Target::Address(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    Endpoint {
        enabled: reader.read("enabled"),
        always_serve: reader.read("always_serve"),
        weight: reader.read("weight"),
        location: reader.parsed("location", "write a name such as \"west-europe\""),
        regions: reader.parsed_list("regions", "see the list of regions in the documentation of the key"),
        subnets: reader.parsed_list("subnets", "write a network, a range or an address"),
        ..Endpoint::new(index, reader.read::<String>("name"), target)
    }
}

fn minimum(reader: &mut Reader<'_>) -> MinimumChildren {
    MinimumChildren {
        any: reader.read("min_children"),
        v4: reader.read("min_children_ipv4"),
        v6: reader.read("min_children_ipv6"),
    }
}

fn aim(reader: &mut Reader<'_>, is_strict: bool) -> Option<Aim> {
    let set: Vec<&str> =
        ["address", "target", "nested"].into_iter().filter(|key| reader.is_set(key)).collect();
    let address: Option<IpAddr> = reader.parsed("address", "write an IP address, or use target for a name");
    let name: Option<DnsName> = reader.parsed("target", NAME_FIX);
    let nested: Option<DnsName> = reader.parsed("nested", NAME_FIX);
    match set.as_slice() {
        [_] => {}
        [] => {
            reader.reject("address", "the endpoint stands for nothing", TARGET_FIX);
            return None;
        }
        [first, .., last] => {
            reader.reject(last, format_args!("there is {first} as well"), TARGET_FIX);
            return None;
        }
    }
    if let Some(address) = address {
        if is_strict && !is_public(address) {
            let what = format_args!("{address} is no public address");
            reader.reject("address", what, "use a public one, or set azure.strict = false");
        }
        return Some(Aim::Address(address));
    }
    name.map(Aim::Name).or_else(|| nested.map(Aim::Nested))
}
