//! Asking every peer which of them holds a Target.
//!
//! Answers are positive ([`LocateQuery::handle_here`]), negative, or missing: a peer that says nothing within
//! max(300 ms, 2 × its round trip) is *unknown*. The best positive by role and cost decides one round trip after the
//! first one came, or when nobody is left to wait for; the others stay for hedging. Without a positive the answer is
//! "not found" only when every peer said no, else "partial": this broker cannot tell. A question that watches then
//! stays open for a Target that registers later.
//!
//! ```text
//!                 first positive + 1 round trip, or all settled with one
//! Asking ─────────────────────────────────────────────────────────────────▶ Decided ──next_positive──▶
//!    └─ all settled without one ─▶ Watching ──(a positive)──▶ Decided
//!                                     └──(watch over)──▶ Ended
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::Moment;
use crate::wire::codes::RegistrationRole;
use crate::wire::{BrokerId, EndpointId, InstanceId, limits};

/// Shortest time that a peer has to answer.
pub const ANSWER_MIN: Duration = Duration::from_millis(300);
/// Shortest time until the next positive is tried, and what is added to two round trips.
pub const HEDGE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(300));
/// Peers that are asked at once; above that a directory is asked.
pub const ASK_ALL_MAX: usize = 30;

/// Whether the question is for a session that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocateKind {
    /// For a new session: wait for everybody.
    New,
    /// For a session that exists: one silent peer is enough to say that this broker cannot tell.
    Resume,
}

/// Where a Target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The broker that says so.
    pub broker: BrokerId,
    /// The instance there.
    pub instance: InstanceId,
    /// Role of its registration.
    pub role: RegistrationRole,
    /// Round trip to the broker plus from there to the Target.
    pub cost: Duration,
    /// How long to wait for a PathOpened from there before the next positive is tried.
    pub hedge_after: Duration,
}

impl Location {
    /// Primary before standby before resume before what a later version knows; then the cheaper one.
    fn rank(&self) -> (u8, Duration, &BrokerId) {
        let role = match self.role {
            RegistrationRole::PRIMARY => 0,
            RegistrationRole::STANDBY => 1,
            RegistrationRole::RESUME => 2,
            _ => 3,
        };
        (role, self.cost, &self.broker)
    }
}

/// What a driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocateEvent {
    /// Send MeshOpen there.
    Found(Location),
    /// No peer holds the Target. With `watching` a later Found may follow.
    NotFound {
        /// Whether the question stays open.
        watching: bool,
    },
    /// No peer that answered holds the Target, and at least one did not answer. With `watching` a later Found may
    /// follow.
    Partial {
        /// Whether the question stays open.
        watching: bool,
    },
    /// The watch is over and nothing came.
    Ended,
}

#[derive(Debug, Clone)]
enum Answer {
    Waiting,
    No,
    Unknown,
    Here(Location),
    /// It was handed to the driver.
    Tried,
}

#[derive(Debug, Clone)]
struct Asked {
    round_trip: Duration,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking { decide_at: Option<Moment> },
    Watching { until: Moment },
    Decided,
    Ended,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The asker's number.
    pub query: u64,
    /// Who is wanted.
    pub target: EndpointId,
    /// The one instance that is wanted.
    pub instance: Option<InstanceId>,
    /// What for.
    pub kind: LocateKind,
    /// How long to wait for a Target that is absent; at most [`limits::PARK_MAX`].
    pub watch: Duration,
}

/// One question to all peers; see the module.
#[derive(Debug, Clone)]
pub struct LocateQuery {
    question: Question,
    asked: BTreeMap<BrokerId, Asked>,
    began: Moment,
    phase: Phase,
    events: VecDeque<LocateEvent>,
}

impl LocateQuery {
    /// Asks `peers`, each with the round trip of its link. The driver sends the Locate messages.
    pub fn new(question: Question, peers: &[(BrokerId, Duration)], now: Moment) -> Self {
        let asked = |(broker, round_trip): &(BrokerId, Duration)| {
            (broker.clone(), Asked { round_trip: *round_trip, answer: Answer::Waiting })
        };
        let asked = peers.iter().take(limits::PEERS_MAX).map(asked).collect();
        let phase = Phase::Asking { decide_at: None };
        let mut query = Self { question, asked, began: now, phase, events: VecDeque::new() };
        query.advance(now);
        query
    }

    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// `peer` says that it holds `instance`. Anything from a peer that was not asked is ignored, and another
    /// instance than the one wanted is a no.
    pub fn handle_here(
        &mut self,
        peer: &BrokerId,
        instance: InstanceId,
        role: RegistrationRole,
        cost_us: u32,
        now: Moment,
    ) {
        let fits = match self.question.instance {
            Some(wanted) => wanted == instance,
            None => role != RegistrationRole::RESUME,
        };
        if !fits {
            self.handle_not_here(peer, now);
            return;
        }
        let Some(asked) = self.asked.get_mut(peer) else { return };
        let (shortest, added) = HEDGE;
        let hedge_after = (asked.round_trip * 2 + added).max(shortest);
        let cost = asked.round_trip + Duration::from_micros(cost_us.into());
        asked.answer = Answer::Here(Location { broker: peer.clone(), instance, role, cost, hedge_after });
        if let Phase::Asking { decide_at } = &mut self.phase {
            let decides = now + asked.round_trip;
            *decide_at = Some(decide_at.map_or(decides, |at| at.min(decides)));
        }
        self.advance(now);
    }

