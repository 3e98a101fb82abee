//! When to look up which name, and when to start with what is there.
//!
//! A and AAAA are separate lookups at once for every service name. The race may start once one family is in and
//! 50 ms have passed; without any address it starts with the last-known-good list while the lookups go on: after
//! 150 ms when this network has such a list, else after 1.5 s. A failed, empty or hostile answer takes nothing away that an earlier one gave. Answers are kept for their
//! TTL: [`Resolution::begin`] asks again only for what has run out.
//!
//! ```text
//!        begin              an answer + 50 ms, or all settled, or 1.5 s
//! Idle ─────────▶ Gathering ─────────────────────────────────────────────▶ Idle  (Start | UseKnownGood)
//! ```
//!
//! Driver:
//! ```text
//! resolution.begin(known_good.has(&network, unix_ms), now);
//! while let Some(lookup) = resolution.poll_lookup() { spawn the lookup of (lookup.name, lookup.family) }
//! answer → handle_answer(…) / handle_failure(…);  timer → handle_timeout(now)
//! while let Some(event) = resolution.poll_event() { Start → race over merge(resolution.sources(), …) … }
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::candidate::{self, Expectation, SOURCE_ADDRESSES_MAX, Source};
use crate::Moment;

/// Names that are looked up; more are ignored.
pub const NAMES_MAX: usize = 8;
/// How long the first family waits for the other.
pub const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(50);
/// How long a slow answer may delay the start where a last-known-good list exists.
pub const KNOWN_GOOD_WAIT: Duration = Duration::from_millis(150);
/// How long a slow answer may delay the start where none does.
pub const LOOKUP_MAX: Duration = Duration::from_millis(1500);
/// Shortest and longest time that an answer is kept, whatever its TTL.
pub const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// Address family of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// A service name and the port that its brokers listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAddress {
    /// DNS name; brokers there show it in their certificates.
    pub name: String,
    /// Port, [`candidate::DEFAULT_PORT`] unless configured.
    pub port: u16,
}

/// A lookup to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name, as configured.
    pub name: String,
    /// Which records.
    pub family: Family,
}

/// Why a lookup gave nothing; kept for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LookupFailure {
    /// The name does not exist, or has no such records.
    NoSuchName,
    /// The server failed or refused.
    ServerFailure,
    /// No answer in time.
    TimedOut,
    /// The answer held no address that may be dialled.
    NothingUsable,
}

/// What a driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolutionEvent {
    /// Start the race with [`Resolution::sources`].
    Start,
    /// No address yet: start with the last-known-good list.
    UseKnownGood,
    /// An answer came after the start and brought addresses that were not known: add them to a race that runs
    /// ([`super::Race::extend`]), else use them in the next one.
    More,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Due,
    Asking,
    Settled { expires: Option<Moment>, failure: Option<LookupFailure> },
}

#[derive(Debug, Clone)]
struct Asked {
    service: usize,
    family: Family,
    addresses: Vec<SocketAddr>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Gathering { gives_up: Moment, first_answer: Option<Moment> },
}

/// The lookups of all service names; see the module.
#[derive(Debug, Clone)]
pub struct Resolution {
    services: Vec<ServiceAddress>,
    allow_loopback: bool,
    asked: Vec<Asked>,
    phase: Phase,
    events: VecDeque<ResolutionEvent>,
}

impl Resolution {
    /// Lookups of the first [`NAMES_MAX`] services; nothing is asked before [`Self::begin`].
    pub fn new(mut services: Vec<ServiceAddress>, allow_loopback: bool) -> Self {
        services.truncate(NAMES_MAX);
        let lookup = |service, family| Asked {
            service,
            family,
            addresses: Vec::new(),
            progress: Progress::Settled { expires: None, failure: None },
        };
        let asked = (0..services.len())
            .flat_map(|service| [lookup(service, Family::V6), lookup(service, Family::V4)])
            .collect();
        Self { services, allow_loopback, asked, phase: Phase::Idle, events: VecDeque::new() }
    }

    /// Addresses are wanted: asks for everything whose TTL has run out. `known_good` says whether a last-known-good
    /// list exists for this network.
    pub fn begin(&mut self, known_good: bool, now: Moment) {
        let mut cached = false;
        for asked in &mut self.asked {
            if let Progress::Settled { expires, .. } = asked.progress {
                if expires.is_none_or(|expires| now >= expires) {
                    asked.progress = Progress::Due;
                } else {
                    cached |= !asked.addresses.is_empty();
                }
            }
        }
        let gives_up = now + if known_good { KNOWN_GOOD_WAIT } else { LOOKUP_MAX };
        self.phase = Phase::Gathering { gives_up, first_answer: cached.then_some(now) };
        self.advance(now);
    }

