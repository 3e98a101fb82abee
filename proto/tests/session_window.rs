//! Input beside bulk over a simulated line: how long input waits, and how much of the line bulk takes.
//!
//! The connection below begins as TCP does, with ten segments, or lets everything go at once; bounds hold for both.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test that meets none may panic")]

use std::time::Duration;

use rc_proto::session::SessionConfig;
use rc_proto::session::sim::line::{Figures, Line, Load, run};

const MBIT: u64 = 1_000_000;
const TEN_SEGMENTS: u64 = 14_600;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn line(rate: u64, round_trip: u64) -> Line {
    Line {
        rates: vec![(ms(0), rate)],
        round_trip: ms(round_trip),
        first_bytes: Some(TEN_SEGMENTS),
        loss_each: None,
        detour: None,
    }
}

/// So many bulk channels to the Target, and back.
fn load(to_target: usize, to_controller: usize) -> Load {
    Load { to_target, to_controller, read_rate: None, pauses: None, warm_up: ms(5000), span: ms(15_000) }
}

/// The same, over in three seconds: a short way needs no longer, and 1 Gbit/s are many bytes.
fn short_load(to_target: usize, to_controller: usize) -> Load {
    Load { warm_up: ms(1000), span: ms(2000), ..load(to_target, to_controller) }
}

#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn measure(line: &Line, load: &Load) -> Figures {
    let figures = run(line, load, &SessionConfig::default()).unwrap();
    println!(
        "{:?} {:?} from {:?}, {} and {} channels: added median {:?}, p99 {:?}, used {:.3?}",
        line.rates,
        line.round_trip,
        line.first_bytes,
        load.to_target,
        load.to_controller,
        figures.added_percentile(50),
        figures.added_percentile(99),
        figures.used
    );
    figures
}

/// Measures with one channel and with four, above both kinds of connections; `used` is asked of each direction that has
/// bulk.
fn expect(line: &Line, both_ways: bool, added_max: Duration, used_min: f64) {
    for first_bytes in [Some(TEN_SEGMENTS), None] {
        for channels in [1, 4] {
            let line = Line { first_bytes, ..line.clone() };
            let load = if line.round_trip < ms(10) { short_load } else { load };
            let figures = measure(&line, &load(channels, if both_ways { channels } else { 0 }));
            assert!(figures.added_percentile(99) <= added_max, "{:?}", figures.added_percentile(99));
            let directions = if both_ways { 2 } else { 1 };
            for used in figures.used.iter().take(directions) {
                assert!(*used >= used_min, "{used}");
            }
        }
    }
}

#[test]
fn bulk_adds_at_most_30_ms_to_input_and_takes_the_line_at_220_ms_and_100_mbit() {
    expect(&line(100 * MBIT, 220), false, ms(30), 0.95);
}

#[test]
fn bulk_takes_the_line_and_input_waits_little_at_other_rates_and_distances() {
    expect(&line(1000 * MBIT, 1), false, ms(30), 0.95);
    expect(&line(10 * MBIT, 50), false, ms(75), 0.95);
}

#[test]
fn input_waits_at_most_a_quarter_of_a_second_beside_bulk_at_256_kbit() {
    // Input and its acknowledgements take a fifth of such a line.
    expect(&line(256_000, 50), false, ms(250), 0.75);
}

/// Input's round trip passes both queues.
#[test]
fn bulk_both_ways_at_once_takes_both_directions() {
    expect(&line(100 * MBIT, 220), true, ms(60), 0.85);
    expect(&line(10 * MBIT, 50), true, ms(150), 0.7);
    expect(&line(1000 * MBIT, 1), true, ms(60), 0.8);
}

#[test]
fn a_line_that_collapses_to_256_kbit_keeps_input_within_a_quarter_of_a_second() {
    let line = Line { rates: vec![(ms(0), 10 * MBIT), (ms(8000), 256_000)], ..line(10 * MBIT, 50) };
    // What was under way at the collapse takes its time, whatever the window does then.
    let figures = measure(&line, &Load { warm_up: ms(20_000), ..load(1, 0) });
    assert!(figures.added_percentile(99) <= ms(250), "{:?}", figures.added_percentile(99));
    assert!(figures.used[0] >= 0.7, "{:?}", figures.used);
}

#[test]
fn a_line_that_gets_its_rate_back_is_taken_again() {
    let line = Line { rates: vec![(ms(0), 256_000), (ms(8000), 10 * MBIT)], ..line(10 * MBIT, 50) };
    let figures = measure(&line, &Load { warm_up: ms(20_000), ..load(1, 0) });
    assert!(figures.used[0] >= 0.9, "{:?}", figures.used);
}

#[test]
fn a_longer_way_is_learnt_and_the_line_taken_again() {
    let line = Line { detour: Some((ms(8000), ms(50))), ..line(100 * MBIT, 50) };
    let figures = measure(&line, &Load { warm_up: ms(20_000), ..load(1, 0) });
    assert!(figures.used[0] >= 0.9, "{:?}", figures.used);
    assert!(figures.added_percentile(99) <= ms(100 + 30), "{:?}", figures.added_percentile(99));
}

#[test]
fn a_loss_holds_up_what_is_behind_it_and_does_not_close_the_window() {
    let lossy = |each| Line { loss_each: Some(ms(each)), ..line(100 * MBIT, 220) };
    assert!(measure(&lossy(5000), &load(1, 0)).used[0] >= 0.9);
    // While a loss is repaired nothing is acknowledged, so a fifth of the line is out of reach.
    assert!(measure(&lossy(1000), &load(1, 0)).used[0] >= 0.4);
}

#[test]
fn a_slow_reader_neither_closes_the_window_nor_adds_to_input() {
    let figures = measure(&line(100 * MBIT, 220), &Load { read_rate: Some(2_500_000), ..load(1, 0) });
    assert!(figures.added_percentile(99) <= ms(30), "{:?}", figures.added_percentile(99));
    assert!((0.19..=0.21).contains(&figures.used[0]), "{:?}", figures.used);
}

#[test]
fn pauses_of_the_writer_leave_the_window_where_it_was() {
    let load = Load { pauses: Some((ms(2000), ms(1000))), ..load(1, 0) };
    let figures = measure(&line(100 * MBIT, 220), &load);
    assert!(figures.added_percentile(99) <= ms(30), "{:?}", figures.added_percentile(99));
    assert!(figures.used[0] >= 0.6, "{:?}", figures.used);
}

#[cfg(feature = "mutants")]
#[test]
fn a_window_that_never_opens_or_ignores_delay_is_caught() {
    use rc_proto::session::Mutant;
    let with = |mutant| {
        let config = SessionConfig { mutant: Some(mutant), ..SessionConfig::default() };
        run(&line(100 * MBIT, 220), &load(4, 0), &config).unwrap()
    };
    let shut = with(Mutant::WindowNeverOpens);
    assert!(shut.used[0] < 0.5, "{:?}", shut.used);
    let blind = with(Mutant::WindowIgnoresDelay);
    assert!(blind.added_percentile(99) > ms(30), "{:?}", blind.added_percentile(99));
}
