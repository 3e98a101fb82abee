//! The two judgements on an authentic ticket. Each rule has its refusal; nothing else decides.

use super::claims::Ticket;
use super::deny::DenyLists;
use super::keys::KeyId;
use super::thumbprint::KeyThumbprint;
use super::used::UsedTickets;
use super::{Claim, LEEWAY_S};
use crate::identity::SpiffeId;
use crate::wire::codes::Denial;
use crate::wire::{Jti, SessionId};

/// Who presents a ticket where: all of it from certificates, none of it from a message.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// The Controller, by its certificate.
    pub controller: &'a SpiffeId,
    /// The key in the Controller's certificate.
    pub key: &'a KeyThumbprint,
    /// The Target that is wanted; at the Target itself, its own id.
    pub target: &'a SpiffeId,
}

/// What the Target is asked to do with a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Start this session, or repeat the start whose answer was lost.
    New(SessionId),
    /// Give a running session another path.
    Resume,
}

/// Why an authentic ticket does not let its Controller in. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    /// It belongs to another Controller.
    #[error("the ticket is for {wanted}, this certificate is {presented}: use the ticket's own certificate")]
    OtherController {
        /// Its `sub`.
        wanted: SpiffeId,
        /// Who presents it.
        presented: SpiffeId,
    },
    /// It opens another Target.
    #[error("the ticket opens {permitted}, not {wanted}: ask for a ticket for that target")]
    OtherTarget {
        /// Its `aud`.
        permitted: SpiffeId,
        /// What is wanted.
        wanted: SpiffeId,
    },
    /// It is bound to another key.
    #[error(
        "the ticket is bound to the key {bound}, this certificate has the key {presented}: ask for a ticket for this key"
    )]
    OtherKey {
        /// Its `cnf.jkt`.
        bound: KeyThumbprint,
        /// The key of the certificate.
        presented: KeyThumbprint,
    },
    /// `exp` has passed.
    #[error("the ticket ran out {ago_s} s ago: ask for a new one")]
    Expired {
        /// How long ago.
        ago_s: u64,
    },
    /// `start_by` has passed, so it starts no new session.
    #[error("the time to start a session with the ticket ran out {ago_s} s ago: ask for a new one")]
    StartTooLate {
        /// How long ago.
        ago_s: u64,
    },
    /// `nbf` or `iat` is in the future.
    #[error("the ticket is valid only in {ahead_s} s: compare the clocks of its issuer and of this machine")]
    NotYetValid {
        /// How far ahead its begin is.
        ahead_s: u64,
    },
    /// It, or its Controller, stands on a deny list.
    #[error("the ticket was revoked by list {number} of the key {kid}")]
    Revoked {
        /// The key that signed the list.
        kid: KeyId,
        /// The list's number.
        number: u64,
    },
    /// It has started another session.
    #[error("the ticket {jti} has started another session: ask for a new one")]
    Used {
        /// Which ticket.
        jti: Jti,
    },
    /// It is older than what this process remembers of used tickets.
    #[error("the ticket was issued before this target started, so it may have been used: ask for a new one")]
    BeforeMemory,
    /// As many used tickets are remembered as may be.
    #[error("the target remembers {limit} started sessions and takes no more for now: try again in a minute")]
    MemoryFull {
        /// The limit.
        limit: usize,
    },
}

impl TicketRefusal {
    /// The code that the Controller is told.
    pub fn denial(&self) -> Denial {
        match self {
            Self::OtherController { .. } | Self::OtherTarget { .. } | Self::OtherKey { .. } => {
                Denial::NOT_PERMITTED
            }
            Self::Expired { .. } | Self::StartTooLate { .. } => Denial::TICKET_EXPIRED,
            Self::NotYetValid { .. } => Denial::CLOCK,
            Self::Revoked { .. } => Denial::REVOKED,
            Self::Used { .. } | Self::BeforeMemory => Denial::TICKET_USED,
            Self::MemoryFull { .. } => Denial::BUSY,
        }
    }
}

/// What a broker judges: identities, key, `exp` and revocation, with [`LEEWAY_S`].
///
/// `start_by`, `nbf` and single use are the Target's to judge: a broker cannot see whether a path is new or a resume.
///
/// # Errors
/// The first rule that does not hold.
pub fn judge_at_broker(
    ticket: &Ticket,
    presented: &Presented<'_>,
    now_unix_s: u64,
    denied: &DenyLists,
) -> Result<(), TicketRefusal> {
    let claims = ticket.claims();
    if claims.sub != *presented.controller {
        let (wanted, presented) = (claims.sub.clone(), presented.controller.clone());
        return Err(TicketRefusal::OtherController { wanted, presented });
    }
    if claims.aud != *presented.target {
        let (permitted, wanted) = (claims.aud.clone(), presented.target.clone());
        return Err(TicketRefusal::OtherTarget { permitted, wanted });
    }
    if claims.cnf != *presented.key {
        return Err(TicketRefusal::OtherKey { bound: claims.cnf, presented: *presented.key });
    }
    if let Some((kid, number)) = denied.denial_of(ticket) {
        return Err(TicketRefusal::Revoked { kid: kid.clone(), number });
    }
    match passed(claims.exp, now_unix_s) {
        Some(ago_s) => Err(TicketRefusal::Expired { ago_s }),
        None => Ok(()),
    }
}

/// What the Target judges inside end-to-end TLS: all that a broker does, `nbf` and `iat`, and for a new session
/// `start_by` and single use.
///
/// A ticket that has started this very session is taken again, so a lost ATTACHED costs nothing. On success a new use
/// stands in `used`; a Target with a state directory writes it there before it answers.
///
/// # Errors
/// The first rule that does not hold.
pub fn judge_at_target(
    ticket: &Ticket,
    presented: &Presented<'_>,
    now_unix_s: u64,
    denied: &DenyLists,
    start: Start,
    used: &mut UsedTickets,
) -> Result<Option<Claim>, TicketRefusal> {
    judge_at_broker(ticket, presented, now_unix_s, denied)?;
    let begin = ticket.claims().nbf.max(ticket.claims().iat);
    if begin > now_unix_s.saturating_add(LEEWAY_S) {
        return Err(TicketRefusal::NotYetValid { ahead_s: begin.saturating_sub(now_unix_s) });
    }
    match start {
        Start::Resume => Ok(None),
        Start::New(session) => {
            if let Some(ago_s) = passed(ticket.claims().start_by, now_unix_s) {
                return Err(TicketRefusal::StartTooLate { ago_s });
            }
            used.claim(ticket, session, now_unix_s).map(Some)
        }
    }
}

/// How long ago `end` was, when that is more than the leeway.
fn passed(end: u64, now_unix_s: u64) -> Option<u64> {
    let ago_s = now_unix_s.saturating_sub(end);
    (ago_s > LEEWAY_S).then_some(ago_s)
}
