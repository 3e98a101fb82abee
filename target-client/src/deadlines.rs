//! When each running session has to end: with the ticket that it last attached with.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rc_proto::Moment;
use rc_proto::wire::SessionId;
use tokio::sync::watch;

/// The ends of the sessions that run; as many as run.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Mutex<BTreeMap<SessionId, watch::Sender<Moment>>>);

impl Deadlines {
    /// A session starts; its end so far, as it changes.
    pub(crate) fn open(&self, session: SessionId, end: Moment) -> watch::Receiver<Moment> {
        let tell = watch::Sender::new(end);
        let told = tell.subscribe();
        self.lock().insert(session, tell);
        told
    }

    /// The session has attached again, with a ticket that ends it at `end`: later than before, or earlier.
    pub(crate) fn renew(&self, session: SessionId, end: Moment) {
        if let Some(tell) = self.lock().get(&session) {
            tell.send_replace(end);
        }
    }

    /// The session has ended.
    pub(crate) fn close(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, watch::Sender<Moment>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_ticket_decides_whether_it_ends_later_or_earlier() {
        let at = |s: u64| Moment::from_origin(Duration::from_secs(s));
        let (deadlines, session) = (Deadlines::default(), SessionId([1; 16]));
        let told = deadlines.open(session, at(100));
        assert_eq!(*told.borrow(), at(100));
        for end in [at(500), at(50)] {
            deadlines.renew(session, end);
            assert_eq!(*told.borrow(), end);
        }
        deadlines.close(session);
        deadlines.renew(session, at(900));
        assert_eq!(*told.borrow(), at(50));
        assert!(deadlines.lock().is_empty());
    }
}
