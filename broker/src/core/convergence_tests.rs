//! Several registries that announce to each other over links that part and heal: whatever happened, they agree in
//! the end.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rc_proto::wire::Incarnation;

use super::*;

const BROKERS: usize = 4;

/// A registration that came or went, on its way between two brokers.
type News = (Claim, bool);

struct Mesh {
    nodes: Vec<Sut>,
    links: BTreeMap<(usize, usize), VecDeque<News>>,
    down: Vec<(usize, usize)>,
    next_link: u64,
}

/// A run of the Target's process: where it is registered, over which link.
struct Instance {
    number: u8,
    generation: u64,
    at: Vec<(usize, LinkId)>,
}

fn broker(number: usize) -> BrokerId {
    format!("r/b{number}").parse().unwrap()
}

impl Mesh {
    fn new() -> Self {
        let pairs = (0..BROKERS).flat_map(|a| (0..BROKERS).filter(move |b| *b != a).map(move |b| (a, b)));
        Self {
            nodes: (0..BROKERS).map(|_| Sut::new()).collect(),
            links: pairs.map(|pair| (pair, VecDeque::new())).collect(),
            down: Vec::new(),
            next_link: 0,
        }
    }

    fn is_up(&self, a: usize, b: usize) -> bool {
        !self.down.contains(&(a.min(b), a.max(b)))
    }

    fn announce(&mut self, from: usize, claim: &Claim, present: bool) {
        for to in (0..BROKERS).filter(|to| *to != from) {
            if self.is_up(from, to) {
                self.links.get_mut(&(from, to)).unwrap().push_back((claim.clone(), present));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some((claim, present)) = self.links.get_mut(&(from, to)).unwrap().pop_front() else {
            return false;
        };
        let hint = Hint { broker: broker(from), incarnation: Incarnation(1), claim, cost_us: 0 };
        if !present {
            self.nodes[to].hint_left(&target("pc"), &hint);
            return true;
        }
        let hinted = self.nodes[to].hint_came(&target("pc"), hint, NOW);
        for older in hinted.superseded {
            self.announce(to, &older.claim, true);
        }
        for moved in hinted.moved {
            self.announce(to, &moved.claim, false);
        }
        true
    }

    fn part(&mut self, a: usize, b: usize) {
        if self.is_up(a, b) {
            self.down.push((a.min(b), a.max(b)));
            for (from, to) in [(a, b), (b, a)] {
                self.links.get_mut(&(from, to)).unwrap().clear();
                self.nodes[to].peer_lost(&broker(from));
            }
        }
    }

    fn heal(&mut self, a: usize, b: usize) {
        self.down.retain(|pair| *pair != (a.min(b), a.max(b)));
        for (from, to) in [(a, b), (b, a)] {
            for (_, found) in self.nodes[from].registrations() {
                self.links.get_mut(&(from, to)).unwrap().push_back((found.claim, true));
            }
        }
    }

    fn register(&mut self, instance: &mut Instance, at: usize) {
        instance.generation += 1;
        let link_id = LinkId(self.next_link);
        self.next_link += 1;
        let claim = claim(instance.number, instance.number.into(), instance.generation, P);
        let outcome = self.nodes[at].register(&target("pc"), claim, link_id, "link", 0, NOW);
        if let Registering::Stands { claim, superseded, evicted, .. } = outcome {
            for older in superseded {
                self.announce(at, &older.claim, true);
            }
            if let Some(evicted) = evicted {
                self.announce(at, &evicted.claim, false);
            }
            self.announce(at, &claim, true);
            instance.at.push((at, link_id));
        }
    }

    fn lose_oldest_link(&mut self, instance: &mut Instance) {
        if instance.at.len() > 1 {
            let (at, link_id) = instance.at.remove(0);
            for left in self.nodes[at].link_lost(&target("pc"), link_id).registrations {
                self.announce(at, &left.claim, false);
            }
        }
    }

    fn settle(&mut self) {
        while (0..BROKERS).any(|from| (0..BROKERS).any(|to| from != to && self.deliver(from, to))) {}
    }

    /// Every broker's answer to where the Target is: first what is here, then what was announced.
    fn found(&self, instance: Option<InstanceId>) -> Vec<Vec<BrokerId>> {
        let here = |at: usize| self.nodes[at].find(&target("pc"), instance).map(|_| broker(at));
        let hints =
            |at: usize| self.nodes[at].hints(&target("pc"), instance).into_iter().map(|hint| hint.broker);
        (0..BROKERS).map(|at| here(at).into_iter().chain(hints(at)).collect()).collect()
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut mesh = Mesh::new();
    let mut instances = [1, 2].map(|number| Instance { number, generation: 0, at: Vec::new() });
    for _ in 0..60 {
        let (a, b) = (rng.random_range(0..BROKERS), rng.random_range(0..BROKERS));
        let instance = &mut instances[rng.random_range(0..2)];
        match rng.random_range(0..8) {
            0 => mesh.register(instance, a),
            1 => mesh.lose_oldest_link(instance),
            2 if a != b => mesh.part(a, b),
            3 if a != b && !mesh.is_up(a, b) => mesh.heal(a, b),
            _ if a != b => drop(mesh.deliver(a, b)),
            _ => {}
        }
    }
    for (a, b) in std::mem::take(&mut mesh.down) {
        mesh.heal(a, b);
    }
    mesh.settle();
    let last = rng.random_range(0..BROKERS);
    mesh.register(&mut instances[1], last);
    for instance in &mut instances {
        (0..60).for_each(|_| mesh.lose_oldest_link(instance));
    }
    mesh.settle();
    for (at, found) in mesh.found(None).into_iter().enumerate() {
        assert_eq!(found, [broker(last)], "seed {seed}: what broker {at} says");
    }
    let registered: usize = mesh.nodes.iter().map(Registry::registration_count).sum();
    let by_name = mesh.found(Some(InstanceId([1; 16])));
    assert!(by_name.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {by_name:?}");
    assert_eq!(registered, 1 + by_name[0].len(), "seed {seed}: {by_name:?}");
}

#[test]
fn after_every_partition_all_brokers_agree_on_one_primary_and_find_the_older_instance_by_name_alone() {
    for seed in 0..3_000 {
        run(seed);
    }
}
