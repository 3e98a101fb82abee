//! Runs the lookups that [`Resolution`] asks for. Lookups outlive the start of a race: a late answer serves the next
//! one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::select::{Family, Lookup, LookupFailure, Resolution, ResolutionEvent, ServiceAddress, Source};
use rc_transport::{AddressAnswer, LookupError};
use tokio::task::JoinSet;

use crate::config::BrokerPlaces;
use crate::reach::{Names, Reach};

type Answer = (Lookup, Result<AddressAnswer, LookupError>);

/// What one name's lookup of one family gave last.
#[derive(Debug, Clone)]
pub(crate) struct LastAnswer {
    /// Addresses and how long they hold.
    pub(crate) found: Result<(Vec<IpAddr>, Duration), String>,
}

/// What there is to dial.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// One source per name that has addresses.
    pub(crate) sources: Vec<Source>,
    /// No name gave an address in time: use the last-known-good list.
    pub(crate) wants_known_good: bool,
}

/// The names of the configuration and their lookups.
pub(crate) struct Resolving {
    resolution: Resolution,
    names: Vec<String>,
    running: JoinSet<Answer>,
    answers: BTreeMap<(String, Family), LastAnswer>,
}

impl Resolving {
    pub(crate) fn new(places: &BrokerPlaces) -> Self {
        let service = |name: &String| ServiceAddress { name: name.clone(), port: places.port };
        let services = places.names.iter().map(service).collect();
        Self {
            resolution: Resolution::new(services, places.allow_loopback),
            names: places.names.clone(),
            running: JoinSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Looks up what has run out, and returns as soon as the machine says that there is enough to start. `known_good`
    /// says whether a last-known-good list exists for this network.
    pub(crate) async fn gather(&mut self, known_good: bool, reach: &Reach) -> Gathered {
        if self.names.is_empty() {
            return Gathered { sources: Vec::new(), wants_known_good: false };
        }
        self.resolution.begin(known_good, reach.now());
        loop {
            while let Some(lookup) = self.resolution.poll_lookup() {
                self.spawn(lookup, Arc::clone(&reach.names));
            }
            if let Some(wants_known_good) = self.poll_start() {
                return Gathered { sources: self.resolution.sources(), wants_known_good };
            }
            let deadline = self.resolution.poll_timeout();
            tokio::select! {
                Some(answer) = self.running.join_next() => {
                    if let Ok((lookup, answer)) = answer {
                        self.settle(reach, lookup, answer);
                    }
                }
                () = reach.nap_until(deadline) => self.resolution.handle_timeout(reach.now()),
            }
        }
    }

    /// Waits for an answer after the start that brings new addresses, and gives every source known; for good when
    /// nothing is asked any more. Cancel-safe.
    pub(crate) async fn more(&mut self, reach: &Reach) -> Vec<Source> {
        loop {
            match self.running.join_next().await {
                Some(Ok((lookup, answer))) => self.settle(reach, lookup, answer),
                Some(Err(_)) => continue,
                None => std::future::pending().await,
            }
            while let Some(event) = self.resolution.poll_event() {
                if event == ResolutionEvent::More {
                    return self.resolution.sources();
                }
            }
        }
    }

    /// Each name and the last answer of each family.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (&str, Family, &LastAnswer)> {
        self.answers.iter().map(|((name, family), answer)| (name.as_str(), *family, answer))
    }

    /// The configured names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Why names have no address, one line each; those with an address in one family are not named.
    pub(crate) fn failures(&self) -> Vec<(String, String)> {
        let mut failures = Vec::new();
        for name in &self.names {
            let of_name = || self.answers().filter(|(found, ..)| *found == name.as_str());
            if of_name().any(|(_, _, answer)| answer.found.is_ok()) {
                continue;
            }
            let reason = of_name().find_map(|(_, _, answer)| answer.found.as_ref().err().cloned());
            let reason = reason.unwrap_or_else(|| "no name server answered in time".to_owned());
            failures.push((name.clone(), reason));
        }
        failures
    }

    fn poll_start(&mut self) -> Option<bool> {
        while let Some(event) = self.resolution.poll_event() {
            match event {
                ResolutionEvent::Start => return Some(false),
                ResolutionEvent::UseKnownGood => return Some(true),
                ResolutionEvent::More => {}
            }
        }
        None
    }

    fn spawn(&mut self, lookup: Lookup, names: Arc<dyn Names>) {
        self.running.spawn(async move {
            let family = match lookup.family {
                Family::V4 => rc_transport::Family::V4,
                Family::V6 => rc_transport::Family::V6,
            };
            let answer = names.lookup(&lookup.name, family).await;
            (lookup, answer)
        });
    }

    fn settle(&mut self, reach: &Reach, lookup: Lookup, answer: Result<AddressAnswer, LookupError>) {
        let now = reach.now();
        let found = match answer {
            Ok(answer) => {
                self.resolution.handle_answer(&lookup, &answer.addresses, answer.ttl, now);
                Ok((answer.addresses, answer.ttl))
            }
            Err(error) => {
                self.resolution.handle_failure(&lookup, failure_of(&error), now);
                Err(error.to_string())
            }
        };
        self.answers.insert((lookup.name, lookup.family), LastAnswer { found });
    }
}

fn failure_of(error: &LookupError) -> LookupFailure {
    match error {
        LookupError::NotAName { .. } | LookupError::NxDomain { .. } | LookupError::NoData { .. } => {
            LookupFailure::NoSuchName
        }
        LookupError::Timeout { .. } => LookupFailure::TimedOut,
        LookupError::ServFail { .. }
        | LookupError::Garbage { .. }
        | LookupError::Unreachable { .. }
        | LookupError::NoServers { .. } => LookupFailure::ServerFailure,
    }
}
