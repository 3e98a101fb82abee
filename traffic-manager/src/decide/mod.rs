//! Which endpoints of a profile one answer names.
//!
//! Pure: health is a [`Snapshot`], what is known about askers are [`Maps`], who asks is an [`Asker`], randomness is an
//! argument. The server calls [`decide`] once per query; nothing is remembered between queries. [`explain`] does the
//! same and says why.
//!
//! It keeps these, whatever the method:
//! * an endpoint that is not in rotation (disabled, inactive, stopped) is never named;
//! * one that is not available is named only when none of the profile is (fail open), by Geographic routing, which
//!   does not look at health, and by a subnet override of Geographic routing;
//! * no address is named twice in one answer;
//! * the scope covers no address whose answer would be another.
//!
//! | module | owns |
//! |---|---|
//! | `profile`, `options` | profiles and endpoints, as configured |
//! | `snapshot`, `status`, `directive` | the states of everything, from what is observed and ordered |
//! | `region`, `place`, `ranges`, `geo_database` | where askers and endpoints are |
//! | `learned` | round trips that clients reported |
//! | `pool`, `query`, `multi_value` | the choice |

mod answer;
mod countries;
mod directive;
mod geo_database;
mod learned;
mod multi_value;
mod options;
mod place;
mod pool;
mod profile;
mod query;
mod ranges;
mod region;
mod snapshot;
mod status;
mod trace;

pub use answer::{Answer, AskedType, Asker, ClientSubnet, Decision};
pub use directive::{Directive, Directives, UnknownDirective};
pub use geo_database::{GeoDatabase, GeoDatabaseError};
pub use learned::{Learned, LearnedLimits};
pub use options::{AllDown, Draw, NoMatch, ProfileOptions, RecordType, Watermarks};
pub use place::{Distances, EmptyLocation, Geography, Latency, Location, Maps, RoundTrips};
pub use profile::{
    Endpoint, EndpointIndex, MaxReturn, Method, MinimumChildren, NESTING_MAX, Profile, Target, Ttl,
};
pub use ranges::{AddressRange, InRange, RangeError, RangeMap};
pub use region::{GeoRegion, UnknownRegion};
pub use snapshot::{EndpointStatus, Health, Snapshot};
pub use status::ProfileStatus;
pub use trace::Step;

use rand::Rng;

use query::Query;
use trace::Trace;

/// What answers are decided by, at one moment. The snapshot is one [`Snapshot::of`] the same profiles.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// All profiles; nested ones are named by their position.
    pub profiles: &'v [Profile],
    /// The states of their endpoints.
    pub snapshot: &'v Snapshot,
    /// What is known about askers.
    pub maps: &'v Maps,
}

/// Answers one query for the profile at `position`.
pub fn decide(view: &View<'_>, position: usize, asker: &Asker, rng: &mut impl Rng) -> Decision {
    let mut query = Query::new(view, asker.asked, asker.address(), Trace::Off, rng);
    let answer = query.answer(position);
    Decision { answer, scope_prefix: scope(asker, query.scope) }
}

/// Answers like [`decide`], and says why, step by step.
pub fn explain(view: &View<'_>, position: usize, asker: &Asker, rng: &mut impl Rng) -> (Decision, Vec<Step>) {
    let mut query = Query::new(view, asker.asked, asker.address(), Trace::On(Vec::new()), rng);
    let answer = query.answer(position);
    (Decision { answer, scope_prefix: scope(asker, query.scope) }, query.trace.into_steps())
}

/// A client that hides its network gets an answer for everybody (RFC 7871 section 7.2.1).
fn scope(asker: &Asker, depends_on: u8) -> u8 {
    match asker.subnet {
        Some(subnet) if subnet.source_prefix == 0 => 0,
        Some(_) | None => depends_on,
    }
}

#[cfg(test)]
mod option_tests;
#[cfg(test)]
mod tests;
