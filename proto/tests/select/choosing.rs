//! Who is chosen: eligibility, the window, the two draws, the record.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rc_proto::select::choose::STANDINGS_MAX;
use rc_proto::select::{Ejections, Relaxation, Request, Rule, Sample, Standings, Trigger, Verdict};
use rc_proto::wire::BrokerId;

use crate::world::{Broker, Jitter, at, broker_id, choose, first_choice, measured, ms};

fn some_broker(place: usize, rng: &mut SmallRng) -> Broker {
    let mut broker = Broker::new(&format!("r/b{place}"), ms(rng.random_range(1..300)));
    broker.load = rng.random_range(0..=1000);
    broker.accepting = rng.random_bool(0.7);
    broker.drain = rng.random_bool(0.2).then(|| ms(30_000));
    broker.mesh_healthy = rng.random_bool(0.7);
    broker
}

#[test]
fn an_ineligible_broker_is_never_chosen_while_an_eligible_one_exists() {
    let mut rng = SmallRng::seed_from_u64(3);
    let (mut with, mut without) = (0, 0);
    for _ in 0..20_000 {
        let count = rng.random_range(1..10);
        let brokers: Vec<Broker> = (0..count).map(|place| some_broker(place, &mut rng)).collect();
        let samples = rng.random_range(0..8);
        let standings = measured(&brokers, samples, at(0), &mut rng);
        let choice = choose(&standings, at(0), &mut rng);
        let chosen = choice.chosen.expect("somebody is always chosen");
        let chosen = brokers.iter().find(|broker| broker.id == chosen).unwrap();
        if brokers.iter().any(Broker::is_eligible) {
            assert!(chosen.is_eligible(), "{chosen:?} among {brokers:?}");
            with += 1;
        } else {
            without += 1;
        }
    }
    assert!(with > 1000 && without > 1000, "both cases are covered: {with}, {without}");
}

#[test]
fn an_ejected_broker_is_never_chosen_while_another_one_exists() {
    let mut rng = SmallRng::seed_from_u64(4);
    let brokers = [Broker::new("r/fast", ms(5)), Broker::new("r/slow", ms(200))];
    let standings = measured(&brokers, 5, at(0), &mut rng);
    let mut ejections = Ejections::default();
    assert!(ejections.handle_dead_link(&brokers[0].id, 2, at(0)));
    let request = Request { trigger: Trigger::Start, avoid: &[], only: None };
    for _ in 0..100 {
        let choice = standings.choose(&request, &ejections, at(0), &mut rng);
        assert_eq!(choice.chosen, Some(brokers[1].id.clone()));
    }
    assert_eq!(
        standings.ranked(&ejections, &[], at(0)),
        [brokers[1].id.clone(), brokers[0].id.clone()],
        "an ejected broker is the last resort"
    );
}

#[test]
fn what_is_ignored_when_nobody_is_left_has_an_order() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut unhealthy = Broker::new("r/unhealthy", ms(50));
    unhealthy.mesh_healthy = false;
    let mut full = Broker::new("r/full", ms(40));
    full.load = 950;
    let mut draining = Broker::new("r/draining", ms(20));
    draining.drain = Some(ms(1000));
    let mut closed = Broker::new("r/closed", ms(10));
    closed.accepting = false;

    let steps = [
        (
            vec![unhealthy.clone(), full.clone(), draining.clone(), closed.clone()],
            "r/unhealthy",
            Relaxation::MeshHealth,
        ),
        (vec![full.clone(), draining.clone(), closed.clone()], "r/full", Relaxation::Load),
        (
            vec![draining.clone(), Broker { base: ms(200), ..closed.clone() }],
            "r/draining",
            Relaxation::Draining,
        ),
    ];
    for (brokers, expected, relaxed) in steps {
        let standings = measured(&brokers, 5, at(0), &mut rng);
        let choice = choose(&standings, at(0), &mut rng);
        assert_eq!((choice.chosen, choice.relaxed), (Some(broker_id(expected)), relaxed));
    }
}

#[test]
fn a_state_older_than_30_s_is_not_believed() {
    let mut rng = SmallRng::seed_from_u64(6);
    let old = Broker::new("r/old", ms(5));
    let fresh = Broker::new("r/fresh", ms(100));
    let mut standings = measured(std::slice::from_ref(&old), 5, at(0), &mut rng);
    for (now, expected, relaxed) in
        [(30_000, "r/old", Relaxation::Nothing), (30_001, "r/old", Relaxation::Staleness)]
    {
        let choice = choose(&standings, at(now), &mut rng);
        assert_eq!((choice.chosen, choice.relaxed), (Some(broker_id(expected)), relaxed), "{now}");
    }
    standings.observe(fresh.state(at(30_001)), None);
    let choice = choose(&standings, at(30_001), &mut rng);
    assert_eq!(choice.chosen, Some(fresh.id), "one that answered lately comes first");
}

