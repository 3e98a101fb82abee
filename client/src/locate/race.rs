//! Runs a [`Race`]: dials, takes the winner, and measures everybody who completed until the window closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rc_proto::select::candidate::merge;
use rc_proto::select::{AttemptId, Candidate, Completion, Race, RaceEvent, Sample, Warmth};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::measure::measure;
use super::probe_link::{ProbeFailure, ProbeLink};
use super::resolve::Resolving;
use crate::error::{CandidateFailure, CandidateFault};
use crate::reach::Reach;

/// A connection that completed in time, and its round trips.
pub(crate) struct Measured {
    pub(crate) candidate: Candidate,
    pub(crate) link: ProbeLink,
    pub(crate) samples: Vec<Sample>,
}

/// How a race went.
pub(crate) struct RaceReport {
    /// The machine at its end, for the record of the choice.
    pub(crate) race: Race,
    /// Who completed and still stands.
    pub(crate) measured: Vec<Measured>,
    /// Who failed, and why in words.
    pub(crate) failures: Vec<CandidateFailure>,
}

enum Step {
    Dialled(AttemptId, Result<ProbeLink, ProbeFailure>),
    Measured(AttemptId, ProbeLink, Result<Vec<Sample>, ProbeFailure>),
}

struct Runner {
    reach: Arc<Reach>,
    race: Race,
    tasks: JoinSet<Step>,
    dials: BTreeMap<AttemptId, AbortHandle>,
    closed: CancellationToken,
    measured: Vec<Measured>,
    failures: Vec<CandidateFailure>,
    measuring: usize,
}

/// Names whose answers may come while the race runs, and how their addresses become candidates.
pub(crate) struct LateNames<'a> {
    pub(crate) resolving: &'a mut Resolving,
    pub(crate) allow_loopback: bool,
}

impl LateNames<'_> {
    /// Every candidate known, once an answer brings new ones. Cancel-safe.
    async fn more(&mut self, reach: &Reach) -> Vec<Candidate> {
        let sources = self.resolving.more(reach).await;
        merge(&sources, &[], self.allow_loopback, &mut rand::rng()).taken
    }
}

/// Races `candidates` in their order, and those that late answers bring. It ends as soon as everybody is measured or
/// failed, and 500 ms after the winner at the latest.
pub(crate) async fn race(
    reach: &Arc<Reach>,
    candidates: Vec<Candidate>,
    mut late: LateNames<'_>,
) -> RaceReport {
    let mut runner = Runner {
        reach: Arc::clone(reach),
        race: Race::new(candidates, reach.now()),
        tasks: JoinSet::new(),
        dials: BTreeMap::new(),
        closed: CancellationToken::new(),
        measured: Vec::new(),
        failures: Vec::new(),
        measuring: 0,
    };
    runner.run(&mut late).await;
    runner.tasks.abort_all();
    RaceReport { race: runner.race, measured: runner.measured, failures: runner.failures }
}

impl Runner {
    async fn run(&mut self, late: &mut LateNames<'_>) {
        let mut finished = false;
        loop {
            if !finished {
                while let Some(attempt) = self.race.poll_start(self.reach.now()) {
                    self.dial(attempt);
                }
                finished = self.handle_events();
            }
            if finished {
                self.closed.cancel();
                if self.measuring == 0 {
                    return;
                }
            }
            if self.race.winner().is_some() && self.dials.is_empty() && self.measuring == 0 {
                // Nobody is left to wait for: the rest of the window would measure nothing.
                return;
            }
            let deadline = self.race.poll_timeout();
            tokio::select! {
                biased;
                Some(step) = self.tasks.join_next() => self.handle_step(step),
                more = late.more(&self.reach), if !finished => self.race.extend(more),
                () = self.reach.nap_until(deadline) => self.race.handle_timeout(self.reach.now()),
            }
        }
    }

    fn dial(&mut self, attempt: AttemptId) {
        let Some(candidate) = self.race.candidate(attempt).cloned() else { return };
        let reach = Arc::clone(&self.reach);
        let dial = async move { Step::Dialled(attempt, ProbeLink::dial(&reach, &candidate).await) };
        self.dials.insert(attempt, self.tasks.spawn(dial));
    }

    fn measure(&mut self, attempt: AttemptId, mut link: ProbeLink) {
        let (reach, closed) = (Arc::clone(&self.reach), self.closed.clone());
        self.measuring += 1;
        self.tasks.spawn(async move {
            let samples = measure(&reach, &mut link, Warmth::Warm, &closed).await;
            Step::Measured(attempt, link, samples)
        });
    }

    /// Says whether the race is over.
    fn handle_events(&mut self) -> bool {
        let mut finished = false;
        while let Some(event) = self.race.poll_event() {
            match event {
                RaceEvent::Won(_) => {}
                RaceEvent::Abandon(attempt) => {
                    if let Some(dial) = self.dials.remove(&attempt) {
                        dial.abort();
                        self.fail(
                            attempt,
                            CandidateFault::Unusable,
                            "no answer in the time for a race".to_owned(),
                        );
                    }
                }
                RaceEvent::Finished(_) => finished = true,
            }
        }
        finished
    }

    fn handle_step(&mut self, step: Result<Step, JoinError>) {
        match step {
            Ok(Step::Dialled(attempt, Ok(link))) => {
                self.dials.remove(&attempt);
                let accepting = link.state.accepting && link.state.drain_deadline.is_none();
                match self.race.handle_success(attempt, accepting, self.reach.now()) {
                    Completion::Winner | Completion::Measure => self.measure(attempt, link),
                    Completion::TooLate => {}
                }
            }
            Ok(Step::Dialled(attempt, Err(failure))) => {
                self.dials.remove(&attempt);
                self.race.handle_failure(attempt, failure.kind);
                self.fail(attempt, failure.fault, failure.reason);
            }
            Ok(Step::Measured(attempt, link, samples)) => {
                self.measuring = self.measuring.saturating_sub(1);
                match (samples, self.race.candidate(attempt).cloned()) {
                    (Ok(samples), Some(candidate)) => {
                        self.measured.push(Measured { candidate, link, samples });
                    }
                    (Err(failure), _) => self.fail(attempt, failure.fault, failure.reason),
                    (Ok(_), None) => {}
                }
            }
            Err(error) if error.is_panic() => self.measuring = self.measuring.saturating_sub(1),
            // Only abandoned dials are aborted, and they were told of then.
            Err(_) => {}
        }
    }

    fn fail(&mut self, attempt: AttemptId, fault: CandidateFault, reason: String) {
        if let Some(candidate) = self.race.candidate(attempt) {
            self.failures.push(CandidateFailure { address: candidate.address, fault, reason });
        }
    }
}
