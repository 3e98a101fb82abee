//! Every row of what the traffic manager does, each with its test: against the decision alone where it needs no socket,
//! and against the real server over UDP and over TCP.
//!
//! `docs/traffic-manager-conformance.md` is written from the outcomes: `RC_WRITE_DOCS=1 cargo test -p
//! rc-traffic-manager --test conformance`.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "in a test binary whatever is not as expected fails the test"
)]

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use stage::Backend;

mod fake;
mod methods;
mod probes;
mod protocol;
mod shape;
mod stage;
mod structure;

/// What the rows say.
const STATEMENTS: &str = include_str!("rows.txt");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/traffic-manager-conformance.md");

/// How a row is tested.
#[derive(Clone, Copy)]
enum Runs {
    /// Against the decision, UDP and TCP.
    All(fn(Backend)),
    /// Against UDP and TCP: it is about what goes over sockets.
    Sockets(fn(Backend)),
    /// Not tested, for this reason.
    Not(&'static str),
}

struct Row {
    /// Ids, separated by spaces.
    ids: &'static str,
    test: &'static str,
    runs: Runs,
}

/// The rows, and a test for each line.
macro_rules! rows {
    ($($test:ident $ids:literal $kind:ident($how:expr);)*) => {
        const ROWS: &[Row] = &[$(Row { ids: $ids, test: stringify!($test), runs: Runs::$kind($how) }),*];

        mod row {
            $(#[test]
            fn $test() {
                crate::holds(stringify!($test));
            })*
        }
    };
}

include!("table.rs");

/// The outcome of each test; each runs once, whoever asks.
static OUTCOMES: LazyLock<BTreeMap<&'static str, OnceLock<bool>>> =
    LazyLock::new(|| ROWS.iter().map(|row| (row.test, OnceLock::new())).collect());

fn outcome(row: &Row) -> bool {
    *OUTCOMES[row.test].get_or_init(|| {
        let (test, backends): (fn(Backend), &[Backend]) = match row.runs {
            Runs::All(test) => (test, &Backend::ALL),
            Runs::Sockets(test) => (test, &[Backend::Udp, Backend::Tcp]),
            Runs::Not(_) => return false,
        };
        let running: Vec<_> = backends
            .iter()
            .map(|backend| {
                let backend = *backend;
                let name = format!("{} {backend:?}", row.test);
                std::thread::Builder::new().name(name).spawn(move || test(backend)).unwrap()
            })
            .collect();
        // All of them, so that each failure is told.
        let joined: Vec<bool> = running.into_iter().map(|thread| thread.join().is_ok()).collect();
        joined.into_iter().all(|passed| passed)
    })
}

fn holds(test: &str) {
    let row = ROWS.iter().find(|row| row.test == test).unwrap();
    let is_told = matches!(row.runs, Runs::Not(_));
    assert!(outcome(row) || is_told, "see the panic above");
}

/// Id, statement, source and standing of each row.
fn statements() -> Vec<[&'static str; 4]> {
    let lines = STATEMENTS.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            parts.try_into().unwrap_or_else(|parts| panic!("four parts, not {parts:?}"))
        })
        .collect()
}

fn row_of(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.ids.split(' ').any(|known| known == id))
}

#[test]
fn every_row_has_its_test_and_every_test_its_rows() {
    let statements = statements();
    assert_eq!(statements.len(), 198);
    let missing: Vec<&str> =
        statements.iter().map(|[id, ..]| *id).filter(|id| row_of(id).is_none()).collect();
    assert_eq!(missing, Vec::<&str>::new());
    let ids: Vec<&str> = ROWS.iter().flat_map(|row| row.ids.split(' ')).collect();
    assert_eq!(ids.len(), 198);
    assert!(ids.iter().all(|id| statements.iter().any(|[known, ..]| known == id)));
}

fn page() -> String {
    let statements = statements();
    let (mut lines, mut passed) = (String::new(), 0);
    for [id, statement, source, standing] in &statements {
        let row = row_of(id).unwrap();
        let (on, result) = match row.runs {
            Runs::Not(reason) => ("", format!("not tested: {reason}")),
            Runs::All(_) | Runs::Sockets(_) => {
                passed += usize::from(outcome(row));
                let on = if matches!(row.runs, Runs::All(_)) { "decision, UDP, TCP" } else { "UDP, TCP" };
                (on, if outcome(row) { "pass".to_owned() } else { "FAIL".to_owned() })
            }
        };
        let test = row.test;
        lines.push_str(&format!(
            "| {id} | {statement} | `row::{test}` | {on} | {result} | {source} | {standing} |\n"
        ));
    }
    format!(
        "# What the traffic manager does, and the test that shows it\n\n\
         Written from the outcomes by `RC_WRITE_DOCS=1 cargo test -p rc-traffic-manager --test conformance`; {passed} of \
         {} rows pass. Tests are in `traffic-manager/tests/conformance`, where `rows.txt` explains the sources. `doc`: \
         documented plainly; `conf`: documents contradict each other; `inf`: documents are silent.\n\n\
         What goes beyond Azure is off unless configured: the profile keys `all_down`, `min_healthy`, `weighted`, \
         `shed_from`, `shed_at`, `subset` and `flap_limit`, intervals below 10 s, and probes of brokers. A draining \
         endpoint is left out at once, whatever the method.\n\n\
         | row | statement | test | on | result | source | standing |\n|---|---|---|---|---|---|---|\n{lines}",
        statements.len()
    )
}

#[test]
fn the_page_of_rows_is_current() {
    let page = page();
    assert!(!page.contains("| FAIL |"), "a row fails: see its test");
    if std::env::var_os("RC_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap();
    assert_eq!(
        written, page,
        "write it with RC_WRITE_DOCS=1 cargo test -p rc-traffic-manager --test conformance"
    );
}
