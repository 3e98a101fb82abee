//! Random histories of two sessions, and the deliberate bugs that they must catch.
#![cfg(feature = "sim")]

use rc_proto::session::SessionConfig;
use rc_proto::session::sim::run_seed;

const SEEDS: u64 = 2000;

#[test]
fn two_thousand_random_histories_keep_every_invariant() {
    let mut bytes = 0;
    let mut paths = 0;
    let mut channels = 0;
    let mut repeated = 0;
    for seed in 0..SEEDS {
        let outcome = run_seed(seed, SessionConfig::default()).unwrap();
        bytes += outcome.bytes;
        paths += outcome.paths;
        channels += outcome.channels;
        repeated += outcome.repeated;
    }
    // The histories are worth running only if they move bytes, lose paths and send again.
    println!("{bytes} bytes, {paths} paths, {channels} channels, {repeated} bytes repeated");
    assert!(bytes > SEEDS * 100_000, "{bytes} bytes");
    assert!(paths > SEEDS * 4, "{paths} paths");
    assert!(channels as u64 > SEEDS * 3, "{channels} channels");
    assert!(repeated > SEEDS * 10_000, "{repeated} bytes repeated");
}

#[test]
fn small_windows_and_caps_keep_every_invariant() {
    let config = SessionConfig {
        send_cap_bytes: 5000,
        receive_window_bytes: 64 * 1024,
        frame_payload_bytes_max: 700,
        ..SessionConfig::default()
    };
    for seed in 0..300 {
        run_seed(seed, config.clone()).unwrap();
    }
}

#[cfg(feature = "mutants")]
#[test]
fn every_mutant_is_caught() {
    use rc_proto::session::Mutant;
    for mutant in [
        Mutant::NoRewindOnBind,
        Mutant::PositionBelowBaseFatal,
        Mutant::ReplayFreedOnSend,
        Mutant::DuplicatesCounted,
        Mutant::FinNotRepeated,
        Mutant::CreditOverwritten,
        Mutant::SkipNotRepeated,
        Mutant::AcksNotRepeated,
        Mutant::OpenNotRepeated,
        Mutant::EpochCheckDropped,
        Mutant::StandbyBinds,
        Mutant::CapIgnored,
        Mutant::CreditIgnored,
        Mutant::FinBeforeLastByte,
        Mutant::AckAhead,
        Mutant::GrantShrinks,
        Mutant::SkipOffBoundary,
        Mutant::FinNotAcknowledged,
        Mutant::EndBeforeChannels,
    ] {
        // Small buffers show what a cap is for.
        let send_cap_bytes = if mutant == Mutant::CapIgnored { 5_000 } else { 4 * 1024 * 1024 };
        let config = SessionConfig { mutant: Some(mutant), send_cap_bytes, ..SessionConfig::default() };
        let caught = (0..SEEDS).find_map(|seed| run_seed(seed, config.clone()).err());
        println!("{mutant:?}: {caught:?}");
        assert!(caught.is_some(), "{mutant:?} survives {SEEDS} histories");
    }
}
