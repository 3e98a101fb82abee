//! Mutates queries and configurations and checks what comes back; a fault is a panic that shows the input.
//!
//! ```text
//! cargo bench -p rc-traffic-manager --bench fuzz -- [--runs N] [--seed N]
//! ```
//! One run in two hundred is a configuration. Every found input belongs into `corpus`, which the tests replay.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a fault is a panic, and the figures are what it is for"
)]

mod core;

use std::time::Instant;

use clap::Parser;

const CONFIGURATION_EVERY: u64 = 200;

/// Fuzzes the query path and the configuration.
#[derive(Debug, Parser)]
struct Arguments {
    /// Inputs that are tried.
    #[arg(long, default_value_t = 20_000_000)]
    runs: u64,
    /// The same seed tries the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let (queries, texts) = core::corpus();
    let mut target = core::Target::new(&texts[0], arguments.seed);
    let mut mutator = core::Mutator::new(arguments.seed);
    let (begin, mut input) = (Instant::now(), Vec::new());
    for run in 0..arguments.runs {
        if run % CONFIGURATION_EVERY == 0 {
            target.configuration(&mutator.text(&texts));
        } else {
            mutator.bytes(&queries, &mut input);
            target.query(&input);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} inputs in {seconds:.1} s, seed {}: nothing found", arguments.runs, arguments.seed);
}
