//! How far the chosen path is from the best one, on published round trips between cloud regions.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rc_proto::mesh::{Matrix, RouteRequest};
use rc_proto::wire::BrokerId;

use crate::world::{Broker, Jitter, at, broker_id, first_choice, ms};

const CSV: &str = include_str!("../../data/azure-region-rtt-ms.csv");
/// Inside a region.
const LOCAL_MS: u64 = 1;

struct Regions {
    names: Vec<String>,
    round_trips: BTreeMap<(usize, usize), Duration>,
}

fn regions() -> Regions {
    let mut lines = CSV.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<String> = lines.next().unwrap().split(',').skip(1).map(str::to_owned).collect();
    let mut round_trips = BTreeMap::new();
    for (from, line) in lines.enumerate() {
        let mut cells = line.split(',');
        assert_eq!(cells.next(), Some(names[from].as_str()));
        for (to, cell) in cells.enumerate() {
            round_trips.insert((from, to), ms(cell.parse::<u64>().unwrap().max(LOCAL_MS)));
        }
    }
    assert_eq!(round_trips.len(), names.len() * names.len());
    Regions { names, round_trips }
}

impl Regions {
    /// One broker a region, as somebody in `from` sees them, in random order.
    fn brokers_seen_from(&self, from: usize, rng: &mut SmallRng) -> Vec<Broker> {
        let mut brokers: Vec<Broker> = (0..self.names.len())
            .map(|to| {
                let mut broker =
                    Broker::new(&format!("{}/b1", self.names[to]), self.round_trips[&(from, to)]);
                broker.jitter = Jitter::Spikes(20, self.round_trips[&(from, to)] / 5);
                broker
            })
            .collect();
        brokers.shuffle(rng);
        brokers
    }

    fn place(&self, broker: &BrokerId) -> usize {
        self.names.iter().position(|name| name == broker.region()).unwrap()
    }

    /// What the path truly costs, without anything added.
    fn cost(&self, controller: usize, brokers: &[usize], target: usize) -> Duration {
        let stops = [&[controller], brokers, &[target]].concat();
        let hops = stops.windows(2).map(|hop| self.round_trips[&(hop[0], hop[1])]);
        hops.sum()
    }

    /// The cheapest path over one to three brokers.
    fn optimum(&self, controller: usize, target: usize) -> Duration {
        let all = 0..self.names.len();
        let mut best = Duration::MAX;
        for one in all.clone() {
            best = best.min(self.cost(controller, &[one], target));
            for two in all.clone().filter(|two| *two != one) {
                best = best.min(self.cost(controller, &[one, two], target));
                for three in all.clone().filter(|three| *three != one && *three != two) {
                    best = best.min(self.cost(controller, &[one, two, three], target));
                }
            }
        }
        best
    }
}

fn mesh(regions: &Regions) -> Matrix {
    let mut matrix = Matrix::default();
    let id = |place: usize| broker_id(&format!("{}/b1", regions.names[place]));
    for from in 0..regions.names.len() {
        let row: Vec<_> = (0..regions.names.len())
            .map(|to| (id(to), u32::try_from(regions.round_trips[&(from, to)].as_micros()).unwrap()))
            .collect();
        matrix.handle_row(&id(from), &row, at(0));
    }
    matrix
}

fn mean_ms(values: &[Duration]) -> f64 {
    let sum: Duration = values.iter().sum();
    sum.as_secs_f64() * 1000.0 / f64::from(u32::try_from(values.len()).unwrap())
}

#[test]
fn the_first_choice_is_near_for_every_region() {
    let regions = regions();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut regrets = Vec::new();
    for from in 0..regions.names.len() {
        for _ in 0..50 {
            let brokers = regions.brokers_seen_from(from, &mut rng);
            let found = first_choice(&brokers, at(0), &mut rng);
            let chosen = regions.place(&found.choice.chosen.unwrap());
            regrets.push(regions.round_trips[&(from, chosen)] - ms(LOCAL_MS));
        }
    }
    let mean = mean_ms(&regrets);
    println!("mean regret of the first choice: {mean:.2} ms");
    assert!(mean <= 10.0, "{mean:.2} ms");
}

/// Both ends choose on their own, publish what they measured, and the cheapest pair is taken.
#[test]
fn the_joint_path_is_close_to_the_true_optimum_for_every_pair_of_regions() {
    let regions = regions();
    let matrix = mesh(&regions);
    let mut rng = SmallRng::seed_from_u64(2);
    let mut regrets = Vec::new();
    for controller in 0..regions.names.len() {
        for target in 0..regions.names.len() {
            let mut scores = |from| -> Vec<(BrokerId, Duration)> {
                let brokers = regions.brokers_seen_from(from, &mut rng);
                let found = first_choice(&brokers, at(0), &mut rng);
                let whole = found.standings.scores(found.now).into_iter();
                whole.map(|(broker, score)| (broker, ms(score.into()))).collect()
            };
            let (ours, theirs) = (scores(controller), scores(target));
            let request = RouteRequest { controller: &ours, target: &theirs, avoid: &[] };
            let route = request.cheapest(&matrix, |_| 100, at(0)).unwrap();
            let places: Vec<usize> = route.brokers.iter().map(|broker| regions.place(broker)).collect();
            let (cost, best) =
                (regions.cost(controller, &places, target), regions.optimum(controller, target));
            assert!(cost >= best);
            regrets.push(cost - best);
        }
    }
    let mean = mean_ms(&regrets);
    let worst = regrets.iter().max().unwrap();
    println!("mean regret of the joint path: {mean:.2} ms, worst {worst:?}");
    assert!(mean <= 5.0, "{mean:.2} ms");
}
