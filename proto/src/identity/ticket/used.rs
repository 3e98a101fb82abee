//! Single use: which session each ticket has started.

use std::collections::BTreeMap;

use super::LEEWAY_S;
use super::claims::Ticket;
use super::judge::TicketRefusal;
use crate::wire::{Jti, SessionId};

/// Used tickets that a Target remembers at once; more new sessions are refused as busy.
pub const USED_TICKETS_MAX: usize = 4096;

/// How a ticket was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// For the first time: this is to be kept before the Controller is answered.
    First(UsedTicket),
    /// By the session that it had started already.
    Again,
}

/// One ticket that has started a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedTicket {
    /// The ticket.
    pub jti: Jti,
    /// The session that it started.
    pub session: SessionId,
    /// When it may be forgotten, in seconds since 1970: from then on it starts nothing anyway.
    pub until_unix_s: u64,
}

/// Remembers every ticket that started a session for as long as it could start another one.
///
/// The wall clock may jump: a ticket whose end was passed by any earlier `now` counts as used up, since its record may
/// be gone.
#[derive(Debug, Clone)]
pub struct UsedTickets {
    entries: BTreeMap<Jti, (SessionId, u64)>,
    /// Tickets issued before are refused: an earlier run of this process may have seen them.
    issued_from_unix_s: u64,
    /// Every record that ended before this time is gone.
    forgotten_before_unix_s: u64,
    limit: usize,
}

impl UsedTickets {
    /// Starts with nothing known of what an earlier run accepted: tickets issued before the start − 60 s are refused.
    pub fn without_history(process_start_unix_s: u64) -> Self {
        Self { issued_from_unix_s: process_start_unix_s.saturating_sub(LEEWAY_S), ..Self::restored([]) }
    }

    /// Starts with all that earlier runs kept; the records beyond [`USED_TICKETS_MAX`] that end first are dropped, and
    /// with them every ticket that ends no later.
    pub fn restored(kept: impl IntoIterator<Item = UsedTicket>) -> Self {
        let mut entries = BTreeMap::new();
        let mut forgotten_before_unix_s = 0;
        for used in kept {
            entries.insert(used.jti, (used.session, used.until_unix_s));
            if entries.len() > USED_TICKETS_MAX
                && let Some((jti, until)) = first_to_end(&entries)
            {
                entries.remove(&jti);
                forgotten_before_unix_s = forgotten_before_unix_s.max(until.saturating_add(1));
            }
        }
        Self { entries, issued_from_unix_s: 0, forgotten_before_unix_s, limit: USED_TICKETS_MAX }
    }

    /// Lowers the limit.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.min(USED_TICKETS_MAX), ..self }
    }

    /// Takes `ticket` for `session`, after its validity was judged.
    ///
    /// # Errors
    /// When it has started another session, may have done so, or no more can be remembered.
    pub(super) fn claim(
        &mut self,
        ticket: &Ticket,
        session: SessionId,
        now_unix_s: u64,
    ) -> Result<Claim, TicketRefusal> {
        let jti = ticket.claims().jti;
        if let Some((started, _)) = self.entries.get(&jti) {
            return if *started == session { Ok(Claim::Again) } else { Err(TicketRefusal::Used { jti }) };
        }
        if ticket.claims().iat < self.issued_from_unix_s {
            return Err(TicketRefusal::BeforeMemory);
        }
        self.forget(now_unix_s);
        let until_unix_s = ticket.startable_until_unix_s();
        if until_unix_s < self.forgotten_before_unix_s {
            return Err(TicketRefusal::Used { jti });
        }
        if self.entries.len() >= self.limit {
            return Err(TicketRefusal::MemoryFull { limit: self.limit });
        }
        self.entries.insert(jti, (session, until_unix_s));
        Ok(Claim::First(UsedTicket { jti, session, until_unix_s }))
    }

    /// Takes a first claim back: its record could not be kept, so its Controller is told no and may come again.
    pub fn take_back(&mut self, used: &UsedTicket) {
        if self.entries.get(&used.jti) == Some(&(used.session, used.until_unix_s)) {
            self.entries.remove(&used.jti);
        }
    }

    /// Drops what could start nothing any more.
    pub fn forget(&mut self, now_unix_s: u64) {
        self.entries.retain(|_, (_, until)| *until >= now_unix_s);
        self.forgotten_before_unix_s = self.forgotten_before_unix_s.max(now_unix_s);
    }

    /// Everything remembered, for the state directory.
    pub fn iter(&self) -> impl Iterator<Item = UsedTicket> + '_ {
        self.entries.iter().map(|(jti, (session, until))| UsedTicket {
            jti: *jti,
            session: *session,
            until_unix_s: *until,
        })
    }

    /// How many tickets are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn first_to_end(entries: &BTreeMap<Jti, (SessionId, u64)>) -> Option<(Jti, u64)> {
    entries.iter().min_by_key(|(jti, (_, until))| (*until, **jti)).map(|(jti, (_, until))| (*jti, *until))
}
