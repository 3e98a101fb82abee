//! What a Target remembers of sessions that are over, so that a late ATTACH is told how they ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::Moment;
use crate::wire::SessionId;
use crate::wire::codes::EndCode;

/// Sessions remembered; the oldest is forgotten first.
pub const TOMBSTONES_MAX: usize = 4096;
/// Shortest time for which an end is remembered.
pub const TOMBSTONE_MIN: Duration = Duration::from_secs(600);
/// Time added to the resume window.
const TOMBSTONE_MARGIN: Duration = Duration::from_secs(60);

/// Ended sessions of one Target, with how they ended.
#[derive(Debug, Default)]
pub struct Tombstones {
    ended: BTreeMap<SessionId, (EndCode, Moment)>,
    order: VecDeque<(SessionId, Moment)>,
}

impl Tombstones {
    /// Remembers an end for the resume window and a minute, at least ten minutes.
    pub fn insert(&mut self, session: SessionId, code: EndCode, resume_window: Duration, now: Moment) {
        self.forget_old(now);
        let until = now + (resume_window + TOMBSTONE_MARGIN).max(TOMBSTONE_MIN);
        self.ended.insert(session, (code, until));
        self.order.push_back((session, until));
        while self.order.len() > TOMBSTONES_MAX {
            self.drop_oldest();
        }
    }

    /// How `session` ended, if that is remembered.
    pub fn ended(&self, session: SessionId, now: Moment) -> Option<EndCode> {
        self.ended.get(&session).filter(|(_, until)| now < *until).map(|(code, _)| *code)
    }

    fn forget_old(&mut self, now: Moment) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((session, until)) = self.order.pop_front()
            && self.ended.get(&session).is_some_and(|(_, held)| *held == until)
        {
            self.ended.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn an_end_is_remembered_for_the_window_and_a_minute_or_ten() {
        for (window, until) in [(150, 600), (540, 600), (541, 601), (900, 960)] {
            let mut tombstones = Tombstones::default();
            let session = SessionId([1; 16]);
            tombstones.insert(session, EndCode::DONE, Duration::from_secs(window), at(0));
            assert_eq!(tombstones.ended(session, at(until - 1)), Some(EndCode::DONE), "{window}");
            assert_eq!(tombstones.ended(session, at(until)), None, "{window}");
        }
    }

    #[test]
    fn the_oldest_of_4097_is_forgotten() {
        let mut tombstones = Tombstones::default();
        let id = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            SessionId(bytes)
        };
        for number in 0..4096 {
            tombstones.insert(id(number), EndCode::DONE, Duration::ZERO, at(0));
        }
        assert!(tombstones.ended(id(0), at(1)).is_some());
        tombstones.insert(id(4096), EndCode::DONE, Duration::ZERO, at(0));
        assert!(tombstones.ended(id(0), at(1)).is_none());
        assert!(tombstones.ended(id(1), at(1)).is_some());
        assert_eq!(tombstones.ended.len(), TOMBSTONES_MAX);
    }
}
