//! What a broker looks at in a ticket: signature, `exp`, `cnf`, `sub`, `aud` and revocation.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{
    DenyList, DenyLists, KeyThumbprint, Presented, Ticket, TicketError, TicketKeys, TicketRefusal,
    judge_at_broker,
};
use rc_transport::verify_with;

/// Why a ticket does not let a Controller through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TicketFault {
    /// Not a ticket of a configured key.
    #[error("the ticket is not valid: {0}")]
    Invalid(#[from] TicketError),
    /// A ticket that does not fit.
    #[error(transparent)]
    Refused(#[from] TicketRefusal),
}

/// The keys and lists that tickets are judged by.
#[derive(Debug, Default)]
pub(crate) struct TicketGate {
    keys: TicketKeys,
    denied: ArcSwap<DenyLists>,
}

impl TicketGate {
    pub(crate) fn new(keys: TicketKeys) -> Self {
        Self { keys, denied: ArcSwap::default() }
    }

    /// Takes a list of revoked tickets that one of the keys signed; whether it is newer than what is known. One
    /// caller at a time.
    pub(crate) fn deny(&self, text: &str) -> Result<bool, TicketError> {
        let list = DenyList::parse(text.trim())?.verify(&verify_with(&self.keys))?;
        let mut denied = DenyLists::clone(&self.denied.load());
        let is_newer = denied.adopt(list);
        if is_newer {
            self.denied.store(Arc::new(denied));
        }
        Ok(is_newer)
    }

    /// Judges the ticket that `controller` presents with the key `thumbprint`.
    pub(crate) fn judge(
        &self,
        ticket: &str,
        controller: &SpiffeId,
        thumbprint: [u8; 32],
        target: &SpiffeId,
        now_unix_s: u64,
    ) -> Result<(), TicketFault> {
        let ticket = Ticket::parse(ticket)?.verify(&verify_with(&self.keys))?;
        let presented = Presented { controller, key: &KeyThumbprint(thumbprint), target };
        judge_at_broker(&ticket, &presented, now_unix_s, &self.denied.load())?;
        Ok(())
    }
}
