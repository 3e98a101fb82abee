//! The one record that every choice leaves: what was known, what was ruled out and which rule decided.
//!
//! It serialises for logs and `--json`; [`Choice::table`] renders the same for people.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::candidate::Expectation;
use super::race::{AttemptFailure, Race};
use crate::wire::BrokerId;

/// Why a choice was made at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The process starts.
    Start,
    /// A round of probes is done.
    Reprobe,
    /// The pinned broker is lost.
    BrokerLost,
    /// The pinned broker drains.
    Drain,
    /// The network changed.
    NetworkChanged,
    /// A person asked.
    Asked,
}

/// How far the rules had to be relaxed so that a broker was left; each step includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relaxation {
    /// Not at all.
    Nothing,
    /// Brokers that do not see most of the mesh are taken.
    MeshHealth,
    /// Brokers at their load limit are taken.
    Load,
    /// Brokers that have not answered for a while are taken.
    Staleness,
    /// Brokers that drain or do not accept are taken.
    Draining,
    /// Ejected brokers are taken.
    Ejection,
}

impl Relaxation {
    /// Every step, in order.
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::MeshHealth, Self::Load, Self::Staleness, Self::Draining, Self::Ejection];
}

/// What became of one broker in a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Taken.
    Chosen,
    /// Drawn, but the other one carries less.
    MoreLoaded,
    /// Drawn, but the other one is nearer at about the same load.
    Slower,
    /// In the window, not among the two drawn.
    NotDrawn,
    /// Too far behind the nearest.
    OutsideWindow,
    /// No round trip was measured.
    Unmeasured,
    /// Left out by chance, since it is loaded.
    ThinnedOut,
    /// At its load limit.
    Overloaded,
    /// It does not see most of the mesh.
    MeshUnhealthy,
    /// Its last answer is too old.
    Stale,
    /// It is about to stop.
    Draining,
    /// It takes no new sessions.
    NotAccepting,
    /// It failed lately.
    Ejected,
    /// The caller asked to avoid it, or to choose among others.
    Avoided,
}

impl Verdict {
    /// The verdict as one word, as in the JSON record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::MoreLoaded => "more-loaded",
            Self::Slower => "slower",
            Self::NotDrawn => "not-drawn",
            Self::OutsideWindow => "outside-window",
            Self::Unmeasured => "unmeasured",
            Self::ThinnedOut => "thinned-out",
            Self::Overloaded => "overloaded",
            Self::MeshUnhealthy => "mesh-unhealthy",
            Self::Stale => "stale",
            Self::Draining => "draining",
            Self::NotAccepting => "not-accepting",
            Self::Ejected => "ejected",
            Self::Avoided => "avoided",
        }
    }
}

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// There was no broker to take.
    NoBroker,
    /// Only one was left.
    OnlyOneLeft,
    /// Only one is near enough to the nearest.
    AloneInWindow,
    /// Of two drawn the less loaded one.
    LowerLoad,
    /// Of two drawn with about the same load the nearer one.
    LowerScore,
}

impl Rule {
    /// What the rule says, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoBroker => "no broker is known",
            Self::OnlyOneLeft => "only one broker is left",
            Self::AloneInWindow => "no other broker is about as near",
            Self::LowerLoad => "of two drawn at random the less loaded one",
            Self::LowerScore => "of two drawn at random with about the same load the nearer one",
        }
    }
}

/// One broker in a choice. Times in JSON are ms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChoiceRow {
    /// The broker.
    pub broker: BrokerId,
    /// Where it answered.
    pub address: Option<SocketAddr>,
    /// Median plus spread; `None` when nothing was measured.
    #[serde(rename = "score_ms", serialize_with = "maybe_ms")]
    pub score: Option<Duration>,
    /// Median round trip.
    #[serde(rename = "median_ms", serialize_with = "maybe_ms")]
    pub median: Option<Duration>,
    /// Median absolute deviation.
    #[serde(rename = "spread_ms", serialize_with = "maybe_ms")]
    pub spread: Option<Duration>,
    /// The samples that counted, oldest first.
    #[serde(rename = "samples_ms", serialize_with = "all_ms")]
    pub samples: Vec<Duration>,
    /// Load per mille.
    pub load: u16,
    /// Whether it takes new sessions.
    pub accepting: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Whether it sees most of the mesh.
    pub mesh_healthy: bool,
    /// How old its state is.
    #[serde(rename = "age_ms", serialize_with = "ms")]
    pub age: Duration,
    /// What became of it.
    pub verdict: Verdict,
}

/// One address that was dialled before the choice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DialRow {
    /// Where.
    pub address: SocketAddr,
    /// What was expected there.
    pub expectation: Expectation,
    /// How long it took to complete.
    #[serde(rename = "took_ms", serialize_with = "maybe_ms")]
    pub took: Option<Duration>,
    /// Why it did not complete.
    pub failure: Option<AttemptFailure>,
}

