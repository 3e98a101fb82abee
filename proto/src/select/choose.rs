//! What is known of each broker, and which one a new session takes.
//!
//! Never an ineligible broker while an eligible one exists: brokers that drain, do not accept, are full, do not
//! see the mesh, have not answered lately or were ejected are left out, in steps that are relaxed only when
//! nothing is left ([`Relaxation`]). Among the rest those about as near as the nearest form a window; of two drawn
//! from it the less loaded one wins, so that many clients with the same measurements spread instead of piling up.
//!
//! ```text
//! standings.observe(ProbeState::from_pong(&pong, now), Some(address));
//! standings.add_sample(&broker, sample);
//! let choice = standings.choose(&Request { trigger, avoid: &[], only: None }, &ejections, now, &mut rng);
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use super::eject::Ejections;
use super::record::{Choice, ChoiceRow, Relaxation, Rule, Trigger, Verdict};
use super::score::{Sample, SamplePool, Score};
use crate::Moment;
use crate::wire::message::Pong;
use crate::wire::{BrokerId, Incarnation};

/// Brokers that are remembered; the one heard from longest ago is forgotten first.
pub const STANDINGS_MAX: usize = 64;
/// Age from which a broker's state is ignored.
pub const STATE_AGE_MAX: Duration = Duration::from_secs(30);
/// Load per mille from which a broker is out.
pub const LOAD_LIMIT: u16 = 950;
/// Load per mille from which a broker is left out with a probability that grows to 1 at [`LOAD_LIMIT`].
pub const LOAD_THINNING: u16 = 750;
/// Loads per mille that differ by less count as the same.
pub const LOAD_SAME: u16 = 50;
/// Narrowest and widest window.
pub const WINDOW_WIDTH: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(25));
/// Part of the best score that makes the window's width, in percent.
const WINDOW_PERCENT: u32 = 15;

/// A broker's state as its own probe answer told it, inside TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeState {
    /// Who answered; checked against its certificate by the driver.
    pub broker: BrokerId,
    /// The process that answered.
    pub incarnation: Incarnation,
    /// Load per mille, at most 1000.
    pub load: u16,
    /// Paths open.
    pub paths: u32,
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// When draining: time until it stops, as of `seen`.
    pub drain_deadline: Option<Duration>,
    /// Whether it sees most of the mesh.
    pub mesh_healthy: bool,
    /// How many peers it is linked to; 0 when it does not tell.
    pub peers: u16,
    /// When the answer came.
    pub seen: Moment,
}

impl ProbeState {
    /// The state in a probe answer that came at `now`.
    pub fn from_pong(pong: &Pong, now: Moment) -> Self {
        Self {
            broker: pong.broker.clone(),
            incarnation: pong.incarnation,
            load: pong.load.min(1000),
            paths: pong.paths,
            accepting: pong.accepting,
            drain_deadline: pong.drain_deadline_ms.map(|ms| Duration::from_millis(ms.into())),
            mesh_healthy: pong.mesh_healthy,
            peers: pong.peers().map_or(0, |(linked, _)| linked),
            seen: now,
        }
    }

    /// Whether it is too old to be believed.
    pub fn is_stale(&self, now: Moment) -> bool {
        now.since(self.seen) > STATE_AGE_MAX
    }
}

/// What is known of one broker.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its latest state.
    pub state: ProbeState,
    /// Where it answered last.
    pub address: Option<SocketAddr>,
    /// Its round trips.
    pub samples: SamplePool,
}

impl Standing {
    /// Whether it may carry a new session without relaxing any rule. Ejection is not looked at.
    pub fn is_eligible(&self, now: Moment) -> bool {
        self.barrier(now).0 == Relaxation::Nothing
    }

    /// From which relaxation on this broker may be taken, and what to call it below.
    fn barrier(&self, now: Moment) -> (Relaxation, Verdict) {
        let state = &self.state;
        if state.is_stale(now) {
            (Relaxation::Staleness, Verdict::Stale)
        } else if state.drain_deadline.is_some() {
            (Relaxation::Draining, Verdict::Draining)
        } else if !state.accepting {
            (Relaxation::Draining, Verdict::NotAccepting)
        } else if state.load >= LOAD_LIMIT {
            (Relaxation::Load, Verdict::Overloaded)
        } else if !state.mesh_healthy {
            (Relaxation::MeshHealth, Verdict::MeshUnhealthy)
        } else {
            (Relaxation::Nothing, Verdict::NotDrawn)
        }
    }
}

/// What a choice is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Why.
    pub trigger: Trigger,
    /// Never take these.
    pub avoid: &'a [BrokerId],
    /// Take only one of these.
    pub only: Option<&'a [BrokerId]>,
}

/// Everything known of the brokers, at most [`STANDINGS_MAX`].
#[derive(Debug, Clone, Default)]
pub struct Standings {
    brokers: BTreeMap<BrokerId, Standing>,
}

