//! Choosing a broker: what to dial, what to measure, whom to take and when to move.
//!
//! A race answers "who can carry me now"; a measurement answers "who should". Each step is a small machine of its
//! own; none reads a clock, draws from a global random source or opens a socket. The driver feeds them.
//!
//! | step | module | type |
//! |---|---|---|
//! | which names to look up, and when to start with what is there | [`resolve`] | [`Resolution`] |
//! | which addresses to take, in which order | [`candidate`] | [`Candidates`] |
//! | who answers first | [`race`] | [`Race`] |
//! | round trips of whoever answered | [`measure`] | [`Measurement`] |
//! | one number out of many samples | [`score`] | [`SamplePool`], [`Score`] |
//! | what is known of each broker, and who is taken | [`choose`] | [`Standings`] |
//! | staying, and moving rarely | [`pin`] | [`Pin`], [`ReprobeTimer`] |
//! | leaving out what fails | [`eject`] | [`Ejections`], [`Backoff`] |
//! | what to dial when DNS is silent | [`known_good`] | [`KnownGood`] |
//! | why it was decided so | [`record`] | [`Choice`] |
//!
//! A driver goes through them like this:
//!
//! ```text
//! Resolution ──addresses──▶ Candidates ──▶ Race ──Won──▶ signalling starts on the winner
//!                                           │ each that completes
//!                                           ▼
//!                             Measurement ──samples──▶ Standings ──choose──▶ Choice ──▶ Pin (confirm after Registered)
//!                                           ▲                                             │
//!                                           └────────────── ReprobeTimer ◀────────────────┘
//! ```

pub mod candidate;
pub mod choose;
pub mod eject;
pub mod known_good;
pub mod measure;
pub mod pin;
pub mod race;
pub mod record;
pub mod resolve;
pub mod score;

pub use candidate::{Candidate, Candidates, Expectation, RefusalReason, Source};
pub use choose::{ProbeState, Request, Standing, Standings};
pub use eject::{Backoff, Ejections};
pub use known_good::{KnownGood, KnownGoodError, NetworkKey};
pub use measure::{Measurement, Warmth};
pub use pin::{Occupancy, Pin, PinVerdict, ReprobeTimer, Round, StayReason};
pub use race::{AttemptFailure, AttemptId, Completion, Race, RaceEvent, RaceOutcome};
pub use record::{Choice, ChoiceRow, DialRow, Relaxation, Rule, Trigger, Verdict};
pub use resolve::{Family, Lookup, LookupFailure, Resolution, ResolutionEvent, ServiceAddress};
pub use score::{Sample, SamplePool, Score};
