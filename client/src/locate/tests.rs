use std::time::Duration;

use rc_proto::select::{AttemptFailure, Candidate, Expectation, Rule, Trigger, Verdict};
use rc_transport::LookupError;
use tokio::time::Instant;

use super::*;
use crate::config::StaticBroker;
use crate::error::LocateError;
use crate::event::Event;
use crate::failure::FailureKind;
use crate::testing::{FakeBroker, SERVICE, Temper, World};

const NO_TIME: Duration = Duration::ZERO;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn far(round_trip_ms: u64) -> Temper {
    Temper { round_trip: ms(round_trip_ms), ..Temper::default() }
}

fn locator(world: &World) -> Locator {
    Locator::new(world.reach("controller/alice"), &world.config())
}

#[tokio::test(start_paused = true)]
async fn the_nearest_broker_is_chosen_within_the_winners_handshake_and_600_ms() {
    let world = World::new();
    let near = FakeBroker::start(&world, "in/near", "127.0.0.1:443", far(30));
    let _middle = FakeBroker::start(&world, "eu/middle", "127.0.0.2:443", far(120));
    let _far = FakeBroker::start(&world, "us/far", "127.0.0.3:443", far(220));
    world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2", "127.0.0.3"], NO_TIME);
    let began = Instant::now();
    let located = locator(&world).locate(Trigger::Start, &[]).await.unwrap();
    // The winner's connection and probe: two round trips of 30 ms, maybe after a wait of 150 ms for its turn.
    assert!(began.elapsed() <= ms(60 + 600 + 150), "{:?}", began.elapsed());
    assert_eq!(located.link.broker, near.id);
    assert_eq!(located.choice.rule, Rule::AloneInWindow);
    let samples: Vec<usize> = located.choice.brokers.iter().map(|row| row.samples.len()).collect();
    assert!(samples[0] >= 4, "{samples:?}");
    assert_eq!(located.choice.dialled.len(), 3);
    assert!(located.choice.dialled.iter().all(|row| row.took.is_some()), "{:?}", located.choice.dialled);
}

