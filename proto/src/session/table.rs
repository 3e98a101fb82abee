//! The channels of a session by id: open, waiting for the answer to a reset, or closed. Ids are never reused.

use std::collections::{BTreeMap, VecDeque};

use super::ack::ACK_BYTES;
use super::channel::{Channel, Consent, Resetting};
use super::closed::ClosedIds;
use super::event::PathKey;
use super::receiver::ChannelReceiver;
use super::schedule::{is_bulk, is_windowed};
use crate::Moment;
use crate::wire::ChannelId;
use crate::wire::codes::{AbortCode, Class};
use crate::wire::frame::ChannelClaim;
use crate::wire::limits::CHANNELS_MAX;

/// Resets that may wait for their answer.
pub(super) const RESETS_MAX: usize = 2 * CHANNELS_MAX;

/// Final acknowledgements that are remembered: the peer has at most 64 channels open that could wait for one, and
/// this side may have closed as many that the peer opened since.
const FINAL_ACKS_MAX: usize = 2 * CHANNELS_MAX;

/// The last acknowledgement of a channel that is closed here. It may have died with its path while the peer, whose
/// own path is well, has no reason to repeat its FIN; so it is repeated on each bind.
#[derive(Debug)]
pub(super) struct FinalAck {
    pub(super) id: ChannelId,
    class: Class,
    pub(super) next: u64,
    pub(super) bound: Option<PathKey>,
    pub(super) due: bool,
}

/// What is known of a channel id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Open,
    Resetting,
    Closed,
    Never,
}

/// Every channel of a session.
#[derive(Debug)]
pub(super) struct ChannelTable {
    pub(super) open: BTreeMap<ChannelId, Channel>,
    pub(super) resets: BTreeMap<ChannelId, Resetting>,
    /// What came in order before the peer's reset and was not read yet, its FIN included.
    pub(super) left: BTreeMap<ChannelId, ChannelReceiver>,
    pub(super) final_acks: VecDeque<FinalAck>,
    closed: ClosedIds,
    next_own: Option<ChannelId>,
    pub(super) control: Option<PathKey>,
    pub(super) bulk: Option<PathKey>,
}

impl ChannelTable {
    /// An empty table whose own ids start at `first_own`.
    pub(super) fn new(first_own: ChannelId) -> Self {
        Self {
            open: BTreeMap::new(),
            resets: BTreeMap::new(),
            left: BTreeMap::new(),
            final_acks: VecDeque::new(),
            closed: ClosedIds::default(),
            next_own: Some(first_own),
            control: None,
            bulk: None,
        }
    }

    pub(super) fn known(&self, id: ChannelId) -> Known {
        if self.open.contains_key(&id) {
            Known::Open
        } else if self.resets.contains_key(&id) {
            Known::Resetting
        } else if self.closed.contains(id) {
            Known::Closed
        } else {
            Known::Never
        }
    }

    /// Takes the next own id, if one more channel may be opened.
    pub(super) fn take_id(&mut self) -> Option<ChannelId> {
        if !self.has_room() || self.resets.len() >= CHANNELS_MAX {
            return None;
        }
        let id = self.next_own?;
        self.next_own = id.0.checked_add(2).map(ChannelId);
        Some(id)
    }

    /// Whether one more channel may be open. One whose rest is unread still counts, so that nobody can make this side
    /// keep more than the windows of 64 channels.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() + self.left.len() < CHANNELS_MAX
    }

    /// The path that channels of a class use now.
    pub(super) fn path_of(&self, class: Class) -> Option<PathKey> {
        if is_bulk(class) { self.bulk } else { self.control }
    }

    /// Marks `id` closed.
    ///
    /// # Errors
    /// When the peer's ids are scattered as no honest peer's are.
    pub(super) fn close(&mut self, id: ChannelId) -> Result<(), AbortCode> {
        self.open.remove(&id);
        self.resets.remove(&id);
        self.closed.insert(id).map_err(|_| AbortCode::PROTOCOL)
    }

    /// Closes a channel that the peer has reset; what came before stays to be read, if the application knows of it.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub(super) fn close_reset(&mut self, id: ChannelId) -> Result<(), AbortCode> {
        if let Some(channel) = self.open.remove(&id)
            && channel.consent != Consent::Pending
            && (channel.receiver.has_readable() || channel.receiver.is_finished())
        {
            self.left.insert(id, channel.receiver);
        }
        self.close(id)
    }

    /// Takes a channel whose both directions are through off the table.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub(super) fn close_finished(&mut self, id: ChannelId) -> Result<(), AbortCode> {
        if let Some(channel) = self.open.get(&id) {
            let next = channel.receiver.next();
            self.final_acks.push_back(FinalAck {
                id,
                class: channel.class(),
                next,
                bound: channel.bound,
                due: false,
            });
            if self.final_acks.len() > FINAL_ACKS_MAX {
                self.final_acks.pop_front();
            }
        }
        self.close(id)
    }

    /// The peer has said which channels it holds open: what it does not name it needs no acknowledgement for.
    pub(super) fn forget_final_acks(&mut self, claims: &[ChannelClaim]) {
        self.final_acks.retain(|ack| claims.iter().any(|claim| claim.channel == ack.id));
    }

    /// Moves every channel to the paths now chosen; returns whether the control path is another one.
    pub(super) fn bind(&mut self, control: Option<PathKey>, bulk: Option<PathKey>, now: Moment) -> bool {
        let changed = self.control != control;
        self.control = control;
        self.bulk = bulk;
        let of = |class| if is_bulk(class) { bulk } else { control };
        self.open.values_mut().for_each(|channel| channel.bind(of(channel.class()), now));
        self.resets.values_mut().for_each(|reset| reset.bind(of(reset.class)));
        for ack in &mut self.final_acks {
            let path = of(ack.class);
            ack.due |= path.is_some() && ack.bound != path;
            ack.bound = path;
        }
        changed
    }

    /// Bytes of windowed classes that a path was given and the peer has not acknowledged.
    pub(super) fn in_flight(&self, path: PathKey) -> u64 {
        let bound = self.open.values().filter(|channel| channel.bound == Some(path));
        bound.filter(|channel| is_windowed(channel.class())).map(|channel| channel.sender.in_flight()).sum()
    }

    /// What the peer has acknowledged of a channel that uses a path.
    pub(super) fn acked(&self, id: ChannelId, path: PathKey) -> Option<u64> {
        self.open.get(&id).filter(|channel| channel.bound == Some(path)).map(|channel| channel.sender.acked())
    }

    /// Tells the peer of everything that came for the channels of a path, once that is 64 KiB together: what four
    /// channels receive is told as often as if one did.
    pub(super) fn hasten_acks(&mut self, path: Option<PathKey>) {
        let bound = || self.open.values().filter(|channel| channel.bound == path);
        let untold: u64 = bound().map(|channel| channel.ack.untold(channel.receiver.next())).sum();
        if untold >= ACK_BYTES {
            self.open.values_mut().filter(|channel| channel.bound == path).for_each(|c| c.ack.hasten());
        }
    }

    /// Whether no channel is open and no reset waits for its answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.resets.is_empty()
    }

    /// What an ATTACH or ATTACHED says: every open channel, ids ascending.
    pub(super) fn claims(&mut self) -> Vec<ChannelClaim> {
        self.open.iter_mut().map(|(id, channel)| channel.claim(*id)).collect()
    }

    /// When the next acknowledgement is due by time.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.open
            .values()
            .filter(|channel| channel.bound.is_some())
            .filter_map(|channel| channel.ack.deadline())
            .min()
    }
}
