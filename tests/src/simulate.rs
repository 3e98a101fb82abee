//! The simulations by command.
//!
//! ```text
//! rc-sim --seeds 100000          histories of the whole cluster, seeds 0 to 99,999
//! rc-sim --seeds 500..600        these seeds
//! rc-sim --seed 17 --trace       one history, line by line
//! rc-sim pair --schedules 10000000   schedules of two sessions and the paths between them
//! ```

use std::ffi::OsString;
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use rc_proto::session::SessionConfig;
use rc_proto::session::sim;

use crate::cluster::{self, Options, run_many};

/// Simulates the cluster, or two sessions.
#[derive(Debug, Parser)]
#[command(name = "rc-sim")]
struct Arguments {
    /// Seeds to run: a count, or FROM..TO.
    #[arg(long, value_parser = parse_range, default_value = "2000")]
    seeds: Range<u64>,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every line of the history.
    #[arg(long, requires = "seed")]
    trace: bool,
    #[command(subcommand)]
    kind: Option<Kind>,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Two sessions joined by simulated paths.
    Pair {
        /// Schedules to run: a count, or FROM..TO.
        #[arg(long, value_parser = parse_range, default_value = "100000")]
        schedules: Range<u64>,
    },
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let number =
        |text: &str| text.replace('_', "").parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

/// Runs what the arguments ask for; fails with the first seed that breaks an invariant.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(2);
        }
    };
    match (&arguments.kind, arguments.seed) {
        (Some(Kind::Pair { schedules }), _) => {
            many("schedules", schedules.clone(), "pair --schedules", |seed| {
                sim::run_schedule(seed, SessionConfig::default()).map(|_| ())
            })
        }
        (None, Some(seed)) => one(seed, arguments.trace),
        (None, None) => many("seeds", arguments.seeds, "--seeds", |seed| {
            cluster::run_seed(seed, &Options::default()).violation.map_or(Ok(()), Err)
        }),
    }
}

fn say(text: &str) {
    // Whoever reads this may have gone.
    let _gone = writeln!(std::io::stdout().lock(), "{text}").is_err();
}

fn one(seed: u64, keeps_trace: bool) -> ExitCode {
    let report = cluster::run_seed(seed, &Options { keeps_trace, ..Options::default() });
    if keeps_trace {
        say(report.trace.trim_end());
    }
    say(&format!("seed {seed} hash {:016x} {:?}", report.hash, report.counts));
    match report.violation {
        Some(violation) => {
            say(&format!("seed {seed}: {violation}"));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(
    what: &str,
    range: Range<u64>,
    option: &str,
    run: impl Fn(u64) -> Result<(), String> + Sync,
) -> ExitCode {
    let (begin, total) = (Instant::now(), range.end.saturating_sub(range.start));
    let every = (total / 20).max(1);
    let failure = run_many(range, run, |done| {
        if done % every == 0 {
            say(&format!("{done} of {total} {what}, {:.0} s", begin.elapsed().as_secs_f64()));
        }
    });
    match failure {
        Some((seed, violation)) => {
            say(&violation);
            let again = if option == "--seeds" {
                format!("rc-sim --seed {seed} --trace")
            } else {
                format!("rc-sim {option} {seed}..{}", seed + 1)
            };
            say(&format!("again: {again}"));
            ExitCode::FAILURE
        }
        None => {
            say(&format!("{total} {what} without a violation, {:.1} s", begin.elapsed().as_secs_f64()));
            ExitCode::SUCCESS
        }
    }
}
