//! What was measured, claim by claim.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::claims::{CLAIMS, Claim};

/// One claim's outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It holds, with this number.
    Holds(String),
    /// It does not.
    Fails(String),
    /// It was not tried.
    Skipped,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    outcomes: Mutex<BTreeMap<String, Outcome>>,
    is_quiet: bool,
}

impl Found {
    /// One that prints nothing: its findings are handed over.
    pub(crate) fn quiet() -> Self {
        Self { is_quiet: true, ..Self::default() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Outcome>) -> T) -> T {
        look(&mut self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what was measured for a claim, and whether it is within the bound.
    pub(crate) fn note(&self, test: &str, holds: bool, measured: impl Into<String>) {
        let measured = measured.into();
        assert!(CLAIMS.iter().any(|claim| claim.test == test), "{test} is not in the list of claims");
        let outcome = if holds { Outcome::Holds(measured) } else { Outcome::Fails(measured) };
        self.put(test, outcome);
    }

    /// Notes a step that may have failed: what it measured and whether that is within the bound, or the error.
    pub(crate) fn step(&self, test: &str, outcome: anyhow::Result<(bool, String)>) {
        match outcome {
            Ok((holds, measured)) => self.note(test, holds, measured),
            Err(error) => self.note(test, false, format!("{error:#}")),
        }
    }

    fn put(&self, test: &str, outcome: Outcome) {
        if !self.is_quiet {
            tell(test, &outcome);
        }
        self.with(|outcomes| outcomes.insert(test.to_owned(), outcome));
    }

    fn of_group(group: &str) -> impl Iterator<Item = &'static Claim> {
        CLAIMS.iter().filter(move |claim| claim.group == group)
    }

    /// A group ended before its last claim.
    pub(crate) fn failed_early(&self, group: &str, reason: &str) {
        for claim in Self::of_group(group) {
            if self.outcome(claim.test).is_none() {
                self.put(claim.test, Outcome::Fails(format!("the group ended early: {reason}")));
            }
        }
    }

    /// A claim that no step noted is one that no test holds.
    pub(crate) fn nothing_missing(&self, group: &str) {
        self.failed_early(group, "no step noted it");
    }

    pub(crate) fn skip(&self, group: &str) {
        for claim in Self::of_group(group) {
            self.put(claim.test, Outcome::Skipped);
        }
    }

    pub(crate) fn outcome(&self, test: &str) -> Option<Outcome> {
        self.with(|outcomes| outcomes.get(test).cloned())
    }

    pub(crate) fn failed(&self) -> Vec<(String, String)> {
        self.with(|outcomes| {
            let failed = outcomes.iter().filter_map(|(test, outcome)| match outcome {
                Outcome::Fails(reason) => Some((test.clone(), reason.clone())),
                Outcome::Holds(_) | Outcome::Skipped => None,
            });
            failed.collect()
        })
    }

    pub(crate) fn held(&self) -> usize {
        self.with(|outcomes| outcomes.values().filter(|outcome| matches!(outcome, Outcome::Holds(_))).count())
    }

    pub(crate) fn skipped(&self) -> usize {
        self.with(|outcomes| outcomes.values().filter(|outcome| matches!(outcome, Outcome::Skipped)).count())
    }

    /// The findings as one line.
    pub(crate) fn hand_over(&self) -> String {
        self.with(|outcomes| serde_json::to_string(outcomes).unwrap_or_default())
    }

    /// Takes the findings of a child, the last line it wrote; false when there is none.
    pub(crate) fn take_over(&self, output: &[u8]) -> bool {
        let text = String::from_utf8_lossy(output);
        let last = text.lines().last().unwrap_or_default();
        let Ok(outcomes) = serde_json::from_str::<BTreeMap<String, Outcome>>(last) else { return false };
        for (test, outcome) in outcomes {
            self.put(&test, outcome);
        }
        true
    }
}

fn tell(test: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Holds(measured) => println!("test {test} ... ok: {measured}"),
        Outcome::Fails(reason) => println!("test {test} ... FAILED: {reason}"),
        Outcome::Skipped => println!("test {test} ... skipped"),
    }
}
