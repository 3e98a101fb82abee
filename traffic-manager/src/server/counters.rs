//! How many queries ended how.

use std::sync::atomic::{AtomicU64, Ordering};

use hickory_server::proto::op::ResponseCode;

/// Counts; only go up.
#[derive(Debug, Default)]
pub struct Counters {
    queries: AtomicU64,
    answers: AtomicU64,
    negatives: AtomicU64,
    refusals: AtomicU64,
    errors: AtomicU64,
    truncations: AtomicU64,
    /// By profile position.
    profiles: Vec<AtomicU64>,
}

/// The counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct CountersView {
    /// Queries that could be read.
    pub queries: u64,
    /// Answers with records.
    pub answers: u64,
    /// Answers that say that the name or the type does not exist.
    pub negatives: u64,
    /// Queries for names or classes that are not ours.
    pub refusals: u64,
    /// Queries that are malformed or of a kind that we do not serve.
    pub errors: u64,
    /// UDP answers that did not fit.
    pub truncations: u64,
}

impl Counters {
    /// All zero.
    pub fn new(profile_count: usize) -> Self {
        let profiles = std::iter::repeat_with(AtomicU64::default).take(profile_count).collect();
        Self { profiles, ..Self::default() }
    }

    /// The counts now.
    pub fn view(&self) -> CountersView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersView {
            queries: read(&self.queries),
            answers: read(&self.answers),
            negatives: read(&self.negatives),
            refusals: read(&self.refusals),
            errors: read(&self.errors),
            truncations: read(&self.truncations),
        }
    }

    /// Answers given for a profile.
    pub fn profile(&self, position: usize) -> u64 {
        self.profiles.get(position).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(super) fn count(&self, code: ResponseCode, has_answers: bool, profile: Option<usize>) {
        let outcome = if code == ResponseCode::Refused {
            &self.refusals
        } else if code == ResponseCode::NXDomain || (code == ResponseCode::NoError && !has_answers) {
            &self.negatives
        } else if code == ResponseCode::NoError {
            &self.answers
        } else {
            &self.errors
        };
        let profile = profile.and_then(|position| self.profiles.get(position));
        for counter in [Some(&self.queries), Some(outcome), profile].into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_truncation(&self) {
        self.truncations.fetch_add(1, Ordering::Relaxed);
    }
}
