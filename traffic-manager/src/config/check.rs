//! What has to hold among the endpoints of a profile, and among profiles.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rc_daemon::config::Reader;

use super::profiles::{EndpointDraft, ProfileDraft};
use crate::decide::{GeoRegion, Method, NESTING_MAX, RecordType, Target};
use crate::name::DnsName;

/// Endpoints that a profile of Azure has at most.
const STRICT_ENDPOINTS_MAX: usize = 200;

/// Checks everything that one table alone cannot show.
pub(super) fn all(reader: &mut Reader<'_>, drafts: &[Option<ProfileDraft>], is_strict: bool) {
    for (at, draft) in drafts.iter().enumerate() {
        let Some(draft) = draft else { continue };
        let mut check = Check { reader, at, draft };
        check.unique();
        check.addressing();
        check.record_type(drafts);
        check.method();
        if is_strict && draft.endpoints.len() > STRICT_ENDPOINTS_MAX {
            let what = format!("{} has {} endpoints", draft.name, draft.endpoints.len());
            check.profile("name", &what, "use at most 200, or set azure.strict = false");
        }
    }
    nesting(reader, drafts);
}

/// Nested profiles are followed this far, which is too far already.
const FOLLOWED_MAX: usize = 64;

struct Check<'c, 's> {
    reader: &'c mut Reader<'s>,
    at: usize,
    draft: &'c ProfileDraft,
}

/// What kind of record an endpoint gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    V4,
    V6,
    Name,
    Nested,
}

impl Gives {
    const fn of(target: &Target) -> Self {
        match target {
            Target::Address(IpAddr::V4(_)) => Self::V4,
            Target::Address(IpAddr::V6(_)) => Self::V6,
            Target::Name(_) => Self::Name,
            Target::Nested { .. } => Self::Nested,
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::V4 | Self::V6 => "address",
            Self::Name => "target",
            Self::Nested => "nested",
        }
    }
}

fn gives(endpoint: &EndpointDraft) -> Gives {
    Gives::of(&endpoint.endpoint.target)
}

impl<'c> Check<'c, '_> {
    fn profile(&mut self, key: &str, what: &str, fix: &str) {
        self.reader.reject(&ProfileDraft::key(self.at, key), what, fix);
    }

    fn endpoint(&mut self, endpoint: &EndpointDraft, key: &str, what: &str, fix: &str) {
        self.reader.reject(&format!("endpoint[{}].{key}", endpoint.at), what, fix);
    }

    fn pairs(&self) -> impl Iterator<Item = (&'c EndpointDraft, &'c [EndpointDraft])> + use<'c> {
        let endpoints = self.draft.endpoints.as_slice();
        endpoints
            .iter()
            .enumerate()
            .map(move |(at, endpoint)| (endpoint, endpoints.get(..at).unwrap_or_default()))
    }

    fn unique(&mut self) {
        let name = &self.draft.name;
        for (endpoint, before) in self.pairs() {
            if before.iter().any(|other| other.endpoint.name == endpoint.endpoint.name) {
                let what = format!("{name} has two endpoints {}", endpoint.endpoint.name);
                self.endpoint(endpoint, "name", &what, "rename one");
            }
            if before.iter().any(|other| same_target(other, endpoint)) {
                let target = match &endpoint.nested {
                    Some((child, _)) => child.to_string(),
                    None => endpoint.endpoint.target.to_string(),
                };
                let what = format!("{name} has two endpoints with the target {target}");
                self.endpoint(endpoint, gives(endpoint).key(), &what, "remove one");
            }
        }
    }

    /// Only MultiValue mixes families, and it has addresses only.
    fn addressing(&mut self) {
        let is_multi_value = matches!(self.draft.method, Method::MultiValue { .. });
        for (endpoint, before) in self.pairs() {
            let kind = gives(endpoint);
            if is_multi_value {
                if matches!(kind, Gives::Name | Gives::Nested) || endpoint.is_azure {
                    let what = "MultiValue answers have addresses of external endpoints only";
                    self.endpoint(endpoint, kind.key(), what, "write an IP address, or use another method");
                }
            } else if kind != Gives::Nested
                && let Some(other) =
                    before.iter().find(|other| gives(other) != Gives::Nested && gives(other) != kind)
            {
                let what =
                    format!("{} is of another kind than {}", endpoint.endpoint.name, other.endpoint.name);
                let fix = "use only IPv4, only IPv6 or only names in a profile, or the method MultiValue";
                self.endpoint(endpoint, kind.key(), &what, fix);
            }
        }
    }

    fn record_type(&mut self, drafts: &[Option<ProfileDraft>]) {
        let Some(bound) = self.draft.options.record_type else { return };
        let wanted = match bound {
            RecordType::A => Gives::V4,
            RecordType::Aaaa => Gives::V6,
            RecordType::Cname => Gives::Name,
        };
        for endpoint in &self.draft.endpoints {
            let fits = match endpoint.endpoint.target {
                Target::Nested { profile, .. } => drafts
                    .get(profile)
                    .and_then(Option::as_ref)
                    .is_none_or(|child| child.options.record_type == Some(bound)),
                Target::Address(_) | Target::Name(_) => gives(endpoint) == wanted,
            };
            if !fits {
                let what = format!("{} answers {} records only", self.draft.name, bound.name());
                let fix = "use an endpoint that gives such records, or another profile";
                self.endpoint(endpoint, gives(endpoint).key(), &what, fix);
            }
        }
    }

    fn method(&mut self) {
        match self.draft.method {
            Method::Priority => self.priorities(),
            Method::Performance => {
                for endpoint in &self.draft.endpoints {
                    if endpoint.endpoint.location.is_none() {
                        let what = "Performance has to know where each endpoint is";
                        self.endpoint(endpoint, "location", what, "write a location such as \"west-europe\"");
                    }
                }
                self.overlaps();
            }
            Method::Geographic => {
                self.regions();
                self.overlaps();
            }
            Method::Subnet => {
                self.overlaps();
                let open: Vec<&EndpointDraft> = self
                    .draft
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.endpoint.subnets.is_empty())
                    .collect();
                for endpoint in open.into_iter().skip(1) {
                    let what = "another endpoint without subnets is the fallback already";
                    self.endpoint(endpoint, "subnets", what, "give one of them subnets");
                }
            }
            Method::Weighted | Method::MultiValue { .. } => {}
        }
    }

    fn priorities(&mut self) {
        let some = self.draft.endpoints.iter().any(|endpoint| endpoint.priority.is_some());
        for (endpoint, before) in self.pairs() {
            match endpoint.priority {
                None if some => {
                    let what = "other endpoints of the profile have a priority";
                    self.endpoint(endpoint, "priority", what, "set it on all, or on none");
                }
                Some(number) if before.iter().any(|other| other.priority == Some(number)) => {
                    let what = format!("{} has two endpoints with priority {number}", self.draft.name);
                    self.endpoint(endpoint, "priority", &what, "give each its own");
                }
                Some(_) | None => {}
            }
        }
    }

    fn regions(&mut self) {
        let mut mapped: BTreeMap<GeoRegion, &str> = BTreeMap::new();
        for endpoint in &self.draft.endpoints {
            if endpoint.endpoint.regions.is_empty() {
                let what = "Geographic has to know whose askers the endpoint gets";
                self.endpoint(endpoint, "regions", what, "write at least one region, such as \"WORLD\"");
            }
            for region in &endpoint.endpoint.regions {
                if let Some(other) = mapped.insert(*region, &endpoint.endpoint.name) {
                    let what = format!("{region} is mapped to {other} already");
                    self.endpoint(endpoint, "regions", &what, "map a region to one endpoint");
                }
            }
        }
    }

    fn overlaps(&mut self) {
        for (endpoint, before) in self.pairs() {
            for range in &endpoint.endpoint.subnets {
                let hits =
                    |other: &&EndpointDraft| other.endpoint.subnets.iter().any(|taken| taken.overlaps(range));
                if let Some(other) = before.iter().find(hits) {
                    let what = format!("{range} overlaps a subnet of {}", other.endpoint.name);
                    self.endpoint(endpoint, "subnets", &what, "map an address to one endpoint");
                }
            }
        }
    }
}

