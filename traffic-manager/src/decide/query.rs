//! One query on its way through a profile and the profiles nested in it.

use std::net::IpAddr;

use rand::Rng;

use super::answer::{Answer, AskedType};
use super::options::{AllDown, NoMatch};
use super::place::Maps;
use super::pool::{self, Member, Pool};
use super::profile::{Endpoint, Method, NESTING_MAX, Profile, Target};
use super::snapshot::{EndpointStatus, Snapshot};
use super::trace::Trace;
use super::{View, multi_value};
use crate::name::DnsName;

/// What a profile's method came to.
enum Choice<'p> {
    /// This endpoint, whatever it can answer.
    Endpoint(&'p Endpoint),
    /// This answer, without an endpoint.
    Answer(Answer),
}

pub(super) struct Query<'v, R> {
    pub(super) profiles: &'v [Profile],
    pub(super) snapshot: &'v Snapshot,
    pub(super) maps: &'v Maps,
    pub(super) asked: AskedType,
    pub(super) address: IpAddr,
    /// How many bits of the address the answer depends on so far.
    pub(super) scope: u8,
    pub(super) trace: Trace,
    pub(super) rng: R,
}

impl<'v, R: Rng> Query<'v, R> {
    pub(super) fn new(view: &View<'v>, asked: AskedType, address: IpAddr, trace: Trace, rng: R) -> Self {
        let View { profiles, snapshot, maps } = *view;
        Self { profiles, snapshot, maps, asked, address, scope: 0, trace, rng }
    }

    /// Answers from the profile at `position`, and from those nested in it.
    pub(super) fn answer(&mut self, position: usize) -> Answer {
        let mut position = position;
        for _ in 0..=NESTING_MAX {
            let Some(profile) = self.profiles.get(position) else { break };
            let status = self.snapshot.profile(position);
            self.trace.step(&profile.name, || format!("{} profile, {status}", profile.method.name()));
            if status.is_off() {
                return Answer::NameError;
            }
            let endpoint = match self.choose(profile) {
                Choice::Endpoint(endpoint) => endpoint,
                Choice::Answer(answer) => return answer,
            };
            let asked = self.asked;
            match &endpoint.target {
                Target::Address(address) if asked.takes(*address) => {
                    return Answer::Addresses(vec![*address]);
                }
                Target::Address(address) => {
                    self.trace.step(&profile.name, || format!("{address} is not of the type asked for"));
                    return Answer::NoData;
                }
                Target::Name(name) => return Answer::Name(name.clone()),
                Target::Nested { profile, .. } => position = *profile,
            }
        }
        Answer::NameError
    }

    fn choose(&mut self, profile: &'v Profile) -> Choice<'v> {
        match profile.method {
            Method::Priority => self.pick(profile, Self::by_priority),
            Method::Weighted => self.pick(profile, Self::by_weight),
            Method::Performance => {
                match self.overriding(profile).filter(|endpoint| self.is_available(endpoint)) {
                    Some(endpoint) => self.overridden(profile, endpoint),
                    None => self.pick(profile, Self::by_latency),
                }
            }
            Method::Geographic => match self.overriding(profile) {
                Some(endpoint) => self.overridden(profile, endpoint),
                None => self.geographic(profile),
            },
            Method::Subnet => self.by_subnet(profile),
            Method::MultiValue { max_return } => match pool::available(profile, self.snapshot) {
                Pool::AllDown(instead) => self.all_down(profile, instead),
                Pool::Of(members) => Choice::Answer(multi_value::answer(self, profile, members, max_return)),
            },
        }
    }

    /// Lets `method` choose one of the endpoints that may be named.
    fn pick(
        &mut self,
        profile: &'v Profile,
        method: fn(&mut Self, &'v Profile, Vec<Member<'v>>) -> Option<&'v Endpoint>,
    ) -> Choice<'v> {
        let mut members = match pool::available(profile, self.snapshot) {
            Pool::AllDown(instead) => return self.all_down(profile, instead),
            Pool::Of(members) => members,
        };
        pool::prefer_mesh(&mut members);
        self.trace_pool(&profile.name, &members);
        match method(self, profile, members) {
            Some(endpoint) => Choice::Endpoint(endpoint),
            None => Choice::Answer(Answer::NoData),
        }
    }

