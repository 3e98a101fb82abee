//! What a broker looks at in a ticket: signature, `exp`, `cnf`, `sub`, `aud` and revocation.

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{
    DenyLists, KeyThumbprint, Presented, Ticket, TicketError, TicketKeys, TicketRefusal, judge_at_broker,
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
    denied: DenyLists,
}

impl TicketGate {
    pub(crate) fn new(keys: TicketKeys) -> Self {
        Self { keys, denied: DenyLists::default() }
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
        judge_at_broker(&ticket, &presented, now_unix_s, &self.denied)?;
        Ok(())
    }
}
