//! The rows of DNS behaviour, over UDP and TCP against the real server.
#![forbid(unsafe_code)]

mod lab;

mod answers;
mod dig;
mod edns;
mod negatives;
mod protocol;
