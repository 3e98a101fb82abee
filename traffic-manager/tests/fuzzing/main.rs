//! Replays the fuzzer's corpus and a short run of it; the long one is `cargo bench --bench fuzz`.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "in a test binary whatever is not as expected fails the test"
)]

#[path = "../../benches/fuzz/core.rs"]
mod core;

#[test]
fn every_query_of_the_corpus_gets_a_sound_answer_or_silence() {
    let (queries, texts) = core::corpus();
    let mut target = core::Target::new(&texts[0], 1);
    assert!(queries.len() >= 20);
    for query in &queries {
        for length in 0..=query.len() {
            target.query(&query[..length]);
        }
    }
}

#[test]
fn every_configuration_of_the_corpus_is_taken_or_refused_with_reasons() {
    let (_, texts) = core::corpus();
    let mut target = core::Target::new(&texts[0], 1);
    assert!(texts.len() >= 3);
    for text in &texts {
        target.configuration(text);
    }
}

#[test]
fn a_short_run_of_the_fuzzer_finds_nothing() {
    let (queries, texts) = core::corpus();
    let mut target = core::Target::new(&texts[0], 7);
    let (mut mutator, mut input) = (core::Mutator::new(7), Vec::new());
    for run in 0..40_000 {
        if run % 200 == 0 {
            target.configuration(&mutator.text(&texts));
        } else {
            mutator.bytes(&queries, &mut input);
            target.query(&input);
        }
    }
}
