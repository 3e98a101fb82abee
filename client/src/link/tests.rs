use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::{PathId, Role};
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::event::{Event, Events};
use crate::link::LinkNews;
use crate::status::PinStatus;
use crate::testing::{FakeBroker, SERVICE, Temper, World};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn far(round_trip_ms: u64) -> Temper {
    Temper { round_trip: ms(round_trip_ms), ..Temper::default() }
}

/// Two brokers behind one name; the first is nearer.
struct Scene {
    near: FakeBroker,
    far: FakeBroker,
    endpoint: Endpoint,
    events: Events,
    world: World,
}

async fn scene(role: Role, near: Temper) -> Scene {
    let world = World::new();
    let near = FakeBroker::start(&world, "in/near", "127.0.0.1:443", near);
    let far = FakeBroker::start(&world, "us/far", "127.0.0.2:443", far(150));
    world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2"], Duration::ZERO);
    let reach = world.reach(&format!("{role}/x"));
    let events = reach.events.follow();
    let endpoint = Endpoint::start_with(world.config(), role, Arc::clone(&reach));
    Scene { near, far, endpoint, events, world }
}

impl Scene {
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let event = async {
            loop {
                let event = self.events.next().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), event).await.unwrap()
    }

    async fn pinned(&self) -> PinStatus {
        self.endpoint.pinned_at_last().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_is_pinned_only_after_its_registration_is_confirmed() {
    let scene = scene(Role::Target, far(20)).await;
    let pin = scene.pinned().await;
    assert_eq!((&pin.broker, pin.registered), (&scene.near.id, true));
    let registers = scene.near.registers();
    assert_eq!(registers.len(), 1);
    assert_eq!(registers[0].instance, scene.endpoint.instance());
    assert_eq!(registers[0].scores[0].0, scene.near.id);
    assert!(scene.far.registers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_controller_registers_nowhere() {
    let scene = scene(Role::Controller, far(20)).await;
    let pin = scene.pinned().await;
    assert_eq!((&pin.broker, pin.registered), (&scene.near.id, false));
    assert!(scene.near.registers().is_empty());
    let choice = scene.endpoint.status().choice.unwrap();
    assert_eq!(choice.chosen.as_ref(), Some(&scene.near.id));
}

#[tokio::test(start_paused = true)]
async fn a_lost_broker_is_replaced_by_the_next_ranked_without_a_new_look() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.near.change(|temper| temper.accepting = false);
    let began = Instant::now();
    scene.near.cut_links();
    scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    let pin = scene.pinned().await;
    assert_eq!(pin.broker, scene.far.id);
    // Connection, probe, Hello with Register: a few round trips of 150 ms, no race and no window.
    assert!(began.elapsed() < ms(900), "{:?}", began.elapsed());
    let (first, second) = (&scene.near.registers()[0], &scene.far.registers()[0]);
    assert!(second.generation > first.generation);
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_left_for_another_before_it_is_told() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.near.drain();
    scene.until(|event| matches!(event, Event::Draining { .. })).await;
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "us/far")).await;
    assert_eq!(scene.pinned().await.broker, scene.far.id);
    while scene.near.unregisters().is_empty() {
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!(scene.near.unregisters()[0].generation, scene.near.registers()[0].generation);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_passed_on_for_a_peer_moves_nobody_from_the_broker_that_goes_on() {
    let mut scene = scene(Role::Controller, far(20)).await;
    scene.pinned().await;
    let peer = scene.far.id.clone();
    scene.near.pass_on_drain_of(&peer);
    scene.until(|event| matches!(event, Event::Draining { broker, .. } if *broker == peer)).await;
    // Far longer than a move takes.
    tokio::time::sleep(ms(5_000)).await;
    assert_eq!(scene.pinned().await.broker, scene.near.id);
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_held_until_another_one_takes_us() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.far.change(|temper| temper.retry_after_ms = Some(2_000));
    let began = Instant::now();
    scene.near.drain();
    scene.until(|event| matches!(event, Event::Draining { .. })).await;
    while scene.far.registers().is_empty() {
        tokio::time::sleep(ms(10)).await;
    }
    let asked = Instant::now();
    scene.far.change(|temper| temper.retry_after_ms = None);
    assert_eq!(scene.pinned().await.broker, scene.near.id);
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "us/far")).await;
    assert_eq!(scene.pinned().await.broker, scene.far.id);
    assert!(asked.elapsed() >= ms(2_000), "{:?}", asked.elapsed());
    assert!(began.elapsed() < ms(8_000), "{:?}", began.elapsed());
    while scene.near.unregisters().is_empty() {
        tokio::time::sleep(ms(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_left_for_one_that_it_names() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.far.change(|temper| temper.frozen = true);
    let named = FakeBroker::start(&scene.world, "eu/named", "127.0.0.3:8443", far(40));
    scene.world.names.answer("named.mesh.test", &["127.0.0.3"], Duration::ZERO);
    scene.near.drain_towards(&[("eu/named", "named.mesh.test:8443")]);
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "eu/named")).await;
    assert_eq!(named.registers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_drains_and_dies_before_there_is_another_is_replaced_when_there_is_one() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.far.change(|temper| temper.frozen = true);
    scene.near.drain();
    scene.until(|event| matches!(event, Event::CandidateFailed { .. })).await;
    scene.near.change(|temper| temper.accepting = false);
    scene.near.cut_links();
    scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    scene.far.change(|temper| temper.frozen = false);
    assert_eq!(scene.pinned().await.broker, scene.far.id);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_broker_hides_no_loss_of_the_pinned_one() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.far.change(|temper| temper.round_trip = Duration::from_secs(3600));
    // Rounds of probes come and go.
    tokio::time::sleep(Duration::from_secs(400)).await;
    scene.far.change(|temper| temper.round_trip = ms(150));
    let began = Instant::now();
    scene.near.change(|temper| temper.accepting = false);
    scene.near.cut_links();
    scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    assert!(began.elapsed() < ms(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_endpoint_finds_a_better_broker_that_came_later() {
    let mut scene = scene(Role::Target, far(120)).await;
    scene.pinned().await;
    let _new = FakeBroker::start(&scene.world, "in/new", "127.0.0.3:443", far(10));
    scene.world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2", "127.0.0.3"], Duration::ZERO);
    let began = Instant::now();
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "in/new")).await;
    assert!(began.elapsed() <= Duration::from_secs(10 * 60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_superseded_target_stays_away_for_a_minute_and_longer_each_time() {
    let mut scene = scene(Role::Target, Temper { supersedes: true, ..far(20) }).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let event = scene.until(|event| matches!(event, Event::Superseded { .. })).await;
        let Event::Superseded { back_off_ms, .. } = event else { unreachable!() };
        waits.push(back_off_ms);
    }
    assert_eq!(waits, [60_000, 120_000, 240_000]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_asks_for_patience_is_asked_again_after_its_slot() {
    let scene = scene(Role::Target, Temper { retry_after_ms: Some(7_000), ..far(20) }).await;
    let near = &scene.near;
    while near.registers().is_empty() {
        tokio::time::sleep(ms(10)).await;
    }
    let asked = Instant::now();
    near.change(|temper| temper.retry_after_ms = None);
    assert_eq!(scene.pinned().await.broker, near.id);
    assert!(asked.elapsed() >= ms(7_000), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_keep_alive_is_not_answered_is_lost_after_five_seconds() {
    let mut scene = scene(Role::Controller, far(20)).await;
    scene.pinned().await;
    // Answers take longer than the keep-alive waits, so the link is dead for its endpoint.
    scene.near.change(|temper| temper.round_trip = Duration::from_secs(60));
    let began = Instant::now();
    let event = scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    let Event::PinLost { reason, .. } = event else { unreachable!() };
    assert!(reason.contains("no answer"), "{reason}");
    assert!((ms(5_000)..ms(23_000)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(scene.pinned().await.broker, scene.far.id);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_probes_but_never_says_welcome_is_not_pinned() {
    let scene = scene(Role::Controller, Temper { frozen: true, ..far(20) }).await;
    assert_eq!(scene.pinned().await.broker, scene.far.id);
}

#[tokio::test(start_paused = true)]
async fn an_idle_endpoint_moves_to_a_clearly_better_broker_after_two_rounds() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.near.change(|temper| temper.round_trip = ms(250));
    scene.far.change(|temper| temper.round_trip = ms(30));
    let began = Instant::now();
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "us/far")).await;
    assert!(began.elapsed() >= ms(2 * 48_000), "{:?}", began.elapsed());
    assert!(began.elapsed() <= Duration::from_secs(15 * 60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_target_unregisters() {
    let scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.endpoint.shutdown().await;
    while scene.near.unregisters().is_empty() {
        tokio::time::sleep(ms(10)).await;
    }
    assert!(scene.endpoint.pinned().await.is_err());
}

/// A scene with a third broker, in the region of the nearest, that is in session and holds its second link.
async fn in_session(role: Role) -> (Scene, FakeBroker) {
    let mut scene = scene(role, far(20)).await;
    let neighbour = FakeBroker::start(&scene.world, "in/neighbour", "127.0.0.3:443", far(40));
    scene.world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2", "127.0.0.3"], Duration::ZERO);
    scene.pinned().await;
    assert!(scene.endpoint.status().second.is_none());
    scene.endpoint.pretend_sessions(1);
    scene.until(|event| matches!(event, Event::SecondLinked { .. })).await;
    (scene, neighbour)
}

fn roles(broker: &FakeBroker) -> Vec<RegistrationRole> {
    broker.registers().iter().map(|register| register.role).collect()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(start_paused = true)]
async fn in_session_a_second_link_is_held_in_another_region_and_registered_as_standby() {
    let (scene, neighbour) = in_session(Role::Target).await;
    let status = scene.endpoint.status();
    assert_eq!(status.pin.unwrap().broker, scene.near.id);
    let second = status.second.unwrap();
    assert_eq!((&second.broker, second.role), (&scene.far.id, Some(RegistrationRole::STANDBY)));
    assert_eq!(roles(&scene.far), [RegistrationRole::STANDBY]);
    assert!(scene.far.registers()[0].generation > scene.near.registers()[0].generation);
    assert!(neighbour.registers().is_empty());
    let links = scene.endpoint.links().borrow().clone();
    let order: Vec<_> = links.iter().map(|held| held.contact.broker.clone()).collect();
    assert_eq!(order, [scene.near.id.clone(), scene.far.id.clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_in_session_holds_a_second_link_and_registers_nowhere() {
    let (scene, _neighbour) = in_session(Role::Controller).await;
    assert_eq!(scene.endpoint.status().second.unwrap().broker, scene.far.id);
    assert!(scene.far.registers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_target_holds_one_link() {
    let scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(scene.endpoint.status().second.is_none());
    assert!(scene.far.registers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_second_link_serves_at_once_when_the_primary_is_lost_and_is_replaced() {
    let (mut scene, neighbour) = in_session(Role::Target).await;
    let mut news = scene.endpoint.link_news();
    scene.near.change(|temper| temper.accepting = false);
    let began = Instant::now();
    scene.near.cut_links();
    scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    assert_eq!(scene.pinned().await.broker, scene.far.id);
    assert!(began.elapsed() < ms(1), "{:?}", began.elapsed());
    let LinkNews::Lost { broker, .. } = news.recv().await.unwrap() else { panic!("another piece of news") };
    assert_eq!(broker, scene.near.id);
    // Half a second for the storm of all others, and a round trip.
    eventually("the registration becomes the primary", || roles(&scene.far).len() == 2).await;
    assert!(began.elapsed() <= ms(500 + 160), "{:?}", began.elapsed());
    assert_eq!(roles(&scene.far), [RegistrationRole::STANDBY, RegistrationRole::PRIMARY]);
    let generations: Vec<_> = scene.far.registers().iter().map(|register| register.generation).collect();
    assert!(generations[1] > generations[0], "{generations:?}");
    scene.until(|event| matches!(event, Event::SecondLinked { .. })).await;
    assert_eq!(roles(&neighbour), [RegistrationRole::STANDBY]);
    eventually("the primary is confirmed", || {
        scene.endpoint.status().pin.unwrap().role == Some(RegistrationRole::PRIMARY)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_second_link_is_made_again_elsewhere_and_the_pin_stays() {
    let (mut scene, neighbour) = in_session(Role::Target).await;
    scene.far.cut_links();
    scene.until(|event| matches!(event, Event::SecondLost { .. })).await;
    scene.until(|event| matches!(event, Event::SecondLinked { .. })).await;
    assert_eq!(roles(&neighbour), [RegistrationRole::STANDBY]);
    assert_eq!(scene.pinned().await.broker, scene.near.id);
}

#[tokio::test(start_paused = true)]
async fn the_second_link_is_left_a_minute_after_the_last_session() {
    let (scene, _neighbour) = in_session(Role::Target).await;
    let began = Instant::now();
    scene.endpoint.pretend_sessions(0);
    eventually("the second link is left", || !scene.far.unregisters().is_empty()).await;
    assert!((ms(60_000)..ms(61_000)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(scene.endpoint.status().second.is_none());
    assert_eq!(scene.pinned().await.broker, scene.near.id);
}

#[tokio::test(start_paused = true)]
async fn in_session_a_draining_primary_hands_over_to_the_second_and_its_slots_are_passed_on() {
    let (mut scene, _neighbour) = in_session(Role::Target).await;
    let mut news = scene.endpoint.link_news();
    let slot = (PathId([7; 16]), 1500);
    scene.near.drain_paths(&[slot]);
    let LinkNews::Drain(draining) = news.recv().await.unwrap() else { panic!("another piece of news") };
    assert_eq!((&draining.broker, draining.slots[0].0), (&scene.near.id, slot.0));
    scene.until(|event| matches!(event, Event::Pinned { .. })).await;
    assert_eq!(scene.pinned().await.broker, scene.far.id);
    eventually("the old registration is ended", || !scene.near.unregisters().is_empty()).await;
    eventually("the new one is the primary", || roles(&scene.far).ends_with(&[RegistrationRole::PRIMARY]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_superseded_target_in_session_stays_registered_for_it_and_asks_again_after_a_minute() {
    let (mut scene, _neighbour) = in_session(Role::Target).await;
    let began = Instant::now();
    scene.near.supersede();
    scene.until(|event| matches!(event, Event::Superseded { back_off_ms: 60_000, .. })).await;
    let pin = scene.endpoint.status().pin.unwrap();
    assert_eq!((&pin.broker, pin.role), (&scene.near.id, Some(RegistrationRole::RESUME)));
    eventually("it asks to be the primary again", || roles(&scene.near).len() == 2).await;
    assert_eq!(roles(&scene.near)[1], RegistrationRole::PRIMARY);
    assert!(began.elapsed() >= ms(60_000), "{:?}", began.elapsed());
    assert!(scene.near.unregisters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_superseded_target_that_loses_its_broker_in_session_registers_as_resume_elsewhere() {
    let (mut scene, neighbour) = in_session(Role::Target).await;
    for broker in [&scene.far, &scene.near] {
        broker.change(|temper| temper.supersedes = true);
    }
    neighbour.change(|temper| temper.supersedes = true);
    scene.far.cut_links();
    scene.until(|event| matches!(event, Event::SecondLinked { .. })).await;
    assert_eq!(roles(&neighbour), [RegistrationRole::STANDBY, RegistrationRole::RESUME]);
    let second = scene.endpoint.status().second.unwrap();
    assert_eq!(second.role, Some(RegistrationRole::RESUME));
}

#[tokio::test(start_paused = true)]
async fn a_new_address_of_this_machine_makes_the_link_anew_at_once() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.world.source.set("192.0.2.1");
    scene.pinned().await;
    // The first look takes note of the address.
    tokio::time::sleep(ms(10_000)).await;
    let mut news = scene.endpoint.link_news();
    scene.world.source.set("198.51.100.1");
    let began = Instant::now();
    scene.until(|event| matches!(event, Event::NetworkChanged { .. })).await;
    assert!(began.elapsed() <= ms(5_000), "{:?}", began.elapsed());
    assert!(matches!(news.recv().await.unwrap(), LinkNews::NetworkChanged));
    let lost = Instant::now();
    scene.until(|event| matches!(event, Event::Registered { .. })).await;
    // Connection, probe, Hello with Register: no pause, no look.
    assert!(lost.elapsed() < ms(900), "{:?}", lost.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_of_two_hours_the_link_is_checked_at_once() {
    let mut scene = scene(Role::Controller, far(20)).await;
    scene.pinned().await;
    tokio::time::sleep(ms(10_000)).await;
    scene.near.change(|temper| temper.round_trip = Duration::from_secs(60));
    scene.world.slept_ms.store(7_200_000, std::sync::atomic::Ordering::Relaxed);
    let began = Instant::now();
    let event = scene.until(|event| matches!(event, Event::Woke { .. })).await;
    let Event::Woke { slept_ms } = event else { unreachable!() };
    assert!((7_190_000..=7_200_000).contains(&slept_ms), "{slept_ms}");
    scene.until(|event| matches!(event, Event::PinLost { .. })).await;
    // A look within five seconds, and five for the answer.
    assert!(began.elapsed() <= ms(10_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_isolated_broker_is_left_when_it_advises_to_for_one_that_sees_more_of_the_mesh() {
    let mut scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    scene.near.change(|temper| (temper.peers, temper.advises_ms) = (0, Some(30_000)));
    let began = Instant::now();
    scene.until(|event| matches!(event, Event::Pinned { broker, .. } if broker.as_str() == "us/far")).await;
    // At most a keep-alive and 30 s, and the measured broker is dialled.
    assert!((ms(30_000)..ms(48_000)).contains(&began.elapsed()), "{:?}", began.elapsed());
    eventually("the old registration is ended", || !scene.near.unregisters().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_isolated_broker_is_held_when_no_other_sees_more_of_the_mesh() {
    let scene = scene(Role::Target, far(20)).await;
    scene.pinned().await;
    for broker in [&scene.near, &scene.far] {
        broker.change(|temper| (temper.peers, temper.advises_ms) = (0, Some(1_000)));
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(scene.pinned().await.broker, scene.near.id);
    assert!(scene.far.registers().is_empty());
}
