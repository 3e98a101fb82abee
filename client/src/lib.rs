//! Resolve, race, measure and pin a broker; drive a session over end-to-end TLS.
#![forbid(unsafe_code)]