#[tokio::test(start_paused = true)]
async fn one_broker_alone_is_measured_and_taken_before_the_window_closes() {
    let world = World::new();
    let only = FakeBroker::start(&world, "in/b", "127.0.0.1:443", far(10));
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    let began = Instant::now();
    let located = locator(&world).locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!((located.link.broker, located.choice.rule), (only.id, Rule::OnlyOneLeft));
    assert!(began.elapsed() < ms(400), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_accept_is_not_chosen_while_another_does() {
    let world = World::new();
    let _closed =
        FakeBroker::start(&world, "in/closed", "127.0.0.1:443", Temper { accepting: false, ..far(5) });
    let open = FakeBroker::start(&world, "us/open", "127.0.0.2:443", far(200));
    world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2"], NO_TIME);
    let located = locator(&world).locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!(located.link.broker, open.id);
    let verdicts: Vec<Verdict> = located.choice.brokers.iter().map(|row| row.verdict).collect();
    assert!(verdicts.contains(&Verdict::NotAccepting), "{verdicts:?}");
}

#[tokio::test(start_paused = true)]
async fn closed_silent_and_posing_addresses_are_named_and_cost_no_service() {
    let world = World::new();
    let good = FakeBroker::start(&world, "in/good", "127.0.0.1:443", far(20));
    let poser = Temper { poses_as: Some(good.id.clone()), ..far(5) };
    let _poser = FakeBroker::start(&world, "in/poser", "127.0.0.2:443", poser);
    world.net.silence("127.0.0.3:443".parse().unwrap());
    world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"], NO_TIME);
    let reach = world.reach("controller/alice");
    let mut events = reach.events.follow();
    let located = Locator::new(reach, &world.config()).locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!(located.link.broker, good.id);
    let mut failures = std::collections::BTreeMap::new();
    for _ in 0..3 {
        let Event::CandidateFailed { address, reason } = events.next().await.unwrap() else { panic!() };
        failures.insert(address.ip().to_string(), reason);
    }
    assert!(failures["127.0.0.2"].contains("says that it is in/good"), "{failures:?}");
    assert!(failures["127.0.0.3"].contains("no answer"), "{failures:?}");
    assert!(failures["127.0.0.4"].contains("refused"), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn no_usable_broker_names_every_address_that_was_tried() {
    let world = World::new();
    world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2"], NO_TIME);
    let error = locator(&world).locate(Trigger::Start, &[]).await.err().unwrap();
    let LocateError::NoBroker { failures, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failures.len(), 2);
    assert_eq!(error.kind(), FailureKind::Unreachable);
    let text = error.to_string();
    for word in [SERVICE, "127.0.0.1:443", "127.0.0.2:443", "refused"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_resolve_is_named_with_the_reason() {
    let world = World::new();
    let name = SERVICE.to_owned();
    let server = "192.0.2.53".to_owned();
    for (error, words) in [
        (LookupError::NxDomain { name: name.clone(), server: server.clone() }, "NXDOMAIN"),
        (
            LookupError::ServFail { name: name.clone(), server: server.clone(), code: "SERVFAIL".into() },
            "SERVFAIL",
        ),
        (LookupError::Timeout { name: name.clone(), server: server.clone() }, "did not answer"),
        (LookupError::Garbage { name: name.clone(), server, reason: "short".into() }, "cannot be read"),
    ] {
        world.names.fail(SERVICE, &error, NO_TIME);
        let error = locator(&world).locate(Trigger::Start, &[]).await.err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, LocateError::NoAddress { .. }), "{error:?}");
        assert!(text.contains(words) && text.contains(SERVICE), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_never_answers_costs_one_and_a_half_seconds() {
    let world = World::new();
    world.names.answer(SERVICE, &["127.0.0.1"], Duration::from_secs(3600));
    let began = Instant::now();
    let error = locator(&world).locate(Trigger::Start, &[]).await.err().unwrap();
    assert!(matches!(error, LocateError::NoAddress { .. }), "{error:?}");
    assert!((ms(1400)..ms(1700)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_last_known_good_list_serves_while_dns_is_silent() {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "127.0.0.1:443", far(10));
    let dir = tempfile::tempdir().unwrap();
    let mut config = world.config();
    config.state_dir = Some(dir.path().to_owned());
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    Locator::new(world.reach("controller/alice"), &config).locate(Trigger::Start, &[]).await.unwrap();
    world.names.answer(SERVICE, &["127.0.0.1"], Duration::from_secs(3600));
    let mut later = Locator::new(world.reach("controller/alice"), &config);
    let located = later.locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!(located.link.broker, broker.id);
}

#[tokio::test(start_paused = true)]
async fn a_late_family_does_not_hold_up_the_first() {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "127.0.0.1:443", far(10));
    world.names.answer(SERVICE, &["127.0.0.1"], ms(20));
    world.names.answer(SERVICE, &["::1"], Duration::from_secs(10));
    let began = Instant::now();
    let located = locator(&world).locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!(located.link.broker, broker.id);
    assert!(began.elapsed() < ms(500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_static_address_is_used_without_dns_and_only_for_its_own_broker() {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "127.0.0.1:8443", far(10));
    let mut config = world.config();
    config.brokers.names.clear();
    let address = broker.address;
    config.brokers.addresses = vec![StaticBroker { broker: broker.id.clone(), address }];
    let mut right = Locator::new(world.reach("controller/alice"), &config);
    assert_eq!(right.locate(Trigger::Start, &[]).await.unwrap().link.broker, broker.id);
    config.brokers.addresses = vec![StaticBroker { broker: "in/other".parse().unwrap(), address }];
    let mut wrong = Locator::new(world.reach("controller/alice"), &config);
    let error = wrong.locate(Trigger::Start, &[]).await.err().unwrap().to_string();
    assert!(error.contains("in/other") && error.contains("in/b"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn loopback_addresses_from_dns_are_not_dialled_unless_allowed() {
    let world = World::new();
    let _broker = FakeBroker::start(&world, "in/b", "127.0.0.1:443", far(10));
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    let mut config = world.config();
    config.brokers.allow_loopback = false;
    let mut locator = Locator::new(world.reach("controller/alice"), &config);
    let error = locator.locate(Trigger::Start, &[]).await.err().unwrap();
    assert!(matches!(error, LocateError::NoAddress { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_of_another_authority_is_named_with_the_certificate() {
    let (world, other) = (World::new(), World::new());
    let foreign = other.ca.credentials("broker/in/b", &[SERVICE]);
    let _broker = FakeBroker::start_with(&world, foreign, "in/b", "127.0.0.1:443", far(10));
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    let error = locator(&world).locate(Trigger::Start, &[]).await.err().unwrap();
    assert_eq!(error.kind(), FailureKind::Unreachable);
    let text = error.to_string();
    for word in [SERVICE, "127.0.0.1:443", "certificate", "another CA", "`ca`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_our_certificate_is_a_matter_of_configuration() {
    let (world, other) = (World::new(), World::new());
    let files = world.ca.issue(&world.ca.id("broker/in/b"), &[SERVICE]);
    let credentials = other.ca.unchecked(&files);
    let _broker = FakeBroker::start_with(&world, credentials, "in/b", "127.0.0.1:443", far(10));
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    let error = locator(&world).locate(Trigger::Start, &[]).await.err().unwrap();
    assert_eq!(error.kind(), FailureKind::Configuration, "{error}");
    assert!(error.to_string().contains("refused our certificate"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_late_joins_the_race_that_runs() {
    let world = World::new();
    let broker = FakeBroker::start(&world, "in/b", "[::1]:443", far(10));
    world.net.silence("127.0.0.1:443".parse().unwrap());
    world.names.answer(SERVICE, &["127.0.0.1"], NO_TIME);
    world.names.answer(SERVICE, &["::1"], ms(400));
    let began = Instant::now();
    let located = locator(&world).locate(Trigger::Start, &[]).await.unwrap();
    assert_eq!(located.link.broker, broker.id);
    assert!(began.elapsed() < ms(1500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_connections_and_never_answers_costs_one_dial() {
    let world = World::new();
    let stuck = Temper { round_trip: Duration::from_secs(3600), ..Temper::default() };
    let stuck = FakeBroker::start(&world, "in/stuck", "127.0.0.1:443", stuck);
    let reach = world.reach("controller/alice");
    let candidate = Candidate { address: stuck.address, expectation: Expectation::Name(SERVICE.to_owned()) };
    let began = Instant::now();
    let failure = ProbeLink::dial(&reach, &candidate).await.err().unwrap();
    assert_eq!(failure.kind, AttemptFailure::TimedOut);
    assert!(failure.reason.contains("127.0.0.1:443"), "{}", failure.reason);
    assert!((ms(3000)..ms(3010)).contains(&began.elapsed()), "{:?}", began.elapsed());
}
