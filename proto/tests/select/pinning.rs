//! Staying with a broker, leaving it, and leaving out what fails.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
use rc_proto::select::eject::{ENTRIES_MAX, RECONNECT_SPREAD_MAX, reconnect_share};
use rc_proto::select::{
    Backoff, Choice, Ejections, Occupancy, Pin, PinVerdict, ReprobeTimer, Round, Sample, Standings,
    StayReason,
};
use rc_proto::wire::BrokerId;

use crate::world::{Broker, Jitter, at, broker_id, measured, ms, probe};

fn held(broker: &BrokerId, now: Moment) -> Pin {
    let mut pin = Pin::default();
    pin.propose(broker.clone());
    assert!(pin.confirm(broker, now));
    pin
}

fn round(pin: &mut Pin, standings: &Standings, occupancy: Occupancy, now: Moment) -> PinVerdict {
    pin.handle_round(standings, &Ejections::default(), occupancy, now, &mut SmallRng::seed_from_u64(1))
}

fn steady(id: &str, round_trip_ms: u64) -> Broker {
    Broker { jitter: Jitter::Uniform(Duration::ZERO), ..Broker::new(id, ms(round_trip_ms)) }
}

fn minutes(count: u64) -> Moment {
    at(count * 60_000)
}

/// Two brokers at 20 and 22 ms with some jitter, a round a minute, a day long.
#[test]
fn twenty_against_twenty_two_ms_moves_at_most_once_a_day() {
    for (seed, occupancy) in [(1, Occupancy::Idle), (2, Occupancy::InSession), (3, Occupancy::Idle)] {
        let mut rng = SmallRng::seed_from_u64(seed);
        let brokers = [20, 22].map(|base| Broker {
            jitter: Jitter::Uniform(ms(8)),
            ..Broker::new(&format!("r/b{base}"), ms(base))
        });
        let mut standings = Standings::default();
        let mut pin = held(&brokers[1].id, at(0));
        let (mut moves, mut changes_of_lead, mut leader) = (0, 0, None);
        for minute in 1..=24 * 60 {
            let now = minutes(minute);
            for broker in &brokers {
                probe(&mut standings, broker, 5, now, &mut rng);
            }
            let best = standings.scores(now)[0].0.clone();
            changes_of_lead += u32::from(leader.replace(best.clone()) != Some(best));
            let verdict = pin.handle_round(&standings, &Ejections::default(), occupancy, now, &mut rng);
            if let PinVerdict::Move(choice) | PinVerdict::Handover(choice) = verdict {
                pin = held(&choice.chosen.unwrap(), now);
                moves += 1;
            }
        }
        assert!(moves <= 1, "{moves} moves");
        assert!(changes_of_lead > 100, "the lead changes all the time: {changes_of_lead}");
    }
}

fn moved_to(verdict: &PinVerdict) -> Option<&Choice> {
    match verdict {
        PinVerdict::Stay(_) => None,
        PinVerdict::Move(choice) | PinVerdict::Handover(choice) => Some(choice),
    }
}

#[test]
fn an_idle_target_moves_after_two_better_rounds() {
    let (slow, fast) = (steady("r/slow", 60), steady("r/fast", 40));
    let standings = measured(&[slow.clone(), fast.clone()], 5, minutes(1), &mut SmallRng::seed_from_u64(1));
    let mut pin = held(&slow.id, at(0));
    let first = round(&mut pin, &standings, Occupancy::Idle, minutes(1));
    assert_eq!(first, PinVerdict::Stay(StayReason::TooEarly));
    let second = round(&mut pin, &standings, Occupancy::Idle, minutes(1));
    assert!(matches!(&second, PinVerdict::Move(choice) if choice.chosen == Some(fast.id)), "{second:?}");
}

#[test]
fn a_live_session_moves_after_three_better_rounds_and_ten_minutes() {
    let (slow, fast) = (steady("r/slow", 60), steady("r/fast", 30));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut pin = held(&slow.id, minutes(0));
    for minute in 1..=10 {
        let standings = measured(&[slow.clone(), fast.clone()], 5, minutes(minute), &mut rng);
        let verdict = round(&mut pin, &standings, Occupancy::InSession, minutes(minute));
        let expected = match minute {
            1 | 2 => Some(StayReason::TooEarly),
            3..10 => Some(StayReason::Dwell),
            _ => None,
        };
        match expected {
            Some(reason) => assert_eq!(verdict, PinVerdict::Stay(reason), "{minute}"),
            None => assert!(matches!(verdict, PinVerdict::Handover(_)), "{verdict:?}"),
        }
    }
}