/// One broker during a choice.
struct Entry<'a> {
    broker: &'a BrokerId,
    standing: &'a Standing,
    score: Option<Score>,
    barrier: Option<Relaxation>,
    verdict: Verdict,
}

impl Entry<'_> {
    fn load(&self, now: Moment) -> Option<u16> {
        (!self.standing.state.is_stale(now)).then_some(self.standing.state.load)
    }

    /// Nearest first, unmeasured last.
    fn rank(&self) -> (bool, Option<Score>) {
        (self.score.is_none(), self.score)
    }
}

impl Standings {
    /// A broker answered with `state`, at `address`. A state older than the one known changes nothing.
    pub fn observe(&mut self, state: ProbeState, address: Option<SocketAddr>) {
        if let Some(standing) = self.brokers.get_mut(&state.broker) {
            standing.address = address.or(standing.address);
            if state.seen >= standing.state.seen {
                standing.state = state;
            }
            return;
        }
        if self.brokers.len() >= STANDINGS_MAX {
            let oldest = self.brokers.iter().min_by_key(|(_, standing)| standing.state.seen);
            if let Some(oldest) = oldest.map(|(broker, _)| broker.clone()) {
                self.brokers.remove(&oldest);
            }
        }
        self.brokers
            .insert(state.broker.clone(), Standing { state, address, samples: SamplePool::default() });
    }

    /// Adds a round trip of a broker that answered before; of others nothing is kept.
    pub fn add_sample(&mut self, broker: &BrokerId, sample: Sample) {
        if let Some(standing) = self.brokers.get_mut(broker) {
            standing.samples.push(sample);
        }
    }

    /// Forgets every round trip, for example when the network changed. States stay.
    pub fn forget_samples(&mut self) {
        for standing in self.brokers.values_mut() {
            standing.samples = SamplePool::default();
        }
    }

    /// What is known of `broker`.
    pub fn standing(&self, broker: &BrokerId) -> Option<&Standing> {
        self.brokers.get(broker)
    }

    /// Everything known, by broker id.
    pub fn iter(&self) -> impl Iterator<Item = (&BrokerId, &Standing)> {
        self.brokers.iter()
    }

    /// Broker and score in whole ms, nearest first: what Register, ScoreReport and OpenPath's joint choice carry.
    pub fn scores(&self, now: Moment) -> Vec<(BrokerId, u32)> {
        let mut scores: Vec<_> = self
            .brokers
            .iter()
            .filter_map(|(broker, standing)| Some((standing.samples.score(now)?, broker)))
            .collect();
        scores.sort_unstable();
        scores.into_iter().map(|(score, broker)| (broker.clone(), score.whole_ms())).collect()
    }

    /// Every broker that may be taken at all: those that need no relaxation first, each group nearest first.
    pub fn ranked(&self, ejections: &Ejections<BrokerId>, avoid: &[BrokerId], now: Moment) -> Vec<BrokerId> {
        let request = Request { trigger: Trigger::Asked, avoid, only: None };
        let mut entries = self.entries(&request, ejections, now);
        entries.retain(|entry| entry.barrier.is_some());
        entries.sort_by_key(|entry| (entry.barrier, entry.rank(), entry.broker));
        entries.into_iter().map(|entry| entry.broker.clone()).collect()
    }

    /// Chooses a broker for a new session; the record says who and why.
    pub fn choose(
        &self,
        request: &Request<'_>,
        ejections: &Ejections<BrokerId>,
        now: Moment,
        rng: &mut impl Rng,
    ) -> Choice {
        let mut entries = self.entries(request, ejections, now);
        entries.sort_by_key(|entry| (entry.rank(), entry.broker));
        let relaxed = entries.iter().filter_map(|entry| entry.barrier).min().unwrap_or(Relaxation::Nothing);
        let mut left: Vec<&mut Entry<'_>> = entries
            .iter_mut()
            .filter(|entry| entry.barrier.is_some_and(|barrier| barrier <= relaxed))
            .collect();
        if relaxed < Relaxation::Load {
            left = thin_out(left, rng);
        }
        let left_count = left.len();
        let best = left.first().and_then(|entry| entry.score).map(|score| score.total);
        let window = best.map(|best| best.saturating_add(window_width(best)));
        let mut near = into_window(left, window);
        let rule = match near.as_mut_slice() {
            [] => Rule::NoBroker,
            [only] => {
                only.verdict = Verdict::Chosen;
                if left_count == 1 { Rule::OnlyOneLeft } else { Rule::AloneInWindow }
            }
            several => draw_two(several, now, rng),
        };
        let chosen = entries.iter().find(|entry| entry.verdict == Verdict::Chosen);
        Choice {
            trigger: request.trigger,
            chosen: chosen.map(|entry| entry.broker.clone()),
            rule,
            relaxed,
            best,
            window,
            brokers: entries.iter().map(|entry| row(entry, now)).collect(),
            dialled: Vec::new(),
        }
    }

