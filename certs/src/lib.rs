//! Certificate authority, leaf, CRL and ticket generator.
#![forbid(unsafe_code)]
