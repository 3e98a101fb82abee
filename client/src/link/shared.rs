//! What the tasks of the control links share with their endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use rc_proto::select::Choice;
use rc_proto::wire::message::Invite;
use tokio::sync::{broadcast, mpsc, watch};

use super::held::{Held, LinkNews, Links, NEWS_BACKLOG_MAX, PinState};
use crate::error::LocateError;

/// See the module; cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pin: watch::Sender<PinState>,
    /// Every link that stands.
    pub(crate) links: watch::Sender<Links>,
    /// What happens to them; nobody listening is normal.
    pub(crate) news: broadcast::Sender<LinkNews>,
    pub(crate) choice: Arc<ArcSwapOption<Choice>>,
    /// Live sessions: decides how soon a lost broker is replaced, whether a better one is taken, and whether a second
    /// link is held.
    pub(crate) sessions: watch::Sender<usize>,
    pub(crate) invites: mpsc::Sender<Invite>,
    /// Whether a later instance holds the identity: this one is registered for its sessions only.
    demoted: Arc<AtomicBool>,
}

impl Shared {
    pub(crate) fn new(invites: mpsc::Sender<Invite>) -> Self {
        Self {
            pin: watch::Sender::new(PinState::Searching { last: None }),
            links: watch::Sender::default(),
            news: broadcast::Sender::new(NEWS_BACKLOG_MAX),
            choice: Arc::new(ArcSwapOption::empty()),
            sessions: watch::Sender::new(0),
            invites,
            demoted: Arc::default(),
        }
    }

    /// Whether a later instance holds the identity.
    pub(super) fn is_demoted(&self) -> bool {
        self.demoted.load(Ordering::Relaxed)
    }

    pub(super) fn set_demoted(&self, demoted: bool) {
        self.demoted.store(demoted, Ordering::Relaxed);
    }

    /// Whether any session lives.
    pub(super) fn is_in_session(&self) -> bool {
        *self.sessions.borrow() > 0
    }

    /// No primary link stands; `last` says why the last look for one failed.
    pub(super) fn tell_searching(&self, last: Option<LocateError>) {
        self.links.send_modify(|links| links.primary = None);
        self.pin.send_replace(PinState::Searching { last });
    }

    /// This is the primary link.
    pub(super) fn tell_primary(&self, held: Held) {
        let held = Arc::new(held);
        self.links.send_modify(|links| links.primary = Some(Arc::clone(&held)));
        self.pin.send_replace(PinState::Held(held));
    }

    /// Something happened to a link.
    pub(super) fn tell(&self, news: LinkNews) {
        drop(self.news.send(news));
    }
}
