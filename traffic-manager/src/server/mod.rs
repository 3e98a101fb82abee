//! DNS over UDP and TCP.
//!
//! | module | owns |
//! |---|---|
//! | `message`, `client_subnet` | PURE: a query, read from its bytes |
//! | `catalog` | the zones as they are looked up and written on the wire |
//! | `respond`, `writer` | PURE: from the bytes of a query to the bytes of the response; UDP and TCP share it |
//! | `limit` | PURE: how many responses a network gets over UDP |
//! | `serving` | what answers are made from at a moment, replaced as a whole |
//! | `udp`, `tcp`, `listen` | sockets and threads |
//! | `counters` | how many queries ended how |
//!
//! A query is answered on the thread that receives it, from its bytes and without a parsed message in between: that is
//! what the rates of `benches/dns.rs` need. The DNS library serves the tests as a reader that is not ours.

mod catalog;
mod client_subnet;
mod counters;
mod limit;
mod listen;
mod message;
mod respond;
mod serving;
mod tcp;
mod udp;
mod writer;

pub use counters::{Counters, CountersView};
pub use listen::{DnsServer, ListenError, Listening, ServerOptions};
pub use respond::{Transport, answer};
pub use serving::{LatestMaps, LatestServing, Serving};
