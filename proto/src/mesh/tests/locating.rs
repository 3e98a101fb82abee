use std::time::Duration;

use super::{at, id, ms};
use crate::Moment;
use crate::mesh::locate::Question;
use crate::mesh::{LocateEvent, LocateKind, LocateQuery, rendezvous};
use crate::wire::codes::RegistrationRole;
use crate::wire::{BrokerId, InstanceId};

const PRIMARY: RegistrationRole = RegistrationRole::PRIMARY;
const STANDBY: RegistrationRole = RegistrationRole::STANDBY;
const ONE: InstanceId = InstanceId([1; 16]);
const OTHER: InstanceId = InstanceId([2; 16]);

fn question(kind: LocateKind, instance: Option<InstanceId>, watch_ms: u64) -> Question {
    Question { query: 1, target: "pc-17".parse().unwrap(), instance, kind, watch: ms(watch_ms) }
}

/// Asks peers named a, b, … with these round trips in ms.
fn ask(kind: LocateKind, watch_ms: u64, round_trips_ms: &[u64]) -> LocateQuery {
    ask_for(question(kind, None, watch_ms), round_trips_ms)
}

fn ask_for(question: Question, round_trips_ms: &[u64]) -> LocateQuery {
    let peers: Vec<(BrokerId, Duration)> =
        ["a", "b", "c", "d"].into_iter().map(id).zip(round_trips_ms.iter().copied().map(ms)).collect();
    LocateQuery::new(question, &peers, at(0))
}

