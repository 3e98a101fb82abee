//! A mesh of sixty brokers without sockets: how Targets are found, and with how many messages.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rc_proto::wire::Generation;
use rc_proto::wire::codes::{PathFailure, Purpose};

use super::*;
use crate::core::registry::{LinkId, Registering, Registry};
use crate::core::search::{Candidate, Search, Step, View};
use crate::core::standing::Claim;

const P: RegistrationRole = RegistrationRole::PRIMARY;
const NOW: u64 = 1_000;

fn broker(number: usize) -> BrokerId {
    format!("r/b{number}").parse().unwrap()
}

fn target(number: usize) -> EndpointId {
    format!("pc-{number}").parse().unwrap()
}

fn at(ms: u64) -> Moment {
    Moment::from_origin(Duration::from_millis(ms))
}

struct Node {
    registry: Registry<(), (), ()>,
    is_up: bool,
}

/// All brokers that are up are linked to each other.
struct Mesh {
    nodes: Vec<Node>,
    messages: usize,
    asked_all: usize,
}

impl Mesh {
    fn new(brokers: usize) -> Self {
        let node = || Node { registry: Registry::new(), is_up: true };
        Self { nodes: (0..brokers).map(|_| node()).collect(), messages: 0, asked_all: 0 }
    }

    fn number(id: &BrokerId) -> usize {
        id.id().trim_start_matches('b').parse().unwrap()
    }

    fn linked(&self, own: usize) -> Vec<BrokerId> {
        (0..self.nodes.len()).filter(|n| *n != own && self.nodes[*n].is_up).map(broker).collect()
    }

    fn announce(&mut self, from: usize, to: &BrokerId, target: &EndpointId, claim: &Claim) {
        self.messages += 1;
        let hint =
            Hint { broker: broker(from), incarnation: Incarnation(1), claim: claim.clone(), cost_us: 0 };
        let hinted = self.nodes[Self::number(to)].registry.hint_came(target, hint, NOW);
        for older in hinted.superseded {
            let to_number = Self::number(to);
            for replica in audience(to, &self.linked(to_number), target) {
                self.announce(to_number, &replica, target, &older.claim);
            }
        }
    }

    fn consult(&mut self, own: usize, target: &EndpointId, wanted: Wanted) -> Vec<Place> {
        let asked = replicas(&broker(own), &self.linked(own), target);
        let mut consultation =
            Consultation::new(wanted, asked.iter().map(|broker| (broker.clone(), Duration::ZERO)), at(0));
        for replica in &asked {
            self.messages += 2;
            let (here, hints) = self.nodes[Self::number(replica)].registry.everything(target);
            consultation.handle_answer(replica, places((replica, Incarnation(1)), here, hints));
            if consultation.wait_until(at(1)).is_none() {
                break;
            }
        }
        consultation.into_places()
    }

    /// A registration, its announcements, and the question who else holds the Target.
    fn register(&mut self, at: usize, number: usize, instance: u8, generation: u64) {
        let (id, target) = (InstanceId([instance; 16]), target(number));
        let claim =
            Claim { instance: id, started_ms: instance.into(), generation: Generation(generation), role: P };
        let outcome = self.nodes[at].registry.register(&target, claim, LinkId(generation), (), 0, NOW);
        let Registering::Stands { claim, .. } = outcome else { panic!("{outcome:?}") };
        for peer in audience(&broker(at), &self.linked(at), &target) {
            self.announce(at, &peer, &target, &claim);
        }
        if is_used(&self.linked(at)) {
            for place in self.consult(at, &target, Wanted::Everything) {
                if place.broker != broker(at) {
                    self.announce(at, &place.broker, &target, &claim);
                }
            }
        }
    }

