//! Brokers as the wire shows them, and one client that goes through race, measurement and choice in virtual time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::select::{
    AttemptId, Candidate, Choice, Completion, Ejections, Expectation, Measurement, ProbeState, Race,
    RaceEvent, RaceOutcome, Request, Sample, Standings, Trigger, Warmth,
};
use rc_proto::wire::{BrokerId, Incarnation};

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub(crate) fn at(value_ms: u64) -> Moment {
    Moment::from_origin(ms(value_ms))
}

pub(crate) fn broker_id(text: &str) -> BrokerId {
    text.parse().unwrap()
}

/// What varies on the way to a broker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Jitter {
    /// Up to this much is added, uniformly.
    Uniform(Duration),
    /// In so many of a hundred round trips up to this much is added.
    Spikes(u32, Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) base: Duration,
    pub(crate) jitter: Jitter,
    pub(crate) load: u16,
    pub(crate) accepting: bool,
    pub(crate) drain: Option<Duration>,
    pub(crate) mesh_healthy: bool,
    pub(crate) dead: bool,
}

impl Broker {
    pub(crate) fn new(id: &str, base: Duration) -> Self {
        Self {
            id: broker_id(id),
            base,
            jitter: Jitter::Uniform(ms(2)),
            load: 100,
            accepting: true,
            drain: None,
            mesh_healthy: true,
            dead: false,
        }
    }

    pub(crate) fn round_trip(&self, rng: &mut impl Rng) -> Duration {
        match self.jitter {
            Jitter::Uniform(most) => self.base + rng.random_range(Duration::ZERO..=most),
            Jitter::Spikes(percent, most) if rng.random_range(0..100) < percent => {
                self.base + rng.random_range(Duration::ZERO..=most)
            }
            Jitter::Spikes(..) => self.base,
        }
    }

    pub(crate) fn state(&self, seen: Moment) -> ProbeState {
        ProbeState {
            broker: self.id.clone(),
            incarnation: Incarnation(1),
            load: self.load,
            paths: 0,
            accepting: self.accepting,
            drain_deadline: self.drain,
            mesh_healthy: self.mesh_healthy,
            peers: 0,
            seen,
        }
    }

    /// Eligibility as the design words it, written independently of the code under test.
    pub(crate) fn is_eligible(&self) -> bool {
        self.accepting && self.drain.is_none() && self.load < 950 && self.mesh_healthy
    }
}

pub(crate) fn address(place: usize) -> SocketAddr {
    let last = u8::try_from(place).unwrap();
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 443))
}

pub(crate) fn candidate(place: usize) -> Candidate {
    Candidate { address: address(place), expectation: Expectation::Name("brokers.example".into()) }
}

/// Standings as if `count` samples of each broker had been taken at `now`.
pub(crate) fn measured(brokers: &[Broker], count: usize, now: Moment, rng: &mut impl Rng) -> Standings {
    let mut standings = Standings::default();
    for broker in brokers {
        probe(&mut standings, broker, count, now, rng);
    }
    standings
}

pub(crate) fn probe(
    standings: &mut Standings,
    broker: &Broker,
    count: usize,
    now: Moment,
    rng: &mut impl Rng,
) {
    standings.observe(broker.state(now), None);
    for _ in 0..count {
        let round_trip = broker.round_trip(rng);
        standings.add_sample(&broker.id, Sample { round_trip, at: now, lost: false });
    }
}

pub(crate) fn choose(standings: &Standings, now: Moment, rng: &mut impl Rng) -> Choice {
    let request = Request { trigger: Trigger::Start, avoid: &[], only: None };
    standings.choose(&request, &Ejections::default(), now, rng)
}

/// What a client has after its first choice.
pub(crate) struct FirstChoice {
    pub(crate) standings: Standings,
    pub(crate) choice: Choice,
    pub(crate) winner: Option<BrokerId>,
    pub(crate) now: Moment,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    DialDone(AttemptId, usize),
    Pong(usize, u64),
    Wake,
}