#[test]
fn better_means_by_10_ms_and_by_a_third() {
    for (old, new, moves) in
        [(20, 10, true), (20, 11, false), (30, 20, true), (31, 21, false), (90, 60, true), (90, 61, false)]
    {
        let (held_broker, other) = (steady("r/held", old), steady("r/other", new));
        let standings = measured(&[held_broker.clone(), other], 5, at(0), &mut SmallRng::seed_from_u64(1));
        let mut pin = held(&held_broker.id, at(0));
        round(&mut pin, &standings, Occupancy::Idle, at(0));
        let verdict = round(&mut pin, &standings, Occupancy::Idle, at(0));
        assert_eq!(moved_to(&verdict).is_some(), moves, "{old} against {new}: {verdict:?}");
    }
}

#[test]
fn a_round_that_is_not_better_starts_the_count_again() {
    let slow = steady("r/slow", 60);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut pin = held(&slow.id, at(0));
    for (place, fast_ms) in [30, 55, 30].into_iter().enumerate() {
        let now = minutes(10 * (1 + u64::try_from(place).unwrap()));
        let standings = measured(&[slow.clone(), steady("r/fast", fast_ms)], 5, now, &mut rng);
        let verdict = round(&mut pin, &standings, Occupancy::Idle, now);
        assert_eq!(moved_to(&verdict), None, "round {place}");
    }
}

#[test]
fn nothing_moves_to_a_broker_that_could_not_be_chosen() {
    let slow = steady("r/slow", 60);
    let fast = steady("r/fast", 10);
    let refused = [
        Broker { accepting: false, ..fast.clone() },
        Broker { drain: Some(ms(1)), ..fast.clone() },
        Broker { load: 750, ..fast.clone() },
        Broker { mesh_healthy: false, ..fast.clone() },
    ];
    for other in refused {
        let standings = measured(&[slow.clone(), other.clone()], 5, at(0), &mut SmallRng::seed_from_u64(1));
        let mut pin = held(&slow.id, at(0));
        for _ in 0..5 {
            let verdict = round(&mut pin, &standings, Occupancy::Idle, at(0));
            assert_eq!(verdict, PinVerdict::Stay(StayReason::NobodyBetter), "{other:?}");
        }
    }
}

#[test]
fn a_drain_moves_at_once_and_never_back_to_the_same_broker() {
    for (occupancy, hands_over) in [(Occupancy::Idle, false), (Occupancy::InSession, true)] {
        let drained = Broker { drain: Some(ms(60_000)), ..steady("r/drained", 10) };
        let other = steady("r/other", 200);
        let standings =
            measured(&[drained.clone(), other.clone()], 5, at(0), &mut SmallRng::seed_from_u64(1));
        let verdict = round(&mut held(&drained.id, at(0)), &standings, occupancy, at(0));
        assert_eq!(moved_to(&verdict).and_then(|choice| choice.chosen.clone()), Some(other.id));
        assert_eq!(matches!(verdict, PinVerdict::Handover(_)), hands_over);
        let alone = measured(std::slice::from_ref(&drained), 5, at(0), &mut SmallRng::seed_from_u64(1));
        let verdict = round(&mut held(&drained.id, at(0)), &alone, occupancy, at(0));
        assert_eq!(moved_to(&verdict), None, "with nowhere to go it stays");
    }
}

#[test]
fn lost_probes_do_not_move_what_is_heard_from() {
    let (pinned, other) = (steady("r/pinned", 20), steady("r/other", 30));
    let mut standings = measured(&[pinned.clone(), other], 5, at(0), &mut SmallRng::seed_from_u64(1));
    for _ in 0..15 {
        standings.add_sample(&pinned.id, Sample { round_trip: ms(300), at: at(0), lost: true });
    }
    let mut pin = held(&pinned.id, at(0));
    for _ in 0..3 {
        assert_eq!(
            round(&mut pin, &standings, Occupancy::Idle, at(8000)),
            PinVerdict::Stay(StayReason::HeardFrom)
        );
    }
    assert!(pin.is_alive(at(8000)) && !pin.is_alive(at(8001)));
    round(&mut pin, &standings, Occupancy::Idle, at(8001));
    let verdict = round(&mut pin, &standings, Occupancy::Idle, at(8001));
    assert!(moved_to(&verdict).is_some(), "silence and lost probes together do move: {verdict:?}");
    pin.handle_heard(&pinned.id, at(9000));
    assert!(pin.is_alive(at(17_000)));
}

#[test]
fn a_broker_is_published_only_after_it_confirmed() {
    let (one, other) = (broker_id("r/one"), broker_id("r/other"));
    let mut pin = Pin::default();
    pin.propose(one.clone());
    assert_eq!((pin.broker(), pin.published()), (Some(&one), None));
    assert!(!pin.confirm(&other, at(0)), "another broker's answer confirms nothing");
    assert!(pin.confirm(&one, at(0)));
    assert_eq!(pin.published(), Some(&one));
    assert!(!pin.handle_lost(&other));
    assert!(pin.handle_lost(&one));
    assert_eq!((pin.broker(), pin.published()), (None, None));
}

