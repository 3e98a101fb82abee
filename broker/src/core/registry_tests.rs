//! Tests of the registry.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use rc_proto::wire::Incarnation;
use rc_proto::wire::codes::RegistrationRole;

use super::*;

type Sut = Registry<&'static str, mpsc::Sender<u32>, u32>;

fn target(name: &str) -> EndpointId {
    name.parse().unwrap()
}

fn claim(instance: u8, started_ms: u64, generation: u64, role: RegistrationRole) -> Claim {
    Claim { instance: InstanceId([instance; 16]), started_ms, generation: Generation(generation), role }
}

fn stands(outcome: Registering<&'static str, mpsc::Sender<u32>>) -> (usize, Vec<InstanceId>) {
    match outcome {
        Registering::Stands { woken, superseded, .. } => {
            (woken.len(), superseded.iter().map(|r| r.claim.instance).collect())
        }
        other @ (Registering::Superseded { .. } | Registering::Stale { .. } | Registering::Full) => {
            panic!("{other:?}")
        }
    }
}

const P: RegistrationRole = RegistrationRole::PRIMARY;
const S: RegistrationRole = RegistrationRole::STANDBY;
const R: RegistrationRole = RegistrationRole::RESUME;
const NOW: u64 = 1_000;

#[test]
fn an_open_that_arrives_with_the_registration_is_never_lost() {
    const ROUNDS: usize = 10_000;
    let registry = Arc::new(Sut::new());
    let barrier = Arc::new(Barrier::new(2));
    let found = Arc::new(AtomicUsize::new(0));
    let opener = {
        let (registry, barrier, found) = (Arc::clone(&registry), Arc::clone(&barrier), Arc::clone(&found));
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            for round in 0..ROUNDS {
                let target = target(&format!("t{round}"));
                let (wake, woken) = mpsc::channel();
                barrier.wait();
                match registry.find_or_park(&target, None, wake) {
                    Found::Here(_) => drop(found.fetch_add(1, Ordering::Relaxed)),
                    Found::Parked { .. } => waiting.push(woken),
                    Found::Full => panic!("full"),
                }
            }
            waiting
        })
    };
    for round in 0..ROUNDS {
        let target = target(&format!("t{round}"));
        barrier.wait();
        let outcome = registry.register(&target, claim(1, 1, 1, P), LinkId(1), "link", 0, NOW);
        if let Registering::Stands { woken, .. } = outcome {
            woken.into_iter().for_each(|wake| wake.send(1).unwrap());
        }
    }
    let waiting = opener.join().unwrap();
    assert_eq!(registry.registration_count(), ROUNDS);
    let woken = waiting.iter().filter(|woken| woken.try_recv().is_ok()).count();
    assert_eq!(woken, waiting.len());
    assert_eq!(found.load(Ordering::Relaxed) + woken, ROUNDS);
}

#[test]
fn of_ten_thousand_pairs_each_invited_leg_is_claimed_exactly_once() {
    let registry = Arc::new(Sut::new());
    let target = target("pc-1");
    registry.register(&target, claim(1, 1, 1, P), LinkId(1), "link", 0, NOW);
    let claimed = Arc::new(AtomicUsize::new(0));
    let barrier = Arc::new(Barrier::new(2));
    let rounds: usize = 10_000;
    let rival = {
        let (registry, target) = (Arc::clone(&registry), target.clone());
        let (claimed, barrier) = (Arc::clone(&claimed), Arc::clone(&barrier));
        std::thread::spawn(move || {
            for round in 0..rounds {
                barrier.wait();
                if registry.take_join(&target, path(round), &JoinSecret([7; 16])).is_some() {
                    claimed.fetch_add(1, Ordering::Relaxed);
                }
                barrier.wait();
            }
        })
    };
    for round in 0..rounds {
        assert!(registry.expect_join(&target, LinkId(1), path(round), JoinSecret([7; 16]), 1));
        barrier.wait();
        if registry.take_join(&target, path(round), &JoinSecret([7; 16])).is_some() {
            claimed.fetch_add(1, Ordering::Relaxed);
        }
        barrier.wait();
    }
    rival.join().unwrap();
    assert_eq!(claimed.load(Ordering::Relaxed), rounds);
}

