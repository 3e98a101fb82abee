//! Lookups, and the list that stands in for them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::select::candidate::CANDIDATES_MAX;
use rc_proto::select::known_good::{KEPT, NETWORKS_MAX};
use rc_proto::select::{
    Expectation, Family, KnownGood, Lookup, LookupFailure, NetworkKey, Resolution, ResolutionEvent,
    ServiceAddress, Source,
};

use crate::world::at;

const TTL: Duration = Duration::from_secs(60);

fn resolution(names: &[&str]) -> Resolution {
    let service = |name: &&str| ServiceAddress { name: (*name).to_owned(), port: 443 };
    Resolution::new(names.iter().map(service).collect(), false)
}

fn lookups(resolution: &mut Resolution) -> Vec<Lookup> {
    std::iter::from_fn(|| resolution.poll_lookup()).collect()
}

fn begin(resolution: &mut Resolution, known_good: bool, now: Moment) -> Vec<Lookup> {
    resolution.begin(known_good, now);
    lookups(resolution)
}

fn lookup(name: &str, family: Family) -> Lookup {
    Lookup { name: name.to_owned(), family }
}

fn ips<const N: usize>(addresses: [&str; N]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn addresses(resolution: &Resolution) -> Vec<String> {
    resolution
        .sources()
        .iter()
        .flat_map(|source| source.addresses.iter().map(SocketAddr::to_string))
        .collect()
}

#[test]
fn both_families_of_every_name_are_asked_at_once() {
    let mut resolution = resolution(&["a.example", "b.example"]);
    assert_eq!(
        begin(&mut resolution, false, at(0)),
        [
            lookup("a.example", Family::V6),
            lookup("a.example", Family::V4),
            lookup("b.example", Family::V6),
            lookup("b.example", Family::V4)
        ]
    );
}

#[test]
fn the_race_starts_50_ms_after_the_first_family() {
    let mut resolution = resolution(&["a.example"]);
    begin(&mut resolution, false, at(0));
    resolution.handle_answer(&lookup("a.example", Family::V4), &ips(["203.0.113.1"]), TTL, at(20));
    assert_eq!((resolution.poll_event(), resolution.poll_timeout()), (None, Some(at(70))));
    resolution.handle_timeout(at(70));
    assert_eq!(resolution.poll_event(), Some(ResolutionEvent::Start));
    assert_eq!(addresses(&resolution), ["203.0.113.1:443"]);
    resolution.handle_answer(&lookup("a.example", Family::V6), &ips(["2001:db8::1"]), TTL, at(90));
    assert_eq!(resolution.poll_event(), Some(ResolutionEvent::More));
    assert_eq!(resolution.poll_timeout(), None);
}

#[test]
fn the_race_starts_at_once_when_every_lookup_is_settled() {
    let mut resolution = resolution(&["a.example"]);
    begin(&mut resolution, false, at(0));
    resolution.handle_failure(&lookup("a.example", Family::V6), LookupFailure::NoSuchName, at(5));
    assert_eq!(resolution.poll_event(), None);
    resolution.handle_answer(&lookup("a.example", Family::V4), &ips(["203.0.113.1"]), TTL, at(10));
    assert_eq!(resolution.poll_event(), Some(ResolutionEvent::Start));
}

#[test]
fn silence_leads_to_the_known_good_list_while_the_lookups_go_on() {
    for (known_good, wait) in [(false, 1500), (true, 150)] {
        let mut resolution = resolution(&["a.example"]);
        begin(&mut resolution, known_good, at(0));
        assert_eq!(resolution.poll_timeout(), Some(at(wait)));
        resolution.handle_timeout(at(wait - 1));
        assert_eq!(resolution.poll_event(), None);
        resolution.handle_timeout(at(wait));
        assert_eq!(resolution.poll_event(), Some(ResolutionEvent::UseKnownGood));
        resolution.handle_answer(&lookup("a.example", Family::V4), &ips(["203.0.113.1"]), TTL, at(2000));
        assert_eq!(resolution.poll_event(), Some(ResolutionEvent::More));
    }
}

#[test]
fn answers_are_kept_for_their_ttl() {
    let mut resolution = resolution(&["a.example"]);
    begin(&mut resolution, false, at(0));
    resolution.handle_answer(&lookup("a.example", Family::V4), &ips(["203.0.113.1"]), TTL, at(0));
    resolution.handle_answer(&lookup("a.example", Family::V6), &ips(["2001:db8::1"]), Duration::ZERO, at(0));
    assert_eq!(begin(&mut resolution, false, at(4999)), [], "a TTL of zero is kept a little");
    assert_eq!(begin(&mut resolution, false, at(5000)), [lookup("a.example", Family::V6)]);
    let year = Duration::from_secs(365 * 24 * 3600);
    resolution.handle_answer(&lookup("a.example", Family::V6), &ips(["2001:db8::1"]), year, at(5000));
    assert_eq!(begin(&mut resolution, false, at(60_000)), [lookup("a.example", Family::V4)]);
    resolution.handle_failure(&lookup("a.example", Family::V4), LookupFailure::TimedOut, at(60_000));
    assert_eq!(begin(&mut resolution, false, at(3_605_000)).len(), 2, "a long TTL is cut to an hour");
}

#[test]
fn no_bad_answer_takes_away_what_a_good_one_gave() {
    let mut resolution = resolution(&["a.example"]);
    begin(&mut resolution, false, at(0));
    let v4 = lookup("a.example", Family::V4);
    resolution.handle_answer(&v4, &ips(["203.0.113.1"]), TTL, at(0));
    let good = ["203.0.113.1:443"];
    resolution.handle_network_change();
    for failure in [LookupFailure::NoSuchName, LookupFailure::ServerFailure, LookupFailure::TimedOut] {
        begin(&mut resolution, false, at(100_000));
        resolution.handle_failure(&v4, failure, at(100_000));
        assert_eq!(addresses(&resolution), good, "{failure:?}");
    }
    let hostile = [ips([]), ips(["127.0.0.1", "0.0.0.0", "169.254.169.254"]), ips(["2001:db8::1", "::1"])];
    for answer in hostile {
        begin(&mut resolution, false, at(100_000));
        resolution.handle_answer(&v4, &answer, TTL, at(100_000));
        assert_eq!(addresses(&resolution), good, "{answer:?}");
    }
    let reasons: Vec<_> = resolution.failures().map(|(_, family, failure)| (family, failure)).collect();
    assert_eq!(reasons, [(Family::V4, LookupFailure::NothingUsable)]);
}

#[test]
fn an_answer_to_a_question_never_asked_is_ignored() {
    let mut resolution = resolution(&["a.example"]);
    begin(&mut resolution, false, at(0));
    resolution.handle_answer(&lookup("evil.example", Family::V4), &ips(["203.0.113.66"]), TTL, at(0));
    assert!(addresses(&resolution).is_empty());
}

fn source(name: &str, last: u8) -> Source {
    Source {
        expectation: Expectation::Name(name.into()),
        addresses: vec![SocketAddr::from(([203, 0, 113, last], 443))],
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;

#[test]
fn known_good_addresses_last_seven_days() {
    let network = NetworkKey::new("office");
    let mut list = KnownGood::default();
    list.handle_resolved(&network, &[source("a", 1)], 0);
    let end = u64::try_from(KEPT.as_millis()).unwrap();
    assert_eq!(end, 7 * DAY_MS);
    assert_eq!(list.sources(&network, end), [source("a", 1)]);
    assert!(list.sources(&network, end + 1).is_empty());
    assert!(list.has(&network, end) && !list.has(&network, end + 1));
}

#[test]
fn what_worked_comes_first_and_latest_first() {
    let network = NetworkKey::new("office");
    let mut list = KnownGood::default();
    let sources: Vec<Source> = (1..=4).map(|last| source("a", last)).collect();
    list.handle_resolved(&network, &sources, 1);
    for (last, when) in [(3, 10), (2, 20), (3, 30)] {
        let Source { expectation, addresses } = source("a", last);
        list.handle_worked(&network, addresses[0], &expectation, when);
    }
    let history = list.history(&network, 30);
    assert_eq!(history, [source("a", 3).addresses[0], source("a", 2).addresses[0]]);
}

#[test]
fn each_network_has_its_own_list_and_an_unknown_one_uses_all() {
    let (office, home, train) =
        (NetworkKey::new("office"), NetworkKey::new("home"), NetworkKey::new("train"));
    let mut list = KnownGood::default();
    list.handle_resolved(&office, &[source("a", 1)], 0);
    list.handle_resolved(&home, &[source("a", 2)], 0);
    assert_eq!(list.sources(&home, 1), [source("a", 2)]);
    assert_eq!(list.sources(&train, 1)[0].addresses.len(), 2);
}

#[test]
fn the_list_is_bounded_and_survives_a_save() {
    let mut list = KnownGood::default();
    for network in 0..40_u64 {
        for last in 0..100 {
            list.handle_resolved(&NetworkKey::new(&format!("n{network}")), &[source("a", last)], network);
        }
    }
    let saved = list.to_json();
    let read = KnownGood::from_json(&saved, 100).unwrap();
    assert_eq!(read, list);
    assert!(!read.has(&NetworkKey::new("n23"), 100), "only the {NETWORKS_MAX} networks used last are kept");
    let kept = read.sources(&NetworkKey::new("n24"), 100);
    assert_eq!(kept[0].addresses.len(), CANDIDATES_MAX);
}

#[test]
fn a_damaged_or_forged_list_is_an_error_or_is_cut_to_its_bounds() {
    for text in ["", "{", "[]", r#"{"networks":{"n":[{"address":"x"}]}}"#] {
        assert!(KnownGood::from_json(text, 0).is_err(), "{text}");
    }
    let network = NetworkKey::new("n");
    let mut list = KnownGood::default();
    list.handle_resolved(&network, &[source("a", 1)], 5000);
    let from_the_future = KnownGood::from_json(&list.to_json(), 4999).unwrap();
    assert!(!from_the_future.has(&network, 4999));
    let long = format!(r#"{{"networks":{{"{}":[]}}}}"#, "x".repeat(1000));
    assert_eq!(KnownGood::from_json(&long, 0).unwrap(), KnownGood::default());
    assert_eq!(
        NetworkKey::new(&"é".repeat(100)),
        NetworkKey::new(&"é".repeat(64)),
        "keys are cut at a character"
    );
}
