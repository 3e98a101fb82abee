//! Which channel's DATA goes next on one path: control, input and cursor strictly first; then sound and screen by
//! weight; then bulk, which is still given 2 % of what passes it.

use crate::wire::ChannelId;
use crate::wire::codes::Class;

/// One in this many bytes is bulk's.
const BULK_FLOOR_DIVISOR: u64 = 50;
/// Shares of sound and screen.
const AUDIO_WEIGHT: u64 = 3;
const SCREEN_WEIGHT: u64 = 1;

/// Priority of a class; a class of a later version is taken for bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Control,
    Input,
    Cursor,
    Audio,
    Screen,
    Bulk,
}

const RANKS: usize = 6;

fn rank(class: Class) -> Rank {
    match class {
        Class::CONTROL => Rank::Control,
        Class::INPUT => Rank::Input,
        Class::CURSOR => Rank::Cursor,
        Class::AUDIO => Rank::Audio,
        Class::SCREEN => Rank::Screen,
        _ => Rank::Bulk,
    }
}

/// Whether a class travels on the bulk lane.
pub(super) fn is_bulk(class: Class) -> bool {
    rank(class) == Rank::Bulk
}

/// Whether a class keeps to the path's window; the others are small and go at once.
pub(super) fn is_windowed(class: Class) -> bool {
    rank(class) >= Rank::Audio
}

/// The scheduler of one path.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// Per rank the channel served last: turns go round.
    last: [Option<ChannelId>; RANKS],
    /// Bytes that bulk is owed.
    bulk_owed: u64,
    /// Weighted bytes that sound and screen have had.
    audio_spent: u64,
    screen_spent: u64,
}

impl Scheduler {
    /// The channel to serve next out of `waiting`, with `frame` bytes at most.
    pub(super) fn choose(
        &self,
        waiting: impl Iterator<Item = (ChannelId, Class)>,
        frame: usize,
    ) -> Option<(ChannelId, Class)> {
        let mut candidates: [Option<(ChannelId, Class)>; RANKS] = [None; RANKS];
        for (channel, class) in waiting {
            let at = rank(class) as usize;
            let last = self.last.get(at).copied().flatten();
            if let Some(slot) = candidates.get_mut(at)
                && slot.is_none_or(|(held, _)| precedes(last, channel, held))
            {
                *slot = Some((channel, class));
            }
        }
        let [control, input, cursor, audio, screen, bulk] = candidates;
        if bulk.is_some() && self.bulk_owed >= frame as u64 {
            return bulk;
        }
        let weighted =
            if self.audio_spent <= self.screen_spent { audio.or(screen) } else { screen.or(audio) };
        control.or(input).or(cursor).or(weighted).or(bulk)
    }

    /// `bytes` of a channel were sent while bulk did or did not wait.
    pub(super) fn served(&mut self, channel: ChannelId, class: Class, bytes: usize, bulk_waits: bool) {
        let bytes = bytes as u64;
        let rank = rank(class);
        if let Some(slot) = self.last.get_mut(rank as usize) {
            *slot = Some(channel);
        }
        match rank {
            Rank::Bulk => self.bulk_owed = self.bulk_owed.saturating_sub(bytes),
            Rank::Control | Rank::Input | Rank::Cursor | Rank::Audio | Rank::Screen if bulk_waits => {
                self.bulk_owed += bytes.div_ceil(BULK_FLOOR_DIVISOR);
            }
            Rank::Control | Rank::Input | Rank::Cursor | Rank::Audio | Rank::Screen => self.bulk_owed = 0,
        }
        match rank {
            Rank::Audio => self.audio_spent += bytes / AUDIO_WEIGHT,
            Rank::Screen => self.screen_spent += bytes / SCREEN_WEIGHT,
            Rank::Control | Rank::Input | Rank::Cursor | Rank::Bulk => {}
        }
        // A class that was quiet has no claim on the past.
        let slack = 64 * 1024;
        self.audio_spent = self.audio_spent.max(self.screen_spent.saturating_sub(slack));
        self.screen_spent = self.screen_spent.max(self.audio_spent.saturating_sub(slack));
    }
}

/// Whether `left` has its turn before `right` when `last` was served last.
fn precedes(last: Option<ChannelId>, left: ChannelId, right: ChannelId) -> bool {
    let turn = |channel: ChannelId| (last.is_some_and(|last| channel <= last), channel);
    turn(left) < turn(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Bytes per channel after `count` frames of `frame` bytes with every channel always waiting.
    fn saturate(channels: &[(u32, Class)], frame: usize, count: usize) -> BTreeMap<u32, usize> {
        let mut scheduler = Scheduler::default();
        let mut sent = BTreeMap::new();
        for _ in 0..count {
            let waiting = channels.iter().map(|(id, class)| (ChannelId(*id), *class));
            let (channel, class) = scheduler.choose(waiting, frame).unwrap();
            scheduler.served(channel, class, frame, channels.iter().any(|(_, class)| is_bulk(*class)));
            *sent.entry(channel.0).or_default() += frame;
        }
        sent
    }

    #[test]
    fn control_goes_before_input_before_cursor_before_the_rest() {
        let order = [Class::CONTROL, Class::INPUT, Class::CURSOR, Class::SCREEN, Class::BULK];
        for skip in 0..order.len() {
            let waiting = order.iter().rev().zip(1..).take(order.len() - skip);
            let chosen = Scheduler::default().choose(waiting.map(|(class, id)| (ChannelId(id), *class)), 100);
            assert_eq!(chosen.map(|(_, class)| class), Some(order[skip]));
        }
    }

    #[test]
    fn bulk_keeps_two_per_cent_under_saturated_input() {
        let sent = saturate(&[(1, Class::INPUT), (3, Class::BULK)], 1000, 10_000);
        let share = sent[&3] as f64 / (10_000.0 * 1000.0);
        assert!((0.019..=0.021).contains(&share), "{share}");
    }

    #[test]
    fn sound_and_screen_share_by_weight() {
        let sent = saturate(&[(1, Class::AUDIO), (3, Class::SCREEN)], 1000, 4000);
        let share = sent[&1] as f64 / sent[&3] as f64;
        assert!((2.8..=3.3).contains(&share), "{share}");
    }

    #[test]
    fn channels_of_one_class_take_turns() {
        let sent = saturate(&[(1, Class::BULK), (3, Class::BULK), (4, Class(99))], 1000, 300);
        assert_eq!(sent, BTreeMap::from([(1, 100_000), (3, 100_000), (4, 100_000)]));
    }
}