    /// The search as the ingress runs it; the broker that the Target was reached at, and how many were tried.
    fn find(
        &mut self,
        ingress: usize,
        number: usize,
        instance: Option<InstanceId>,
    ) -> (Option<usize>, usize) {
        let target = target(number);
        let mut search = Search::new(Purpose::RESUME, Vec::new(), Vec::new(), at(0));
        let candidate =
            |place: Place| Candidate { broker: place.broker, role: place.role, cost_us: place.cost_us };
        let registry = &self.nodes[ingress].registry;
        let hints =
            places::<()>((&broker(ingress), Incarnation(1)), Vec::new(), registry.hints(&target, instance));
        search.add_candidates(hints.into_iter().map(candidate));
        let mut tried = 0;
        loop {
            let linked = self.linked(ingress);
            let view = View {
                is_here: self.nodes[ingress].registry.find(&target, instance).is_some(),
                peers_linked: linked.len(),
                has_directory: is_used(&linked),
                is_mesh_healthy: true,
            };
            match search.next(view, at(0)) {
                Step::InviteHere => return (Some(ingress), tried),
                Step::Along(route) => {
                    tried += 1;
                    let node = &self.nodes[Self::number(&route[0])];
                    if node.is_up && node.registry.find(&target, instance).is_some() {
                        return (Some(Self::number(&route[0])), tried);
                    }
                    search.attempt_failed(PathFailure::NOT_HERE);
                }
                Step::Consult => {
                    let found = self.consult(ingress, &target, Wanted::Open(instance));
                    search.add_candidates(found.into_iter().map(candidate));
                }
                Step::Locate => {
                    self.asked_all += 1;
                    self.messages += 2 * linked.len();
                    let holds = |id: &&BrokerId| {
                        self.nodes[Self::number(id)].registry.find(&target, instance).is_some()
                    };
                    let found = linked.iter().filter(holds);
                    let found = found.map(|id| Candidate { broker: id.clone(), role: P, cost_us: 0 });
                    search.located(found.collect::<Vec<_>>(), 0);
                }
                Step::Park(_) | Step::Fail(_) => return (None, tried),
            }
        }
    }

    fn lose(&mut self, number: usize) {
        let before: Vec<_> = (0..self.nodes.len()).map(|own| self.linked(own)).collect();
        self.nodes[number].is_up = false;
        for own in
            (0..self.nodes.len()).filter(|own| *own != number && self.nodes[*own].is_up).collect::<Vec<_>>()
        {
            self.nodes[own].registry.peer_lost(&broker(number));
            for (target, found) in self.nodes[own].registry.registrations() {
                for peer in gained(&broker(own), &before[own], &self.linked(own), &target) {
                    self.announce(own, &peer, &target, &found.claim);
                }
            }
        }
    }
}

#[test]
fn in_a_mesh_of_sixty_a_target_is_found_by_three_questions_at_most() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut mesh = Mesh::new(60);
    let homes: Vec<usize> = (0..300).map(|_| rng.random_range(0..60)).collect();
    for (number, home) in homes.iter().enumerate() {
        mesh.register(*home, number, 1, 1);
    }
    // Three announcements and at most three questions with answers for each, instead of 59.
    assert!(mesh.messages <= 300 * 9, "{} messages", mesh.messages);
    mesh.messages = 0;
    for round in 0..2_000 {
        let number = round % 300;
        let (found, tried) = mesh.find(rng.random_range(0..60), number, None);
        assert_eq!(found, Some(homes[number]));
        assert!(tried <= 1);
    }
    assert_eq!(mesh.asked_all, 0);
    assert!(mesh.messages <= 2_000 * 6, "{} messages", mesh.messages);
    assert_eq!(mesh.find(0, 999, None).0, None);
    assert_eq!(mesh.asked_all, 1, "nobody is given up before everybody was asked");
}

