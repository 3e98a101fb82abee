//! Ids that were used and are closed, as intervals: channels are opened in ascending order, so a long session
//! needs few of them.

use std::collections::BTreeMap;

use crate::wire::ChannelId;

/// Intervals that one side may leave open. Each gap is a channel that is still open or on its way, so an honest
/// peer stays far below.
const INTERVALS_MAX: usize = 256;

/// The peer's ids are scattered as no honest peer's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scattered;

/// Closed ids of both sides.
#[derive(Debug, Default)]
pub(super) struct ClosedIds {
    /// By parity: first to last index of each interval; neighbours are merged.
    sides: [BTreeMap<u32, u32>; 2],
}

impl ClosedIds {
    /// Whether `id` was closed before.
    pub(super) fn contains(&self, id: ChannelId) -> bool {
        let (side, index) = place(id);
        let intervals = if side { &self.sides[1] } else { &self.sides[0] };
        intervals.range(..=index).next_back().is_some_and(|(_, last)| index <= *last)
    }

    /// Closes `id`.
    ///
    /// # Errors
    /// When the ids of one side are in too many pieces.
    pub(super) fn insert(&mut self, id: ChannelId) -> Result<(), Scattered> {
        if self.contains(id) {
            return Ok(());
        }
        let (side, index) = place(id);
        let intervals = if side { &mut self.sides[1] } else { &mut self.sides[0] };
        let before = intervals.range(..index).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((first, last)) if last + 1 == index => first,
            Some(_) | None => index,
        };
        let last = intervals.remove(&index.saturating_add(1)).unwrap_or(index);
        intervals.insert(first, last);
        if intervals.len() > INTERVALS_MAX { Err(Scattered) } else { Ok(()) }
    }
}

/// Whether an id is even, and its index among those of the same parity.
fn place(id: ChannelId) -> (bool, u32) {
    (id.0.is_multiple_of(2), id.0 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_whatever_the_order() {
        let mut closed = ClosedIds::default();
        for id in [1_u32, 5, 3, 4, 2, 9] {
            closed.insert(ChannelId(id)).unwrap();
        }
        assert_eq!(closed.sides[0].clone().into_iter().collect::<Vec<_>>(), [(0, 2), (4, 4)]);
        assert_eq!(closed.sides[1].clone().into_iter().collect::<Vec<_>>(), [(1, 2)]);
        for id in 1..=10 {
            assert_eq!(closed.contains(ChannelId(id)), [1, 2, 3, 4, 5, 9].contains(&id), "{id}");
        }
    }

    #[test]
    fn more_than_256_pieces_are_refused() {
        let mut closed = ClosedIds::default();
        for piece in 0..256 {
            assert_eq!(closed.insert(ChannelId(1 + 4 * piece)), Ok(()), "{piece}");
        }
        assert_eq!(closed.insert(ChannelId(1 + 4 * 256)), Err(Scattered));
    }
}
