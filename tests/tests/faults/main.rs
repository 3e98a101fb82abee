//! Real processes under real faults. Each claim is a test with a name, a bound and a measured number; with
//! `RC_WRITE_DOCS=1` the numbers become `docs/faults.md`.
//!
//! Claims that share a deployment are one group and run in order, so that a mesh is started once; groups run one after
//! the other, since they measure time. Groups that need a network run in a child of this executable inside network
//! namespaces of its own.
//!
//! ```text
//! cargo test -p rc-tests --test faults -- [words of a test's or group's name …] [--list]
//! ```

#![expect(clippy::print_stdout, clippy::panic, reason = "a test runner tells on standard output")]

mod claims;
mod documents;
mod endpoints;
mod evil;
mod found;
mod many;
mod network;
mod session;
mod way;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use rc_tests::{NodeProgram, lab};

use crate::claims::CLAIMS;
use crate::found::Found;

/// Claims that share a deployment.
struct Group {
    name: &'static str,
    /// Whether it needs network namespaces.
    needs_lab: bool,
    /// How long it may take; a group that hangs fails.
    limit: Duration,
    run: for<'f> fn(&'f Found) -> LocalBoxFuture<'f, anyhow::Result<()>>,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

const GROUPS: &[Group] = &[
    Group { name: "evil", needs_lab: false, limit: minutes(4), run: |found| Box::pin(evil::run(found)) },
    Group {
        name: "session",
        needs_lab: false,
        limit: minutes(8),
        run: |found| Box::pin(session::run(found)),
    },
    Group { name: "many", needs_lab: false, limit: minutes(6), run: |found| Box::pin(many::run(found)) },
    Group {
        name: "endpoints",
        needs_lab: false,
        limit: minutes(4),
        run: |found| Box::pin(endpoints::run(found)),
    },
    Group { name: "network", needs_lab: true, limit: minutes(8), run: |found| Box::pin(network::run(found)) },
];

/// The hidden argument with which a group runs inside namespaces.
const INSIDE: &str = "--inside-lab";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, group] = arguments.as_slice()
        && first == INSIDE
    {
        return inside(group);
    }
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for claim in CLAIMS {
            println!("{}: test", claim.test);
        }
        return ExitCode::SUCCESS;
    }
    let found = Found::default();
    for group in GROUPS.iter().filter(|group| is_wanted(group, &words)) {
        let began = Instant::now();
        println!("group {}", group.name);
        if group.needs_lab {
            outside(group, &found)
        } else {
            within(group, &found)
        }
        println!("group {} took {:.1} s", group.name, began.elapsed().as_secs_f64());
    }
    let is_whole = words.is_empty();
    documents::keep(&found, is_whole);
    let failed = found.failed();
    println!("\nfault claims: {} hold, {} do not, {} skipped", found.held(), failed.len(), found.skipped());
    for (test, reason) in &failed {
        println!("  {test}: {reason}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_wanted(group: &Group, words: &[&str]) -> bool {
    let in_claims =
        |word: &&str| CLAIMS.iter().any(|claim| claim.group == group.name && claim.test.contains(*word));
    words.is_empty() || words.iter().any(|word| group.name.contains(word) || in_claims(word))
}

/// Runs a group in this process.
fn within(group: &Group, found: &Found) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match tokio::time::timeout(group.limit, (group.run)(found)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow::anyhow!("not done within {:?}", group.limit)),
            }
        }),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        found.failed_early(group.name, &format!("{error:#}"));
    }
    found.nothing_missing(group.name);
}

/// Runs a group in a child that has namespaces of its own, and takes its findings over.
fn outside(group: &Group, found: &Found) {
    if let Some(reason) = lab::unavailable() {
        assert!(
            std::env::var("RC_TESTS").as_deref() != Ok("require"),
            "group {} is required, and {reason}",
            group.name
        );
        println!("SKIP {}: {reason}", group.name);
        found.skip(group.name);
        return;
    }
    let child = std::env::current_exe().and_then(|executable| {
        Command::new(executable)
            .args([INSIDE, group.name])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
    });
    match child {
        Ok(output) => {
            if !found.take_over(&output.stdout) {
                found.failed_early(group.name, &format!("the child ended with {}", output.status));
            }
        }
        Err(error) => found.failed_early(group.name, &error.to_string()),
    }
    found.nothing_missing(group.name);
}

fn inside(name: &str) -> ExitCode {
    if let Err(error) = lab::enter() {
        rc_daemon::output::notice(&format!("no lab: {error}"));
        return ExitCode::FAILURE;
    }
    let Some(group) = GROUPS.iter().find(|group| group.name == name) else { return ExitCode::FAILURE };
    let found = Found::quiet();
    within(group, &found);
    println!("{}", found.hand_over());
    ExitCode::SUCCESS
}

/// The node program that cargo built for these tests.
fn program() -> NodeProgram {
    NodeProgram::new(env!("CARGO_BIN_EXE_rc-node"))
}
