//! One look for a broker, and what is remembered between looks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::select::candidate::merge;
use rc_proto::select::{
    Candidate, Choice, Ejections, Expectation, ProbeState, Request, Round, Source, Standings, Trigger, Warmth,
};
use rc_proto::wire::BrokerId;
use rc_proto::wire::message::Pong;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::known_good::KnownGoodStore;
use super::measure::measure;
use super::probe_link::ProbeLink;
use super::race::{Measured, RaceReport, race};
use super::resolve::{Gathered, Resolving};
use crate::config::{BrokerPlaces, ClientConfig};
use crate::error::LocateError;
use crate::event::Event;
use crate::reach::Reach;

/// Ranked brokers that are dialled, each this much after the one before, when the pinned one is lost.
const RANKED_MAX: u32 = 4;
const RANKED_STAGGER: Duration = Duration::from_millis(150);

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
        let RaceReport { race, measured, failures } = race(&self.reach, found.taken).await;
        for (address, reason) in &failures {
            self.reach.events.publish(Event::CandidateFailed { address: *address, reason: reason.clone() });
        }
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
            None => Err(LocateError::NoBroker { failures }),
        }
    }

    /// Dials the next-ranked brokers that answered before, at most four, without a look; `None` when none of them
    /// answers.
    pub(crate) async fn next_ranked(&mut self, trigger: Trigger, lost: &BrokerId) -> Option<Located> {
        let avoid = std::slice::from_ref(lost);
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
            if !link.state.accepting {
                continue;
            }
            self.standings.observe(link.state.clone(), Some(link.address));
            let only = std::slice::from_ref(&link.broker);
            let request = Request { trigger, avoid, only: Some(only) };
            let now = self.reach.now();
            let choice = self.standings.choose(&request, &self.ejections, now, &mut rand::rng());
            return Some(Located { choice, link });
        }
        None
    }

    /// Measures the brokers of a round over fresh connections; `pinned` is measured by its own link.
    pub(crate) async fn probe_round(&mut self, round: Round, pinned: &BrokerId) {
        let brokers = round.brokers(&self.standings, Some(pinned), self.reach.now());
        let mut probes = JoinSet::new();
        for broker in brokers {
            let Some(candidate) = self.answered_at(&broker) else { continue };
            let reach = Arc::clone(&self.reach);
            probes.spawn(async move {
                let measured = async {
                    let mut link = ProbeLink::dial(&reach, &candidate).await?;
                    let samples = measure(&reach, &mut link, Warmth::Warm, &CancellationToken::new()).await?;
                    Ok::<_, super::probe_link::ProbeFailure>(Measured { candidate, link, samples })
                };
                (broker, measured.await)
            });
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
        self.resolving.take_late_answers(&self.reach);
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
