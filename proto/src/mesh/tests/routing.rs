use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{at, id, minutes, ms};
use crate::mesh::matrix::ROW_AGE_MAX;
use crate::mesh::route::{BROKERS_PER_SIDE_MAX, ROUTES_MAX};
use crate::mesh::{Matrix, PathMove, Route, RouteRequest};
use crate::wire::BrokerId;

fn matrix(pairs: &[(&str, &str, u64)]) -> Matrix {
    let mut matrix = Matrix::default();
    for (from, to, round_trip_ms) in pairs {
        matrix.observe(&id(from), &id(to), ms(*round_trip_ms), at(0));
    }
    matrix
}

fn side(scores: &[(&str, u64)]) -> Vec<(BrokerId, Duration)> {
    scores.iter().map(|(broker, score)| (id(broker), ms(*score))).collect()
}

fn cheapest(
    controller: &[(&str, u64)],
    target: &[(&str, u64)],
    matrix: &Matrix,
) -> Option<(Vec<String>, u64)> {
    let (controller, target) = (side(controller), side(target));
    let request = RouteRequest { controller: &controller, target: &target, avoid: &[] };
    let route = request.cheapest(matrix, |_| 0, at(0))?;
    let names = route.brokers.iter().map(|broker| broker.id().to_owned()).collect();
    Some((names, u64::try_from(route.cost.as_millis()).unwrap()))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn both_ends_on_one_broker_need_no_mesh() {
    let found = cheapest(&[("a", 10), ("b", 30)], &[("a", 20), ("b", 5)], &matrix(&[("a", "b", 40)]));
    assert_eq!(found, Some((names(&["a"]), 32)), "10 + 20 + 2");
}

#[test]
fn two_brokers_are_used_where_the_mesh_is_faster() {
    let found = cheapest(&[("a", 10), ("b", 200)], &[("b", 10), ("a", 200)], &matrix(&[("a", "b", 40)]));
    assert_eq!(found, Some((names(&["a", "b"]), 64)), "10 + 40 + 10 + 2 · 2");
}

#[test]
fn a_third_broker_stands_in_between_where_the_detour_is_faster_by_more_than_it_costs() {
    for (direct, expected) in
        [(100, names(&["a", "m", "b"])), (62, names(&["a", "b"])), (63, names(&["a", "m", "b"]))]
    {
        let matrix = matrix(&[("a", "b", direct), ("a", "m", 30), ("m", "b", 30)]);
        let found = cheapest(&[("a", 10)], &[("b", 10)], &matrix).unwrap();
        assert_eq!(found.0, expected, "direct {direct}");
    }
}

#[test]
fn a_detour_is_a_way_even_where_the_direct_one_is_not_known() {
    let found = cheapest(&[("a", 1)], &[("b", 1)], &matrix(&[("a", "m", 5), ("m", "b", 5)]));
    assert_eq!(found, Some((names(&["a", "m", "b"]), 18)));
    assert_eq!(cheapest(&[("a", 1)], &[("b", 1)], &Matrix::default()), None);
}

#[test]
fn load_makes_a_broker_dearer() {
    let (controller, target) = (side(&[("a", 10), ("b", 12)]), side(&[("a", 10), ("b", 12)]));
    let request = RouteRequest { controller: &controller, target: &target, avoid: &[] };
    let route = |load_of_a: u16| {
        let load = |broker: &BrokerId| if *broker == id("a") { load_of_a } else { 0 };
        request.cheapest(&Matrix::default(), load, at(0)).unwrap()
    };
    assert_eq!(route(390).brokers, [id("a")]);
    assert_eq!(route(410).brokers, [id("b")]);
    assert_eq!(route(0).cost, ms(22));
}

#[test]
fn no_route_touches_an_avoided_broker() {
    let matrix = matrix(&[("a", "b", 10), ("a", "m", 1), ("m", "b", 1)]);
    let (controller, target) = (side(&[("a", 1), ("b", 50)]), side(&[("b", 1)]));
    let avoid = [id("m")];
    let request = RouteRequest { controller: &controller, target: &target, avoid: &avoid };
    assert_eq!(request.cheapest(&matrix, |_| 0, at(0)).unwrap().brokers, [id("a"), id("b")]);
    let avoid = [id("m"), id("a")];
    let request = RouteRequest { avoid: &avoid, ..request };
    assert_eq!(request.cheapest(&matrix, |_| 0, at(0)).unwrap().brokers, [id("b")]);
}

#[test]
fn a_route_names_what_comes_after_the_ingress() {
    let route = Route { cost: ms(1), brokers: vec![id("a"), id("m"), id("b")] };
    assert_eq!((route.ingress(), route.egress()), (Some(&id("a")), Some(&id("b"))));
    assert_eq!(route.after_ingress(), [id("m"), id("b")]);
    let one = Route { cost: ms(1), brokers: vec![id("a")] };
    assert_eq!(one.after_ingress(), []);
}

/// On random meshes the ranking's first route is what an exhaustive search over one to three brokers finds.
#[test]
fn the_cheapest_route_is_the_one_that_exhaustive_search_finds() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let all: Vec<BrokerId> = (0..7).map(|place| id(&format!("b{place}"))).collect();
        let mut matrix = Matrix::default();
        for (place, one) in all.iter().enumerate() {
            for other in &all[place + 1..] {
                if rng.random_bool(0.8) {
                    matrix.observe(one, other, ms(rng.random_range(1..200)), at(0));
                }
            }
        }
        let mut some = || -> Vec<(BrokerId, Duration)> {
            (0..4).map(|_| (all[rng.random_range(0..7)].clone(), ms(rng.random_range(1..200)))).collect()
        };
        let (controller, target) = (some(), some());
        let request = RouteRequest { controller: &controller, target: &target, avoid: &[] };
        let found = request.ranked(&matrix, |_| 0, at(0));
        let best = exhaustive(&all, &controller, &target, &matrix);
        assert_eq!(found.first().map(|route| route.cost), best, "seed {seed}");
        assert!(found.len() <= ROUTES_MAX && found.is_sorted());
        for route in &found {
            let mut brokers = route.brokers.clone();
            brokers.dedup();
            assert!((1..=3).contains(&route.brokers.len()) && brokers.len() == route.brokers.len());
        }
    }
}

