//! Every claim: its row of the failure model, its words, its bound, and the test that shows it.

/// One claim.
pub(crate) struct Claim {
    pub(crate) group: &'static str,
    pub(crate) test: &'static str,
    pub(crate) row: &'static str,
    pub(crate) claim: &'static str,
    pub(crate) bound: &'static str,
}

const fn claim(
    group: &'static str,
    row: &'static str,
    test: &'static str,
    claim: &'static str,
    bound: &'static str,
) -> Claim {
    Claim { group, test, row, claim, bound }
}

pub(crate) const CLAIMS: &[Claim] = &[claim(
    "evil",
    "M4",
    "an_evil_broker_gets_no_wrong_byte_accepted_and_no_peer_mistaken",
    "a broker with a valid certificate flips, repeats, omits, reorders, inserts, truncates, holds, splices, impersonates, invents",
    "0 wrong bytes, 0 wrong peers",
)];
