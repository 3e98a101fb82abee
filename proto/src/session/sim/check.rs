//! The invariants that hold after every step.

use std::collections::BTreeMap;

use super::{End, Flow, Pair, Violation};
use crate::session::Session;
use crate::session::channel::Channel;
use crate::wire::{ChannelId, Epoch};

/// Watches the two ends of one session: what may never go down, and how each end stands to the other.
#[derive(Debug, Default)]
pub struct Watch {
    marks: BTreeMap<(End, ChannelId), Marks>,
    epochs: BTreeMap<End, Epoch>,
}

/// What may never go down.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    base: u64,
    peer_max: u64,
    next: u64,
    granted: u64,
}

/// Positions that a side has written and the peer has not acknowledged, over all its open channels.
pub fn unacknowledged(session: &Session) -> u64 {
    session.table.open.values().map(|channel| channel.sender.end() - channel.sender.acked()).sum()
}

/// What a reader has is a prefix of what was written.
pub(super) fn flow(id: ChannelId, writer: End, flow: &Flow) -> Result<(), Violation> {
    if flow.read > flow.written {
        return Err(format!("channel {id} from {writer:?}: {} read of {} written", flow.read, flow.written));
    }
    if flow.ended && !flow.reset && (flow.read != flow.written || !flow.finished) {
        return Err(format!("channel {id} from {writer:?}: ended at {} of {}", flow.read, flow.written));
    }
    Ok(())
}

/// FIN is seen only after all bytes.
pub(super) fn finished(pair: &Pair, id: ChannelId, reader: End) -> Result<(), Violation> {
    let flow = pair.flow(id, reader.other());
    let next = channel(pair, reader, id).map_or(flow.written + 1, |channel| channel.receiver.next());
    if next == flow.written + 1 && flow.finished {
        Ok(())
    } else {
        Err(format!("channel {id}: FIN at {next} of {} written", flow.written))
    }
}

fn channel(pair: &Pair, end: End, id: ChannelId) -> Option<&Channel> {
    pair.session(end).and_then(|session| session.table.open.get(&id))
}

impl Watch {
    /// Checks both ends against each other and against what was seen before. An end that does not exist yet is left
    /// out.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&mut self, controller: Option<&Session>, target: Option<&Session>) -> Result<(), Violation> {
        for (end, own, peer) in [(End::Controller, controller, target), (End::Target, target, controller)] {
            let Some(session) = own.filter(|session| !session.ending.is_over()) else { continue };
            let highest = self.epochs.entry(end).or_default();
            if session.paths.highest < *highest {
                return Err(format!("{end:?}: highest epoch went down"));
            }
            *highest = session.paths.highest;
            for (id, channel) in &session.table.open {
                self.never_down(end, *id, channel)?;
                bounded(session, *id, channel)?;
                if let Some(received) = peer.and_then(|peer| peer.table.open.get(id)) {
                    against_peer(end, *id, channel, received)?;
                }
            }
        }
        Ok(())
    }

    fn never_down(&mut self, end: End, id: ChannelId, channel: &Channel) -> Result<(), Violation> {
        let before = self.marks.entry((end, id)).or_default();
        let after = Marks {
            base: channel.sender.base(),
            peer_max: channel.sender.peer_max(),
            next: channel.receiver.next(),
            granted: channel.receiver.granted(),
        };
        let down = after.base < before.base
            || after.peer_max < before.peer_max
            || after.next < before.next
            || after.granted < before.granted;
        if down {
            return Err(format!("{end:?} channel {id}: {before:?} became {after:?}"));
        }
        *before = after;
        Ok(())
    }
}

fn bounded(session: &Session, id: ChannelId, channel: &Channel) -> Result<(), Violation> {
    let kept = channel.sender.kept();
    let unread = channel.receiver.unread();
    if kept > session.config.send_cap_bytes || unread as u64 > session.config.receive_window_bytes {
        return Err(format!("channel {id}: {kept} bytes kept for replay, {unread} unread"));
    }
    Ok(())
}

/// Acked ≤ received ≤ written, and nobody writes beyond what was granted.
fn against_peer(end: End, id: ChannelId, own: &Channel, peer: &Channel) -> Result<(), Violation> {
    let (acked, received, written) = (own.sender.acked(), peer.receiver.next(), own.sender.end());
    if acked > received || received > written {
        return Err(format!("{end:?} channel {id}: acked {acked}, received {received}, written {written}"));
    }
    if own.sender.data_end() > peer.receiver.granted() || own.sender.peer_max() > peer.receiver.granted() {
        return Err(format!("{end:?} channel {id}: written beyond the grant"));
    }
    Ok(())
}
