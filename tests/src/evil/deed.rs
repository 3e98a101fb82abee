//! What an evil broker does to one path.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::relay::Way;

/// One kind of lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// None: the bytes are carried, so that there is something to record and to play back.
    Carry,
    /// Flips one bit.
    Flip,
    /// Sends a piece twice.
    Repeat,
    /// Leaves a piece out.
    Omit,
    /// Exchanges two pieces.
    Reorder,
    /// Puts bytes of another path in.
    Insert,
    /// Ends the path with a proper end.
    Truncate,
    /// Ends the path without one.
    BreakOff,
    /// Carries nothing any more, and keeps the connections.
    Hold,
    /// Joins the Controller's leg to another path's Target.
    Splice,
    /// Invites another Target than the one that is wanted.
    WrongTarget,
    /// Says that the path is open and plays the Target itself.
    PlayTarget,
    /// Invites the Target for nobody, and plays an earlier Controller's bytes.
    PlayBack,
    /// Invites the Target for nobody, and plays the Controller itself.
    PlayController,
    /// Opens the path at an honest broker on the Controller's behalf, and plays earlier bytes into it.
    InventOpen,
}

impl Deed {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Carry,
        Self::Flip,
        Self::Repeat,
        Self::Omit,
        Self::Reorder,
        Self::Insert,
        Self::Truncate,
        Self::BreakOff,
        Self::Hold,
        Self::Splice,
        Self::WrongTarget,
        Self::PlayTarget,
        Self::PlayBack,
        Self::PlayController,
        Self::InventOpen,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Carry => "carry",
            Self::Flip => "flip",
            Self::Repeat => "repeat",
            Self::Omit => "omit",
            Self::Reorder => "reorder",
            Self::Insert => "insert",
            Self::Truncate => "truncate",
            Self::BreakOff => "break off",
            Self::Hold => "hold",
            Self::Splice => "splice",
            Self::WrongTarget => "wrong target",
            Self::PlayTarget => "play the target",
            Self::PlayBack => "play back",
            Self::PlayController => "play the controller",
            Self::InventOpen => "invent an open",
        }
    }
}

/// A deed with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) deed: Deed,
    /// Which direction is altered.
    pub(super) way: Way,
    /// After so many bytes of that direction.
    pub(super) after: u64,
    /// Chooses a bit.
    pub(super) draw: u64,
}

impl Plan {
    /// Any deed, early (in a handshake), or later (in a session).
    pub(super) fn draw(random: &mut impl Rng) -> Self {
        let deed = Deed::ALL.choose(random).copied().unwrap_or(Deed::Carry);
        let way = if random.random() { Way::There } else { Way::Back };
        let after = if random.random_ratio(1, 4) {
            random.random_range(0..6_000)
        } else {
            random.random_range(6_000..40_000)
        };
        Self { deed, way, after, draw: random.random() }
    }
}
