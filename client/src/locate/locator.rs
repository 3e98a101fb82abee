//! One look for a broker, and what is remembered between looks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::select::candidate::{CANDIDATES_MAX, merge, refusal};
use rc_proto::select::{
    Candidate, Choice, Ejections, Expectation, ProbeState, Request, Round, Source, Standings, Trigger, Warmth,
};
use rc_proto::wire::BrokerId;
use rc_proto::wire::message::Pong;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::known_good::KnownGoodStore;
use super::measure::measure;
use super::probe_link::{ProbeFailure, ProbeLink};
use super::race::{LateNames, Measured, RaceReport, race};
use super::resolve::{Gathered, Resolving};
use crate::config::{BrokerPlaces, ClientConfig};
use crate::error::{CandidateFailure, LocateError};
use crate::event::Event;
use crate::link::{BrokerContact, resolve_own_name};
use crate::reach::Reach;

/// Ranked brokers that are dialled, each this much after the one before, when the pinned one is lost.
const RANKED_MAX: u32 = 4;
const RANKED_STAGGER: Duration = Duration::from_millis(150);

/// Candidates of a full round that are dialled, each this much after the one before.
const NEWCOMER_STAGGER: Duration = Duration::from_millis(100);
/// Addresses of one broker that are dialled when another broker named it.
const NAMED_PLACES_MAX: usize = 4;

/// A broker that was chosen, and the connection to it.
pub(crate) struct Located {
    pub(crate) choice: Choice,
    pub(crate) link: ProbeLink,
}

/// Looks for brokers, and remembers what it learned.
pub(crate) struct Locator {
    reach: Arc<Reach>,
    places: BrokerPlaces,
    resolving: Resolving,
    standings: Standings,
    ejections: Ejections<BrokerId>,
    known_good: KnownGoodStore,
    /// What the last race had no time to dial.
    undialled: Vec<Candidate>,
}

impl Locator {
    pub(crate) fn new(reach: Arc<Reach>, config: &ClientConfig) -> Self {
        Self {
            reach,
            places: config.brokers.clone(),
            resolving: Resolving::new(&config.brokers),
            standings: Standings::default(),
            ejections: Ejections::default(),
            known_good: KnownGoodStore::open(config.state_dir.clone()),
            undialled: Vec::new(),
        }
    }

    /// Resolves, races, measures and chooses.
    pub(crate) async fn locate(
        &mut self,
        trigger: Trigger,
        avoid: &[BrokerId],
    ) -> Result<Located, LocateError> {
        let sources = self.gather().await?;
        let found = merge(&sources, &self.known_good.history(), self.places.allow_loopback, &mut rand::rng());
        if found.taken.is_empty() {
            return Err(self.no_address(&sources));
        }
        let allow_loopback = self.places.allow_loopback;
        let late = LateNames { resolving: &mut self.resolving, allow_loopback };
        let RaceReport { race, measured, failures } = race(&self.reach, found.taken, late).await;
        for CandidateFailure { address, reason, .. } in &failures {
            self.reach.events.publish(Event::CandidateFailed { address: *address, reason: reason.clone() });
        }
        self.undialled = race.undialled().cloned().collect();
        self.note(&measured);
        let worked: Vec<_> =
            measured.iter().map(|m| (m.candidate.address, m.candidate.expectation.clone())).collect();
        if !worked.is_empty() {
            self.known_good.keep(&sources, &worked).await;
        }
        let answered: Vec<BrokerId> = measured.iter().map(|m| m.link.broker.clone()).collect();
        let request = Request { trigger, avoid, only: Some(&answered) };
        let now = self.reach.now();
        let choice = self.standings.choose(&request, &self.ejections, now, &mut rand::rng()).with_race(&race);
        tracing::info!(choice = choice.summary(), "looked for a broker");
        let chosen = choice.chosen.clone();
        let link = measured.into_iter().map(|m| m.link).find(|link| Some(&link.broker) == chosen.as_ref());
        match link {
            Some(link) => Ok(Located { choice, link }),
            None => Err(self.no_broker(failures)),
        }
    }

