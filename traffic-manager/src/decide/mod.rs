//! Which endpoints of a profile one answer names.
//!
//! Pure: health is a [`Snapshot`], who asks is an [`Asker`], randomness is an argument. The server calls it once per
//! query; nothing is remembered between queries.
//!
//! It keeps these, whatever the method:
//! * an endpoint that is not in rotation (disabled, inactive, stopped) is never named;
//! * one that is not available is named only when none of the profile is (fail open);
//! * no address is named twice in one answer.

mod answer;
mod multi_value;
mod profile;
mod snapshot;
mod status;

pub use answer::{Answer, AskedType, Asker, ClientSubnet, Decision};
pub use profile::{Endpoint, EndpointIndex, MaxReturn, Method, Profile, Target, Ttl};
pub use snapshot::{EndpointStatus, Health, Snapshot};
pub use status::ProfileStatus;

use rand::Rng;

/// Answers one query for `profile`.
pub fn decide(profile: &Profile, snapshot: &Snapshot, asker: &Asker, rng: &mut impl Rng) -> Decision {
    if ProfileStatus::of(profile, snapshot).is_off() {
        return Decision { answer: Answer::NameError, scope_prefix: 0 };
    }
    match profile.method {
        Method::MultiValue { max_return } => Decision {
            answer: multi_value::answer(profile, snapshot, asker.asked, max_return, rng),
            // The asker's address plays no part, so the answer holds for everybody.
            scope_prefix: 0,
        },
    }
}

#[cfg(test)]
mod tests;
