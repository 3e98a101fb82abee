//! Many seeds on every core.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A seed and what broke.
pub type Failure = (u64, String);

/// Runs every seed of `seeds` on as many threads as there are cores and returns the lowest that failed. `progress` hears
/// now and then how many are done.
pub fn run_many(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<(), String> + Sync,
    progress: impl Fn(u64) + Sync,
) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !has_failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(violation) = run(seed) {
                        has_failed.store(true, Ordering::Relaxed);
                        let mut failures = failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        failures.push((seed, violation));
                    }
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().min()
}
