//! The whole cluster in simulation: some seeds (`rc-sim --seeds N` runs any number), and that a seed is a history.

use std::sync::Mutex;

use rc_tests::cluster::{Counts, Options, run_many, run_seed};

const SEEDS: u64 = 100;

#[test]
fn histories_of_the_cluster_keep_every_invariant() {
    let total = Mutex::new(Counts::default());
    let failure = run_many(
        0..SEEDS,
        |seed| {
            let report = run_seed(seed, &Options::default());
            total.lock().unwrap().add(report.counts);
            report.violation.map_or(Ok(()), Err)
        },
        |_| {},
    );
    if let Some((seed, violation)) = failure {
        panic!("{violation}\nagain: cargo run --release -p rc-tests --bin rc-sim -- --seed {seed} --trace");
    }
    // The histories are worth running only if they move bytes, lose paths, and go wrong.
    let total = total.into_inner().unwrap();
    println!("{total:?}");
    assert!(total.faults >= SEEDS * 30, "{total:?}");
    assert!(total.paths >= SEEDS * 40, "{total:?}");
    assert!(total.bytes >= SEEDS * 500_000, "{total:?}");
    assert!(total.detached >= SEEDS * 10, "{total:?}");
    assert!(total.skipped >= SEEDS * 1_000, "{total:?}");
}

#[test]
fn the_same_seed_has_the_same_trace_hash() {
    let mut hashes = Vec::new();
    for seed in 0..8 {
        let [one, other] = [(), ()].map(|()| run_seed(seed, &Options::default()));
        assert_eq!((one.hash, one.counts), (other.hash, other.counts), "seed {seed}");
        hashes.push(one.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 8, "different seeds are different histories");
}
