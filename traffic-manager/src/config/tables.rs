//! The table arrays of the configuration: zones, records, profiles, endpoints.

use std::net::{IpAddr, SocketAddr};

use rc_daemon::clock;
use rc_daemon::config::Reader;
use rc_proto::wire::BrokerId;
use rc_transport::Expectation;

use super::EndpointConfig;
use crate::decide::{Endpoint, EndpointIndex, EndpointStatus, MaxReturn, Method, Profile, Target, Ttl};
use crate::monitor::{ProbeAsk, ProbePlace, ProbePlan, ProbeTarget, Watch};
use crate::name::DnsName;
use crate::zone::{Zone, Zones};

const NAME_FIX: &str = "write a DNS name such as \"brokers.mesh.example\"";
const ADDRESS_FIX: &str = "write an IPv4 or IPv6 address";

/// A profile with what only its endpoints need.
pub(super) struct ProfileDraft {
    name: DnsName,
    enabled: bool,
    method: Method,
    ttl: Ttl,
    endpoints: Vec<Endpoint>,
    plan: ProbePlan,
    probe_port: u16,
    service_name: String,
}

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

pub(super) fn profiles(reader: &mut Reader<'_>) -> Vec<Option<ProfileDraft>> {
    reader.each("profile", |reader| {
        let name: Option<DnsName> = reader.parsed("name", NAME_FIX);
        let service_name: Option<DnsName> = reader.parsed("service_name", NAME_FIX);
        let method = method(reader);
        let (enabled, ttl) = (reader.read("enabled"), ttl(reader, "ttl"));
        let (probe_port, plan) = (reader.read("probe_port"), plan(reader));
        let name = name?;
        let service_name = service_name.as_ref().unwrap_or(&name).to_string();
        let endpoints = Vec::new();
        Some(ProfileDraft { name, enabled, method, ttl, endpoints, plan, probe_port, service_name })
    })
}

fn method(reader: &mut Reader<'_>) -> Method {
    let name: String = reader.read("method");
    let max_return = MaxReturn::new(reader.read("max_return")).unwrap_or(MaxReturn::DEFAULT);
    let method = Method::MultiValue { max_return };
    if !name.is_empty() && name != method.name() {
        reader.reject("method", format_args!("{name} is not in this version"), "use \"MultiValue\"");
    }
    method
}

fn plan(reader: &mut Reader<'_>) -> ProbePlan {
    let plan = ProbePlan {
        interval: reader.read("interval"),
        timeout: reader.read("timeout"),
        tolerated_failures: reader.read("tolerated_failures"),
        flap_limit: reader.read("flap_limit"),
    };
    if plan.timeout > plan.interval {
        reader.reject(
            "timeout",
            format_args!(
                "a probe may take {} ms and the next comes after {} ms",
                plan.timeout.as_millis(),
                plan.interval.as_millis()
            ),
            "use a timeout of at most the interval",
        );
    }
    plan
}

/// Reads the endpoints and hands each to its profile.
pub(super) fn endpoints(reader: &mut Reader<'_>, drafts: &mut [Option<ProfileDraft>]) -> Vec<EndpointConfig> {
    let mut configs = Vec::new();
    reader.each("endpoint", |reader| {
        let of: Option<DnsName> = reader.parsed("profile", NAME_FIX);
        let name: String = reader.read("name");
        let address: Option<IpAddr> =
            reader.parsed("address", "write an IP address: MultiValue answers have no names");
        let broker: Option<BrokerId> = reader.parsed("broker", "write <region>/<id>");
        let (enabled, always_serve) = (reader.read("enabled"), reader.read("always_serve"));
        let probe_address: Option<SocketAddr> = reader.optional("probe_address");
        let (Some(of), Some(address)) = (of, address) else { return };
        let found = drafts
            .iter_mut()
            .enumerate()
            .find_map(|(at, draft)| draft.as_mut().filter(|draft| draft.name == of).map(|draft| (at, draft)));
        let Some((position, draft)) = found else {
            reader.reject("profile", format_args!("there is no profile {of}"), "add it, or correct the name");
            return;
        };
        check_unique(reader, draft, &name, address);
        let watch = watch(draft, enabled, always_serve);
        let target = matches!(watch, Watch::Probed(_)).then(|| ProbeTarget {
            place: ProbePlace::Address(probe_address.unwrap_or(SocketAddr::new(address, draft.probe_port))),
            ask: ProbeAsk::Broker(match broker {
                Some(broker) => Expectation::Broker(broker),
                None => Expectation::ServiceName(draft.service_name.clone()),
            }),
            timeout: draft.plan.timeout,
        });
        let index = EndpointIndex(configs.len());
        let endpoint = Endpoint::new(index, name.clone(), Target::Address(address));
        draft.endpoints.push(Endpoint { enabled, always_serve, ..endpoint });
        configs.push(EndpointConfig { profile: position, name, watch, target });
    });
    configs
}

fn check_unique(reader: &mut Reader<'_>, profile: &ProfileDraft, name: &str, address: IpAddr) {
    if profile.endpoints.iter().any(|other| other.name == name) {
        reader.reject("name", format_args!("{} has two endpoints {name}", profile.name), "rename one");
    }
    if profile.endpoints.iter().any(|other| other.target == Target::Address(address)) {
        let what = format_args!("{} has two endpoints with address {address}", profile.name);
        reader.reject("address", what, "remove one");
    }
}

const fn watch(draft: &ProfileDraft, enabled: bool, always_serve: bool) -> Watch {
    if !enabled {
        Watch::Fixed(EndpointStatus::Disabled)
    } else if !draft.enabled {
        Watch::Fixed(EndpointStatus::Inactive)
    } else if always_serve {
        Watch::Fixed(EndpointStatus::Unmonitored)
    } else {
        Watch::Probed(draft.plan)
    }
}

/// Puts the profiles into their zones. Positions stay those of the configuration unless something is wrong, and then
/// nothing runs from them.
pub(super) fn insert_profiles(reader: &mut Reader<'_>, drafts: Vec<Option<ProfileDraft>>, zones: &mut Zones) {
    for (at, draft) in drafts.into_iter().enumerate() {
        let Some(draft) = draft else { continue };
        let mut profile = Profile::new(draft.name, draft.method, draft.ttl, draft.endpoints);
        profile.enabled = draft.enabled;
        if let Err(error) = zones.add_profile(profile) {
            reader.reject(&format!("profile[{at}].name"), error, "add the [[zone]], or correct the name");
        }
    }
}

fn ttl(reader: &mut Reader<'_>, path: &str) -> Ttl {
    Ttl::from_seconds(reader.read(path)).unwrap_or(Ttl::MAX)
}

fn below(zone: &DnsName, label: &str) -> DnsName {
    DnsName::from_labels(std::iter::once(label.as_bytes()).chain(zone.as_str().split('.').map(str::as_bytes)))
}
