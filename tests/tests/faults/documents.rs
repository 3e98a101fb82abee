//! `docs/faults.md`: written from what was measured, never by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::claims::{CLAIMS, Claim};
use crate::found::{Found, Outcome};

const HEAD: &str = "\
# Faults, and what a session notices of them

Generated: `RC_WRITE_DOCS=1 RC_TESTS=require cargo test -p rc-tests --test faults` plays each fault on real processes and
writes this table. The figures are of the small size that CI runs, on two cores; the large size is
`cargo bench -p rc-tests --bench gaps` and `--bench evil`. Unless a row says otherwise:
round trips of 20 ms from each endpoint to its brokers and 100 ms between the regions; the session sends 20 B each 50 ms
and 1 MB/s, both ways; *gap* is the longest time in which the application got no byte; and after every fault everything
that was written has come back, once and in order. Transport is TLS over TCP.

| row | claim | bound | measured | test |
|---|---|---|---|---|
";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md")
}

/// Writes the table where `RC_WRITE_DOCS` asks for it; else a whole run requires that it has these claims.
pub(crate) fn keep(found: &Found, is_whole: bool) {
    let before = std::fs::read_to_string(path()).unwrap_or_default();
    if std::env::var_os("RC_WRITE_DOCS").is_some() {
        let text = table(found, &measured_before(&before));
        if let Err(error) = std::fs::write(path(), text) {
            panic!("{} cannot be written: {error}", path().display());
        }
    } else if is_whole {
        for claim in CLAIMS {
            let (start, end) = (line_start(claim), line_end(claim));
            let is_there = before.lines().any(|line| line.starts_with(&start) && line.ends_with(&end));
            assert!(is_there, "docs/faults.md lacks {}: RC_WRITE_DOCS=1 writes it", claim.test);
        }
    }
}

fn line_start(claim: &Claim) -> String {
    format!("| {} | {} | {} | ", claim.row, claim.claim, claim.bound)
}

fn line_end(claim: &Claim) -> String {
    format!(" | `{}` |", claim.test)
}

/// The measured cell of each test in a table that was written before.
fn measured_before(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [.., measured, test] = cells.as_slice() {
            let test = test.trim_matches(['`', '|', ' ']);
            found.insert(test.to_owned(), (*measured).to_owned());
        }
    }
    found
}

fn table(found: &Found, before: &BTreeMap<String, String>) -> String {
    let mut text = HEAD.to_owned();
    for claim in CLAIMS {
        let measured = match found.outcome(claim.test) {
            Some(Outcome::Holds(measured)) => measured,
            Some(Outcome::Fails(_)) => "does not hold".to_owned(),
            Some(Outcome::Skipped) | None => {
                before.get(claim.test).cloned().unwrap_or_else(|| "not measured".to_owned())
            }
        };
        // Writing to a String cannot fail.
        let _infallible =
            writeln!(text, "{}{}{}", line_start(claim), measured.replace('|', "/"), line_end(claim));
    }
    text
}
