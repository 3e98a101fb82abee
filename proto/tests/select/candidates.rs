//! Which addresses are taken, and in which order.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::select::candidate::{CANDIDATES_MAX, REFUSED_KEPT_MAX, merge, refusal};
use rc_proto::select::{Expectation, RefusalReason, Source};

fn source(name: &str, addresses: &[&str]) -> Source {
    Source {
        expectation: Expectation::Name(name.into()),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn many(name: &str, network: u8, count: u8) -> Source {
    Source {
        expectation: Expectation::Name(name.into()),
        addresses: (0..count).map(|last| SocketAddr::from(([203, 0, network, last], 443))).collect(),
    }
}

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(1)
}

#[test]
fn addresses_that_cannot_be_a_broker_are_refused() {
    use RefusalReason::{NotDialable, NotPublic};
    let cases = [
        ("127.0.0.1:443", Some(NotPublic), None),
        ("127.9.9.9:443", Some(NotPublic), None),
        ("[::1]:443", Some(NotPublic), None),
        ("169.254.1.1:443", Some(NotPublic), None),
        ("[fe80::1]:443", Some(NotPublic), None),
        ("0.0.0.0:443", Some(NotPublic), None),
        ("0.1.2.3:443", Some(NotPublic), None),
        ("[::]:443", Some(NotPublic), None),
        ("[::ffff:203.0.113.5]:443", Some(NotPublic), None),
        ("[::ffff:127.0.0.1]:443", Some(NotPublic), None),
        ("[::203.0.113.5]:443", Some(NotPublic), None),
        ("224.0.0.1:443", Some(NotDialable), Some(NotDialable)),
        ("[ff02::1]:443", Some(NotDialable), Some(NotDialable)),
        ("255.255.255.255:443", Some(NotDialable), Some(NotDialable)),
        ("203.0.113.5:0", Some(NotDialable), Some(NotDialable)),
        ("203.0.113.5:443", None, None),
        ("10.0.0.5:443", None, None),
        ("[fd00::5]:443", None, None),
        ("[2001:db8::5]:8443", None, None),
    ];
    for (address, public, with_loopback) in cases {
        let parsed = address.parse().unwrap();
        assert_eq!((refusal(parsed, false), refusal(parsed, true)), (public, with_loopback), "{address}");
    }
}

#[test]
fn at_most_16_are_taken_and_no_source_crowds_out_another() {
    for (count, taken) in [(15, 15), (16, 16), (17, 16)] {
        assert_eq!(merge(&[many("a", 1, count)], &[], false, &mut rng()).taken.len(), taken);
    }
    let found = merge(&[many("big", 1, 60), many("small", 2, 3)], &[], false, &mut rng());
    let small = Expectation::Name("small".into());
    assert_eq!(found.taken.len(), CANDIDATES_MAX);
    assert_eq!(found.taken.iter().filter(|candidate| candidate.expectation == small).count(), 3);
    assert_eq!((found.refused.len(), found.refused_count), (REFUSED_KEPT_MAX, 47));
}

#[test]
fn an_answer_with_a_thousand_addresses_is_read_only_in_part() {
    let huge = Source {
        expectation: Expectation::Name("huge".into()),
        addresses: (0..1000).map(|port| SocketAddr::from(([203, 0, 113, 1], 1000 + port))).collect(),
    };
    let found = merge(&[huge], &[], false, &mut rng());
    assert_eq!((found.taken.len(), found.refused.len(), found.refused_count), (16, 16, 984));
}

#[test]
fn one_address_is_dialled_once_per_expectation() {
    let found = merge(
        &[source("a", &["203.0.113.1:443", "203.0.113.1:443"]), source("b", &["203.0.113.1:443"])],
        &[],
        false,
        &mut rng(),
    );
    let names: BTreeSet<_> = found.taken.iter().map(|candidate| candidate.expectation.clone()).collect();
    assert_eq!((found.taken.len(), names.len()), (2, 2));
    assert_eq!(found.refused[0].1, RefusalReason::Duplicate);
}

#[test]
fn history_comes_first_in_its_order_and_only_while_a_source_names_it() {
    let history: Vec<SocketAddr> =
        ["203.0.1.7:443", "203.0.1.3:443", "198.51.100.1:443"].map(|a| a.parse().unwrap()).to_vec();
    let found = merge(&[many("a", 1, 10)], &history, false, &mut rng());
    let addresses: Vec<SocketAddr> = found.taken.iter().map(|candidate| candidate.address).collect();
    assert_eq!(addresses[..2], history[..2]);
    assert!(!addresses.contains(&history[2]));
}

#[test]
fn without_history_the_order_is_shuffled_and_the_families_alternate() {
    let dual = source(
        "a",
        &[
            "203.0.113.1:443",
            "203.0.113.2:443",
            "203.0.113.3:443",
            "[2001:db8::1]:443",
            "[2001:db8::2]:443",
            "[2001:db8::3]:443",
        ],
    );
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let found = merge(std::slice::from_ref(&dual), &[], false, &mut SmallRng::seed_from_u64(seed));
        let order: Vec<SocketAddr> = found.taken.iter().map(|candidate| candidate.address).collect();
        assert!(order.windows(2).all(|pair| pair[0].is_ipv6() != pair[1].is_ipv6()), "{order:?}");
        orders.insert(order);
    }
    assert!(orders.len() > 20, "{} orders of 50", orders.len());
    let history = ["203.0.113.2:443".parse().unwrap()];
    let found = merge(&[dual], &history, false, &mut rng());
    assert_eq!(found.taken[0].address, history[0]);
    assert!(found.taken[1].address.is_ipv6(), "the family that the history is not of goes on");
}
