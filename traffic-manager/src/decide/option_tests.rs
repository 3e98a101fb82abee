//! What goes beyond Azure, explanations, and what holds whatever the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::EndpointStatus::{CheckingEndpoint, Degraded, Disabled, Inactive, Online, Stopped, Unmonitored};
use super::*;

fn address(n: usize) -> IpAddr {
    format!("203.0.113.{n}").parse().unwrap()
}

fn profile(method: Method, count: usize) -> Profile {
    let endpoints =
        (0..count).map(|at| Endpoint::new(EndpointIndex(at), format!("e{at}"), Target::Address(address(at))));
    let ttl = Ttl::from_seconds(60).unwrap();
    Profile::new("p.tm.test".parse().unwrap(), method, ttl, endpoints.collect())
}

fn multi_value(max_return: usize, count: usize) -> Profile {
    profile(Method::MultiValue { max_return: MaxReturn::new(max_return).unwrap() }, count)
}

fn ask_from(profile: &Profile, observed: &[Health], source: &str, seed: u64) -> Answer {
    let profiles = std::slice::from_ref(profile);
    let snapshot = Snapshot::of(profiles, observed, &Directives::default());
    let asker = Asker { asked: AskedType::A, source: source.parse().unwrap(), subnet: None };
    let view = View { profiles, snapshot: &snapshot, maps: &Maps::default() };
    decide(&view, 0, &asker, &mut StdRng::seed_from_u64(seed)).answer
}

fn ask(profile: &Profile, observed: &[Health], seed: u64) -> Answer {
    ask_from(profile, observed, "198.51.100.1", seed)
}

fn addresses(answer: Answer) -> Vec<IpAddr> {
    let Answer::Addresses(found) = answer else { panic!("addresses, not {answer}") };
    found
}

fn loads(loads: &[u16]) -> Vec<Health> {
    loads.iter().map(|load| Health { load: *load, ..Health::with_status(Online) }).collect()
}

/// How often each endpoint comes in 4000 answers.
fn counts(profile: &Profile, observed: &[Health]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for seed in 0..4000 {
        if let Answer::Addresses(found) = ask(profile, observed, seed) {
            for address in found {
                *counts.entry(address).or_insert(0) += 1;
            }
        }
    }
    counts
}

#[test]
fn a_loaded_endpoint_is_shed_between_the_marks_and_out_above_them() {
    let mut profile = multi_value(10, 3);
    profile.options.draw.by_load = Some(Watermarks { low: 750, high: 950 });
    let found = counts(&profile, &loads(&[100, 850, 950]));
    assert_eq!((found.get(&address(0)), found.get(&address(2))), (Some(&4000), None));
    // Half way between the marks: half of 4000, four standard deviations are 126.
    assert!((1874..=2126).contains(&found[&address(1)]), "{found:?}");
}

#[test]
fn when_all_are_above_the_mark_load_is_not_looked_at() {
    let mut profile = multi_value(10, 3);
    profile.options.draw.by_load = Some(Watermarks { low: 750, high: 950 });
    let Answer::Addresses(found) = ask(&profile, &loads(&[960, 970, 1000]), 1) else { panic!("an answer") };
    assert_eq!(found.len(), 3);
}

#[test]
fn with_marks_an_endpoint_is_drawn_by_its_free_capacity() {
    let mut profile = multi_value(1, 2);
    profile.options.draw.by_load = Some(Watermarks { low: 900, high: 950 });
    let found = counts(&profile, &loads(&[0, 750]));
    // 1000 to 250: a fifth of 4000, four standard deviations are 101.
    assert!((699..=901).contains(&found[&address(1)]), "{found:?}");
}

#[test]
fn weighted_multi_value_draws_by_weight_and_only_when_asked_to() {
    let endpoints = (0..2).map(|at| {
        let endpoint = Endpoint::new(EndpointIndex(at), format!("e{at}"), Target::Address(address(at)));
        Endpoint { weight: if at == 0 { 3 } else { 1 }, ..endpoint }
    });
    let method = Method::MultiValue { max_return: MaxReturn::new(1).unwrap() };
    let ttl = Ttl::from_seconds(60).unwrap();
    let mut profile = Profile::new("p.tm.test".parse().unwrap(), method, ttl, endpoints.collect());
    let even = counts(&profile, &loads(&[0, 0]))[&address(1)];
    assert!((1874..=2126).contains(&even), "{even}");
    profile.options.draw.by_weight = true;
    let quarter = counts(&profile, &loads(&[0, 0]))[&address(1)];
    assert!((890..=1110).contains(&quarter), "{quarter}");
}