#[test]
fn load_thins_out_in_proportion_between_the_two_marks() {
    let mut rng = SmallRng::seed_from_u64(7);
    for (load, lowest, highest) in [(750, 0, 0), (850, 400, 600), (949, 960, 1000)] {
        let mut loaded = Broker::new("r/loaded", ms(5));
        loaded.load = load;
        let other = Broker::new("r/other", ms(200));
        let standings = measured(&[loaded, other], 5, at(0), &mut rng);
        let thinned = (0..1000)
            .filter(|_| {
                let choice = choose(&standings, at(0), &mut rng);
                choice.brokers.iter().any(|row| row.verdict == Verdict::ThinnedOut)
            })
            .count();
        assert!((lowest..=highest).contains(&thinned), "load {load}: {thinned} of 1000");
    }
}

#[test]
fn the_window_is_fifteen_percent_held_between_10_and_25_ms() {
    let standings = |base, other| {
        let mut rng = SmallRng::seed_from_u64(8);
        let steady =
            |id, at_ms| Broker { jitter: Jitter::Uniform(Duration::ZERO), ..Broker::new(id, ms(at_ms)) };
        measured(&[steady("r/near", base), steady("r/far", other)], 5, at(0), &mut rng)
    };
    for (base, inside, outside) in [(20, 30, 31), (100, 115, 116), (400, 425, 426)] {
        for (other, is_inside) in [(inside, true), (outside, false)] {
            let choice = choose(&standings(base, other), at(0), &mut SmallRng::seed_from_u64(9));
            let far = choice.brokers.iter().find(|row| row.broker == broker_id("r/far")).unwrap();
            assert_eq!(far.verdict != Verdict::OutsideWindow, is_inside, "{base} against {other}");
            let rule = if is_inside { Rule::LowerScore } else { Rule::AloneInWindow };
            assert_eq!(choice.rule, rule);
        }
    }
}

#[test]
fn of_two_drawn_the_load_decides_from_a_difference_of_five_percent() {
    for (far_load, expected) in [(451, Rule::LowerScore), (450, Rule::LowerLoad), (0, Rule::LowerLoad)] {
        let mut rng = SmallRng::seed_from_u64(10);
        let near = Broker { load: 500, ..Broker::new("r/near", ms(20)) };
        let far = Broker { load: far_load, ..Broker::new("r/far", ms(24)) };
        let standings = measured(&[near.clone(), far.clone()], 5, at(0), &mut rng);
        let choice = choose(&standings, at(0), &mut rng);
        let winner = if expected == Rule::LowerLoad { far.id } else { near.id };
        assert_eq!((choice.rule, choice.chosen), (expected, Some(winner)), "{far_load}");
    }
}

#[test]
fn twenty_thousand_clients_spread_over_eight_equal_brokers() {
    let mut rng = SmallRng::seed_from_u64(11);
    let mut brokers: Vec<Broker> = (0..8).map(|place| Broker::new(&format!("r/b{place}"), ms(20))).collect();
    let mut clients: BTreeMap<BrokerId, u32> = BTreeMap::new();
    for _ in 0..20_000 {
        let found = first_choice(&brokers, at(0), &mut rng);
        *clients.entry(found.choice.chosen.unwrap()).or_default() += 1;
        for broker in &mut brokers {
            let carried = clients.get(&broker.id).copied().unwrap_or(0);
            broker.load = u16::try_from(carried * 1000 / 4000).unwrap();
        }
    }
    let most = f64::from(*clients.values().max().unwrap());
    let ratio = most / (20_000.0 / 8.0);
    println!("max/mean load {ratio:.3}");
    assert_eq!(clients.len(), 8);
    assert!(ratio <= 1.2, "{clients:?}");
}

/// The brokers tell a load that is a minute old, so a thousand clients choose on the same numbers.
#[test]
fn clients_that_choose_on_the_same_old_loads_still_spread() {
    let mut rng = SmallRng::seed_from_u64(12);
    let mut brokers: Vec<Broker> = (0..8).map(|place| Broker::new(&format!("r/b{place}"), ms(20))).collect();
    let mut clients = [0_u32; 8];
    for round in 0..20_000 {
        if round % 1000 == 0 {
            for (broker, carried) in brokers.iter_mut().zip(&clients) {
                broker.load = u16::try_from(carried * 1000 / 4000).unwrap();
            }
        }
        let standings = measured(&brokers, 5, at(0), &mut rng);
        let chosen = choose(&standings, at(0), &mut rng).chosen.unwrap();
        clients[brokers.iter().position(|broker| broker.id == chosen).unwrap()] += 1;
    }
    let ratio = f64::from(*clients.iter().max().unwrap()) / 2500.0;
    println!("max/mean load {ratio:.3}");
    assert!(ratio <= 1.2, "{clients:?}");
}

