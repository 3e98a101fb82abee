//! The profiles, less their endpoints.

use std::net::IpAddr;

use rc_daemon::config::Reader;

use super::probes::{self, ProbeDraft};
use super::zones::{NAME_FIX, ttl};
use crate::decide::{
    AllDown, Draw, Endpoint, MaxReturn, Method, MinimumChildren, NoMatch, Profile, ProfileOptions,
    RecordType, Ttl, Watermarks,
};
use crate::name::DnsName;
use crate::zone::Zones;

/// An endpoint with what is only needed until everything is checked.
pub(super) struct EndpointDraft {
    /// Its number in the file.
    pub(super) at: usize,
    pub(super) endpoint: Endpoint,
    pub(super) is_azure: bool,
    pub(super) priority: Option<u16>,
    /// The profile that it stands for, and when that counts as available.
    pub(super) nested: Option<(DnsName, MinimumChildren)>,
}

/// A profile while its parts are read.
pub(super) struct ProfileDraft {
    pub(super) name: DnsName,
    pub(super) enabled: bool,
    pub(super) method: Method,
    pub(super) ttl: Ttl,
    pub(super) options: ProfileOptions,
    pub(super) probe: ProbeDraft,
    pub(super) endpoints: Vec<EndpointDraft>,
}

impl ProfileDraft {
    /// Where its key stands in the file.
    pub(super) fn key(at: usize, key: &str) -> String {
        format!("profile[{at}].{key}")
    }
}

pub(super) fn profiles(reader: &mut Reader<'_>, is_strict: bool) -> Vec<Option<ProfileDraft>> {
    reader.each("profile", |reader| {
        let name: Option<DnsName> = reader.parsed("name", NAME_FIX);
        let (method, options) = (method(reader), options(reader));
        let (enabled, ttl) = (reader.read("enabled"), ttl(reader, "ttl"));
        let probe = probes::profile(reader, name.as_ref(), is_strict);
        Some(ProfileDraft { name: name?, enabled, method, ttl, options, probe, endpoints: Vec::new() })
    })
}

fn method(reader: &mut Reader<'_>) -> Method {
    let max_return = MaxReturn::new(reader.read("max_return")).unwrap_or(MaxReturn::DEFAULT);
    match reader.read::<String>("method").as_str() {
        "Priority" => Method::Priority,
        "Weighted" => Method::Weighted,
        "Performance" => Method::Performance,
        "Geographic" => Method::Geographic,
        "Subnet" => Method::Subnet,
        // Any other word is on the list of problems.
        _ => Method::MultiValue { max_return },
    }
}

fn options(reader: &mut Reader<'_>) -> ProfileOptions {
    let record_type = reader.optional::<String>("record_type");
    let no_match = match reader.read::<String>("no_match").as_str() {
        "nxdomain" => NoMatch::NameError,
        _ => NoMatch::NoData,
    };
    let min_healthy: u16 = reader.read("min_healthy");
    ProfileOptions {
        record_type: record_type.and_then(|name| {
            [RecordType::A, RecordType::Aaaa, RecordType::Cname]
                .into_iter()
                .find(|known| known.name() == name)
        }),
        no_match,
        all_down: all_down(reader),
        min_healthy_per_mille: min_healthy.saturating_mul(10),
        draw: Draw {
            by_weight: reader.read("weighted"),
            by_load: watermarks(reader),
            subset: reader.optional("subset"),
        },
    }
}

fn all_down(reader: &mut Reader<'_>) -> AllDown {
    let text: String = reader.read("all_down");
    match text.as_str() {
        "all" | "" => AllDown::ServeAll,
        "nodata" => AllDown::NoData,
        "nxdomain" => AllDown::NameError,
        other => {
            if let Ok(address) = other.parse::<IpAddr>() {
                return AllDown::Address(address);
            }
            match other.parse::<DnsName>() {
                Ok(name) => AllDown::Name(name),
                Err(error) => {
                    reader.reject("all_down", error, "write all, nodata, nxdomain, an address or a DNS name");
                    AllDown::ServeAll
                }
            }
        }
    }
}

fn watermarks(reader: &mut Reader<'_>) -> Option<Watermarks> {
    let (low, high): (Option<u16>, Option<u16>) = (reader.optional("shed_from"), reader.optional("shed_at"));
    match (low, high) {
        (None, None) => None,
        (Some(low), Some(high)) if low < high => Some(Watermarks { low, high }),
        (Some(low), Some(high)) => {
            let what = format_args!("shedding begins at {low} and ends at {high}");
            reader.reject("shed_at", what, "write a load above shed_from");
            None
        }
        (Some(_), None) => {
            reader.reject("shed_from", "there is no shed_at", "set both, or none");
            None
        }
        (None, Some(_)) => {
            reader.reject("shed_at", "there is no shed_from", "set both, or none");
            None
        }
    }
}

/// Puts the profiles into their zones. Positions stay those of the configuration unless something is wrong, and then
/// nothing runs from them.
pub(super) fn insert(reader: &mut Reader<'_>, drafts: Vec<Option<ProfileDraft>>, zones: &mut Zones) {
    for (at, draft) in drafts.into_iter().enumerate() {
        let Some(draft) = draft else { continue };
        let endpoints = draft.endpoints.into_iter().map(|endpoint| endpoint.endpoint).collect();
        let mut profile = Profile::new(draft.name, draft.method, draft.ttl, endpoints);
        profile.enabled = draft.enabled;
        profile.options = draft.options;
        if let Err(error) = zones.add_profile(profile) {
            reader.reject(&ProfileDraft::key(at, "name"), error, "add the [[zone]], or correct the name");
        }
    }
}
