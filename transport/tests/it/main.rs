//! The transport's claims over real sockets of the loopback interface, in one binary.

mod credentials;
mod end_to_end;
mod framing;
mod handshake;
mod resolve;
mod stranger;
mod support;