/// The nearer path by its minimum varies by tens of ms; the steady one is the right one.
#[test]
fn the_steady_path_is_preferred_to_the_jittery_one() {
    let mut rng = SmallRng::seed_from_u64(13);
    let jittery = Broker { jitter: Jitter::Uniform(ms(50)), ..Broker::new("r/jittery", ms(18)) };
    let steady = Broker { jitter: Jitter::Uniform(ms(3)), ..Broker::new("r/steady", ms(28)) };
    let (mut right, mut right_by_minimum) = (0, 0);
    for trial in 0..2000 {
        let brokers = if trial % 2 == 0 {
            [jittery.clone(), steady.clone()]
        } else {
            [steady.clone(), jittery.clone()]
        };
        let found = first_choice(&brokers, at(0), &mut rng);
        right += u32::from(found.choice.chosen == Some(steady.id.clone()));
        let lowest = |id| {
            found.standings.standing(id).and_then(|s| s.samples.fresh(found.now).map(|x| x.round_trip).min())
        };
        right_by_minimum += u32::from(lowest(&steady.id) < lowest(&jittery.id));
    }
    println!("right: {right} of 2000, by the minimum {right_by_minimum}");
    assert!(right >= 1400, "{right} of 2000");
    assert!(right > 2 * right_by_minimum, "the case is one that misleads a minimum: {right_by_minimum}");
}

#[test]
fn the_record_names_every_broker_with_its_verdict_and_the_failed_dials() {
    let mut rng = SmallRng::seed_from_u64(14);
    let mut draining = Broker::new("eu/draining", ms(10));
    draining.drain = Some(ms(5000));
    let dead = Broker { dead: true, ..Broker::new("eu/dead", ms(10)) };
    let brokers = [dead, draining, Broker::new("eu/good", ms(12)), Broker::new("us/far", ms(100))];
    let found = first_choice(&brokers, at(0), &mut rng);
    let json = serde_json::to_value(&found.choice).unwrap();
    assert_eq!(json["chosen"], "eu/good");
    assert_eq!(json["rule"], "alone-in-window");
    assert_eq!(json["relaxed"], "nothing");
    let verdicts: Vec<_> =
        found.choice.brokers.iter().map(|r| (r.broker.to_string(), r.verdict.name())).collect();
    assert_eq!(
        verdicts,
        [
            ("eu/draining".to_owned(), "draining"),
            ("eu/good".to_owned(), "chosen"),
            ("us/far".to_owned(), "outside-window")
        ]
    );
    assert_eq!(json["dialled"][0]["failure"], "abandoned");
    assert_eq!(json["brokers"][1]["samples_ms"].as_array().unwrap().len(), 5);
    let table = found.choice.table();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("BROKER") && lines[0].contains("VERDICT"), "{table}");
    assert!(lines[2].starts_with("*  eu/good"), "{table}");
    assert!(table.contains("192.0.2.0:443 failed: abandoned"), "{table}");
    assert!(table.trim_end().ends_with("eu/good: no other broker is about as near"), "{table}");
    let verdict_column = lines[0].find("VERDICT").unwrap();
    assert!(lines[1..4].iter().all(|line| line.chars().nth(verdict_column - 1) == Some(' ')), "{table}");
}

#[test]
fn nothing_known_is_a_choice_too() {
    let choice = choose(&Standings::default(), at(0), &mut SmallRng::seed_from_u64(15));
    assert_eq!((choice.chosen.clone(), choice.rule), (None, Rule::NoBroker));
    assert!(choice.table().contains("no broker is known"));
}

#[test]
fn standings_keep_only_so_many_brokers_and_forget_the_stalest() {
    let mut standings = Standings::default();
    for place in 0..STANDINGS_MAX + 10 {
        let now = at(u64::try_from(place).unwrap());
        standings.observe(Broker::new(&format!("r/b{place}"), ms(1)).state(now), None);
    }
    assert_eq!(standings.iter().count(), STANDINGS_MAX);
    assert!(standings.standing(&broker_id("r/b9")).is_none());
    assert!(standings.standing(&broker_id("r/b10")).is_some());
    let unknown = broker_id("r/unknown");
    standings.add_sample(&unknown, Sample { round_trip: ms(1), at: at(0), lost: false });
    assert!(standings.standing(&unknown).is_none(), "samples alone make no broker known");
}