#[test]
fn a_network_sees_always_the_same_subset_and_another_network_another() {
    let mut profile = multi_value(2, 20);
    profile.options.draw.subset = Some(3);
    let all = loads(&[0; 20]);
    let seen = |source: &str, observed: &[Health]| -> BTreeSet<IpAddr> {
        let answers = (0..100).map(|seed| ask_from(&profile, observed, source, seed));
        answers.flat_map(addresses).collect()
    };
    let first = seen("198.51.100.1", &all);
    assert_eq!((first.len(), first.clone()), (3, seen("198.51.100.200", &all)));
    let networks: BTreeSet<BTreeSet<IpAddr>> =
        (0..20).map(|n| seen(&format!("198.51.{n}.1"), &all)).collect();
    assert!(networks.len() >= 15, "{} distinct subsets", networks.len());
    // A fault inside the subset leaves the rest of it; the loss of all of it opens the others.
    let mut observed = all.clone();
    let at = |address: &IpAddr| (0..20).find(|n| *address == super::option_tests::address(*n)).unwrap();
    let victims: Vec<usize> = first.iter().map(at).collect();
    observed[victims[0]] = Health::with_status(Degraded);
    assert_eq!(seen("198.51.100.1", &observed).len(), 2);
    for victim in victims {
        observed[victim] = Health::with_status(Degraded);
    }
    assert_eq!(seen("198.51.100.1", &observed).len(), 17);
}

#[test]
fn with_too_few_available_endpoints_all_are_used() {
    let mut profile = multi_value(10, 4);
    profile.options.min_healthy_per_mille = 500;
    let observed = |up: usize| -> Vec<Health> {
        (0..4).map(|at| Health::with_status(if at < up { Online } else { Degraded })).collect()
    };
    let answered = |up: usize| addresses(ask(&profile, &observed(up), 1)).len();
    assert_eq!([answered(3), answered(2), answered(1), answered(0)], [3, 2, 4, 4]);
}

#[test]
fn the_answer_when_all_are_down_is_as_configured() {
    let down = vec![Health::with_status(Degraded); 2];
    for method in [Method::Priority, Method::Weighted, Method::Performance, Method::Subnet] {
        let mut profile = profile(method, 2);
        assert!(matches!(ask(&profile, &down, 1), Answer::Addresses(_)), "{}", method.name());
        for (all_down, expected) in [
            (AllDown::NoData, Answer::NoData),
            (AllDown::NameError, Answer::NameError),
            (AllDown::Address(address(99)), Answer::Addresses(vec![address(99)])),
            (AllDown::Address("2001:db8::1".parse().unwrap()), Answer::NoData),
            (AllDown::Name("sorry.test".parse().unwrap()), Answer::Name("sorry.test".parse().unwrap())),
        ] {
            profile.options.all_down = all_down;
            assert_eq!(ask(&profile, &down, 1), expected, "{}", method.name());
        }
    }
}

#[test]
fn a_drained_endpoint_is_left_at_once_whatever_the_method_and_through_nesting() {
    let drained = |profiles: &[Profile], maps: &Maps| {
        let mut directives = Directives::default();
        directives.set("p.tm.test".parse().unwrap(), "e0", Directive::Drain);
        let observed = vec![Health::with_status(Online); 3];
        let snapshot = Snapshot::of(profiles, &observed, &directives);
        let asker = Asker { asked: AskedType::A, source: "198.51.100.1".parse().unwrap(), subnet: None };
        let view = View { profiles, snapshot: &snapshot, maps };
        decide(&view, profiles.len() - 1, &asker, &mut StdRng::seed_from_u64(3)).answer
    };
    let second = Answer::Addresses(vec![address(1)]);
    let multi = Method::MultiValue { max_return: MaxReturn::DEFAULT };
    for method in [Method::Priority, Method::Weighted, Method::Performance, multi] {
        assert_eq!(drained(&[profile(method, 2)], &Maps::default()), second, "{}", method.name());
    }
    // Geographic: the next larger region that is mapped.
    let mut endpoints: Vec<Endpoint> = profile(Method::Geographic, 2).endpoints().to_vec();
    endpoints[0].regions = vec!["IE".parse().unwrap()];
    endpoints[1].regions = vec!["WORLD".parse().unwrap()];
    let ttl = Ttl::from_seconds(60).unwrap();
    let geographic = Profile::new("p.tm.test".parse().unwrap(), Method::Geographic, ttl, endpoints);
    let ireland = [("198.51.100.0/24".parse().unwrap(), "IE".parse().unwrap())];
    let maps = Maps { geography: Geography::Table(ireland.into_iter().collect()), ..Maps::default() };
    assert_eq!(drained(&[geographic], &maps), second);
    // A child whose only endpoint drains is left by its parent.
    let nested = Target::Nested { profile: 0, minimum: MinimumChildren::DEFAULT };
    let parent = vec![
        Endpoint::new(EndpointIndex(1), "n", nested),
        Endpoint::new(EndpointIndex(2), "alone", Target::Address(address(1))),
    ];
    let parent = Profile::new("parent.tm.test".parse().unwrap(), Method::Priority, ttl, parent);
    assert_eq!(drained(&[profile(Method::Priority, 1), parent], &Maps::default()), second);
}