    /// Dials the next-ranked brokers that answered before, at most four, without a look; `None` when none of them
    /// answers.
    pub(crate) async fn next_ranked(&mut self, trigger: Trigger, avoid: &[BrokerId]) -> Option<Located> {
        let ranked = self.standings.ranked(&self.ejections, avoid, self.reach.now());
        let mut dials = JoinSet::new();
        let mut delay = Duration::ZERO;
        for broker in ranked {
            let Some(candidate) = self.answered_at(&broker) else { continue };
            let reach = Arc::clone(&self.reach);
            dials.spawn(async move {
                reach.pause(delay).await;
                ProbeLink::dial(&reach, &candidate).await
            });
            delay += RANKED_STAGGER;
            if delay >= RANKED_STAGGER * RANKED_MAX {
                break;
            }
        }
        while let Some(dialled) = dials.join_next().await {
            let Ok(Ok(link)) = dialled else { continue };
            if link.state.accepting {
                return Some(self.take(trigger, avoid, link));
            }
        }
        None
    }

    /// Dials a broker that another one named: where it answered before, else at its own name. `None` when it does not
    /// answer or does not accept.
    pub(crate) async fn dial_named(
        &mut self,
        trigger: Trigger,
        broker: &BrokerId,
        name: &str,
    ) -> Option<Located> {
        let contact =
            BrokerContact { answered: self.address_of(broker), ..BrokerContact::named(broker, name) };
        let link = probe_contact(&self.reach, &contact, self.places.allow_loopback).await.ok()?;
        link.state.accepting.then(|| self.take(trigger, &[], link))
    }

    /// Takes a broker that answered, without comparing it with others.
    fn take(&mut self, trigger: Trigger, avoid: &[BrokerId], link: ProbeLink) -> Located {
        self.standings.observe(link.state.clone(), Some(link.address));
        let only = std::slice::from_ref(&link.broker);
        let request = Request { trigger, avoid, only: Some(only) };
        let choice = self.standings.choose(&request, &self.ejections, self.reach.now(), &mut rand::rng());
        Located { choice, link }
    }

    /// Measures the brokers of a round over fresh connections; `pinned` is measured by its own link. A full round
    /// looks for brokers that are not known yet, too. Dropping the future loses what was not measured.
    pub(crate) async fn probe_round(&mut self, round: Round, pinned: &BrokerId) {
        self.probe_known(round, pinned).await;
        if round == Round::Full {
            self.probe_newcomers().await;
        }
    }

