//! The library for Controller apps, and the rc-controller binary.
#![forbid(unsafe_code)]