/// A choice and everything it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Why a choice was made.
    pub trigger: Trigger,
    /// Who is taken.
    pub chosen: Option<BrokerId>,
    /// The rule that decided.
    pub rule: Rule,
    /// What was ignored so that a broker was left.
    pub relaxed: Relaxation,
    /// The best score.
    #[serde(rename = "best_ms", serialize_with = "maybe_ms")]
    pub best: Option<Duration>,
    /// Highest score that still counts as about as near as the best.
    #[serde(rename = "window_ms", serialize_with = "maybe_ms")]
    pub window: Option<Duration>,
    /// Every broker known, nearest first.
    pub brokers: Vec<ChoiceRow>,
    /// What was dialled in the race before, if there was one.
    pub dialled: Vec<DialRow>,
}

impl Choice {
    /// Adds what the race before this choice dialled.
    #[must_use]
    pub fn with_race(mut self, race: &Race) -> Self {
        self.dialled = race
            .report()
            .map(|(candidate, end)| DialRow {
                address: candidate.address,
                expectation: candidate.expectation.clone(),
                took: end.and_then(Result::ok),
                failure: end.and_then(Result::err),
            })
            .collect();
        self
    }

    /// The record as one line that says what was decided and why.
    pub fn summary(&self) -> String {
        let relaxed = match self.relaxed {
            Relaxation::Nothing => "",
            Relaxation::MeshHealth => " (no healthy one: mesh health ignored)",
            Relaxation::Load => " (none below its load limit: load ignored)",
            Relaxation::Staleness => " (none answered lately: older answers used)",
            Relaxation::Draining => " (none accepts: draining ignored)",
            Relaxation::Ejection => " (all others failed: an ejected one is tried)",
        };
        match &self.chosen {
            Some(broker) => format!("{broker}: {}{relaxed}", self.rule.sentence()),
            None => self.rule.sentence().to_owned(),
        }
    }

    /// The record as text with aligned columns, one broker a line, the failed dials below.
    pub fn table(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.brokers.iter().map(cells));
        let mut widths = [0_usize; COLUMNS];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in &lines {
            push_line(&mut text, line, &widths);
        }
        for dial in &self.dialled {
            if let Some(failure) = dial.failure {
                append(&mut text, format_args!("  {} failed: {}\n", dial.address, failure_text(failure)));
            }
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }
}

const COLUMNS: usize = 10;
const HEADINGS: [&str; COLUMNS] =
    ["", "BROKER", "ADDRESS", "SCORE ms", "MEDIAN", "SPREAD", "SAMPLES", "LOAD", "AGE s", "VERDICT"];
/// The numbers, which align to the right.
const RIGHT_ALIGNED: std::ops::RangeInclusive<usize> = 3..=8;

fn cells(row: &ChoiceRow) -> [String; COLUMNS] {
    let mark = if row.verdict == Verdict::Chosen { "*" } else { "" };
    let round_trip =
        |span: Option<Duration>| span.map_or_else(|| "-".to_owned(), |s| format!("{:.1}", in_ms(s)));
    [
        mark.to_owned(),
        row.broker.to_string(),
        row.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        round_trip(row.score),
        round_trip(row.median),
        round_trip(row.spread),
        row.samples.len().to_string(),
        format!("{:.1}%", f64::from(row.load) / 10.0),
        format!("{:.0}", row.age.as_secs_f64()),
        row.verdict.name().to_owned(),
    ]
}

fn push_line(text: &mut String, line: &[String; COLUMNS], widths: &[usize; COLUMNS]) {
    let start = text.len();
    for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
        if RIGHT_ALIGNED.contains(&column) {
            append(text, format_args!("{cell:>width$}  "));
        } else {
            append(text, format_args!("{cell:<width$}  "));
        }
    }
    text.truncate(start + text.get(start..).map_or(0, |line| line.trim_end().len()));
    text.push('\n');
}

/// Appends to a string, which cannot fail.
fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).unwrap_or_default();
}

fn failure_text(failure: AttemptFailure) -> &'static str {
    match failure {
        AttemptFailure::Unreachable => "unreachable",
        AttemptFailure::TimedOut => "timed out",
        AttemptFailure::Handshake => "TLS handshake",
        AttemptFailure::Identity => "wrong identity",
        AttemptFailure::Protocol => "protocol error",
        AttemptFailure::Abandoned => "abandoned, others were faster",
    }
}

fn in_ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// Ms with µs resolution, so that records stay short.
fn rounded_ms(span: Duration) -> f64 {
    (in_ms(span) * 1000.0).round() / 1000.0
}

fn ms<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded_ms(*span))
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn maybe_ms<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(rounded_ms).serialize(serializer)
}

fn all_ms<S: Serializer>(spans: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(spans.iter().copied().map(rounded_ms))
}
