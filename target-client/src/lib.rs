//! The library for Target apps, and the rc-target binary.
#![forbid(unsafe_code)]
