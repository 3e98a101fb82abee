//! What brokers and networks do to a path.

use std::time::Duration;

use super::{End, Pair};
use crate::session::PathKey;

impl Pair {
    /// Freezes or thaws what flows towards `end`.
    pub fn freeze(&mut self, path: PathKey, towards: End, frozen: bool) {
        if let Some(wire) = self.wires.get_mut(&path) {
            wire.pipe_mut(towards).frozen = frozen;
        }
    }

    /// Kills a path: what is on the way is cut after `keep` bytes in each direction; each end hears of it after
    /// `notice`, or never.
    pub fn kill(&mut self, path: PathKey, keep: usize, notice: Option<Duration>) {
        let at = notice.map(|span| self.now + span);
        let Some(wire) = self.wires.get_mut(&path) else { return };
        for end in [End::Controller, End::Target] {
            let pipe = wire.pipe_mut(end);
            let mut left = keep;
            pipe.queue.iter_mut().for_each(|(_, bytes)| {
                bytes.truncate(left);
                left -= bytes.len();
            });
        }
        wire.dead = true;
        wire.notice = wire.notice.or(at);
    }

    /// One end loses its leg; the other hears nothing of it.
    pub fn lose_at(&mut self, path: PathKey, end: End) {
        let now = self.now;
        if let Some(session) = self.session_mut(end) {
            session.path_lost(path, now);
        }
        self.close_at(path, end);
    }

    pub(super) fn close_at(&mut self, path: PathKey, end: End) {
        if let Some(wire) = self.wires.get_mut(&path) {
            wire.open.remove(&end);
            wire.pipe_mut(end).queue.clear();
            if wire.open.is_empty() {
                self.wires.remove(&path);
            }
        }
    }

    /// Flips a bit of what flows towards `end`: that end's TLS takes neither this record nor any behind it, reports a
    /// bad one, and the path is over at both ends.
    pub fn flip_bit(&mut self, path: PathKey, towards: End) {
        if let Some(wire) = self.wires.get_mut(&path) {
            wire.spoilt.get_or_insert(towards);
        }
    }

    /// Whether what has arrived at `end` was changed on its way; if so, the end gives up the path.
    pub(super) fn is_spoilt(&mut self, path: PathKey, end: End) -> bool {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&path).filter(|wire| wire.spoilt == Some(end)) else {
            return false;
        };
        wire.dead = true;
        wire.notice = wire.notice.or(Some(now + wire.delay));
        self.lose_at(path, end);
        true
    }
}
