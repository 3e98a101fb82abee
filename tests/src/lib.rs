//! Integration harness, simulations, end-to-end tests and the demo.
#![forbid(unsafe_code)]
