//! The race to the first usable broker.
//!
//! Attempts start at 0/50/150/350/750 ms and then every 500 ms, at once when nothing is in flight any more; at
//! most [`IN_FLIGHT_MAX`] at a time, each at most [`ATTEMPT_MAX`], the whole at most [`RACE_MAX`]. An attempt
//! succeeds with transport, TLS and one probe answer. The first that *accepts* wins; its window then stays open
//! for [`WINDOW`]. What was not dialled yet is dialled at once in the window, since those dials no longer delay
//! anybody and only what completes can be measured. Losers that complete inside the window are to be measured,
//! the others are abandoned when it closes.
//!
//! ```text
//!            accepting                 WINDOW over
//! Racing ───────────────▶ Won ──────────────────────▶ Finished(Won)
//!    └── nothing left, or RACE_MAX over ──────────────▶ Finished(NoneAccepting | AllFailed)
//! ```
//!
//! Driver:
//! ```text
//! loop {
//!     while let Some(attempt) = race.poll_start(now) { dial(race.candidate(attempt)) }
//!     while let Some(event) = race.poll_event() { … Finished(outcome) => break }
//!     wait for a dial's end → handle_success / handle_failure, or for race.poll_timeout() → handle_timeout
//! }
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::candidate::{CANDIDATES_MAX, Candidate};
use crate::Moment;

/// Attempts in flight at a time.
pub const IN_FLIGHT_MAX: usize = 8;
/// Longest time of one attempt.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// Longest time until there is a winner.
pub const RACE_MAX: Duration = Duration::from_secs(6);
/// Time after the winner in which losers may still complete and be measured.
pub const WINDOW: Duration = Duration::from_millis(500);

/// When the first attempts start, in ms after the race.
const STARTS_MS: [u64; 5] = [0, 50, 150, 350, 750];
/// Distance of all later starts, in ms.
const LATER_START_MS: u64 = 500;

/// One attempt; its number is the candidate's place in the race's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(usize);

/// Why an attempt did not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptFailure {
    /// No transport connection.
    Unreachable,
    /// Not done in [`ATTEMPT_MAX`].
    TimedOut,
    /// The TLS handshake failed.
    Handshake,
    /// Who answered is not who was expected.
    Identity,
    /// The broker broke the protocol or ended the connection.
    Protocol,
    /// The window or the race closed first.
    Abandoned,
}

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaceOutcome {
    /// This attempt won, and its window is over.
    Won(AttemptId),
    /// Brokers answered, but none accepts: choose among those that completed.
    NoneAccepting,
    /// No broker answered.
    AllFailed,
}

/// What a driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaceEvent {
    /// Signalling starts on this attempt's connection, at once.
    Won(AttemptId),
    /// Cancel this attempt's dial.
    Abandon(AttemptId),
    /// The race is over; nothing follows.
    Finished(RaceOutcome),
}

/// What a completed attempt is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It won.
    Winner,
    /// It completed in time: measure it.
    Measure,
    /// The race had given it up: close the connection.
    TooLate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Waiting,
    Dialling { since: Moment },
    Completed { took: Duration },
    Failed(AttemptFailure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Racing,
    Won { attempt: AttemptId, closes: Moment },
    Finished,
}

/// A race; see the module.
#[derive(Debug, Clone)]
pub struct Race {
    candidates: Vec<Candidate>,
    attempts: Vec<Attempt>,
    started: Moment,
    starts: usize,
    phase: Phase,
    events: VecDeque<RaceEvent>,
}

impl Race {
    /// A race of the first [`CANDIDATES_MAX`] candidates, in their order. With none it is over at once.
    pub fn new(mut candidates: Vec<Candidate>, now: Moment) -> Self {
        candidates.truncate(CANDIDATES_MAX);
        let attempts = vec![Attempt::Waiting; candidates.len()];
        let mut race = Self {
            candidates,
            attempts,
            started: now,
            starts: 0,
            phase: Phase::Racing,
            events: VecDeque::new(),
        };
        race.end_if_exhausted();
        race
    }