fn path(number: usize) -> PathId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PathId(id)
}

#[test]
fn a_join_needs_its_identity_its_secret_and_works_once() {
    let registry = Sut::new();
    let (mine, other) = (target("pc-1"), target("pc-2"));
    registry.register(&mine, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW);
    registry.register(&other, claim(2, 1, 1, P), LinkId(2), "b", 0, NOW);
    assert!(registry.expect_join(&mine, LinkId(1), path(1), JoinSecret([1; 16]), 77));
    assert_eq!(registry.take_join(&other, path(1), &JoinSecret([1; 16])), None);
    assert_eq!(registry.take_join(&mine, path(1), &JoinSecret([2; 16])), None);
    assert_eq!(registry.take_join(&mine, path(2), &JoinSecret([1; 16])), None);
    assert_eq!(registry.take_join(&mine, path(1), &JoinSecret([1; 16])), Some(77));
    assert_eq!(registry.take_join(&mine, path(1), &JoinSecret([1; 16])), None);
}

#[test]
fn pending_joins_of_a_target_are_limited_to_eight() {
    let registry = Sut::new();
    let target = target("pc-1");
    registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW);
    for round in 0..limits::PENDING_JOINS_PER_TARGET_MAX {
        assert!(registry.expect_join(&target, LinkId(1), path(round), JoinSecret([1; 16]), 0), "{round}");
    }
    assert!(!registry.expect_join(&target, LinkId(1), path(99), JoinSecret([1; 16]), 0));
    registry.forget_join(&target, path(0));
    assert!(registry.expect_join(&target, LinkId(1), path(99), JoinSecret([1; 16]), 0));
}

#[test]
fn parked_opens_of_a_target_are_limited_to_eight() {
    let registry = Sut::new();
    let target = target("pc-1");
    let (wake, _woken) = mpsc::channel();
    let watch = || match registry.find_or_park(&target, None, wake.clone()) {
        Found::Parked { park, .. } => park,
        other @ (Found::Here(_) | Found::Full) => panic!("{other:?}"),
    };
    let parks: Vec<_> = (0..limits::PARKED_PER_TARGET_MAX + 1).map(|_| watch()).collect();
    let settled: Vec<_> = parks.iter().map(|park| registry.settle(&target, *park)).collect();
    assert!(settled[..8].iter().all(|settled| *settled == Settled::Waiting));
    assert_eq!(settled[8], Settled::Full);
    assert!(registry.unpark(&target, parks[0]).is_some());
    assert_eq!(registry.settle(&target, parks[8]), Settled::Waiting);
    assert_eq!(registry.settle(&target, parks[8]), Settled::Waiting);
}

#[test]
fn an_open_that_was_woken_before_it_waits_looks_again() {
    let registry = Sut::new();
    let target = target("pc-1");
    let (wake, _woken) = mpsc::channel();
    let Found::Parked { park, .. } = registry.find_or_park(&target, None, wake) else { panic!() };
    let (woken, _) = stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW));
    assert_eq!(woken, 1);
    assert_eq!(registry.settle(&target, park), Settled::Woken);
    assert!(registry.unpark(&target, park).is_none());
}

#[test]
fn an_identity_holds_at_most_two_registrations_here() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW));
    assert_eq!(
        stands(registry.register(&target, claim(2, 2, 1, P), LinkId(2), "b", 0, NOW)),
        (0, vec![InstanceId([1; 16])])
    );
    let third = registry.register(&target, claim(3, 3, 1, P), LinkId(3), "c", 0, NOW);
    let Registering::Stands { evicted: Some(evicted), superseded, .. } = third else { panic!("{third:?}") };
    assert_eq!((evicted.link, superseded[0].link), ("a", "b"));
    assert_eq!(registry.registration_count(), 2);
    assert_eq!(registry.find(&target, None).unwrap().link, "c");
    let oldest = registry.register(&target, claim(1, 1, 2, R), LinkId(4), "a again", 0, NOW);
    assert!(matches!(oldest, Registering::Full), "{oldest:?}");
    assert_eq!(registry.registration_count(), 2);
}