    fn entries(&self, request: &Request<'_>, ejections: &Ejections<BrokerId>, now: Moment) -> Vec<Entry<'_>> {
        let entry = |(broker, standing)| entry(broker, standing, request, ejections, now);
        self.brokers.iter().map(entry).collect()
    }
}

fn entry<'a>(
    broker: &'a BrokerId,
    standing: &'a Standing,
    request: &Request<'_>,
    ejections: &Ejections<BrokerId>,
    now: Moment,
) -> Entry<'a> {
    let unwanted = request.avoid.contains(broker) || request.only.is_some_and(|only| !only.contains(broker));
    let (barrier, verdict) = if unwanted {
        (None, Verdict::Avoided)
    } else if ejections.is_ejected(broker, now) {
        (Some(Relaxation::Ejection), Verdict::Ejected)
    } else {
        let (barrier, verdict) = standing.barrier(now);
        (Some(barrier), verdict)
    };
    Entry { broker, standing, score: standing.samples.score(now), barrier, verdict }
}

/// Drops loaded brokers by chance; all stay when that would leave none, since each of them is eligible.
fn thin_out<'e, 'a>(mut left: Vec<&'e mut Entry<'a>>, rng: &mut impl Rng) -> Vec<&'e mut Entry<'a>> {
    let keeps: Vec<bool> = left.iter().map(|entry| !is_thinned_out(entry.standing.state.load, rng)).collect();
    if !keeps.contains(&true) {
        return left;
    }
    let mut keeps = keeps.into_iter();
    left.retain_mut(|entry| {
        let stays = keeps.next().unwrap_or(true);
        if !stays {
            entry.verdict = Verdict::ThinnedOut;
        }
        stays
    });
    left
}

fn is_thinned_out(load: u16, rng: &mut impl Rng) -> bool {
    load > LOAD_THINNING && rng.random_range(0..LOAD_LIMIT - LOAD_THINNING) < load - LOAD_THINNING
}

fn window_width(best: Duration) -> Duration {
    let (narrowest, widest) = WINDOW_WIDTH;
    (best.saturating_mul(WINDOW_PERCENT) / 100).clamp(narrowest, widest)
}

/// Keeps those inside the window. Without any score everybody is about as near.
fn into_window<'e, 'a>(left: Vec<&'e mut Entry<'a>>, window: Option<Duration>) -> Vec<&'e mut Entry<'a>> {
    let mut near = Vec::with_capacity(left.len());
    for entry in left {
        match (entry.score, window) {
            (Some(score), Some(window)) if score.total > window => entry.verdict = Verdict::OutsideWindow,
            (None, Some(_)) => entry.verdict = Verdict::Unmeasured,
            (Some(_) | None, _) => {
                entry.verdict = Verdict::NotDrawn;
                near.push(entry);
            }
        }
    }
    near
}

/// Draws two and takes the less loaded, or at about the same load the nearer.
fn draw_two(near: &mut [&mut Entry<'_>], now: Moment, rng: &mut impl Rng) -> Rule {
    let drawn = rand::seq::index::sample(rng, near.len(), 2);
    let (first, second) = (drawn.index(0).min(drawn.index(1)), drawn.index(0).max(drawn.index(1)));
    let Ok([nearer, farther]) = near.get_disjoint_mut([first, second]) else { return Rule::NoBroker };
    let loads = nearer.load(now).zip(farther.load(now));
    let (rule, nearer_wins) = match loads {
        Some((near, far)) if near.abs_diff(far) >= LOAD_SAME => (Rule::LowerLoad, near < far),
        Some(_) | None => (Rule::LowerScore, true),
    };
    let loser_verdict = if rule == Rule::LowerLoad { Verdict::MoreLoaded } else { Verdict::Slower };
    let (winner, loser) = if nearer_wins { (nearer, farther) } else { (farther, nearer) };
    winner.verdict = Verdict::Chosen;
    loser.verdict = loser_verdict;
    rule
}

fn row(entry: &Entry<'_>, now: Moment) -> ChoiceRow {
    let Standing { state, address, samples } = entry.standing;
    ChoiceRow {
        broker: entry.broker.clone(),
        address: *address,
        score: entry.score.map(|score| score.total),
        median: entry.score.map(|score| score.median),
        spread: entry.score.map(|score| score.spread),
        samples: samples.fresh(now).map(|sample| sample.round_trip).collect(),
        load: state.load,
        accepting: state.accepting,
        draining: state.drain_deadline.is_some(),
        mesh_healthy: state.mesh_healthy,
        age: now.since(state.seen),
        verdict: entry.verdict,
    }
}