fn same_target(a: &EndpointDraft, b: &EndpointDraft) -> bool {
    match (&a.nested, &b.nested) {
        (Some((a, _)), Some((b, _))) => a == b,
        (None, None) => a.endpoint.target == b.endpoint.target,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// No profile may contain itself, nor have more levels below it than [`NESTING_MAX`] allows.
fn nesting(reader: &mut Reader<'_>, drafts: &[Option<ProfileDraft>]) {
    let mut levels = vec![None; drafts.len()];
    for at in 0..drafts.len() {
        match level(drafts, at, &mut levels, &mut Vec::new()) {
            Err(through) => {
                let what = format!("{through} contains itself");
                reader.reject(&ProfileDraft::key(at, "name"), what, "take one of the nested endpoints out");
                return;
            }
            Ok(depth) if depth > NESTING_MAX => {
                let what = format!("there are {depth} levels of profiles from here on");
                let fix = format!("nest at most {NESTING_MAX}");
                reader.reject(&ProfileDraft::key(at, "name"), what, fix);
            }
            Ok(_) => {}
        }
    }
}

/// How many levels of profiles there are from a profile on, itself included; or the name of one that contains itself.
fn level(
    drafts: &[Option<ProfileDraft>],
    at: usize,
    levels: &mut Vec<Option<usize>>,
    path: &mut Vec<usize>,
) -> Result<usize, DnsName> {
    if let Some(known) = levels.get(at).copied().flatten() {
        return Ok(known);
    }
    let Some(draft) = drafts.get(at).and_then(Option::as_ref) else { return Ok(1) };
    if path.len() > FOLLOWED_MAX {
        return Ok(1);
    }
    if path.contains(&at) {
        return Err(draft.name.clone());
    }
    path.push(at);
    let mut below = 0;
    for endpoint in &draft.endpoints {
        if let Target::Nested { profile, .. } = endpoint.endpoint.target {
            below = below.max(level(drafts, profile, levels, path)?);
        }
    }
    path.pop();
    if let Some(known) = levels.get_mut(at) {
        *known = Some(below + 1);
    }
    Ok(below + 1)
}
