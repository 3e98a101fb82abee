//! Authoritative DNS server that answers from healthy brokers.
#![forbid(unsafe_code)]
