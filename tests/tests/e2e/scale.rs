//! Many machines that wait at one broker: a thousand registrations, of which any few can be controlled.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
use rc_certs::LeafRequest;
use rc_client::OpenOptions;
use rc_controller_client::{Controller, TicketFile};
use rc_proto::wire::{BrokerId, Role};
use rc_target_client::{Target, TargetConfig};
use rc_tests::{ControllerNode, Mesh};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::one_region;

const TARGETS: usize = 1000;
const CONTROLLED: usize = 50;
/// Targets that look for a broker at the same time.
const STARTING_AT_ONCE: usize = 100;
/// Each identity may open 20 paths at once and hold 16 that it opened for new sessions.
const SESSIONS_PER_CONTROLLER: usize = 10;
/// Three descriptors for each connection that runs through the harness's relay, and what sessions need.
const DESCRIPTORS: u64 = 8 * 1024;
const DEADLINE: Duration = Duration::from_secs(60);
const SEED: u64 = 0x7A26_E7B0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_targets_register_and_a_random_fifty_are_controlled() {
    allow_descriptors(DESCRIPTORS);
    let mesh = one_region(1).await;
    let began = Instant::now();
    let whole = async {
        let targets = registered_targets(&mesh).await;
        println!("{TARGETS} targets registered after {:?}", began.elapsed());
        assert_eq!(registrations(&mesh).await, TARGETS as u64);
        control_some(&mesh).await;
        println!("{CONTROLLED} of them controlled after {:?}", began.elapsed());
        // Nobody lost its place while others were controlled.
        assert_eq!(registrations(&mesh).await, TARGETS as u64);
        targets
    };
    let targets = tokio::time::timeout(DEADLINE, whole).await.expect("within a minute");
    assert_eq!(targets.len(), TARGETS);
}

fn target_name(number: usize) -> String {
    format!("pc-{number}")
}

/// Raises this process's limit, which brokers inherit.
fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |maximum| wanted.min(maximum)));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    }
}

/// Every Target, once its registration is confirmed.
async fn registered_targets(mesh: &Mesh) -> Vec<Target> {
    let mut starting = JoinSet::new();
    let mut targets = Vec::with_capacity(TARGETS);
    for number in 0..TARGETS {
        if starting.len() == STARTING_AT_ONCE {
            targets.extend(starting.join_next().await.map(Result::unwrap));
        }
        let leaf = mesh.authority().issue(&LeafRequest::new(Role::Target, target_name(number))).unwrap();
        let client = mesh.client_config("in", &leaf).unwrap();
        let config = TargetConfig::new(client, [mesh.authority().ticket_keys_file()]);
        starting.spawn(async move {
            let target = Target::start(config).unwrap();
            tokio::spawn(echo_to_everyone(target.clone()));
            target.registered().await.unwrap();
            target
        });
    }
    targets.extend(starting.join_all().await);
    targets
}

async fn echo_to_everyone(target: Target) {
    while let Some(offer) = target.next_offer().await {
        let channel = offer.accept().unwrap();
        tokio::spawn(async move {
            let (mut from_controller, mut to_controller) = tokio::io::split(channel);
            tokio::io::copy(&mut from_controller, &mut to_controller).await.unwrap();
            to_controller.shutdown().await.unwrap();
        });
    }
}

/// What the broker says it holds.
async fn registrations(mesh: &Mesh) -> u64 {
    let broker = BrokerId::new("in", "broker-1").unwrap();
    let (_, status) = mesh.broker(&broker).unwrap().ask("status").await.expect("the broker answers");
    status["usage"]["registrations"].as_u64().expect("a number of registrations")
}

/// Sessions to random Targets, all of them at once.
async fn control_some(mesh: &Mesh) {
    let mut random = StdRng::seed_from_u64(SEED);
    let chosen = index::sample(&mut random, TARGETS, CONTROLLED).into_vec();
    let mut engineers = JoinSet::new();
    for (number, numbers) in chosen.chunks(SESSIONS_PER_CONTROLLER).enumerate() {
        let engineer = mesh.controller("in", &format!("engineer-{number}")).unwrap();
        let tickets = tickets(mesh, &engineer, numbers);
        engineers.spawn(async move {
            let controller = Controller::start(engineer.client_config()).unwrap();
            let mut sessions = JoinSet::new();
            for (target, ticket) in tickets {
                sessions.spawn(echo_one(controller.clone(), target, ticket));
            }
            sessions.join_all().await;
            controller.shutdown().await;
        });
    }
    engineers.join_all().await;
}

fn tickets(mesh: &Mesh, engineer: &ControllerNode, numbers: &[usize]) -> Vec<(String, TicketFile)> {
    let ticket = |number: &usize| {
        let target = target_name(*number);
        let ticket = mesh.ticket(engineer, &target, &["echo"]).unwrap();
        (target, TicketFile(ticket))
    };
    numbers.iter().map(ticket).collect()
}

/// A session whose echo returns what only this Target was sent.
async fn echo_one(controller: Controller, target: String, ticket: TicketFile) {
    let session = controller.connect(&target.parse().unwrap(), ticket).await.unwrap();
    let mut echo = session.open(&"echo".parse().unwrap(), OpenOptions::default()).await.unwrap();
    echo.write_all(target.as_bytes()).await.unwrap();
    echo.shutdown().await.unwrap();
    let mut answer = String::new();
    echo.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, target);
    session.close().await.unwrap();
}
