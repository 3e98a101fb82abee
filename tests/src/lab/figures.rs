//! What a benchmark says: a table for people or JSON lines for programs, and whether its bounds held.

use std::process::ExitCode;
use std::time::Duration;

use rc_daemon::ExitStatus;
use rc_daemon::output::{Output, Table};
use serde_json::{Value, json};

/// Measured times.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        let mut sorted: Vec<Duration> = samples.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Samples {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The smallest sample that at least `percent` of all samples do not exceed; zero when there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent.min(100)).div_ceil(100);
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The largest one.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }
}

/// A table that grows, the same as values, and the bounds that did not hold.
#[derive(Debug)]
pub struct Report {
    benchmark: &'static str,
    output: Output,
    table: Table,
    broken: Vec<String>,
}

impl Report {
    /// An empty one; with `json` each row is a JSON line as soon as it is known.
    pub fn new(benchmark: &'static str, json: bool, columns: &[&str]) -> Self {
        Self { benchmark, output: Output::new(json), table: Table::new(columns), broken: Vec::new() }
    }

    /// Adds a row: `cells` for people, `fields` for programs.
    pub fn row<const N: usize>(&mut self, cells: [String; N], fields: Value) {
        self.table.row(cells);
        if self.output.is_json() {
            let mut line = json!({ "benchmark": self.benchmark });
            if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
                line.extend(fields);
            }
            // Whoever closed standard output has seen enough.
            drop(self.output.json(&line));
        }
    }

    /// Notes a bound; it is told at the end when it does not hold.
    pub fn require(&mut self, holds: bool, bound: impl Into<String>) {
        if !holds {
            self.broken.push(bound.into());
        }
    }

    /// Prints what is left to print: 0 when every bound held, else 1.
    pub fn finish(self) -> ExitCode {
        if !self.output.is_json() {
            drop(self.output.text(&self.table.render()));
        }
        for bound in &self.broken {
            rc_daemon::output::notice(&format!("{}: does not hold: {bound}", self.benchmark));
        }
        if self.broken.is_empty() { ExitStatus::Ok.into() } else { ExitStatus::Internal.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u64) -> Samples {
        (1..=count).rev().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        assert_eq!(samples(100).percentile(99), Duration::from_millis(99));
        assert_eq!(samples(100).max(), Duration::from_millis(100));
        assert_eq!(samples(101).median(), Duration::from_millis(51));
        assert_eq!(samples(1).percentile(99), Duration::from_millis(1));
    }

    #[test]
    fn no_samples_have_no_percentile_but_zero() {
        assert_eq!(Samples::default().percentile(99), Duration::ZERO);
    }
}
