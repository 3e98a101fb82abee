//! One number out of many round trips: median + MAD, which neither one lucky nor one lost sample moves far.
//!
//! A mean follows outliers, a minimum prefers the jittery path; the median absolute deviation added on top makes
//! a path that varies cost what it varies by.
//!
//! ```text
//! pool.push(measurement.handle_pong(nonce, now)?);
//! let score = pool.score(now);
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::Moment;

/// Samples that a pool keeps, the latest.
pub const SAMPLES_MAX: usize = 15;
/// Age from which a sample no longer counts.
pub const SAMPLE_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Samples from which the spread is added.
pub const SAMPLES_FOR_SPREAD: usize = 4;

/// One probe's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The round trip; of a lost probe the time after which it counted as lost.
    pub round_trip: Duration,
    /// When it was known.
    pub at: Moment,
    /// Whether no answer came.
    pub lost: bool,
}

/// What a broker costs; lower is better. Compared by `total` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// What decides: median, plus the spread from [`SAMPLES_FOR_SPREAD`] samples on.
    pub total: Duration,
    /// Median round trip.
    pub median: Duration,
    /// Median absolute deviation from the median.
    pub spread: Duration,
    /// Samples that counted.
    pub count: usize,
}

impl Score {
    /// The score of these round trips; `None` without any.
    pub fn of(round_trips: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut sorted: Vec<Duration> = round_trips.into_iter().collect();
        let median = median(&mut sorted)?;
        let mut deviations: Vec<Duration> = sorted.iter().map(|sample| sample.abs_diff(median)).collect();
        let spread = self::median(&mut deviations)?;
        let total = if sorted.len() < SAMPLES_FOR_SPREAD { median } else { median.saturating_add(spread) };
        Some(Self { total, median, spread, count: sorted.len() })
    }

    /// The score in whole ms, rounded up, as Register and ScoreReport carry it.
    pub fn whole_ms(&self) -> u32 {
        u32::try_from(self.total.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

/// Sorts `values` and returns the middle one, or the mean of the middle two.
fn median(values: &mut [Duration]) -> Option<Duration> {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(middle.checked_sub(1)?)?;
    Some(lower + (upper - lower) / 2)
}

/// The latest samples of one broker.
#[derive(Debug, Clone, Default)]
pub struct SamplePool {
    samples: VecDeque<Sample>,
}

impl SamplePool {
    /// Adds a sample; the oldest falls out above [`SAMPLES_MAX`].
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Samples that are young enough at `now`, oldest first.
    pub fn fresh(&self, now: Moment) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| now.since(sample.at) <= SAMPLE_AGE_MAX)
    }

    /// The score at `now`; `None` when no sample is young enough.
    pub fn score(&self, now: Moment) -> Option<Score> {
        Score::of(self.fresh(now).map(|sample| sample.round_trip))
    }

    /// When the latest sample was known.
    pub fn latest(&self) -> Option<Moment> {
        self.samples.back().map(|sample| sample.at)
    }
}