fn found(query: &mut LocateQuery) -> Option<BrokerId> {
    match query.poll_event() {
        Some(LocateEvent::Found(location)) => Some(location.broker),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn timeout(query: &mut LocateQuery, expected_ms: u64) {
    assert_eq!(query.poll_timeout(), Some(at(expected_ms)));
    query.handle_timeout(at(expected_ms));
}

#[test]
fn not_found_needs_a_no_from_every_peer() {
    let mut query = ask(LocateKind::New, 0, &[10, 20]);
    query.handle_not_here(&id("a"), at(10));
    assert_eq!(query.poll_event(), None);
    query.handle_not_here(&id("b"), at(20));
    assert_eq!(query.poll_event(), Some(LocateEvent::NotFound { watching: false }));
    assert_eq!(query.poll_timeout(), None);
}

#[test]
fn a_silent_peer_makes_the_answer_partial_after_twice_its_round_trip() {
    for (round_trip, patience) in [(10, 300), (150, 300), (151, 302), (400, 800)] {
        let mut query = ask(LocateKind::New, 0, &[1, round_trip]);
        query.handle_not_here(&id("a"), at(1));
        timeout(&mut query, patience);
        assert_eq!(query.poll_event(), Some(LocateEvent::Partial { watching: false }));
        assert!(query.has_unknown());
    }
}

#[test]
fn a_resume_hears_partial_as_soon_as_one_peer_is_silent() {
    for (kind, early) in [(LocateKind::Resume, true), (LocateKind::New, false)] {
        let mut query = ask(kind, 0, &[10, 400]);
        timeout(&mut query, 300);
        assert_eq!(query.poll_event().is_some(), early, "{kind:?}");
    }
}

#[test]
fn a_lost_link_is_an_unknown_peer() {
    let mut query = ask(LocateKind::New, 0, &[10, 20]);
    query.handle_link_lost(&id("b"), at(5));
    query.handle_not_here(&id("a"), at(10));
    assert_eq!(query.poll_event(), Some(LocateEvent::Partial { watching: false }));
}

#[test]
fn the_best_positive_within_one_round_trip_wins_by_role_then_cost() {
    type Positive = (&'static str, RegistrationRole, u32);
    let answers: [(&[Positive], &str); 3] = [
        (&[("a", STANDBY, 1_000), ("b", PRIMARY, 90_000)], "b"),
        (&[("a", PRIMARY, 90_000), ("b", PRIMARY, 1_000)], "b"),
        (&[("a", PRIMARY, 1_000), ("b", PRIMARY, 1_000)], "a"),
    ];
    for (positives, expected) in answers {
        let mut query = ask(LocateKind::New, 0, &[40, 50, 400]);
        for (peer, role, cost_us) in positives {
            query.handle_here(&id(peer), ONE, *role, *cost_us, at(50));
        }
        assert_eq!(found(&mut query), None, "one more round trip is waited");
        timeout(&mut query, 90);
        assert_eq!(found(&mut query), Some(id(expected)), "{positives:?}");
    }
}

#[test]
fn a_positive_decides_at_once_when_nobody_is_left_to_answer() {
    let mut query = ask(LocateKind::New, 0, &[40, 50]);
    query.handle_not_here(&id("b"), at(50));
    query.handle_here(&id("a"), ONE, PRIMARY, 1, at(51));
    assert_eq!(found(&mut query), Some(id("a")));
}

#[test]
fn the_next_positive_serves_as_a_hedge() {
    let mut query = ask(LocateKind::New, 0, &[40, 150]);
    query.handle_here(&id("b"), ONE, STANDBY, 0, at(150));
    query.handle_here(&id("a"), ONE, PRIMARY, 0, at(150));
    let Some(LocateEvent::Found(first)) = query.poll_event() else { panic!("nothing is left to wait for") };
    assert_eq!((first.broker, first.hedge_after), (id("a"), ms(500)));
    let second = query.next_positive().unwrap();
    assert_eq!((second.broker, second.hedge_after), (id("b"), ms(600)));
    assert_eq!(query.next_positive(), None, "each is tried once");
}

#[test]
fn a_positive_that_comes_after_the_decision_is_still_a_hedge() {
    let mut query = ask(LocateKind::New, 0, &[10, 400]);
    query.handle_here(&id("a"), ONE, PRIMARY, 0, at(10));
    timeout(&mut query, 20);
    assert_eq!(found(&mut query), Some(id("a")));
    query.handle_here(&id("b"), ONE, PRIMARY, 0, at(400));
    assert_eq!(query.next_positive().map(|location| location.broker), Some(id("b")));
}

#[test]
fn only_the_instance_that_is_wanted_answers() {
    let mut query = ask_for(question(LocateKind::Resume, Some(ONE), 0), &[10, 20]);
    query.handle_here(&id("a"), OTHER, PRIMARY, 0, at(10));
    query.handle_here(&id("b"), ONE, RegistrationRole::RESUME, 0, at(20));
    assert_eq!(found(&mut query), Some(id("b")));
    let mut query = ask(LocateKind::New, 0, &[10]);
    query.handle_here(&id("a"), ONE, RegistrationRole::RESUME, 0, at(10));
    assert_eq!(
        query.poll_event(),
        Some(LocateEvent::NotFound { watching: false }),
        "a superseded instance is found only by name"
    );
}

#[test]
fn a_watch_finds_a_target_that_registers_later() {
    let mut query = ask(LocateKind::New, 5000, &[10, 20]);
    query.handle_not_here(&id("a"), at(10));
    query.handle_not_here(&id("b"), at(20));
    assert_eq!(query.poll_event(), Some(LocateEvent::NotFound { watching: true }));
    query.handle_here(&id("b"), ONE, PRIMARY, 0, at(3000));
    assert_eq!(found(&mut query), Some(id("b")));
    assert_eq!(query.poll_timeout(), None);
}

#[test]
fn a_watch_ends_in_time_and_at_most_after_ten_seconds() {
    for (asked_ms, ends_ms) in [(5000, 5000), (60_000, 10_000)] {
        let mut query = ask(LocateKind::New, asked_ms, &[10]);
        query.handle_not_here(&id("a"), at(10));
        query.poll_event();
        query.handle_timeout(at(ends_ms - 1));
        assert_eq!(query.poll_event(), None);
        timeout(&mut query, ends_ms);
        assert_eq!(query.poll_event(), Some(LocateEvent::Ended));
        query.handle_here(&id("a"), ONE, PRIMARY, 0, at(ends_ms + 1));
        assert_eq!(query.poll_event(), None);
    }
}

#[test]
fn without_peers_the_answer_is_there_at_once() {
    let mut query = ask(LocateKind::New, 5000, &[]);
    assert_eq!(query.poll_event(), Some(LocateEvent::NotFound { watching: false }));
}

#[test]
fn a_peer_that_was_not_asked_changes_nothing() {
    let mut query = ask(LocateKind::New, 0, &[10]);
    query.handle_here(&id("stranger"), ONE, PRIMARY, 0, at(1));
    query.handle_not_here(&id("stranger"), at(1));
    assert_eq!((query.poll_event(), query.next_positive()), (None, None));
}

/// Whatever order answers come in, exactly one verdict comes out, within the bound.
#[test]
fn every_order_of_answers_ends_in_one_verdict() {
    use rand::{Rng, SeedableRng};
    for seed in 0..2000 {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let round_trips: Vec<u64> = (0..4).map(|_| rng.random_range(1..200)).collect();
        let mut query = ask(LocateKind::New, 0, &round_trips);
        let mut arrivals: Vec<(u64, &str, u32)> = ["a", "b", "c", "d"]
            .into_iter()
            .map(|peer| (rng.random_range(1..1000), peer, rng.random_range(0..4)))
            .collect();
        arrivals.sort_unstable();
        let mut verdicts = Vec::new();
        let mut now = Moment::ORIGIN;
        for (when, peer, what) in arrivals {
            while let Some(due) = query.poll_timeout().filter(|due| *due <= at(when)) {
                now = due;
                query.handle_timeout(now);
                verdicts.extend(query.poll_event().map(|event| (event, now)));
            }
            match what {
                0 => query.handle_here(&id(peer), ONE, PRIMARY, rng.random_range(0..9999), at(when)),
                1 => query.handle_not_here(&id(peer), at(when)),
                2 => query.handle_link_lost(&id(peer), at(when)),
                _ => {}
            }
            verdicts.extend(query.poll_event().map(|event| (event, at(when))));
        }
        while let Some(due) = query.poll_timeout() {
            query.handle_timeout(due);
            verdicts.extend(query.poll_event().map(|event| (event, due)));
        }
        assert_eq!(verdicts.len(), 1, "seed {seed}: {verdicts:?}");
        assert!(verdicts[0].1 <= at(400), "seed {seed}, after {now:?}: {verdicts:?}");
    }
}

#[test]
fn the_directory_of_a_target_is_the_same_for_everybody_and_moves_little() {
    let members: Vec<BrokerId> = (0..50).map(|place| id(&format!("b{place}"))).collect();
    let mut reversed = members.clone();
    reversed.reverse();
    let mut moved = 0;
    for place in 0..200 {
        let target = format!("pc-{place}").parse().unwrap();
        let replicas = rendezvous(&target, &members, 3);
        assert_eq!(replicas.len(), 3);
        assert_eq!(rendezvous(&target, &reversed, 3), replicas);
        let left = rendezvous(&target, &members[1..], 3);
        moved += left.iter().filter(|broker| !replicas.contains(broker)).count();
    }
    assert!((1..40).contains(&moved), "one of fifty brokers left, {moved} of 600 entries moved");
}
