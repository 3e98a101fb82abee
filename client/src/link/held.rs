//! What the rest of the endpoint is told of its control links: which stand, the primary first, and what happens to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::Drain;
use rc_proto::wire::{BrokerId, Incarnation, PathId};

use super::contact::BrokerContact;
use super::control::Heart;
use crate::error::LocateError;

/// News that a follower may be behind before it misses some; who missed some takes every path for doubtful.
pub(super) const NEWS_BACKLOG_MAX: usize = 16;

/// Which broker is pinned, for everybody who needs one.
#[derive(Debug, Clone)]
pub(crate) enum PinState {
    /// None yet, or none again; and why the last look failed.
    Searching { last: Option<LocateError> },
    /// This one.
    Held(Arc<Held>),
    /// The endpoint has shut down.
    Stopped,
}

/// A broker that a control link stands to.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) contact: BrokerContact,
    pub(crate) link: LinkFacts,
}

/// What a status shows of a control link.
#[derive(Debug, Clone)]
pub(crate) struct LinkFacts {
    pub(crate) address: SocketAddr,
    pub(crate) incarnation: Incarnation,
    pub(crate) heart: Arc<Heart>,
    pub(crate) since: Moment,
    /// What a Target is registered there as, once that is confirmed.
    pub(crate) role: Option<RegistrationRole>,
}

/// The control links that stand. The second is held while a session lives, at a broker of another region when there is
/// one; it is there while the primary is lost, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    pub(crate) primary: Option<Arc<Held>>,
    pub(crate) second: Option<Arc<Held>>,
}

impl Links {
    /// Every link, the primary first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.primary.iter().chain(&self.second)
    }
}

/// What happens to the links and matters to paths.
#[derive(Debug, Clone)]
pub(crate) enum LinkNews {
    /// A link ended that nobody meant to end: paths whose first leg goes to that broker are doubtful.
    Lost {
        /// The broker.
        broker: BrokerId,
        /// The run of it that the link went to.
        incarnation: Incarnation,
    },
    /// A broker stops; paths of this endpoint that cross it have to move.
    Drain(Arc<Draining>),
    /// This machine's own address changed: every path from before is doubtful.
    NetworkChanged,
    /// This machine slept: every path is to be checked.
    Woke,
}

/// A broker that is about to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draining {
    /// Which: the one that said so, or a peer of it.
    pub(crate) broker: BrokerId,
    /// When it stops.
    pub(crate) until: Moment,
    /// This endpoint's paths across it, and when each is to move.
    pub(crate) slots: Vec<(PathId, Moment)>,
    /// Where to go.
    pub(crate) alternates: Vec<(BrokerId, String)>,
}

impl Draining {
    /// What `drain` says, which came at `now` over a link to `told_by`; `None` when it names no broker.
    pub(super) fn of(told_by: &BrokerId, drain: &Drain, now: Moment) -> Option<Self> {
        let broker = if drain.is_passed_on() { drain.peer()? } else { told_by.clone() };
        let after = |ms: u32| now + Duration::from_millis(ms.into());
        Some(Self {
            broker,
            until: after(drain.deadline_ms),
            slots: drain.slots.iter().map(|(path, slot_ms)| (*path, after(*slot_ms))).collect(),
            alternates: drain.alternates.clone(),
        })
    }
}
