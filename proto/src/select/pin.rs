//! The broker that was chosen, and the few reasons to leave it.
//!
//! Without hysteresis 20 ms against 22 ms changes place hundreds of times a day. A challenger must be better by
//! 10 ms *and* a third, in every round of a row: two rounds for what is idle, three and ten minutes of dwell for a
//! live session (which then moves by handover). Hearing from a broker is proof of life, whatever its probes say.
//!
//! ```text
//!            propose              confirm (Registered came)
//! Unpinned ───────────▶ Confirming ───────────────────────▶ Held
//!     ▲                     │ lost                            │ lost
//!     └─────────────────────┴─────────────────────────────────┘
//! ```
//!
//! Driver:
//! ```text
//! if let Some(round) = timer.poll_round(now, &mut rng) { probe round.brokers(…); then: }
//! match pin.handle_round(&standings, &ejections, occupancy, now, &mut rng) {
//!     PinVerdict::Stay(_) => {}
//!     PinVerdict::Move(choice) => register there, pin.propose(…), after Registered pin.confirm(…)
//!     PinVerdict::Handover(choice) => open a path over it, RETIRE the old one later
//! }
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;

use super::choose::{LOAD_THINNING, Request, Standing, Standings};
use super::eject::Ejections;
use super::record::{Choice, Trigger};
use super::score::Score;
use crate::Moment;
use crate::wire::BrokerId;

/// A challenger must be better by at least this.
pub const GAIN_MIN: Duration = Duration::from_millis(10);
/// Rounds in a row for what is idle.
pub const ROUNDS_IDLE: u32 = 2;
/// Rounds in a row for a live session.
pub const ROUNDS_IN_SESSION: u32 = 3;
/// Shortest stay of a live session.
pub const DWELL_MIN: Duration = Duration::from_secs(10 * 60);
/// Heard from within this time is alive.
pub const HEARD_MAX: Duration = Duration::from_secs(8);
/// Distance of two rounds of the pinned and the nearest brokers, ± 20 %.
pub const NEAR_ROUND: Duration = Duration::from_secs(60);
/// Distance of two rounds of all brokers, ± 20 %.
pub const FULL_ROUND: Duration = Duration::from_secs(5 * 60);
/// Brokers besides the pinned one in a near round.
pub const NEAR_BROKERS: usize = 3;

/// What the pinned broker carries for this endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupancy {
    /// Nothing but a registration or a control link.
    Idle,
    /// A live session.
    InSession,
}

/// Why nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StayReason {
    /// No broker is held.
    NotHeld,
    /// Nobody is better by enough.
    NobodyBetter,
    /// Somebody is, but not for enough rounds yet.
    TooEarly,
    /// A live session has not stayed long enough yet.
    Dwell,
    /// Every probe of this round was lost, but the broker was heard from.
    HeardFrom,
}

/// What a round of probes means for the pin.
#[derive(Debug, Clone, PartialEq)]
pub enum PinVerdict {
    /// Nothing changes.
    Stay(StayReason),
    /// Register at the chosen broker, then leave the old one.
    Move(Choice),
    /// Hand the session over to a path through the chosen broker.
    Handover(Choice),
}

#[derive(Debug, Clone)]
enum State {
    Unpinned,
    Confirming { broker: BrokerId },
    Held { broker: BrokerId, since: Moment, heard: Moment, better_rounds: BTreeMap<BrokerId, u32> },
}

/// The pinned broker; see the module.
#[derive(Debug, Clone)]
pub struct Pin {
    state: State,
}

impl Default for Pin {
    fn default() -> Self {
        Self { state: State::Unpinned }
    }
}

impl Pin {
    /// A broker was chosen; it is published only after [`Self::confirm`].
    pub fn propose(&mut self, broker: BrokerId) {
        self.state = State::Confirming { broker };
    }

    /// The proposed broker has confirmed the registration. Says whether it was the proposed one.
    pub fn confirm(&mut self, broker: &BrokerId, now: Moment) -> bool {
        let proposed = matches!(&self.state, State::Confirming { broker: proposed } if proposed == broker);
        if proposed {
            let broker = broker.clone();
            self.state = State::Held { broker, since: now, heard: now, better_rounds: BTreeMap::new() };
        }
        proposed
    }

    /// `broker` is lost. Says whether it was pinned or proposed.
    pub fn handle_lost(&mut self, broker: &BrokerId) -> bool {
        let was_ours = self.broker() == Some(broker);
        if was_ours {
            self.state = State::Unpinned;
        }
        was_ours
    }

    /// Anything came from `broker`.
    pub fn handle_heard(&mut self, broker: &BrokerId, now: Moment) {
        if let State::Held { broker: held, heard, .. } = &mut self.state
            && held == broker
        {
            *heard = (*heard).max(now);
        }
    }

    /// The broker that is pinned or proposed.
    pub fn broker(&self) -> Option<&BrokerId> {
        match &self.state {
            State::Unpinned => None,
            State::Confirming { broker } | State::Held { broker, .. } => Some(broker),
        }
    }

    /// The broker to tell others about: pinned and confirmed.
    pub fn published(&self) -> Option<&BrokerId> {
        match &self.state {
            State::Unpinned | State::Confirming { .. } => None,
            State::Held { broker, .. } => Some(broker),
        }
    }

    /// Whether the pinned broker was heard from within [`HEARD_MAX`]: then its failed probes eject nobody.
    pub fn is_alive(&self, now: Moment) -> bool {
        match &self.state {
            State::Unpinned | State::Confirming { .. } => false,
            State::Held { heard, .. } => now.since(*heard) <= HEARD_MAX,
        }
    }