    /// The network changed: every answer has to be asked for again, and is kept until then.
    pub fn handle_network_change(&mut self) {
        for asked in &mut self.asked {
            if let Progress::Settled { expires, .. } = &mut asked.progress {
                *expires = None;
            }
        }
    }

    /// The next lookup to make. Call it until it says `None`.
    pub fn poll_lookup(&mut self) -> Option<Lookup> {
        let asked = self.asked.iter_mut().find(|asked| asked.progress == Progress::Due)?;
        let name = self.services.get(asked.service)?.name.clone();
        asked.progress = Progress::Asking;
        Some(Lookup { name, family: asked.family })
    }

    /// An answer came. Addresses of another family, or that may not be dialled, are not taken.
    pub fn handle_answer(&mut self, lookup: &Lookup, addresses: &[IpAddr], ttl: Duration, now: Moment) {
        let allow_loopback = self.allow_loopback;
        let Some((asked, port)) = self.find(lookup) else { return };
        let usable: Vec<SocketAddr> = addresses
            .iter()
            .take(SOURCE_ADDRESSES_MAX)
            .filter(|address| Family::of(**address) == lookup.family)
            .map(|address| SocketAddr::new(*address, port))
            .filter(|address| candidate::refusal(*address, allow_loopback).is_none())
            .collect();
        if usable.is_empty() {
            self.handle_failure(lookup, LookupFailure::NothingUsable, now);
            return;
        }
        let (shortest, longest) = TTL_RANGE;
        let brings_new = usable.iter().any(|address| !asked.addresses.contains(address));
        asked.addresses = usable;
        asked.progress =
            Progress::Settled { expires: Some(now + ttl.clamp(shortest, longest)), failure: None };
        match &mut self.phase {
            Phase::Gathering { first_answer, .. } => *first_answer = first_answer.or(Some(now)),
            Phase::Idle if brings_new => self.events.push_back(ResolutionEvent::More),
            Phase::Idle => {}
        }
        self.advance(now);
    }

    /// A lookup gave nothing. What an earlier one gave stays.
    pub fn handle_failure(&mut self, lookup: &Lookup, failure: LookupFailure, now: Moment) {
        let Some((asked, _)) = self.find(lookup) else { return };
        asked.progress = Progress::Settled { expires: None, failure: Some(failure) };
        self.advance(now);
    }

    /// Starts with what is there when the time has come.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.advance(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        match self.phase {
            Phase::Idle => None,
            Phase::Gathering { gives_up, first_answer } => {
                Some(first_answer.map_or(gives_up, |first| gives_up.min(first + OTHER_FAMILY_WAIT)))
            }
        }
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<ResolutionEvent> {
        self.events.pop_front()
    }

    /// Every address known, one source per name.
    pub fn sources(&self) -> Vec<Source> {
        let source = |(place, service): (usize, &ServiceAddress)| Source {
            expectation: Expectation::Name(service.name.clone()),
            addresses: self
                .asked
                .iter()
                .filter(|a| a.service == place)
                .flat_map(|a| &a.addresses)
                .copied()
                .collect(),
        };
        let sources = self.services.iter().enumerate().map(source);
        sources.filter(|source| !source.addresses.is_empty()).collect()
    }

    /// The lookups whose last answer gave nothing, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, Family, LookupFailure)> {
        self.asked.iter().filter_map(|asked| match asked.progress {
            Progress::Settled { failure: Some(failure), .. } => {
                Some((self.services.get(asked.service)?.name.as_str(), asked.family, failure))
            }
            Progress::Settled { failure: None, .. } | Progress::Due | Progress::Asking => None,
        })
    }

    fn find(&mut self, lookup: &Lookup) -> Option<(&mut Asked, u16)> {
        let place = self.services.iter().position(|service| service.name == lookup.name)?;
        let port = self.services.get(place)?.port;
        let asked =
            self.asked.iter_mut().find(|asked| asked.service == place && asked.family == lookup.family)?;
        Some((asked, port))
    }

    fn advance(&mut self, now: Moment) {
        let Phase::Gathering { gives_up, first_answer } = self.phase else { return };
        let has_addresses = self.asked.iter().any(|asked| !asked.addresses.is_empty());
        let settled = self.asked.iter().all(|asked| matches!(asked.progress, Progress::Settled { .. }));
        let waited = first_answer.is_some_and(|first| now >= first + OTHER_FAMILY_WAIT);
        if settled || waited || now >= gives_up {
            self.phase = Phase::Idle;
            let event = if has_addresses { ResolutionEvent::Start } else { ResolutionEvent::UseKnownGood };
            self.events.push_back(event);
        }
    }
}