    pub(super) fn trace_pool(&mut self, profile: &DnsName, members: &[Member<'_>]) {
        self.trace.step(profile, || {
            let texts: Vec<String> = members
                .iter()
                .map(|(endpoint, health)| format!("{} ({})", endpoint.name, health.status))
                .collect();
            format!("may be named: {}", texts.join(", "))
        });
    }

    fn all_down(&mut self, profile: &Profile, instead: &AllDown) -> Choice<'v> {
        self.trace
            .step(&profile.name, || "no endpoint is available: the configured answer for that".to_owned());
        Choice::Answer(match instead {
            AllDown::Address(address) if self.asked.takes(*address) => Answer::Addresses(vec![*address]),
            AllDown::Name(name) => Answer::Name(name.clone()),
            AllDown::NameError => Answer::NameError,
            AllDown::Address(_) | AllDown::NoData | AllDown::ServeAll => Answer::NoData,
        })
    }

    fn by_priority(&mut self, profile: &'v Profile, members: Vec<Member<'v>>) -> Option<&'v Endpoint> {
        // Of equal numbers the first listed counts.
        let (chosen, _) = members.into_iter().min_by_key(|(endpoint, _)| endpoint.priority)?;
        self.trace
            .step(&profile.name, || format!("{} has the lowest priority, {}", chosen.name, chosen.priority));
        Some(chosen)
    }

    fn by_weight(&mut self, profile: &'v Profile, members: Vec<Member<'v>>) -> Option<&'v Endpoint> {
        let sum: u64 = members.iter().map(|(endpoint, _)| u64::from(endpoint.weight)).sum();
        let mut drawn = self.rng.random_range(0..sum.max(1));
        let mut chosen = None;
        for (endpoint, _) in members {
            let weight = u64::from(endpoint.weight);
            if drawn < weight {
                chosen = Some(endpoint);
                break;
            }
            drawn -= weight;
        }
        let chosen = chosen?;
        self.trace
            .step(&profile.name, || format!("{} was drawn, weight {} of {sum}", chosen.name, chosen.weight));
        Some(chosen)
    }

    fn by_latency(&mut self, profile: &'v Profile, members: Vec<Member<'v>>) -> Option<&'v Endpoint> {
        let distances = self.maps.distances(self.address);
        self.scope = self.scope.max(distances.prefix);
        let away = |endpoint: &'v Endpoint| {
            let location = endpoint.location.as_ref()?;
            Some((distances.to(location)?, location))
        };
        // Of two locations equally far away always the same one, so that the answer does not change by itself.
        let nearest = members.iter().filter_map(|(endpoint, _)| away(endpoint)).min();
        let mut members = members;
        match nearest {
            Some((ms, location)) => {
                members.retain(|(endpoint, _)| endpoint.location.as_ref() == Some(location));
                self.trace
                    .step(&profile.name, || format!("{location} is nearest to {}, {ms} ms", self.address));
            }
            None => {
                self.trace.step(&profile.name, || format!("nothing is known of how far {} is", self.address));
            }
        }
        let at = self.rng.random_range(0..members.len().max(1));
        let (chosen, _) = members.get(at)?;
        self.trace.step(&profile.name, || format!("{} was drawn of {} there", chosen.name, members.len()));
        Some(chosen)
    }

    fn is_available(&self, endpoint: &Endpoint) -> bool {
        self.snapshot.health(endpoint.index).is_available()
    }

    fn is_off(&self, endpoint: &Endpoint) -> bool {
        self.snapshot.health(endpoint.index).status == EndpointStatus::Disabled
    }

    /// The endpoint that the asker's range is mapped to, unless it is disabled.
    fn overriding(&mut self, profile: &'v Profile) -> Option<&'v Endpoint> {
        let (found, prefix) = profile.by_subnet(self.address);
        self.scope = self.scope.max(prefix);
        found.filter(|endpoint| !self.is_off(endpoint))
    }

    fn overridden(&mut self, profile: &Profile, endpoint: &'v Endpoint) -> Choice<'v> {
        let address = self.address;
        self.trace.step(&profile.name, || format!("{address} is in a subnet of {}", endpoint.name));
        self.unless_stopped(profile, endpoint)
    }

    fn unless_stopped(&mut self, profile: &Profile, endpoint: &'v Endpoint) -> Choice<'v> {
        if self.snapshot.health(endpoint.index).is_in_rotation() {
            return Choice::Endpoint(endpoint);
        }
        self.trace.step(&profile.name, || format!("{} is stopped: no answer", endpoint.name));
        Choice::Answer(Answer::NoData)
    }

    /// Health plays no part, unless the operator or the endpoint itself asks to be left.
    fn geographic(&mut self, profile: &'v Profile) -> Choice<'v> {
        let (region, prefix) = self.maps.geography.locate(self.address);
        self.scope = self.scope.max(prefix);
        let snapshot = self.snapshot;
        let mapped = || region.with_larger().filter_map(|larger| Some((larger, profile.by_region(larger)?)));
        let is_on =
            |endpoint: &Endpoint| !matches!(snapshot.health(endpoint.index).status, EndpointStatus::Disabled);
        let stays = |endpoint: &Endpoint| is_on(endpoint) && snapshot.health(endpoint.index).accepting;
        let found = mapped().find(|(_, endpoint)| stays(endpoint));
        let address = self.address;
        match found.or_else(|| mapped().find(|(_, endpoint)| is_on(endpoint))) {
            Some((larger, endpoint)) => {
                self.trace.step(&profile.name, || {
                    format!("{address} is in {region}; {larger} is mapped to {}", endpoint.name)
                });
                self.unless_stopped(profile, endpoint)
            }
            None => {
                self.trace
                    .step(&profile.name, || format!("{address} is in {region}, which is mapped to nothing"));
                Choice::Answer(Answer::NoData)
            }
        }
    }

    fn by_subnet(&mut self, profile: &'v Profile) -> Choice<'v> {
        let negative = Choice::Answer(match profile.options.no_match {
            NoMatch::NoData => Answer::NoData,
            NoMatch::NameError => Answer::NameError,
        });
        let matched = self.overriding(profile);
        let snapshot = self.snapshot;
        let fallback = || {
            let mut open = profile.endpoints().iter().filter(|endpoint| endpoint.subnets.is_empty());
            open.find(|endpoint| snapshot.health(endpoint.index).status != EndpointStatus::Disabled)
        };
        let address = self.address;
        let Some(endpoint) = matched.or_else(fallback) else {
            self.trace.step(&profile.name, || format!("{address} is in no subnet, and there is no fallback"));
            return negative;
        };
        self.trace.step(&profile.name, || match matched {
            Some(_) => format!("{address} is in a subnet of {}", endpoint.name),
            None => format!("{address} is in no subnet; {} is the fallback", endpoint.name),
        });
        if self.is_available(endpoint) {
            return Choice::Endpoint(endpoint);
        }
        match pool::available(profile, self.snapshot) {
            Pool::AllDown(instead) => self.all_down(profile, instead),
            Pool::Of(members) => {
                let nobody = members.iter().all(|(member, _)| !self.is_available(member));
                let status = self.snapshot.health(endpoint.index).status;
                self.trace.step(&profile.name, || format!("{} is {status}", endpoint.name));
                if nobody && status == EndpointStatus::Degraded {
                    Choice::Endpoint(endpoint)
                } else {
                    negative
                }
            }
        }
    }
}