/// A client that dials `brokers` in the order given.
struct Client<'a, R> {
    brokers: &'a [Broker],
    queue: BTreeMap<(Moment, u64), Event>,
    sequence: u64,
    race: Race,
    measurements: BTreeMap<usize, Measurement>,
    standings: Standings,
    winner: Option<BrokerId>,
    rng: &'a mut R,
}

/// Transport and TLS take two round trips, the first probe one.
const DIAL_ROUND_TRIPS: u32 = 3;

/// Race, measurement and choice of one client.
pub(crate) fn first_choice(brokers: &[Broker], start: Moment, rng: &mut impl Rng) -> FirstChoice {
    let candidates = (0..brokers.len()).map(candidate).collect();
    let mut client = Client {
        brokers,
        queue: BTreeMap::new(),
        sequence: 0,
        race: Race::new(candidates, start),
        measurements: BTreeMap::new(),
        standings: Standings::default(),
        winner: None,
        rng,
    };
    let now = client.run(start);
    let choice = choose(&client.standings, now, client.rng).with_race(&client.race);
    FirstChoice { standings: client.standings, choice, winner: client.winner, now }
}

impl<R: Rng> Client<'_, R> {
    fn run(&mut self, start: Moment) -> Moment {
        let mut now = start;
        loop {
            if self.drain(now).is_some() {
                return now;
            }
            let timers = self.measurements.values().filter_map(Measurement::poll_timeout);
            if let Some(next) = timers.chain(self.race.poll_timeout()).min() {
                self.push(next.max(now), Event::Wake);
            }
            let ((due, _), event) = self.queue.pop_first().unwrap();
            now = due;
            self.apply(event, now);
        }
    }

    fn drain(&mut self, now: Moment) -> Option<RaceOutcome> {
        while let Some(attempt) = self.race.poll_start(now) {
            let address = self.race.candidate(attempt).unwrap().address;
            let place = (0..self.brokers.len()).find(|place| self::address(*place) == address).unwrap();
            let broker = &self.brokers[place];
            if !broker.dead {
                let took = broker.round_trip(self.rng) * DIAL_ROUND_TRIPS;
                self.push(now + took, Event::DialDone(attempt, place));
            }
        }
        let mut due = Vec::new();
        for (place, measurement) in &mut self.measurements {
            while let Some(nonce) = measurement.poll_probe(now, self.rng) {
                due.push((*place, nonce, self.brokers[*place].round_trip(self.rng)));
            }
        }
        for (place, nonce, round_trip) in due {
            self.push(now + round_trip, Event::Pong(place, nonce));
        }
        while let Some(event) = self.race.poll_event() {
            if let RaceEvent::Finished(outcome) = event {
                return Some(outcome);
            }
        }
        None
    }

    fn apply(&mut self, event: Event, now: Moment) {
        match event {
            Event::DialDone(attempt, place) => self.dialled(attempt, place, now),
            Event::Pong(place, nonce) => {
                let broker = &self.brokers[place];
                self.standings.observe(broker.state(now), Some(address(place)));
                if let Some(sample) = self.measurements.get_mut(&place).unwrap().handle_pong(nonce, now) {
                    self.standings.add_sample(&broker.id, sample);
                }
            }
            Event::Wake => {
                self.race.handle_timeout(now);
                for (place, measurement) in &mut self.measurements {
                    for sample in measurement.handle_timeout(now) {
                        self.standings.add_sample(&self.brokers[*place].id, sample);
                    }
                }
            }
        }
    }

    fn dialled(&mut self, attempt: AttemptId, place: usize, now: Moment) {
        let broker = &self.brokers[place];
        match self.race.handle_success(attempt, broker.accepting && broker.drain.is_none(), now) {
            Completion::TooLate => return,
            Completion::Winner => self.winner = Some(broker.id.clone()),
            Completion::Measure => {}
        }
        self.standings.observe(broker.state(now), Some(address(place)));
        self.measurements.insert(place, Measurement::new(Warmth::Warm, now));
    }

    fn push(&mut self, due: Moment, event: Event) {
        self.sequence += 1;
        self.queue.insert((due, self.sequence), event);
    }
}