    async fn probe_known(&mut self, round: Round, pinned: &BrokerId) {
        let brokers = round.brokers(&self.standings, Some(pinned), self.reach.now());
        let mut probes = JoinSet::new();
        for broker in brokers {
            let Some(candidate) = self.answered_at(&broker) else { continue };
            let reach = Arc::clone(&self.reach);
            probes.spawn(async move { (broker, dial_and_measure(&reach, candidate).await) });
        }
        while let Some(probed) = probes.join_next().await {
            match probed {
                Ok((_, Ok(measured))) => self.note(std::slice::from_ref(&measured)),
                Ok((broker, Err(failure))) => {
                    tracing::debug!(%broker, reason = failure.reason, "a broker did not answer its probes");
                    if broker != *pinned {
                        self.note_failure(&broker);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Resolves again, and measures whoever answers at addresses where no broker answered lately.
    async fn probe_newcomers(&mut self) {
        let mut candidates = std::mem::take(&mut self.undialled);
        if let Ok(sources) = self.gather().await {
            let history = self.known_good.history();
            let found = merge(&sources, &history, self.places.allow_loopback, &mut rand::rng());
            candidates.extend(found.taken);
        }
        let now = self.reach.now();
        let fresh = self.standings.iter().filter(|(_, standing)| !standing.state.is_stale(now));
        let mut tried: Vec<SocketAddr> = fresh.filter_map(|(_, standing)| standing.address).collect();
        let mut probes = JoinSet::new();
        let mut delay = Duration::ZERO;
        for candidate in candidates {
            if tried.contains(&candidate.address) || probes.len() >= CANDIDATES_MAX {
                continue;
            }
            tried.push(candidate.address);
            let reach = Arc::clone(&self.reach);
            probes.spawn(async move {
                reach.pause(delay).await;
                dial_and_measure(&reach, candidate).await
            });
            delay += NEWCOMER_STAGGER;
        }
        while let Some(probed) = probes.join_next().await {
            match probed {
                Ok(Ok(measured)) => self.note(std::slice::from_ref(&measured)),
                Ok(Err(failure)) => {
                    tracing::debug!(reason = failure.reason, "an address holds no new broker")
                }
                Err(_) => {}
            }
        }
    }

    /// The pinned broker told its state in a keep-alive answer.
    pub(crate) fn note_pong(&mut self, pong: &Pong) {
        self.standings.observe(ProbeState::from_pong(pong, self.reach.now()), None);
    }

    /// A dial or a registration at `broker` failed.
    pub(crate) fn note_failure(&mut self, broker: &BrokerId) {
        let known = self.standings.iter().count();
        self.ejections.handle_failure(broker, known, self.reach.now());
    }

    /// A link to `broker` died.
    pub(crate) fn note_dead_link(&mut self, broker: &BrokerId) {
        let known = self.standings.iter().count();
        self.ejections.handle_dead_link(broker, known, self.reach.now());
    }

    /// `broker` has said that it stops within `left`.
    pub(crate) fn note_draining(&mut self, broker: &BrokerId, left: Duration) {
        let Some(standing) = self.standings.standing(broker) else { return };
        let state = ProbeState {
            accepting: false,
            drain_deadline: Some(left),
            seen: self.reach.now(),
            ..standing.state.clone()
        };
        self.standings.observe(state, None);
    }

    /// The best broker that takes us and that is linked to more peers than `isolated`, and the choice that names it.
    pub(crate) async fn dial_better_linked(&mut self, isolated: &BrokerId) -> Option<Located> {
        let peers = self.standings.standing(isolated).map_or(0, |standing| standing.state.peers);
        let now = self.reach.now();
        let ranked = self.standings.ranked(&self.ejections, std::slice::from_ref(isolated), now);
        for broker in ranked {
            let Some(standing) = self.standings.standing(&broker) else { continue };
            let state = &standing.state;
            if !state.accepting || state.drain_deadline.is_some() || state.peers <= peers {
                continue;
            }
            let Some(candidate) = self.answered_at(&broker) else { continue };
            let Ok(link) = ProbeLink::dial(&self.reach, &candidate).await else { continue };
            if link.state.accepting && link.state.peers > peers {
                return Some(self.take(Trigger::Asked, std::slice::from_ref(isolated), link));
            }
        }
        None
    }

    /// This machine's network is another one: who failed there may answer here.
    pub(crate) fn forget_failures(&mut self) {
        self.ejections.clear();
    }

    /// The brokers that may carry a second link, best first, at most `limit`.
    pub(crate) fn spares(&self, limit: usize) -> Vec<BrokerContact> {
        let ranked = self.standings.ranked(&self.ejections, &[], self.reach.now());
        let usable = ranked.into_iter().filter_map(|broker| {
            let standing = self.standings.standing(&broker)?;
            let takes = standing.state.accepting && standing.state.drain_deadline.is_none();
            standing.address.filter(|_| takes).map(|address| BrokerContact::answered(broker, address))
        });
        usable.take(limit).collect()
    }

    /// What was measured, for registrations and score reports.
    pub(crate) fn scores(&self) -> Vec<(BrokerId, u32)> {
        self.standings.scores(self.reach.now())
    }

    /// Everything known of brokers, for the pin's judgement of a round.
    pub(crate) fn judgement(&self) -> (&Standings, &Ejections<BrokerId>) {
        (&self.standings, &self.ejections)
    }

    /// Where a leg to `broker` may go: where it answered before.
    pub(crate) fn address_of(&self, broker: &BrokerId) -> Option<SocketAddr> {
        self.standings.standing(broker)?.address
    }

    /// Whether addresses of this machine itself are used.
    pub(crate) fn allows_loopback(&self) -> bool {
        self.places.allow_loopback
    }

    /// The names and what they gave.
    pub(crate) fn resolving(&self) -> &Resolving {
        &self.resolving
    }

    fn answered_at(&self, broker: &BrokerId) -> Option<Candidate> {
        let address = self.address_of(broker)?;
        Some(Candidate { address, expectation: Expectation::Broker(broker.clone()) })
    }

    async fn gather(&mut self) -> Result<Vec<Source>, LocateError> {
        let fixed = self.places.addresses.iter().map(|known| Source {
            expectation: Expectation::Broker(known.broker.clone()),
            addresses: vec![known.address],
        });
        let fixed: Vec<Source> = fixed.collect();
        let Gathered { mut sources, wants_known_good } =
            self.resolving.gather(self.known_good.has_any(), &self.reach).await;
        for (name, reason) in self.resolving.failures() {
            self.reach.events.publish(Event::ResolveFailed { name, reason });
        }
        if wants_known_good {
            sources.extend(self.known_good.sources());
        }
        sources.extend(fixed);
        if sources.is_empty() { Err(self.no_address(&[])) } else { Ok(sources) }
    }

    /// Why no broker is pinned, when these addresses were tried.
    pub(crate) fn no_broker(&self, failures: Vec<CandidateFailure>) -> LocateError {
        LocateError::NoBroker { wanted: self.places.wanted(), failures }
    }

    fn no_address(&self, sources: &[Source]) -> LocateError {
        let mut failures = self.resolving.failures();
        for source in sources {
            let place = match &source.expectation {
                Expectation::Name(name) => name.clone(),
                Expectation::Broker(broker) => broker.to_string(),
            };
            failures.push((place, "only addresses that may not be dialled (loopback is off)".to_owned()));
        }
        LocateError::NoAddress { failures }
    }

    fn note(&mut self, measured: &[Measured]) {
        let now = self.reach.now();
        for Measured { link, samples, .. } in measured {
            self.standings.observe(link.state.clone(), Some(link.address));
            self.ejections.handle_success(&link.broker, now);
            for sample in samples {
                self.standings.add_sample(&link.broker, *sample);
            }
        }
    }
}

/// Dials a broker for a control link: where it answered before, else at its own name.
///
/// # Errors
/// What the last place answered, in words.
pub(crate) async fn probe_contact(
    reach: &Reach,
    contact: &BrokerContact,
    allow_loopback: bool,
) -> Result<ProbeLink, String> {
    let mut tried = Vec::new();
    let mut reason = "no address of it is known".to_owned();
    let mut places = VecDeque::from_iter(contact.answered);
    let mut resolved = false;
    while tried.len() < NAMED_PLACES_MAX {
        let Some(address) = places.pop_front() else {
            if resolved {
                break;
            }
            resolved = true;
            let named = resolve_own_name(reach, &contact.name).await;
            places.extend(named.into_iter().filter(|place| refusal(*place, allow_loopback).is_none()));
            continue;
        };
        if tried.contains(&address) {
            continue;
        }
        tried.push(address);
        let candidate = Candidate { address, expectation: Expectation::Broker(contact.broker.clone()) };
        match ProbeLink::dial(reach, &candidate).await {
            Ok(link) => return Ok(link),
            Err(failure) => reason = failure.reason,
        }
    }
    Err(reason)
}

async fn dial_and_measure(reach: &Reach, candidate: Candidate) -> Result<Measured, ProbeFailure> {
    let mut link = ProbeLink::dial(reach, &candidate).await?;
    let samples = measure(reach, &mut link, Warmth::Warm, &CancellationToken::new()).await?;
    Ok(Measured { candidate, link, samples })
}