#[test]
fn an_explanation_names_each_step_and_comes_to_the_same_answer() {
    let profiles = [profile(Method::Priority, 3)];
    let observed = [Degraded, Online, Online].map(Health::with_status);
    let snapshot = Snapshot::of(&profiles, &observed, &Directives::default());
    let asker = Asker { asked: AskedType::A, source: "198.51.100.1".parse().unwrap(), subnet: None };
    let view = View { profiles: &profiles, snapshot: &snapshot, maps: &Maps::default() };
    let (decision, steps) = explain(&view, 0, &asker, &mut StdRng::seed_from_u64(1));
    assert_eq!(decision, decide(&view, 0, &asker, &mut StdRng::seed_from_u64(1)));
    let texts: Vec<&str> = steps.iter().map(|step| step.found.as_str()).collect();
    assert_eq!(
        texts,
        [
            "Priority profile, Degraded",
            "may be named: e1 (Online), e2 (Online)",
            "e1 has the lowest priority, 1",
        ]
    );
}

fn any_health() -> impl Strategy<Value = Health> {
    let statuses = [Online, Degraded, CheckingEndpoint, Disabled, Inactive, Stopped, Unmonitored];
    (prop::sample::select(statuses.to_vec()), any::<bool>(), any::<bool>(), 0_u16..=1000)
        .prop_map(|(status, accepting, mesh_healthy, load)| Health { status, accepting, mesh_healthy, load })
}

fn any_method() -> impl Strategy<Value = Method> {
    let multi = Method::MultiValue { max_return: MaxReturn::new(3).unwrap() };
    prop::sample::select(vec![Method::Priority, Method::Weighted, Method::Performance, Method::Subnet, multi])
}

proptest! {
    #[test]
    fn whatever_the_method_nesting_and_options_no_ineligible_endpoint_is_named_while_an_eligible_one_exists(
        methods in (any_method(), any_method()),
        healths in prop::collection::vec(any_health(), 6),
        by_weight in any::<bool>(),
        by_load in any::<bool>(),
        subset in prop::option::of(1_usize..4),
        seed in any::<u64>(),
    ) {
        // A child with endpoints 0 to 2; a parent with 3 to 4 and, unless it is MultiValue, the child.
        let (of_child, of_parent) = methods;
        let leaf = |at: usize| Endpoint::new(EndpointIndex(at), format!("e{at}"), Target::Address(address(at)));
        let ttl = Ttl::from_seconds(60).unwrap();
        let mut child = Profile::new("child.tm.test".parse().unwrap(), of_child, ttl, (0..3).map(leaf).collect());
        let mut endpoints = vec![leaf(3), leaf(4)];
        if !matches!(of_parent, Method::MultiValue { .. }) {
            let nested = Target::Nested { profile: 0, minimum: MinimumChildren::DEFAULT };
            endpoints.push(Endpoint::new(EndpointIndex(5), "n", nested));
        }
        let mut parent = Profile::new("p.tm.test".parse().unwrap(), of_parent, ttl, endpoints);
        for profile in [&mut child, &mut parent] {
            profile.options.draw =
                Draw { by_weight, by_load: by_load.then_some(Watermarks { low: 500, high: 800 }), subset };
        }
        let profiles = [child, parent];
        let snapshot = Snapshot::of(&profiles, &healths, &Directives::default());
        let view = View { profiles: &profiles, snapshot: &snapshot, maps: &Maps::default() };
        let asker = Asker { asked: AskedType::A, source: "198.51.100.1".parse().unwrap(), subnet: None };
        for position in 0..2 {
            let decision = decide(&view, position, &asker, &mut StdRng::seed_from_u64(seed));
            let again = explain(&view, position, &asker, &mut StdRng::seed_from_u64(seed)).0;
            prop_assert_eq!(&decision, &again);
            let Answer::Addresses(found) = decision.answer else { continue };
            prop_assert!(!found.is_empty() && found.len() <= 3);
            prop_assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
            for named in found {
                let at = (0..5).find(|at| address(*at) == named).unwrap();
                let health = snapshot.health(EndpointIndex(at));
                prop_assert!(health.is_in_rotation(), "e{} is {}", at, health.status);
                let siblings = profiles[usize::from(at > 2)].endpoints();
                let is_choice = siblings.iter().any(|sibling| snapshot.health(sibling.index).is_available());
                prop_assert!(health.is_available() || !is_choice, "e{at} is not available, a sibling is");
                if position == 1 && at < 3 {
                    let parent = profiles[1].endpoints();
                    let is_choice = parent.iter().any(|other| snapshot.health(other.index).is_available());
                    let nested = snapshot.health(EndpointIndex(5));
                    prop_assert!(nested.is_available() || !is_choice, "the nested profile is not available");
                }
            }
        }
    }
}
