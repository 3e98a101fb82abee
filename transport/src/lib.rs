//! Mutually authenticated links and legs, the only framing of control messages, name resolution and re-dial.
//!
//! Every connection is TLS 1.3 with certificates on both sides; there is no switch that turns verification off.
//! What a peer is comes from its certificate and is proven before the first byte of it is read.
//!
//! | module | owns |
//! |---|---|
//! | `credentials`, `trust`, `certificate`, `revocation` | our own certificate, and the judgement of everybody else's |
//! | `connector`, `acceptor`, `leg` | TLS over TCP towards and at a broker, routed by ALPN |
//! | `end_to_end` | the handshake between Controller and Target inside a path |
//! | `framing`, `path_io` | control envelopes on a byte stream, and the change to raw bytes behind `PathOpened` |
//! | `net`, `platform`, `clock` | sockets, their options, time that counts suspend |
//! | `resolver`, `redial` | names to addresses, and when to try again |
//! | `ticket_key` | the signature of a ticket |
#![forbid(unsafe_code)]

mod acceptor;
mod certificate;
mod clock;
mod connector;
mod credentials;
mod der;
mod end_to_end;
mod framing;
mod leg;
mod linger;
mod metered;
mod net;
mod path_io;
mod platform;
mod redial;
mod resolver;
mod revocation;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket_key;
mod tls;
mod trust;

pub use acceptor::{AcceptError, AcceptLimits, Accepted, Acceptor, ControlPeer, PathPeer, RefusedPeer};
pub use clock::{BootClock, Clock};
pub use connector::{ConnectError, Connector, Expectation};
pub use credentials::{CredentialError, CredentialFiles, Credentials, LifeLeft, OwnCertificate};
pub use end_to_end::{EndToEnd, EndToEndError, EndToEndStream};
pub use framing::{Exchange, FramingError, MessageReader, MessageStream, MessageWriter};
pub use leg::{Leg, LegError};
pub use net::{BoxFuture, BoxedIo, Connection, Io, Listener, Net, PlainIo, SocketUse, TcpNet};
pub use path_io::{PathIo, PathRefused};
pub use redial::Redial;
pub use resolver::{AddressAnswer, Addresses, Families, Family, LookupError, Resolver, ResolverConfig};
pub use revocation::{RevocationError, RevocationList};
pub use ticket_key::{TicketSigner, TicketSignerError, key_thumbprint, verify_with};
pub use trust::{Peer, PeerFault};
