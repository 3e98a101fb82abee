//! Probes and the score made of them.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rc_proto::Moment;
use rc_proto::select::score::SAMPLES_MAX;
use rc_proto::select::{Measurement, Sample, SamplePool, Score, Warmth};

use crate::world::{at, ms};

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(1)
}

/// Sends every probe and answers each after what `round_trip` says of it; returns samples and send times.
fn run(warmth: Warmth, round_trip: impl Fn(usize) -> Option<Duration>) -> (Vec<Sample>, Vec<Moment>) {
    let mut measurement = Measurement::new(warmth, at(0));
    let (mut samples, mut sent, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut rng = rng();
    let mut now = at(0);
    loop {
        while let Some(nonce) = measurement.poll_probe(now, &mut rng) {
            if let Some(after) = round_trip(sent.len()) {
                answers.push((now + after, nonce));
            }
            sent.push(now);
        }
        let next_answer = answers.iter().map(|(due, _)| *due).min();
        let Some(next) = measurement.poll_timeout().into_iter().chain(next_answer).min() else { break };
        now = next;
        for (_, nonce) in answers.extract_if(.., |(due, _)| *due <= now) {
            samples.extend(measurement.handle_pong(nonce, now));
        }
        samples.extend(measurement.handle_timeout(now));
    }
    assert!(measurement.is_finished());
    (samples, sent)
}

#[test]
fn five_probes_40_to_60_ms_apart_count() {
    let (samples, sent) = run(Warmth::Warm, |_| Some(ms(30)));
    assert_eq!(samples.iter().map(|sample| sample.round_trip).collect::<Vec<_>>(), [ms(30); 5]);
    assert_eq!(sent.len(), 5);
    for pair in sent.windows(2) {
        let distance = pair[1].since(pair[0]);
        assert!((ms(40)..=ms(60)).contains(&distance), "{distance:?}");
    }
}

#[test]
fn the_first_sample_of_a_cold_connection_is_dropped() {
    let (samples, sent) = run(Warmth::Cold, |probe| Some(if probe == 0 { ms(250) } else { ms(30) }));
    assert_eq!((samples.len(), sent.len()), (5, 6));
    assert!(samples.iter().all(|sample| sample.round_trip == ms(30)));
}

#[test]
fn a_probe_counts_300_ms_when_it_is_lost_or_later() {
    for (answer, expected, lost) in [
        (Some(ms(299)), ms(299), false),
        (Some(ms(300)), ms(300), true),
        (Some(ms(900)), ms(300), true),
        (None, ms(300), true),
    ] {
        let (samples, _) = run(Warmth::Warm, |_| answer);
        assert_eq!(samples.len(), 5, "{answer:?}");
        assert!(
            samples.iter().all(|s| (s.round_trip, s.lost) == (expected, lost)),
            "{answer:?}: {samples:?}"
        );
    }
}

#[test]
fn an_answer_that_was_not_asked_for_counts_nothing() {
    let mut measurement = Measurement::new(Warmth::Warm, at(0));
    let nonce = measurement.poll_probe(at(0), &mut rng()).unwrap();
    assert_eq!(measurement.handle_pong(nonce ^ 1, at(5)), None);
    assert!(measurement.handle_pong(nonce, at(5)).is_some());
    assert_eq!(measurement.handle_pong(nonce, at(6)), None, "a repeated answer counts once");
}

#[test]
fn closing_counts_probes_on_their_way_neither_way() {
    let mut measurement = Measurement::new(Warmth::Warm, at(0));
    let nonce = measurement.poll_probe(at(0), &mut rng()).unwrap();
    measurement.close();
    assert!(measurement.is_finished());
    assert_eq!((measurement.handle_pong(nonce, at(5)), measurement.handle_timeout(at(900))), (None, vec![]));
    assert_eq!((measurement.poll_probe(at(60), &mut rng()), measurement.poll_timeout()), (None, None));
}

fn score(values_ms: &[u64]) -> Option<(Duration, Duration, Duration)> {
    Score::of(values_ms.iter().copied().map(ms)).map(|score| (score.total, score.median, score.spread))
}

#[test]
fn the_score_is_median_plus_spread_from_four_samples_on() {
    assert_eq!(score(&[]), None);
    assert_eq!(score(&[20]), Some((ms(20), ms(20), ms(0))));
    assert_eq!(score(&[40, 20, 21]), Some((ms(21), ms(21), ms(1))), "three: the median alone");
    assert_eq!(score(&[10, 20, 30, 40]), Some((ms(35), ms(25), ms(10))));
    assert_eq!(score(&[20, 20, 20, 20, 300]), Some((ms(20), ms(20), ms(0))), "one loss does not decide");
    assert_eq!(score(&[20, 300, 20, 300, 300]), Some((ms(300), ms(300), ms(0))));
}

#[test]
fn a_pool_keeps_the_last_15_samples_of_five_minutes() {
    let sample = |value, when| Sample { round_trip: ms(value), at: at(when), lost: false };
    let mut pool = SamplePool::default();
    for place in 0..20 {
        pool.push(sample(place, 1000));
    }
    let kept: Vec<Duration> = pool.fresh(at(1000)).map(|sample| sample.round_trip).collect();
    assert_eq!(kept, (5..20).map(ms).collect::<Vec<_>>());
    assert_eq!(kept.len(), SAMPLES_MAX);
    assert_eq!(pool.fresh(at(301_000)).count(), 15);
    assert_eq!(pool.fresh(at(301_001)).count(), 0);
    assert_eq!(pool.score(at(301_001)), None);
}

proptest! {
    #[test]
    fn a_score_lies_between_the_least_and_twice_the_largest_sample(values in prop::collection::vec(0_u64..1_000_000, 1..40)) {
        let score = Score::of(values.iter().copied().map(Duration::from_micros)).unwrap();
        let (least, most) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
        prop_assert!(score.median >= Duration::from_micros(least));
        prop_assert!(score.median <= Duration::from_micros(most));
        prop_assert!(score.spread <= Duration::from_micros(most - least));
        prop_assert_eq!(score.count, values.len());
    }
}