#[test]
fn a_superseded_instance_is_found_only_by_name() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "old", 0, NOW));
    stands(registry.register(&target, claim(2, 2, 1, P), LinkId(2), "new", 0, NOW));
    assert_eq!(registry.find(&target, None).unwrap().link, "new");
    assert_eq!(registry.find(&target, Some(InstanceId([1; 16]))).unwrap().link, "old");
    assert!(matches!(
        registry.register(&target, claim(1, 1, 2, P), LinkId(3), "old again", 0, NOW),
        Registering::Superseded { by } if by == InstanceId([2; 16])
    ));
}

#[test]
fn re_registering_before_the_old_link_was_noticed_keeps_the_new_one() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "old", 0, NOW));
    stands(registry.register(&target, claim(1, 1, 2, P), LinkId(2), "new", 0, NOW));
    assert!(registry.link_lost(&target, LinkId(1)).registrations.is_empty());
    assert_eq!(registry.find(&target, None).unwrap().link, "new");
    assert!(matches!(
        registry.register(&target, claim(1, 1, 1, P), LinkId(1), "late", 0, NOW),
        Registering::Stale { .. }
    ));
}

#[test]
fn a_lost_link_gives_its_pending_joins_back_and_leaves_nothing() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW));
    assert!(registry.expect_join(&target, LinkId(1), path(1), JoinSecret([1; 16]), 5));
    let departed = registry.link_lost(&target, LinkId(1));
    assert_eq!((departed.registrations.len(), departed.joins), (1, vec![5]));
    assert_eq!(registry.tracked_count(), 0);
    assert_eq!(registry.registration_count(), 0);
    assert!(!registry.expect_join(&target, LinkId(1), path(2), JoinSecret([1; 16]), 6));
    assert_eq!(registry.tracked_count(), 0);
}

#[test]
fn a_registration_over_a_new_link_gives_up_the_invites_of_the_old_one() {
    let registry: Registry<&'static str, mpsc::Sender<u32>, mpsc::Sender<u32>> = Registry::new();
    let target = target("pc-1");
    registry.register(&target, claim(1, 1, 1, P), LinkId(1), "old", 0, NOW);
    let (handover, joined) = mpsc::channel();
    assert!(registry.expect_join(&target, LinkId(1), path(1), JoinSecret([1; 16]), handover));
    let outcome = registry.register(&target, claim(1, 1, 2, P), LinkId(2), "new", 0, NOW);
    let Registering::Stands { replaced: Some(replaced), .. } = outcome else { panic!() };
    assert_eq!(replaced.link, "old");
    assert_eq!(joined.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    let (handover, _joined) = mpsc::channel();
    assert!(registry.expect_join(&target, LinkId(2), path(1), JoinSecret([1; 16]), handover));
}

fn hint(broker: &str, claim: Claim) -> Hint {
    Hint { broker: broker.parse().unwrap(), incarnation: Incarnation(1), claim, cost_us: 0 }
}

#[test]
fn an_announcement_wakes_a_parked_open_and_removal_compares_the_generation() {
    let registry = Sut::new();
    let target = target("pc-1");
    let (wake, _woken) = mpsc::channel();
    assert!(matches!(registry.find_or_park(&target, None, wake.clone()), Found::Parked { .. }));
    let hinted = registry.hint_came(&target, hint("us/b1", claim(1, 1, 2, P)), NOW);
    assert_eq!(hinted.woken.len(), 1);
    registry.hint_left(&target, &hint("us/b1", claim(1, 1, 1, P)));
    let Found::Parked { hints, park } = registry.find_or_park(&target, None, wake) else { panic!() };
    assert_eq!(hints.len(), 1);
    assert!(registry.unpark(&target, park).is_some());
    registry.hint_left(&target, &hint("us/b1", claim(1, 1, 2, P)));
    assert_eq!(registry.tracked_count(), 0);
}

#[test]
fn a_later_primary_elsewhere_ends_the_earlier_one_here_and_a_standby_stays() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW));
    registry.hint_came(&target, hint("us/b1", claim(1, 1, 2, S)), NOW);
    assert_eq!(registry.registration_count(), 1);
    registry.hint_came(&target, hint("us/b1", claim(1, 1, 3, P)), NOW);
    assert_eq!(registry.registration_count(), 0);
    registry.peer_lost(&"us/b1".parse().unwrap());
    assert_eq!(registry.tracked_count(), 0);
}

