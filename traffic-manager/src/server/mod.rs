//! DNS over UDP and TCP.
//!
//! `respond` judges a query and builds the reply without any socket; `handler` fits it to the DNS library, `listen`
//! binds and serves. What the library leaves to us is all in `respond`: opcode, EDNS version, class, client subnet,
//! authority, negative answers and the size of UDP answers.

mod client_subnet;
mod counters;
mod handler;
mod listen;
mod records;
mod respond;

pub use counters::{Counters, CountersView};
pub use listen::{DnsServer, ListenError, Listening};