    /// `peer` does not hold the Target, or no longer.
    pub fn handle_not_here(&mut self, peer: &BrokerId, now: Moment) {
        self.settle(peer, Answer::No, now);
    }

    /// The link to `peer` ended: what it holds is unknown.
    pub fn handle_link_lost(&mut self, peer: &BrokerId, now: Moment) {
        self.settle(peer, Answer::Unknown, now);
    }

    /// Counts peers that are out of time as unknown, and decides when it is time.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.advance(now);
    }

    /// When to call [`Self::handle_timeout`] next; `None` when only answers can change anything.
    pub fn poll_timeout(&self) -> Option<Moment> {
        match self.phase {
            Phase::Asking { decide_at } => {
                let waiting = self.asked.values().filter(|asked| matches!(asked.answer, Answer::Waiting));
                waiting.map(|asked| self.began + patience(asked.round_trip)).chain(decide_at).min()
            }
            Phase::Watching { until } => Some(until),
            Phase::Decided | Phase::Ended => None,
        }
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<LocateEvent> {
        self.events.pop_front()
    }

    /// The best positive that was not handed out yet: for hedging, and after a broker answered that the Target is
    /// no longer there.
    pub fn next_positive(&mut self) -> Option<Location> {
        let best = self.asked.values().filter_map(|asked| match &asked.answer {
            Answer::Here(location) => Some(location),
            Answer::Waiting | Answer::No | Answer::Unknown | Answer::Tried => None,
        });
        let best = best.min_by(|one, other| one.rank().cmp(&other.rank())).cloned()?;
        self.asked.get_mut(&best.broker)?.answer = Answer::Tried;
        Some(best)
    }

    /// Whether a peer did not answer: then no positive left means that this broker cannot tell.
    pub fn has_unknown(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked.answer, Answer::Unknown))
    }

    /// The peers that did not answer in time.
    pub fn unknown(&self) -> impl Iterator<Item = &BrokerId> {
        let unknown = self.asked.iter().filter(|(_, asked)| matches!(asked.answer, Answer::Unknown));
        unknown.map(|(broker, _)| broker)
    }

    fn settle(&mut self, peer: &BrokerId, answer: Answer, now: Moment) {
        if let Some(asked) = self.asked.get_mut(peer)
            && !matches!(asked.answer, Answer::Tried)
        {
            asked.answer = answer;
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Moment) {
        match self.phase {
            Phase::Asking { decide_at } => self.advance_asking(decide_at, now),
            Phase::Watching { until } => match self.next_positive() {
                Some(location) => self.decide(location),
                None if now >= until => {
                    self.phase = Phase::Ended;
                    self.events.push_back(LocateEvent::Ended);
                }
                None => {}
            },
            Phase::Decided | Phase::Ended => {}
        }
    }

    fn advance_asking(&mut self, decide_at: Option<Moment>, now: Moment) {
        let began = self.began;
        for asked in self.asked.values_mut() {
            if matches!(asked.answer, Answer::Waiting) && now >= began + patience(asked.round_trip) {
                asked.answer = Answer::Unknown;
            }
        }
        let any = |wanted: fn(&Answer) -> bool| self.asked.values().any(|asked| wanted(&asked.answer));
        let waiting = any(|answer| matches!(answer, Answer::Waiting));
        let unknown = any(|answer| matches!(answer, Answer::Unknown));
        let positive = any(|answer| matches!(answer, Answer::Here(_)));
        if positive {
            let decides = !waiting || decide_at.is_some_and(|at| now >= at);
            if let Some(location) = decides.then(|| self.next_positive()).flatten() {
                self.decide(location);
            }
            return;
        }
        let gives_up = unknown && self.question.kind == LocateKind::Resume;
        if waiting && !gives_up {
            return;
        }
        let until = self.began + self.question.watch.min(limits::PARK_MAX);
        let watching = now < until && !self.asked.is_empty();
        self.phase = if watching { Phase::Watching { until } } else { Phase::Ended };
        self.events.push_back(if unknown {
            LocateEvent::Partial { watching }
        } else {
            LocateEvent::NotFound { watching }
        });
    }

    fn decide(&mut self, location: Location) {
        self.phase = Phase::Decided;
        self.events.push_back(LocateEvent::Found(location));
    }
}

fn patience(round_trip: Duration) -> Duration {
    (round_trip * 2).max(ANSWER_MIN)
}

/// The `count` brokers that keep the directory entry of `target` in a mesh of more than [`ASK_ALL_MAX`]: every
/// broker that knows the same members names the same ones. What a directory answers is a hint.
pub fn rendezvous<'a>(
    target: &EndpointId,
    members: impl IntoIterator<Item = &'a BrokerId>,
    count: usize,
) -> Vec<BrokerId> {
    let weight = |broker: &BrokerId| {
        let text = format!("{target}\n{broker}");
        xxhash_rust::xxh64::xxh64(text.as_bytes(), 0)
    };
    let mut ranked: Vec<_> = members.into_iter().map(|broker| (weight(broker), broker)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    ranked.into_iter().take(count).map(|(_, broker)| broker.clone()).collect()
}
