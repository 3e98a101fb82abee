//! The race: when attempts start and end, who wins, and what is left to measure.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
use rc_proto::select::{AttemptFailure, AttemptId, Completion, Race, RaceEvent, RaceOutcome};

use crate::world::{Broker, at, broker_id, candidate, first_choice, ms};

fn race(count: usize) -> Race {
    Race::new((0..count).map(candidate).collect(), at(0))
}

fn starts(race: &mut Race, now: Moment) -> Vec<AttemptId> {
    std::iter::from_fn(|| race.poll_start(now)).collect()
}

fn events(race: &mut Race) -> Vec<RaceEvent> {
    std::iter::from_fn(|| race.poll_event()).collect()
}

/// Lets time pass without any answer; returns when each attempt started, in ms.
fn run_silent(race: &mut Race, until_ms: u64) -> Vec<u128> {
    let mut started = Vec::new();
    let mut now = at(0);
    while now <= at(until_ms) {
        race.handle_timeout(now);
        started.extend(starts(race, now).iter().map(|_| now.since_origin().as_millis()));
        match race.poll_timeout() {
            Some(next) => now = next,
            None => break,
        }
    }
    started
}

#[test]
fn attempts_start_on_the_schedule() {
    assert_eq!(run_silent(&mut race(16), 2999), [0, 50, 150, 350, 750, 1250, 1750, 2250]);
}

#[test]
fn at_most_eight_are_in_flight_and_each_has_three_seconds() {
    let mut race = race(16);
    let started = run_silent(&mut race, 2999);
    assert_eq!(started.len(), 8);
    race.handle_timeout(at(2999));
    assert_eq!((events(&mut race), starts(&mut race, at(2999))), (vec![], vec![]));
    race.handle_timeout(at(3000));
    assert_eq!(events(&mut race).len(), 1, "the first attempt is out of time");
    assert_eq!(starts(&mut race, at(3000)).len(), 1, "the ninth takes its slot");
    assert!(race.report().any(|(_, end)| end == Some(Err(AttemptFailure::TimedOut))));
}

#[test]
fn a_race_that_nobody_answers_ends_after_six_seconds() {
    let mut race = race(16);
    run_silent(&mut race, 5999);
    assert!(!events(&mut race).iter().any(|event| matches!(event, RaceEvent::Finished(_))));
    assert_eq!(race.poll_timeout(), Some(at(6000)));
    race.handle_timeout(at(6000));
    assert_eq!(events(&mut race).last(), Some(&RaceEvent::Finished(RaceOutcome::AllFailed)));
    assert_eq!((race.poll_timeout(), race.poll_start(at(6000))), (None, None));
    assert_eq!(race.undialled().count() + race.report().count(), 16);
    assert!(race.undialled().count() > 0);
}

#[test]
fn a_failure_with_nothing_else_in_flight_starts_the_next_at_once() {
    let mut race = race(3);
    let first = starts(&mut race, at(0))[0];
    race.handle_failure(first, AttemptFailure::Unreachable);
    let second = starts(&mut race, at(1));
    assert_eq!(second.len(), 1);
    race.handle_failure(second[0], AttemptFailure::Handshake);
    let third = starts(&mut race, at(2))[0];
    race.handle_failure(third, AttemptFailure::Identity);
    assert_eq!(
        events(&mut race),
        [RaceEvent::Finished(RaceOutcome::AllFailed)],
        "no waiting for six seconds"
    );
}

#[test]
fn the_first_that_accepts_wins_and_the_rest_is_dialled_to_be_measured() {
    let mut race = race(10);
    let first = starts(&mut race, at(0))[0];
    let second = starts(&mut race, at(50))[0];
    assert_eq!(race.handle_success(second, false, at(60)), Completion::Measure, "it does not accept");
    assert_eq!(race.winner(), None);
    assert_eq!(race.handle_success(first, true, at(70)), Completion::Winner);
    assert_eq!(events(&mut race), [RaceEvent::Won(first)]);
    assert_eq!((race.winner(), race.window_closes()), (Some(first), Some(at(570))));
    let others = starts(&mut race, at(70));
    assert_eq!(others.len(), 8);
    assert_eq!(race.handle_success(others[0], true, at(569)), Completion::Measure);
    race.handle_timeout(at(570));
    let ended = events(&mut race);
    assert_eq!(ended.last(), Some(&RaceEvent::Finished(RaceOutcome::Won(first))));
    assert_eq!(ended.len(), 8, "seven are abandoned: {ended:?}");
    assert_eq!(race.undialled().count(), 0);
    assert_eq!(race.handle_success(others[1], true, at(571)), Completion::TooLate);
}

#[test]
fn brokers_that_answer_but_do_not_accept_end_the_race_without_a_winner() {
    let mut race = race(2);
    let first = starts(&mut race, at(0))[0];
    let second = starts(&mut race, at(50))[0];
    assert_eq!(race.handle_success(first, false, at(60)), Completion::Measure);
    race.handle_failure(second, AttemptFailure::Unreachable);
    assert_eq!(events(&mut race), [RaceEvent::Finished(RaceOutcome::NoneAccepting)]);
}

#[test]
fn a_race_without_candidates_is_over_at_once() {
    assert_eq!(events(&mut race(0)), [RaceEvent::Finished(RaceOutcome::AllFailed)]);
}

#[test]
fn addresses_that_a_late_answer_brings_join_the_race() {
    let mut race = race(1);
    let first = starts(&mut race, at(0))[0];
    race.extend(vec![candidate(0), candidate(1)]);
    let second = starts(&mut race, at(50));
    assert_eq!(second.len(), 1, "the known one is not dialled twice");
    assert_eq!(race.candidate(second[0]), Some(&candidate(1)));
    race.handle_failure(first, AttemptFailure::Unreachable);
    race.extend((0..40).map(candidate).collect());
    assert_eq!(race.handle_success(second[0], true, at(60)), Completion::Winner);
    assert_eq!(starts(&mut race, at(60)).len(), 8, "never more than 16 in all, 8 at a time");
}

#[test]
fn what_ends_twice_or_was_never_started_changes_nothing() {
    let mut race = race(2);
    let first = starts(&mut race, at(0))[0];
    race.handle_failure(first, AttemptFailure::Unreachable);
    assert_eq!(race.handle_success(first, true, at(1)), Completion::TooLate);
    assert_eq!(race.winner(), None);
}

#[test]
fn dead_addresses_cost_one_stagger_each_and_no_more() {
    let mut rng = SmallRng::seed_from_u64(2);
    let dead = Broker { dead: true, ..Broker::new("r/dead", ms(10)) };
    let brokers = [dead.clone(), dead.clone(), dead, Broker::new("r/alive", ms(20))];
    let found = first_choice(&brokers, at(0), &mut rng);
    assert_eq!(found.winner, Some(broker_id("r/alive")));
    let won_at = found.now.since(at(500));
    assert!(won_at <= ms(350 + 3 * 22), "{won_at:?}");
}
