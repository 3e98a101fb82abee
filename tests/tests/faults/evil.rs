//! A broker with a valid certificate that lies.

use rc_tests::evil::{Attack, attack};

use crate::found::Found;

const RUNS: u32 = 240;

pub(crate) async fn run(found: &Found) -> anyhow::Result<()> {
    let verdict = attack(Attack { runs: RUNS, seed: 7 }).await?;
    let total: u64 = verdict.deeds.values().sum();
    let kinds = verdict.deeds.len();
    let measured = format!(
        "{} sessions, {total} paths with {kinds} kinds of deeds, {} wrong",
        verdict.runs,
        verdict.wrong.len()
    );
    // Most sessions have to meet the evil broker, else nothing is shown.
    let is_met = total >= u64::from(verdict.runs) / 2 && kinds == rc_tests::evil::Deed::ALL.len();
    found.note(
        "an_evil_broker_gets_no_wrong_byte_accepted_and_no_peer_mistaken",
        verdict.wrong.is_empty() && is_met,
        if verdict.wrong.is_empty() { measured } else { format!("{:?}", verdict.wrong) },
    );
    if verdict.lost > 0 {
        println!("{:#?}", verdict.reasons);
    }
    let (whole, moved, lost) = (verdict.whole, verdict.moved, verdict.lost);
    found.note(
        "a_session_that_an_evil_broker_breaks_goes_on_through_an_honest_one",
        lost == 0 && moved > 0,
        format!(
            "{whole} whole, {moved} of them moved, {lost} lost, {} refused at the start",
            verdict.refused
        ),
    );
    Ok(())
}
