//! Tickets: what lets a Controller open a path to a Target, and the lists that revoke them.
//!
//! A ticket is a compact JWS. This module splits it, reads its claims strictly and judges them; it does no
//! cryptography: the check of the signature is a function handed in. Claims are read only behind a signature that
//! holds ([`UnverifiedTicket::verify`]), so a [`Ticket`] is always an authentic one.
//!
//! Brokers call [`judge_at_broker`]: they cannot see whether a path is new or a resume, and look only at `exp`, `cnf`,
//! `sub`, `aud` and revocation. The Target calls [`judge_at_target`] inside end-to-end TLS and is the authority on
//! `start_by` and on single use ([`UsedTickets`]). Whoever signs uses [`TicketClaims::to_signing_input`].

mod claims;
mod deny;
mod jose;
mod judge;
mod keys;
mod permission;
#[cfg(test)]
mod tests;
mod thumbprint;
mod unique;
mod used;

pub use claims::{Ticket, TicketClaims, UnverifiedTicket};
pub use deny::{DENY_LIST_BYTES_MAX, DENY_LISTS_MAX, DenyClaims, DenyList, DenyLists, UnverifiedDenyList};
pub use jose::{KeyVerdict, SIGNATURE_BYTES, SignatureCheck, SigningInput, TicketError, TicketPart};
pub use judge::{Presented, Start, TicketRefusal, judge_at_broker, judge_at_target};
pub use keys::{KeyId, TICKET_KEYS_BYTES_MAX, TICKET_KEYS_MAX, TicketKeys, TicketKeysError};
pub use permission::Permission;
pub use thumbprint::{KeyThumbprint, PublicJwk};
pub use used::{Claim, USED_TICKETS_MAX, UsedTicket, UsedTickets};

/// Difference of clocks that is forgiven at every end of a validity, in seconds.
pub const LEEWAY_S: u64 = 60;
/// Permissions that one ticket may carry.
pub const PERMISSIONS_MAX: usize = 32;
