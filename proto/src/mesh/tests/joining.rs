use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{at, id, minutes, ms};
use crate::Moment;
use crate::mesh::dialling::{IN_FLIGHT_MAX, OWN_REST};
use crate::mesh::members::MEMBERS_MAX;
use crate::mesh::{
    Dial, DialKey, Dialling, GossipTimer, LinkClaim, LinkDecision, MemberHint, Members, decide_link,
};
use crate::wire::message::PeerEntry;
use crate::wire::{BrokerId, Incarnation};

fn claim(incarnation: u64, dialled_by_peer: bool) -> LinkClaim {
    LinkClaim { incarnation: Incarnation(incarnation), dialled_by_peer }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, last], 443))
}

fn hint(last: u8) -> MemberHint {
    MemberHint { name: String::new(), addresses: vec![address(last)] }
}

fn entry(broker: BrokerId, age_ms: u32) -> PeerEntry {
    PeerEntry {
        broker,
        name: String::new(),
        addresses: vec![address(9)],
        incarnation: Incarnation(5),
        age_ms,
    }
}

/// A mesh with links to b1 … b`count`, made at `now`.
fn linked(count: u8, now: Moment) -> Members {
    let mut members = Members::new(id("own"));
    for place in 1..=count {
        let decision = members.handle_linked(&id(&format!("b{place}")), claim(1, false), hint(place), now);
        assert_eq!(decision, LinkDecision::Keep);
    }
    members
}

#[test]
fn both_ends_of_two_links_keep_the_same_one() {
    let (small, large) = (id("a"), id("b"));
    for small_dialled_first in [true, false] {
        let at_small = decide_link(
            &small,
            &large,
            Some(&claim(1, !small_dialled_first)),
            &[],
            &claim(1, small_dialled_first),
        );
        let at_large = decide_link(
            &large,
            &small,
            Some(&claim(2, small_dialled_first)),
            &[],
            &claim(2, !small_dialled_first),
        );
        let expected =
            if small_dialled_first { LinkDecision::CloseNew } else { LinkDecision::ReplaceExisting };
        assert_eq!((at_small, at_large), (expected, expected), "the link that the smaller id dialled stays");
    }
}

#[test]
fn a_later_process_replaces_an_earlier_one_and_is_not_replaced_by_it() {
    let (own, peer) = (id("a"), id("b"));
    for dialled_by_peer in [true, false] {
        let decision = decide_link(&own, &peer, Some(&claim(1, false)), &[], &claim(2, dialled_by_peer));
        assert_eq!(decision, LinkDecision::ReplaceExisting);
        let late =
            decide_link(&own, &peer, Some(&claim(2, false)), &[Incarnation(1)], &claim(1, dialled_by_peer));
        assert_eq!(late, LinkDecision::CloseOutdated);
    }
    let mut members = Members::new(own);
    members.handle_linked(&peer, claim(1, true), hint(1), at(0));
    members.handle_linked(&peer, claim(2, true), hint(1), at(1));
    assert_eq!(
        members.handle_linked(&peer, claim(1, true), hint(1), at(2)),
        LinkDecision::CloseOutdated,
        "the members remember whom they replaced"
    );
    assert_eq!(members.linked_incarnation(&peer), Some(Incarnation(2)));
}

#[test]
fn a_dialler_that_dials_again_has_given_its_first_link_up() {
    for dialled_by_peer in [true, false] {
        let same = claim(1, dialled_by_peer);
        assert_eq!(decide_link(&id("a"), &id("b"), Some(&same), &[], &same), LinkDecision::ReplaceExisting);
    }
}

#[test]
fn a_link_to_the_own_id_is_closed_and_makes_no_member() {
    let mut members = Members::new(id("own"));
    assert_eq!(members.handle_linked(&id("own"), claim(7, true), hint(1), at(0)), LinkDecision::CloseOwn);
    assert_eq!(members.counts(at(0)).known, 0);
}

#[test]
fn half_or_more_down_is_unhealthy() {
    for (peers, down, healthy) in
        [(1, 0, true), (1, 1, false), (2, 1, false), (3, 1, true), (3, 2, false), (4, 1, true), (4, 2, false)]
    {
        let mut members = linked(peers, at(0));
        for place in 1..=down {
            members.handle_link_lost(&id(&format!("b{place}")), at(1));
        }
        assert_eq!(members.is_healthy(at(1)), healthy, "{down} of {peers} down");
    }
    assert!(Members::new(id("own")).is_healthy(at(0)), "a broker that stands alone is healthy");
}

