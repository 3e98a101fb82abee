//! Rules of the session by claim, on a pair of sessions.

use super::sim::run_seed;
use super::*;

#[test]
fn random_histories_keep_every_invariant() {
    for seed in 0..400 {
        run_seed(seed, SessionConfig::default()).unwrap();
    }
}
