//! Choosing a broker, end to end in virtual time and seeded: the claims that the numbers of the algorithm rest on.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that meets none may panic")]

mod candidates;
mod choosing;
mod measuring;
mod pinning;
mod racing;
mod regions;
mod resolving;
mod world;