#[test]
fn a_later_instance_elsewhere_supersedes_the_one_here() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 1, P), LinkId(1), "a", 0, NOW));
    let hinted = registry.hint_came(&target, hint("us/b1", claim(2, 2, 1, P)), NOW);
    assert_eq!(hinted.superseded.len(), 1);
    assert!(registry.find(&target, None).is_none());
}

#[test]
fn an_older_generation_of_an_instance_does_not_replace_a_newer_one_in_another_role() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 5, P), LinkId(2), "new", 0, NOW));
    let late = registry.register(&target, claim(1, 1, 3, S), LinkId(1), "old", 0, NOW);
    assert!(matches!(late, Registering::Stale { .. }), "{late:?}");
    assert_eq!(registry.find(&target, None).unwrap().link, "new");
    stands(registry.register(&target, claim(1, 1, 6, S), LinkId(3), "newer", 0, NOW));
    assert_eq!((registry.registration_count(), registry.find(&target, None).unwrap().link), (1, "newer"));
}

#[test]
fn late_news_of_a_target_that_has_moved_on_is_not_believed() {
    let registry = Sut::new();
    let target = target("pc-1");
    stands(registry.register(&target, claim(1, 1, 4, P), LinkId(1), "a", 0, NOW));
    let hinted = registry.hint_came(&target, hint("us/b1", claim(1, 1, 3, P)), NOW);
    assert!(hinted.moved.is_empty());
    assert_eq!(registry.hints(&target, None).len(), 0);
    registry.hint_came(&target, hint("us/b2", claim(1, 1, 6, S)), NOW);
    registry.hint_came(&target, hint("us/b3", claim(1, 1, 5, S)), NOW);
    let brokers: Vec<_> = registry.hints(&target, None).iter().map(|hint| hint.broker.to_string()).collect();
    assert_eq!(brokers, ["us/b2"]);
}

#[test]
fn a_superseded_instance_elsewhere_is_found_only_by_name_whatever_comes_first() {
    for order in [[1, 2], [2, 1]] {
        let registry = Sut::new();
        let target = target("pc-1");
        for instance in order {
            let started = claim(instance, instance.into(), 1, P);
            registry.hint_came(&target, hint(&format!("us/b{instance}"), started), NOW);
        }
        let brokers = |instance| {
            let hints = registry.hints(&target, instance);
            hints.iter().map(|hint| hint.broker.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(brokers(None), ["us/b2"], "{order:?}");
        assert_eq!(brokers(Some(InstanceId([1; 16]))), ["us/b1"]);
    }
}

#[test]
fn a_target_that_moved_gives_up_its_invites_here() {
    let registry: Registry<&'static str, mpsc::Sender<u32>, mpsc::Sender<u32>> = Registry::new();
    let target = target("pc-1");
    registry.register(&target, claim(1, 1, 1, P), LinkId(1), "old", 0, NOW);
    let (handover, joined) = mpsc::channel();
    assert!(registry.expect_join(&target, LinkId(1), path(1), JoinSecret([1; 16]), handover));
    let hinted = registry.hint_came(&target, hint("us/b1", claim(1, 1, 2, P)), NOW);
    assert_eq!(hinted.moved.len(), 1);
    assert_eq!(joined.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn watches_of_a_target_and_what_others_said_of_it_are_bounded() {
    let registry = Sut::new();
    let target = target("pc-1");
    let (wake, _woken) = mpsc::channel();
    for number in 1..=WATCHES_PER_TARGET_MAX + 1 {
        let fits = matches!(registry.find_or_park(&target, None, wake.clone()), Found::Parked { .. });
        assert_eq!(fits, number <= WATCHES_PER_TARGET_MAX, "{number}");
    }
    for (number, kept) in (1_u8..=9).zip([1, 2, 3, 4, 5, 6, 7, 8, 8]) {
        registry.hint_came(&target, hint(&format!("us/b{number}"), claim(number, 1, 1, R)), NOW);
        assert_eq!(registry.everything(&target).1.len(), kept);
    }
}

#[path = "convergence_tests.rs"]
mod convergence;