fn exhaustive(
    all: &[BrokerId],
    controller: &[(BrokerId, Duration)],
    target: &[(BrokerId, Duration)],
    matrix: &Matrix,
) -> Option<Duration> {
    let score = |side: &[(BrokerId, Duration)], broker| {
        side.iter().filter(|(found, _)| found == broker).map(|(_, score)| *score).min()
    };
    let mesh = |one, other| matrix.round_trip(one, other, at(0));
    let mut costs = Vec::new();
    for first in all {
        for last in all {
            let Some(ends) = score(controller, first).zip(score(target, last)).map(|(c, t)| c + t) else {
                continue;
            };
            if first == last {
                costs.push(ends + ms(2));
                continue;
            }
            costs.extend(mesh(first, last).map(|direct| ends + direct + ms(4)));
            for middle in all.iter().filter(|middle| *middle != first && *middle != last) {
                let detour = mesh(first, middle).zip(mesh(middle, last));
                costs.extend(detour.map(|(one, other)| ends + one + other + ms(6)));
            }
        }
    }
    costs.into_iter().min()
}

#[test]
fn only_the_nearest_brokers_of_a_side_are_looked_at() {
    let many: Vec<(BrokerId, Duration)> =
        (0..20_u64).map(|place| (id(&format!("b{place}")), ms(100 - place))).collect();
    let only_far = [(id("b0"), ms(1))];
    let request = RouteRequest { controller: &many, target: &only_far, avoid: &[] };
    assert_eq!(request.cheapest(&Matrix::default(), |_| 0, at(0)), None, "b0 is not among the nearest");
    let near = [(id(&format!("b{}", 20 - BROKERS_PER_SIDE_MAX)), ms(1))];
    let request = RouteRequest { target: &near, ..request };
    assert!(request.cheapest(&Matrix::default(), |_| 0, at(0)).is_some());
}

#[test]
fn of_two_measurements_of_a_pair_the_larger_counts() {
    let mut matrix = Matrix::default();
    matrix.handle_row(&id("a"), &[(id("b"), 1)], at(0));
    matrix.handle_row(&id("b"), &[(id("a"), 40_000)], at(0));
    assert_eq!(matrix.round_trip(&id("a"), &id("b"), at(0)), Some(ms(40)));
    assert_eq!(matrix.round_trip(&id("a"), &id("a"), at(0)), Some(Duration::ZERO));
}

#[test]
fn a_row_replaces_the_one_before_and_does_not_last() {
    let mut matrix = Matrix::default();
    matrix.handle_row(&id("a"), &[(id("b"), 1000), (id("c"), 1000)], at(0));
    matrix.handle_row(&id("a"), &[(id("b"), 2000)], at(1));
    assert_eq!(matrix.round_trip(&id("a"), &id("b"), at(1)), Some(ms(2)));
    assert_eq!(matrix.round_trip(&id("a"), &id("c"), at(1)), None);
    assert!(matrix.round_trip(&id("a"), &id("b"), at(1) + ROW_AGE_MAX).is_some());
    assert_eq!(matrix.round_trip(&id("a"), &id("b"), at(2) + ROW_AGE_MAX), None);
    matrix.forget(&id("b"));
    assert_eq!(matrix.brokers(at(1)), [id("a")]);
}

#[test]
fn the_matrix_is_bounded_whatever_peers_say() {
    let mut matrix = Matrix::default();
    let row: Vec<(BrokerId, u32)> = (0..3000).map(|place| (id(&format!("x{place}")), 1)).collect();
    for place in 0..300_u64 {
        matrix.handle_row(&id(&format!("b{place}")), &row, at(place));
    }
    assert!(matrix.brokers(at(300)).len() <= 256 + 1024);
    assert_eq!(matrix.round_trip(&id("b0"), &id("x0"), at(300)), None, "the oldest rows went");
    assert!(matrix.round_trip(&id("b299"), &id("x0"), at(300)).is_some());
}

#[test]
fn the_first_move_needs_more_than_10_ms_and_10_percent_twice_running() {
    for (current, best, moves) in
        [(50, 40, false), (50, 39, true), (200, 180, false), (200, 179, true), (50, 60, false)]
    {
        let mut mover = PathMove::new(at(0));
        assert!(!mover.handle_round(ms(current), ms(best), at(1)));
        assert_eq!(mover.handle_round(ms(current), ms(best), at(2)), moves, "{current} to {best}");
    }
    let mut mover = PathMove::new(at(0));
    assert!(!mover.handle_round(ms(50), ms(10), at(1)));
    assert!(!mover.handle_round(ms(50), ms(45), at(2)));
    assert!(!mover.handle_round(ms(50), ms(10), at(3)), "the count starts again");
}

#[test]
fn later_moves_need_a_third_three_times_and_ten_minutes() {
    for (best, moves) in [(40, true), (41, false)] {
        let mut mover = PathMove::new(at(0));
        mover.handle_moved(minutes(1));
        let verdicts: Vec<bool> =
            (8..=12).map(|minute| mover.handle_round(ms(60), ms(best), minutes(minute))).collect();
        assert_eq!(verdicts, [false, false, false, moves, moves], "60 to {best}");
    }
}