#[test]
fn when_every_entry_is_wrong_everybody_is_asked() {
    let mut mesh = Mesh::new(60);
    for number in 0..60 {
        mesh.register(number, number, 1, 1);
    }
    for number in 0..60 {
        // It moves, and no word of it arrives anywhere.
        let claim =
            Claim { instance: InstanceId([1; 16]), started_ms: 1, generation: Generation(2), role: P };
        drop(mesh.nodes[number].registry.link_lost(&target(number), LinkId(1)));
        drop(mesh.nodes[(number + 7) % 60].registry.register(&target(number), claim, LinkId(2), (), 0, NOW));
    }
    for number in 0..60 {
        let (found, tried) = mesh.find((number + 31) % 60, number, None);
        assert_eq!(found, Some((number + 7) % 60));
        assert!(tried <= 2, "{tried} brokers were tried");
    }
}

#[test]
fn entries_move_on_when_brokers_are_lost_down_to_a_mesh_without_a_directory() {
    let mut mesh = Mesh::new(60);
    for number in 0..100 {
        mesh.register(number % 20, number, 1, 1);
    }
    for lost in (20..60).rev() {
        mesh.lose(lost);
        for number in (0..100).step_by(9) {
            let (found, tried) = mesh.find((number + 1) % 20, number, None);
            assert_eq!((found, tried), (Some(number % 20), 1), "after {lost} was lost");
        }
    }
    assert_eq!(mesh.asked_all, 0);
}

#[test]
fn a_later_instance_supersedes_the_older_one_through_the_directory() {
    let mut mesh = Mesh::new(60);
    for number in 0..60 {
        let (older, later) = (number, (number + 13) % 60);
        mesh.register(older, number, 1, 1);
        mesh.register(later, number, 2, 1);
        for ingress in [0, 17, 44] {
            assert_eq!(mesh.find(ingress, number, None).0, Some(later));
            assert_eq!(mesh.find(ingress, number, Some(InstanceId([1; 16]))).0, Some(older));
        }
        let roles: Vec<_> = mesh.nodes[older].registry.registrations();
        let role = roles.iter().find(|(id, _)| *id == target(number)).map(|(_, found)| found.claim.role);
        assert_eq!(role, Some(RegistrationRole::RESUME));
    }
}

#[test]
fn up_to_thirty_peers_everybody_is_told() {
    for (peers, told) in [(29, 29), (30, 30), (31, 3)] {
        let linked: Vec<_> = (1..=peers).map(broker).collect();
        let audience = audience(&broker(0), &linked, &target(1));
        assert!(audience.len() == told || (told == 3 && audience.len() == 2), "{peers}: {}", audience.len());
    }
}

#[test]
fn a_silent_replica_is_not_waited_for_beyond_its_patience() {
    let asked = [(broker(1), Duration::from_millis(10)), (broker(2), Duration::from_millis(200))];
    let mut consultation = Consultation::new(Wanted::Everything, asked, at(0));
    assert_eq!(consultation.wait_until(at(0)), Some(at(400)));
    consultation.handle_answer(&broker(1), Vec::new());
    consultation.handle_answer(&broker(9), vec![place(9, 1)]);
    assert_eq!(consultation.wait_until(at(399)), Some(at(400)));
    assert_eq!(consultation.wait_until(at(400)), None);
    assert!(consultation.into_places().is_empty());
    let wanted = Wanted::Open(Some(InstanceId([2; 16])));
    let both = [(broker(1), Duration::ZERO), (broker(2), Duration::ZERO)];
    let mut consultation = Consultation::new(wanted, both, at(0));
    consultation.handle_answer(&broker(1), vec![place(3, 1), place(4, 2)]);
    assert_eq!(consultation.wait_until(at(0)), None);
    assert_eq!(consultation.into_places(), [place(4, 2)]);
    let mut consultation = Consultation::new(wanted, [(broker(1), Duration::ZERO)], at(0));
    consultation.handle_lost(&broker(1));
    assert_eq!(consultation.wait_until(at(0)), None);
}

fn place(at: usize, instance: u8) -> Place {
    Place {
        broker: broker(at),
        incarnation: Incarnation(1),
        instance: InstanceId([instance; 16]),
        role: P,
        cost_us: 0,
    }
}