#[test]
fn a_peer_that_drained_does_not_count() {
    let mut members = linked(2, at(0));
    members.handle_drain(&id("b1"));
    assert_eq!(members.counts(at(0)).counted, 1);
    assert_eq!(members.linked().count(), 1, "nothing is routed to it");
    members.handle_link_lost(&id("b1"), at(1));
    assert!(members.is_healthy(at(1)));
    assert!(members.gossip(at(1)).iter().all(|entry| entry.broker != id("b1")));
    members.handle_linked(&id("b1"), claim(2, false), hint(1), at(2));
    assert_eq!(
        (members.counts(at(2)).up, members.counts(at(2)).counted),
        (2, 2),
        "it counts again once linked"
    );
}

#[test]
fn a_member_counts_for_ten_minutes_and_is_kept_for_an_hour() {
    let mut members = linked(3, at(0));
    members.handle_link_lost(&id("b1"), at(0));
    members.handle_link_lost(&id("b2"), at(0));
    assert!(!members.is_healthy(minutes(10)));
    assert!(members.is_healthy(minutes(10) + ms(1)), "what is gone for long is no sign of a partition");
    members.handle_timeout(minutes(60));
    assert_eq!(members.counts(minutes(60)).known, 3);
    members.handle_timeout(minutes(60) + ms(1));
    assert_eq!(members.counts(minutes(60)).known, 1);
}

#[test]
fn a_broker_that_lost_every_link_stays_unhealthy_until_it_forgets() {
    let mut members = linked(2, at(0));
    members.handle_link_lost(&id("b1"), at(0));
    members.handle_link_lost(&id("b2"), at(0));
    assert!(!members.is_healthy(minutes(11)));
    members.handle_timeout(minutes(61));
    assert!(members.is_healthy(minutes(61)));
}

#[test]
fn invented_members_cost_nobody_his_health() {
    let mut members = linked(3, at(0));
    let invented: Vec<PeerEntry> = (0..5000).map(|place| entry(id(&format!("x{place}")), 0)).collect();
    let found = members.handle_gossip(&invented, at(0));
    assert!(found.len() < MEMBERS_MAX && members.counts(at(0)).known <= MEMBERS_MAX);
    assert!(members.is_healthy(at(0)));
    assert_eq!(members.counts(at(0)).counted, 3);
    let decision = members.handle_linked(&id("real"), claim(1, true), hint(7), at(1));
    assert_eq!(decision, LinkDecision::Keep);
    assert!(members.is_linked(&id("real")), "a proved member displaces an invented one");
    assert!(members.counts(at(1)).known <= MEMBERS_MAX);
}

#[test]
fn gossip_names_members_with_their_age_and_never_the_receiver() {
    let mut members = linked(1, at(0));
    members.handle_link_lost(&id("b1"), minutes(1));
    let told = members.gossip(minutes(3));
    assert_eq!((told.len(), told[0].age_ms), (1, 120_000));
    let mut other = Members::new(id("other"));
    assert_eq!(other.handle_gossip(&told, minutes(100)), [id("b1")]);
    assert_eq!(other.gossip(minutes(101))[0].age_ms, 180_000, "hearsay does not make it younger");
    assert_eq!(other.handle_gossip(&told, minutes(100)), [], "it is known by now");
    let mut own = Members::new(id("b1"));
    assert_eq!(own.handle_gossip(&told, minutes(100)), []);
    let old = [entry(id("old"), 3_600_001), entry(id("young"), 3_600_000)];
    assert_eq!(own.handle_gossip(&old, minutes(100)), [id("young")]);
}

#[test]
fn gossip_about_a_proved_member_changes_nothing() {
    let mut members = linked(1, at(0));
    let mut lie = entry(id("b1"), 0);
    lie.addresses = vec![address(66)];
    members.handle_gossip(std::slice::from_ref(&lie), at(1));
    members.handle_link_lost(&id("b1"), at(2));
    members.handle_gossip(&[lie], at(3));
    assert_eq!(members.unlinked().next(), Some((&id("b1"), &hint(1))));
    assert_eq!(members.counts(at(3)).up, 0);
}

#[test]
fn gossip_comes_every_30_s_within_a_fifth() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut timer = GossipTimer::new(at(0), &mut rng);
    let mut last = at(0);
    for _ in 0..100 {
        let now = timer.poll_timeout();
        assert!((ms(24_000)..=ms(36_000)).contains(&now.since(last)));
        assert!(timer.poll_due(now, &mut rng) && !timer.poll_due(now, &mut rng));
        last = now;
    }
}

