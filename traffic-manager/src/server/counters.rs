//! How many queries ended how.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::message::code;
use super::respond::Outcome;

/// Threads count into places of their own up to this many, so that they do not wait for each other's cache lines.
const SHARDS: usize = 16;

/// Counts; only go up.
#[derive(Debug)]
pub struct Counters {
    totals: Arc<[Totals; SHARDS]>,
    /// By profile position.
    profiles: Vec<Arc<AtomicU64>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Totals {
    queries: AtomicU64,
    answers: AtomicU64,
    negatives: AtomicU64,
    refusals: AtomicU64,
    errors: AtomicU64,
    truncations: AtomicU64,
    limited: AtomicU64,
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
    /// UDP answers held back because their source asks too much.
    pub limited: u64,
}

impl Counters {
    /// All zero.
    pub fn new(profile_count: usize) -> Self {
        let profiles = std::iter::repeat_with(Arc::default).take(profile_count).collect();
        Self { totals: Arc::default(), profiles }
    }

    /// The same totals for another set of profiles; `previous` names the earlier position of each that was there.
    #[must_use]
    pub fn renewed(&self, previous: &[Option<usize>]) -> Self {
        let profile = |position: &Option<usize>| {
            position.and_then(|position| self.profiles.get(position)).map(Arc::clone).unwrap_or_default()
        };
        Self { totals: Arc::clone(&self.totals), profiles: previous.iter().map(profile).collect() }
    }

    /// The counts now.
    pub fn view(&self) -> CountersView {
        let sum = |counter: fn(&Totals) -> &AtomicU64| {
            self.totals.iter().map(|totals| counter(totals).load(Ordering::Relaxed)).sum()
        };
        CountersView {
            queries: sum(|totals| &totals.queries),
            answers: sum(|totals| &totals.answers),
            negatives: sum(|totals| &totals.negatives),
            refusals: sum(|totals| &totals.refusals),
            errors: sum(|totals| &totals.errors),
            truncations: sum(|totals| &totals.truncations),
            limited: sum(|totals| &totals.limited),
        }
    }

    /// Answers given for a profile.
    pub fn profile(&self, position: usize) -> u64 {
        self.profiles.get(position).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts one query, answered by the thread with this number.
    pub(super) fn count(&self, thread: usize, outcome: &Outcome) {
        let Some(totals) = self.totals.get(thread % SHARDS) else { return };
        let kind = match outcome.code {
            code::REFUSED => &totals.refusals,
            code::NO_ERROR if outcome.has_answers => &totals.answers,
            code::NO_ERROR | code::NX_DOMAIN => &totals.negatives,
            _ => &totals.errors,
        };
        let profile = outcome.profile.and_then(|position| self.profiles.get(position)).map(Arc::as_ref);
        let truncated = outcome.is_truncated.then_some(&totals.truncations);
        for counter in [Some(&totals.queries), Some(kind), profile, truncated].into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_limited(&self, thread: usize) {
        if let Some(totals) = self.totals.get(thread % SHARDS) {
            totals.limited.fetch_add(1, Ordering::Relaxed);
        }
    }
}