#[test]
fn rounds_come_every_minute_and_every_five_within_a_fifth() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut timer = ReprobeTimer::new(at(0), &mut rng);
    let (mut near, mut full) = (vec![at(0)], vec![at(0)]);
    while full.len() < 50 {
        let now = timer.poll_timeout();
        let round = timer.poll_round(now, &mut rng).expect("the timer names when a round is due");
        if round == Round::Full {
            full.push(now);
        }
        near.push(now);
        assert_eq!(timer.poll_round(now, &mut rng), None);
    }
    let within = |moments: &[Moment], least: u64, most: u64| {
        moments.windows(2).all(|pair| (ms(least)..=ms(most)).contains(&pair[1].since(pair[0])))
    };
    assert!(within(&full, 240_000, 360_000));
    assert!(near.windows(2).all(|pair| pair[1].since(pair[0]) <= ms(72_000)));
}

#[test]
fn a_near_round_probes_the_pinned_broker_and_the_three_nearest_others() {
    let brokers: Vec<Broker> = (1..=6).map(|place| steady(&format!("r/b{place}"), place * 10)).collect();
    let standings = measured(&brokers, 5, at(0), &mut SmallRng::seed_from_u64(1));
    let pinned = broker_id("r/b5");
    let names = |round: Round| {
        let found = round.brokers(&standings, Some(&pinned), at(0));
        found.iter().map(|broker| broker.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Round::Near), ["b5", "b1", "b2", "b3"]);
    assert_eq!(names(Round::Full), ["b5", "b1", "b2", "b3", "b4", "b6"]);
}

#[test]
fn three_failures_in_a_row_eject_for_a_time_that_doubles() {
    let mut ejections = Ejections::default();
    let (mut now, mut spans) = (at(0), Vec::new());
    for _ in 0..8 {
        assert!(!ejections.handle_failure(&"b", 10, now));
        assert!(!ejections.handle_failure(&"b", 10, now));
        assert!(ejections.handle_failure(&"b", 10, now));
        let span = ejections.ejected(now).next().unwrap().1;
        spans.push(span.as_secs());
        assert!(!ejections.is_ejected(&"b", now + span));
        now += span;
    }
    assert_eq!(spans, [5, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn a_success_between_failures_keeps_a_broker_in() {
    let mut ejections = Ejections::default();
    for _ in 0..10 {
        assert!(!ejections.handle_failure(&"b", 10, at(0)));
        assert!(!ejections.handle_failure(&"b", 10, at(0)));
        ejections.handle_success(&"b", at(0));
    }
}

#[test]
fn a_quiet_five_minutes_start_the_doubling_over() {
    let mut ejections = Ejections::default();
    ejections.handle_dead_link(&"b", 10, at(0));
    ejections.handle_dead_link(&"b", 10, at(5000));
    assert_eq!(ejections.ejected(at(5000)).next(), Some((&"b", ms(10_000))));
    ejections.handle_success(&"b", at(15_000));
    ejections.handle_dead_link(&"b", 10, at(315_000));
    assert_eq!(ejections.ejected(at(315_000)).next(), Some((&"b", ms(5000))));
}

#[test]
fn never_more_than_half_of_the_candidates_are_ejected() {
    for known in 1..=7 {
        let mut ejections = Ejections::default();
        for broker in 0..known {
            ejections.handle_dead_link(&broker, known, at(0));
        }
        assert_eq!(ejections.ejected(at(0)).count(), known / 2, "of {known}");
    }
}

#[test]
fn ejections_are_bounded_whatever_fails() {
    let mut ejections = Ejections::default();
    for place in 0..10_000_usize {
        ejections.handle_dead_link(&place, usize::MAX, at(0));
    }
    assert_eq!(ejections.ejected(at(0)).count(), ENTRIES_MAX);
}

#[test]
fn back_off_is_a_random_part_of_a_span_that_doubles_to_a_limit() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut largest = [Duration::ZERO; 8];
    for _ in 0..500 {
        let mut backoff = Backoff::new(ms(100), ms(5000));
        for slot in &mut largest {
            *slot = (*slot).max(backoff.next_delay(&mut rng));
        }
    }
    for (slot, limit) in largest.iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
        assert!(*slot <= ms(limit) && *slot >= ms(limit) * 9 / 10, "{slot:?} of {limit}");
    }
}

#[test]
fn a_broker_cannot_send_its_targets_away_for_longer_than_a_minute() {
    let mut rng = SmallRng::seed_from_u64(1);
    assert_eq!(reconnect_share(0, &mut rng), Duration::ZERO);
    let shares: Vec<Duration> = (0..1000).map(|_| reconnect_share(u32::MAX, &mut rng)).collect();
    assert!(shares.iter().all(|share| *share <= RECONNECT_SPREAD_MAX));
    assert!(shares.iter().any(|share| *share > RECONNECT_SPREAD_MAX / 2));
}
