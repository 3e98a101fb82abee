//! Sessions over a broker with a valid certificate that lies: flips, repeats, leaves out, cuts, holds, splices,
//! invents. Ends with 1 when a byte was accepted that was never sent, a peer was taken for another, or a session that
//! had started did not go on through the honest broker.
//!
//! ```text
//! cargo bench -p rc-tests --bench evil -- [--runs N] [--seed N] [--json]
//! ```

use std::process::ExitCode;

use clap::Parser;
use rc_tests::evil::{Attack, attack};
use rc_tests::lab::Report;
use serde_json::json;

/// Sessions over an evil broker.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions.
    #[arg(long, default_value_t = 10_000)]
    runs: u32,
    /// Decides what is done to which path.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let began = std::time::Instant::now();
    let verdict = runtime.block_on(attack(Attack { runs: arguments.runs, seed: arguments.seed }))?;
    let took = began.elapsed();
    let mut report = Report::new("evil", arguments.json, &["what", ">count"]);
    report.require(verdict.wrong.is_empty(), format!("no byte or peer is wrong: {:#?}", verdict.wrong));
    report.require(verdict.lost == 0, format!("no session is lost: {:#?}", verdict.reasons));
    let totals = [
        ("sessions", u64::from(verdict.runs)),
        ("whole", u64::from(verdict.whole)),
        ("of these moved to another path", u64::from(verdict.moved)),
        ("refused at the start", u64::from(verdict.refused)),
        ("lost", u64::from(verdict.lost)),
        ("wrong bytes or peers", verdict.wrong.len() as u64),
        ("seconds", took.as_secs()),
    ];
    for (what, count) in totals {
        report.row([what.to_owned(), count.to_string()], json!({ "what": what, "count": count }));
    }
    for (deed, count) in &verdict.deeds {
        let what = format!("paths: {deed}");
        report.row([what.clone(), count.to_string()], json!({ "what": what, "count": count }));
    }
    for (reason, count) in &verdict.reasons {
        report.row([reason.clone(), count.to_string()], json!({ "what": reason, "count": count }));
    }
    Ok(report.finish())
}
