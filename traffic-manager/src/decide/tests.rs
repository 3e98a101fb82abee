//! The rows that need no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::EndpointStatus::{CheckingEndpoint, Degraded, Disabled, Inactive, Online, Stopped, Unmonitored};
use super::*;

fn profile(max_return: usize, addresses: &[&str]) -> Profile {
    let endpoint = |(at, address): (usize, &&str)| {
        let target = Target::Address(address.parse().unwrap());
        Endpoint::new(EndpointIndex(at), format!("e{}", at + 1), target)
    };
    let method = Method::MultiValue { max_return: MaxReturn::new(max_return).unwrap() };
    let endpoints = addresses.iter().enumerate().map(endpoint).collect();
    Profile::new("p.tm.test".parse().unwrap(), method, Ttl::from_seconds(300).unwrap(), endpoints)
}

const V4: [&str; 5] = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"];
const MIXED: [&str; 4] = ["203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2"];

fn with(statuses: &[EndpointStatus]) -> Vec<Health> {
    statuses.iter().copied().map(Health::with_status).collect()
}

fn asker(asked: AskedType) -> Asker {
    Asker { asked, source: "198.51.100.7".parse().unwrap(), subnet: None }
}

fn decide_one(profile: &Profile, observed: &[Health], asker: &Asker, rng: &mut StdRng) -> Decision {
    let profiles = std::slice::from_ref(profile);
    let snapshot = Snapshot::of(profiles, observed, &Directives::default());
    decide(&View { profiles, snapshot: &snapshot, maps: &Maps::default() }, 0, asker, rng)
}

fn answer_seeded(profile: &Profile, observed: &[Health], asked: AskedType, seed: u64) -> Answer {
    decide_one(profile, observed, &asker(asked), &mut StdRng::seed_from_u64(seed)).answer
}