    /// A round of probes is done and its results are in `standings`.
    pub fn handle_round(
        &mut self,
        standings: &Standings,
        ejections: &Ejections<BrokerId>,
        occupancy: Occupancy,
        now: Moment,
        rng: &mut impl Rng,
    ) -> PinVerdict {
        let alive = self.is_alive(now);
        let State::Held { broker, since, better_rounds, .. } = &mut self.state else {
            return PinVerdict::Stay(StayReason::NotHeld);
        };
        let verdict = |trigger, avoid: &[BrokerId], only: Option<&[BrokerId]>, rng: &mut _| {
            let choice = standings.choose(&Request { trigger, avoid, only }, ejections, now, rng);
            match (&choice.chosen, occupancy) {
                (None, _) => PinVerdict::Stay(StayReason::NobodyBetter),
                (Some(_), Occupancy::Idle) => PinVerdict::Move(choice),
                (Some(_), Occupancy::InSession) => PinVerdict::Handover(choice),
            }
        };
        let standing = standings.standing(broker);
        if standing.is_some_and(|s| !s.state.is_stale(now) && s.state.drain_deadline.is_some()) {
            return verdict(Trigger::Drain, std::slice::from_ref(broker), None, rng);
        }
        if alive && standing.is_some_and(|s| all_lost_lately(s, now)) {
            return PinVerdict::Stay(StayReason::HeardFrom);
        }
        let Some(held) = standing.and_then(|s| s.samples.score(now)) else {
            return PinVerdict::Stay(StayReason::NobodyBetter);
        };
        count_rounds(better_rounds, standings, ejections, held, now);
        let rounds = match occupancy {
            Occupancy::Idle => ROUNDS_IDLE,
            Occupancy::InSession => ROUNDS_IN_SESSION,
        };
        let ready = better_rounds.iter().filter(|(_, count)| **count >= rounds);
        let ready: Vec<BrokerId> = ready.map(|(challenger, _)| challenger.clone()).collect();
        if ready.is_empty() {
            let reason =
                if better_rounds.is_empty() { StayReason::NobodyBetter } else { StayReason::TooEarly };
            return PinVerdict::Stay(reason);
        }
        if occupancy == Occupancy::InSession && now.since(*since) < DWELL_MIN {
            return PinVerdict::Stay(StayReason::Dwell);
        }
        verdict(Trigger::Reprobe, &[], Some(&ready), rng)
    }
}

/// Whether every sample of the last round was lost.
fn all_lost_lately(standing: &Standing, now: Moment) -> bool {
    let round: Vec<_> =
        standing.samples.fresh(now).filter(|sample| now.since(sample.at) <= NEAR_ROUND / 2).collect();
    !round.is_empty() && round.iter().all(|sample| sample.lost)
}

/// Counts, per challenger that was measured lately, for how many rounds in a row it has been better.
fn count_rounds(
    better_rounds: &mut BTreeMap<BrokerId, u32>,
    standings: &Standings,
    ejections: &Ejections<BrokerId>,
    held: Score,
    now: Moment,
) {
    let before = std::mem::take(better_rounds);
    for (broker, standing) in standings.iter() {
        let count = before.get(broker).copied().unwrap_or(0);
        let fits = standing.is_eligible(now) && standing.state.load < LOAD_THINNING;
        if fits && !ejections.is_ejected(broker, now) && is_better(standing.samples.score(now), held) {
            better_rounds.insert(broker.clone(), count.saturating_add(1));
        }
    }
}

/// By at least [`GAIN_MIN`], and at most two thirds of what is held.
fn is_better(challenger: Option<Score>, held: Score) -> bool {
    challenger.is_some_and(|challenger| {
        challenger.total.saturating_add(GAIN_MIN) <= held.total
            && challenger.total.saturating_mul(3) <= held.total.saturating_mul(2)
    })
}

/// Which brokers a round probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// The pinned one and the [`NEAR_BROKERS`] nearest others.
    Near,
    /// All.
    Full,
}

impl Round {
    /// The brokers to probe, the pinned one first.
    pub fn brokers(self, standings: &Standings, pinned: Option<&BrokerId>, now: Moment) -> Vec<BrokerId> {
        let limit = match self {
            Self::Near => NEAR_BROKERS,
            Self::Full => usize::MAX,
        };
        let mut others: Vec<_> = standings
            .iter()
            .filter(|(broker, _)| Some(*broker) != pinned)
            .map(|(broker, standing)| {
                let score = standing.samples.score(now);
                (score.is_none(), score, broker)
            })
            .collect();
        others.sort_unstable();
        let others = others.into_iter().take(limit).map(|(_, _, broker)| broker);
        pinned.into_iter().chain(others).cloned().collect()
    }
}

/// When the next rounds are due.
#[derive(Debug, Clone)]
pub struct ReprobeTimer {
    near: Moment,
    full: Moment,
}

impl ReprobeTimer {
    /// A timer that starts now.
    pub fn new(now: Moment, rng: &mut impl Rng) -> Self {
        Self { near: now + jittered(NEAR_ROUND, rng), full: now + jittered(FULL_ROUND, rng) }
    }

    /// The round that is due, if any; a full round replaces the near one.
    pub fn poll_round(&mut self, now: Moment, rng: &mut impl Rng) -> Option<Round> {
        let round = if now >= self.full {
            self.full = now + jittered(FULL_ROUND, rng);
            Round::Full
        } else if now >= self.near {
            Round::Near
        } else {
            return None;
        };
        self.near = now + jittered(NEAR_ROUND, rng);
        Some(round)
    }

    /// When to call [`Self::poll_round`] next.
    pub fn poll_timeout(&self) -> Moment {
        self.near.min(self.full)
    }
}

/// `span` ± 20 %.
fn jittered(span: Duration, rng: &mut impl Rng) -> Duration {
    rng.random_range(span.mul_f64(0.8)..=span.mul_f64(1.2))
}
