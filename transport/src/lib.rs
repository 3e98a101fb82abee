//! Mutually authenticated links and legs, framing, name resolution and re-dial.
#![forbid(unsafe_code)]