/// The last parts of the answered addresses, sorted.
fn set(profile: &Profile, snapshot: &[Health], asked: AskedType) -> Vec<String> {
    let Answer::Addresses(addresses) = answer_seeded(profile, snapshot, asked, 1) else { return Vec::new() };
    let mut texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn t_01_and_t_02_an_address_is_answered_as_its_own_family() {
    let snapshot = with(&[Online]);
    assert_eq!(set(&profile(1, &["203.0.113.1"]), &snapshot, AskedType::A), ["203.0.113.1"]);
    assert_eq!(set(&profile(1, &["2001:db8::1"]), &snapshot, AskedType::Aaaa), ["2001:db8::1"]);
}

#[test]
fn t_04_and_t_05_the_other_family_is_no_data() {
    let snapshot = with(&[Online]);
    let v6 = profile(1, &["2001:db8::1"]);
    assert_eq!(answer_seeded(&v6, &snapshot, AskedType::A, 1), Answer::NoData);
    let v4 = profile(1, &["203.0.113.1"]);
    assert_eq!(answer_seeded(&v4, &snapshot, AskedType::Aaaa, 1), Answer::NoData);
}

#[test]
fn t_12_to_t_15_mixed_families_are_filtered_by_the_type_asked() {
    let (profile, snapshot) = (profile(10, &MIXED), with(&[Online; 4]));
    assert_eq!(set(&profile, &snapshot, AskedType::A), ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(set(&profile, &snapshot, AskedType::Aaaa), ["2001:db8::1", "2001:db8::2"]);
    assert_eq!(answer_seeded(&profile, &snapshot, AskedType::Other, 1), Answer::NoData);
    assert_eq!(set(&profile, &snapshot, AskedType::Any).len(), 4);
}

#[test]
fn v_01_all_healthy_endpoints_are_returned_up_to_max_return() {
    let found = set(&profile(3, &V4), &with(&[Online; 5]), AskedType::A);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn v_02_fewer_healthy_than_max_return_are_all_returned() {
    let snapshot = with(&[Degraded, Online, Degraded, Online, Degraded]);
    assert_eq!(set(&profile(8, &V4), &snapshot, AskedType::A), ["203.0.113.2", "203.0.113.4"]);
}

#[test]
fn v_03_and_v_04_max_return_is_two_unless_set_and_one_to_ten() {
    assert_eq!(MaxReturn::DEFAULT.count(), 2);
    let accepted: Vec<bool> = [0, 1, 2, 9, 10, 11].map(|count| MaxReturn::new(count).is_some()).into();
    assert_eq!(accepted, [false, true, true, true, true, false]);
}

#[test]
fn v_05_degraded_endpoints_are_left_out() {
    let snapshot = with(&[Online, Degraded, Online]);
    assert_eq!(set(&profile(5, &V4[..3]), &snapshot, AskedType::A), ["203.0.113.1", "203.0.113.3"]);
}

#[test]
fn v_06_over_many_queries_every_healthy_endpoint_appears_about_equally_often() {
    let (profile, snapshot) = (profile(2, &V4), with(&[Online; 5]));
    let (mut counts, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    let mut rng = StdRng::seed_from_u64(42);
    for _ in 0..10_000 {
        let Answer::Addresses(found) = decide_one(&profile, &snapshot, &asker(AskedType::A), &mut rng).answer
        else {
            panic!("an answer")
        };
        *firsts.entry(found[0]).or_insert(0) += 1;
        for address in found {
            *counts.entry(address).or_insert(0) += 1;
        }
    }
    // Two of five: 4000 each, and first in half of these; four standard deviations are 196 and 160.
    assert!(counts.len() == 5 && counts.values().all(|count| (3804..=4196).contains(count)), "{counts:?}");
    assert!(firsts.len() == 5 && firsts.values().all(|count| (1840..=2160).contains(count)), "{firsts:?}");
}

#[test]
fn v_07_and_s_13_when_all_are_degraded_the_answer_is_as_if_all_were_online() {
    assert_eq!(set(&profile(3, &V4), &with(&[Degraded; 5]), AskedType::A).len(), 3);
    assert_eq!(set(&profile(10, &V4), &with(&[Degraded; 5]), AskedType::A).len(), 5);
}

#[test]
fn v_10_max_return_counts_only_the_family_asked_for() {
    let addresses: Vec<String> =
        (1..=4).map(|n| format!("203.0.113.{n}")).chain((1..=4).map(|n| format!("2001:db8::{n}"))).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    for seed in 0..50 {
        let answer = answer_seeded(&profile(3, &addresses), &with(&[Online; 8]), AskedType::A, seed);
        assert!(matches!(answer, Answer::Addresses(found) if found.len() == 3), "seed {seed}");
    }
}

#[test]
fn v_12_an_address_of_two_endpoints_is_answered_once() {
    let twice = profile(5, &["203.0.113.1", "203.0.113.1", "203.0.113.2"]);
    assert_eq!(set(&twice, &with(&[Online; 3]), AskedType::A), ["203.0.113.1", "203.0.113.2"]);
}

#[test]
fn s_04_and_s_05_checking_is_returned_with_online_and_before_degraded() {
    let both = with(&[CheckingEndpoint, Online]);
    assert_eq!(set(&profile(5, &V4[..2]), &both, AskedType::A).len(), 2);
    let one = with(&[Degraded, CheckingEndpoint, Degraded]);
    assert_eq!(set(&profile(5, &V4[..3]), &one, AskedType::A), ["203.0.113.2"]);
}

#[test]
fn s_06_s_14_and_s_15_what_is_out_of_rotation_is_never_returned() {
    for rest in [Online, Degraded] {
        let snapshot = with(&[Disabled, rest, Stopped, Inactive]);
        assert_eq!(set(&profile(5, &V4[..4]), &snapshot, AskedType::A), ["203.0.113.2"]);
    }
}

#[test]
fn s_10_and_s_17_an_unmonitored_endpoint_is_always_available() {
    let snapshot = with(&[Unmonitored, Degraded, Degraded]);
    assert_eq!(set(&profile(5, &V4[..3]), &snapshot, AskedType::A), ["203.0.113.1"]);
}

#[test]
fn s_16_the_profile_status_follows_from_its_endpoints() {
    let resolved = |profile: Profile, observed: &[Health]| {
        Snapshot::of(&[profile], observed, &Directives::default()).profile(0)
    };
    let of = |statuses: &[EndpointStatus]| resolved(profile(2, &V4[..statuses.len()]), &with(statuses));
    assert_eq!(of(&[Online, Degraded, CheckingEndpoint]), ProfileStatus::Degraded);
    assert_eq!(of(&[CheckingEndpoint, Online, Disabled]), ProfileStatus::Online);
    assert_eq!(of(&[CheckingEndpoint, Disabled]), ProfileStatus::CheckingEndpoints);
    assert_eq!(of(&[Disabled, Stopped]), ProfileStatus::Inactive);
    assert_eq!(of(&[]), ProfileStatus::Inactive);
    let mut off = profile(2, &V4);
    off.enabled = false;
    assert_eq!(resolved(off, &with(&[Online; 5])), ProfileStatus::Disabled);
}

#[test]
fn l_08_l_09_and_l_10_a_profile_that_is_off_does_not_exist_whatever_is_asked() {
    let mut off = profile(2, &V4);
    off.enabled = false;
    for asked in [AskedType::A, AskedType::Aaaa, AskedType::Any, AskedType::Other] {
        assert_eq!(answer_seeded(&off, &with(&[Online; 5]), asked, 1), Answer::NameError);
        assert_eq!(answer_seeded(&profile(2, &V4), &with(&[Disabled; 5]), asked, 1), Answer::NameError);
        assert_eq!(answer_seeded(&profile(2, &[]), &with(&[]), asked, 1), Answer::NameError);
    }
}

#[test]
fn c_04_the_answer_depends_on_nobodys_address() {
    let (profile, snapshot) = (profile(2, &V4), with(&[Online; 5]));
    let from = |source: &str, subnet| {
        let asker = Asker { asked: AskedType::A, source: source.parse().unwrap(), subnet };
        decide_one(&profile, &snapshot, &asker, &mut StdRng::seed_from_u64(9))
    };
    let subnet = ClientSubnet { address: "203.0.113.0".parse().unwrap(), source_prefix: 24 };
    assert_eq!(from("198.51.100.1", None), from("2001:db8::9", Some(subnet)));
    assert_eq!(from("198.51.100.1", None).scope_prefix, 0);
}

fn health(status: EndpointStatus, accepting: bool, mesh_healthy: bool) -> Health {
    Health { status, accepting, mesh_healthy, load: 0 }
}

#[test]
fn a_draining_broker_is_left_out_at_once_and_is_better_than_nothing() {
    let one = vec![health(Online, false, true), health(Online, true, true)];
    assert_eq!(set(&profile(5, &V4[..2]), &one, AskedType::A), ["203.0.113.2"]);
    let all = vec![health(Online, false, true), health(Degraded, true, true)];
    assert_eq!(set(&profile(5, &V4[..2]), &all, AskedType::A).len(), 2);
}

#[test]
fn a_broker_cut_off_from_the_mesh_is_left_out_while_another_is_not() {
    let one = vec![health(Online, true, false), health(Online, true, true)];
    assert_eq!(set(&profile(5, &V4[..2]), &one, AskedType::A), ["203.0.113.2"]);
    let all = vec![health(Online, true, false), health(Degraded, true, true)];
    assert_eq!(set(&profile(5, &V4[..2]), &all, AskedType::A), ["203.0.113.1"]);
}

#[test]
fn a_family_whose_brokers_are_all_cut_off_from_the_mesh_is_still_answered() {
    let cut = health(Online, true, false);
    let snapshot = vec![cut, cut, health(Online, true, true), health(Online, true, true)];
    assert_eq!(set(&profile(5, &MIXED), &snapshot, AskedType::A).len(), 2);
    assert_eq!(set(&profile(5, &MIXED), &snapshot, AskedType::Any), ["2001:db8::1", "2001:db8::2"]);
}

fn any_health() -> impl Strategy<Value = Health> {
    let statuses = [Online, Degraded, CheckingEndpoint, Disabled, Inactive, Stopped, Unmonitored];
    (prop::sample::select(statuses.to_vec()), any::<bool>(), any::<bool>())
        .prop_map(|(status, accepting, mesh_healthy)| health(status, accepting, mesh_healthy))
}

proptest! {
    #[test]
    fn an_ineligible_endpoint_is_never_returned_while_an_eligible_one_exists(
        healths in prop::collection::vec(any_health(), 0..12),
        max_return in 1_usize..=10,
        asked in prop::sample::select(vec![AskedType::A, AskedType::Aaaa, AskedType::Any, AskedType::Other]),
        seed in any::<u64>(),
    ) {
        // Every third endpoint is IPv6; endpoints 0 and 5 share an address.
        let addresses: Vec<String> = (0..healths.len())
            .map(|n| if n % 3 == 2 { format!("2001:db8::{n}") } else { format!("203.0.113.{}", n % 5) })
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let (profile, snapshot) = (profile(max_return, &addresses), healths.clone());
        let Answer::Addresses(found) = answer_seeded(&profile, &snapshot, asked, seed) else { return Ok(()) };
        prop_assert!(!found.is_empty() && found.len() <= max_return);
        prop_assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
        let available = healths.iter().any(|health| health.is_available());
        for address in found {
            let owners = profile.endpoints().iter().filter(|endpoint| endpoint.target == Target::Address(address));
            let best = owners.map(|endpoint| snapshot[endpoint.index.0]).find(|health| {
                health.is_in_rotation() && (health.is_available() || !available)
            });
            prop_assert!(best.is_some(), "{address} is returned");
        }
    }
}