fn dials(dialling: &mut Dialling, members: &Members, now: Moment) -> Vec<Dial> {
    std::iter::from_fn(|| dialling.poll_dial(members, now)).collect()
}

#[test]
fn seeds_and_members_are_dialled_until_they_are_linked() {
    let mut members = Members::new(id("own"));
    let mut dialling = Dialling::default();
    dialling.handle_resolved("seed", &[address(1)]);
    let first = dials(&mut dialling, &members, at(0));
    assert_eq!(first.iter().map(|dial| dial.addresses.clone()).collect::<Vec<_>>(), [[address(1)]]);
    members.handle_linked(&id("b1"), claim(1, false), hint(1), at(1));
    dialling.handle_linked(&first[0].key, &id("b1"));
    assert_eq!(dials(&mut dialling, &members, minutes(1)), [], "its owner is linked");

    members.handle_gossip(&[entry(id("b2"), 0)], minutes(1));
    let second = dials(&mut dialling, &members, minutes(1));
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].key, DialKey::Member { broker: id("b2") });

    members.handle_link_lost(&id("b1"), minutes(2));
    let again: Vec<DialKey> =
        dials(&mut dialling, &members, minutes(2)).into_iter().map(|dial| dial.key).collect();
    assert!(
        again.contains(&first[0].key) && again.contains(&DialKey::Member { broker: id("b1") }),
        "{again:?}"
    );
}

#[test]
fn a_failed_dial_backs_off_to_half_a_minute_and_never_gives_up() {
    let members = Members::new(id("own"));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut dialling = Dialling::default();
    dialling.handle_resolved("seed", &[address(1)]);
    let mut now = at(0);
    for attempt in 0..200 {
        let dial = dials(&mut dialling, &members, now).pop().expect("it is due");
        dialling.handle_failed(&dial.key, &members, now, &mut rng);
        let next = dialling.poll_timeout(now).unwrap();
        let wait = next.since(now);
        assert!(wait >= ms(250) && wait <= ms(30_250), "attempt {attempt}: {wait:?}");
        assert_eq!(dials(&mut dialling, &members, at(0)), []);
        now = next;
    }
}

#[test]
fn a_broker_that_was_linked_lately_is_tried_again_within_a_few_seconds() {
    let mut members = Members::new(id("own"));
    members.handle_linked(&id("peer"), claim(1, false), hint(1), at(0));
    members.handle_link_lost(&id("peer"), at(0));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut dialling = Dialling::default();
    let mut now = at(0);
    while now < minutes(10) {
        let dial = dials(&mut dialling, &members, now).pop().expect("it is due");
        dialling.handle_failed(&dial.key, &members, now, &mut rng);
        let next = dialling.poll_timeout(now).unwrap();
        assert!(next.since(now) <= ms(2_250), "{:?} at {now:?}", next.since(now));
        now = next;
    }
}

#[test]
fn an_address_of_the_broker_itself_rests() {
    let members = Members::new(id("own"));
    let mut dialling = Dialling::default();
    dialling.handle_resolved("seed", &[address(1)]);
    let dial = dials(&mut dialling, &members, at(0)).remove(0);
    dialling.handle_own(&dial.key, at(0));
    assert_eq!(dials(&mut dialling, &members, at(599_999)), []);
    assert_eq!((at(0) + OWN_REST, dials(&mut dialling, &members, at(600_000)).len()), (at(600_000), 1));
}

#[test]
fn an_empty_answer_keeps_the_contacts_and_a_new_one_replaces_them() {
    let members = Members::new(id("own"));
    let mut dialling = Dialling::default();
    dialling.handle_resolved("seed", &[address(1), address(2)]);
    dialling.handle_resolved("seed", &[]);
    dialling.handle_resolved("seed", &[address(2), address(3)]);
    let dialled: Vec<SocketAddr> =
        dials(&mut dialling, &members, at(0)).into_iter().flat_map(|dial| dial.addresses).collect();
    assert_eq!(dialled, [address(2), address(3)]);
}

#[test]
fn dials_in_flight_are_bounded() {
    let members = Members::new(id("own"));
    let mut dialling = Dialling::default();
    dialling.handle_resolved("seed", &(0..100).map(address).collect::<Vec<_>>());
    assert_eq!(dials(&mut dialling, &members, at(0)).len(), IN_FLIGHT_MAX);
}