    /// Adds candidates that became known after the start, up to [`CANDIDATES_MAX`] in all. Those known are skipped.
    pub fn extend(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            if self.candidates.len() < CANDIDATES_MAX && !self.candidates.contains(&candidate) {
                self.candidates.push(candidate);
                self.attempts.push(Attempt::Waiting);
            }
        }
    }

    /// The candidate of an attempt; `None` for an id of another race.
    pub fn candidate(&self, attempt: AttemptId) -> Option<&Candidate> {
        self.candidates.get(attempt.0)
    }

    /// The attempt to start now, if one is due. Call it until it says `None`.
    pub fn poll_start(&mut self, now: Moment) -> Option<AttemptId> {
        let place = self.next_waiting()?;
        let due = match self.phase {
            Phase::Racing => self.in_flight() == 0 || now >= self.next_start(),
            Phase::Won { closes, .. } => now < closes,
            Phase::Finished => false,
        };
        if !due || self.in_flight() >= IN_FLIGHT_MAX {
            return None;
        }
        *self.attempts.get_mut(place)? = Attempt::Dialling { since: now };
        self.starts += 1;
        Some(AttemptId(place))
    }

    /// Transport, TLS and the first probe answer of `attempt` are there; `accepting` is what the answer says.
    pub fn handle_success(&mut self, attempt: AttemptId, accepting: bool, now: Moment) -> Completion {
        let Some(slot) = self.attempts.get_mut(attempt.0) else { return Completion::TooLate };
        let Attempt::Dialling { since } = *slot else { return Completion::TooLate };
        *slot = Attempt::Completed { took: now.since(since) };
        if accepting && self.phase == Phase::Racing {
            self.phase = Phase::Won { attempt, closes: now + WINDOW };
            self.events.push_back(RaceEvent::Won(attempt));
            return Completion::Winner;
        }
        self.end_if_exhausted();
        Completion::Measure
    }

    /// `attempt` failed.
    pub fn handle_failure(&mut self, attempt: AttemptId, failure: AttemptFailure) {
        if let Some(slot @ Attempt::Dialling { .. }) = self.attempts.get_mut(attempt.0) {
            *slot = Attempt::Failed(failure);
            self.end_if_exhausted();
        }
    }

    /// Ends attempts and the race that are out of time.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.abandon(AttemptFailure::TimedOut, |since| now >= since + ATTEMPT_MAX);
        match self.phase {
            Phase::Won { attempt, closes } if now >= closes => self.finish(RaceOutcome::Won(attempt)),
            Phase::Racing if now >= self.started + RACE_MAX => self.finish(self.loss()),
            Phase::Racing | Phase::Won { .. } => self.end_if_exhausted(),
            Phase::Finished => {}
        }
    }

    /// When to call [`Self::handle_timeout`] or [`Self::poll_start`] next; `None` when the race is over.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let end = match self.phase {
            Phase::Racing => self.started + RACE_MAX,
            Phase::Won { closes, .. } => closes,
            Phase::Finished => return None,
        };
        let attempts = self.attempts.iter().filter_map(|attempt| match attempt {
            Attempt::Dialling { since } => Some(*since + ATTEMPT_MAX),
            Attempt::Waiting | Attempt::Completed { .. } | Attempt::Failed(_) => None,
        });
        let racing = self.phase == Phase::Racing && self.in_flight() < IN_FLIGHT_MAX;
        let start = self.next_waiting().filter(|_| racing).map(|_| self.next_start());
        attempts.chain(start).chain([end]).min()
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<RaceEvent> {
        self.events.pop_front()
    }

    /// Who won, from the moment it did.
    pub fn winner(&self) -> Option<AttemptId> {
        match self.phase {
            Phase::Won { attempt, .. } => Some(attempt),
            Phase::Racing | Phase::Finished => None,
        }
    }

    /// When measuring ends; `None` while there is no winner and after the end.
    pub fn window_closes(&self) -> Option<Moment> {
        match self.phase {
            Phase::Won { closes, .. } => Some(closes),
            Phase::Racing | Phase::Finished => None,
        }
    }

    /// Every candidate that was dialled: how long it took, or why it failed. `None` while it is being dialled.
    pub fn report(&self) -> impl Iterator<Item = (&Candidate, Option<Result<Duration, AttemptFailure>>)> {
        self.candidates.iter().zip(&self.attempts).filter_map(|(candidate, attempt)| match attempt {
            Attempt::Waiting => None,
            Attempt::Dialling { .. } => Some((candidate, None)),
            Attempt::Completed { took } => Some((candidate, Some(Ok(*took)))),
            Attempt::Failed(failure) => Some((candidate, Some(Err(*failure)))),
        })
    }

    /// Candidates that were never dialled, since others held the slots: the next full round dials them.
    pub fn undialled(&self) -> impl Iterator<Item = &Candidate> {
        let pairs = self.candidates.iter().zip(&self.attempts);
        pairs.filter(|(_, attempt)| **attempt == Attempt::Waiting).map(|(candidate, _)| candidate)
    }

    fn next_waiting(&self) -> Option<usize> {
        self.attempts.iter().position(|attempt| *attempt == Attempt::Waiting)
    }

    fn in_flight(&self) -> usize {
        self.attempts.iter().filter(|attempt| matches!(attempt, Attempt::Dialling { .. })).count()
    }

    fn next_start(&self) -> Moment {
        let offset_ms = match (STARTS_MS.get(self.starts), STARTS_MS.last()) {
            (Some(offset), _) => *offset,
            (None, last) => {
                let later = self.starts.saturating_sub(STARTS_MS.len() - 1);
                let later = u64::try_from(later).unwrap_or(u64::MAX);
                last.copied().unwrap_or(0).saturating_add(later.saturating_mul(LATER_START_MS))
            }
        };
        self.started + Duration::from_millis(offset_ms)
    }

    fn loss(&self) -> RaceOutcome {
        let answered = self.attempts.iter().any(|attempt| matches!(attempt, Attempt::Completed { .. }));
        if answered { RaceOutcome::NoneAccepting } else { RaceOutcome::AllFailed }
    }

    fn end_if_exhausted(&mut self) {
        if self.phase == Phase::Racing && self.next_waiting().is_none() && self.in_flight() == 0 {
            self.finish(self.loss());
        }
    }

    fn abandon(&mut self, failure: AttemptFailure, out_of_time: impl Fn(Moment) -> bool) {
        for (place, slot) in self.attempts.iter_mut().enumerate() {
            if let Attempt::Dialling { since } = *slot
                && out_of_time(since)
            {
                *slot = Attempt::Failed(failure);
                self.events.push_back(RaceEvent::Abandon(AttemptId(place)));
            }
        }
    }

    fn finish(&mut self, outcome: RaceOutcome) {
        self.abandon(AttemptFailure::Abandoned, |_| true);
        self.phase = Phase::Finished;
        self.events.push_back(RaceEvent::Finished(outcome));
    }
}
