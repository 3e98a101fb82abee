//! The pipe of an evil broker: two legs, and a lie told once at a given byte.

use std::io;
use std::time::Duration;

use rc_transport::Leg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::deed::{Deed, Plan};
use crate::relay::Way;

/// Bytes of one read.
const PIECE_BYTES: usize = 16 << 10;
/// A peer that takes nothing for so long has gone.
const WRITE_MAX: Duration = Duration::from_secs(20);
/// How long a path is held at most: longer than any suspicion.
const HOLD: Duration = Duration::from_secs(30);

/// A leg, and what was read of it behind its first message.
pub(super) struct Bringing {
    pub(super) leg: Leg,
    pub(super) behind: Vec<u8>,
}

/// How far a pipe came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// To the byte where both directions stop.
    ToLimit,
    /// To the end of a leg.
    ToEnd,
}

/// Two legs of a path.
pub(super) struct Pipe {
    near: Leg,
    far: Leg,
    carried_there: u64,
    carried_back: u64,
    /// What the Controller's side said, as far as it is recorded.
    record: Vec<u8>,
    record_max: usize,
    held_back: Option<Vec<u8>>,
}

impl Pipe {
    /// Joins two legs, and carries what came early.
    pub(super) async fn join(near: Bringing, far: Bringing, record_max: usize) -> io::Result<Self> {
        let (near_early, far_early) = (near.behind, far.behind);
        let mut pipe = Self {
            near: near.leg,
            far: far.leg,
            carried_there: 0,
            carried_back: 0,
            record: Vec::new(),
            record_max,
            held_back: None,
        };
        pipe.pass(Way::There, near_early).await?;
        pipe.pass(Way::Back, far_early).await?;
        Ok(pipe)
    }

    /// What the Controller's side said so far, at most as much as was to be recorded.
    pub(super) fn into_record(self) -> Vec<u8> {
        self.record
    }

    /// This pipe's Controller with the other one's Target, and the other way round.
    pub(super) fn exchange(self, other: Self) -> (Self, Self) {
        let (mut one, mut two) = (self, other);
        std::mem::swap(&mut one.far, &mut two.far);
        (one, two)
    }

    /// Carries until so many bytes went from the Controller, or a leg ends.
    pub(super) async fn carry(&mut self, limit: u64) -> Came {
        let plan = Plan { deed: Deed::Carry, way: Way::There, after: 0, draw: 0 };
        self.run(plan, limit, &[]).await
    }

    /// Carries, and does the deed once; `foreign` are another path's bytes.
    pub(super) async fn betray(&mut self, plan: Plan, foreign: &[u8]) {
        self.run(plan, u64::MAX, foreign).await;
        if plan.deed == Deed::Truncate {
            // A proper end on both sides.
            drop(self.near.shutdown().await);
            drop(self.far.shutdown().await);
        }
    }

    async fn run(&mut self, plan: Plan, limit: u64, foreign: &[u8]) -> Came {
        let (mut there, mut back) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut is_done = plan.deed == Deed::Carry;
        while self.carried_there < limit {
            let (way, read) = tokio::select! {
                read = self.near.read(&mut there) => (Way::There, read),
                read = self.far.read(&mut back) => (Way::Back, read),
            };
            let buffer = if way == Way::There { &there } else { &back };
            let piece = match read {
                Ok(count @ 1..) => buffer.get(..count).unwrap_or_default().to_vec(),
                Ok(_) | Err(_) => return Came::ToEnd,
            };
            let is_due =
                !is_done && way == plan.way && self.carried_on(way) + piece.len() as u64 > plan.after;
            let pieces = if is_due {
                is_done = plan.deed != Deed::Reorder || self.held_back.is_some();
                match self.altered(piece, plan, foreign) {
                    Some(pieces) => pieces,
                    None if plan.deed == Deed::Hold => {
                        tokio::time::sleep(HOLD).await;
                        return Came::ToEnd;
                    }
                    None => return Came::ToEnd,
                }
            } else {
                vec![piece]
            };
            for piece in pieces {
                if self.pass(way, piece).await.is_err() {
                    return Came::ToEnd;
                }
            }
        }
        Came::ToLimit
    }

    /// What goes out in place of a piece; `None` when the path is over.
    fn altered(&mut self, mut piece: Vec<u8>, plan: Plan, foreign: &[u8]) -> Option<Vec<Vec<u8>>> {
        match plan.deed {
            Deed::Flip => {
                let bits = piece.len() as u64 * 8;
                let bit = usize::try_from(plan.draw % bits).unwrap_or_default();
                if let Some(byte) = piece.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                Some(vec![piece])
            }
            Deed::Repeat => Some(vec![piece.clone(), piece]),
            Deed::Omit => Some(Vec::new()),
            Deed::Reorder => match self.held_back.take() {
                Some(earlier) => Some(vec![piece, earlier]),
                None => {
                    self.held_back = Some(piece);
                    Some(Vec::new())
                }
            },
            Deed::Insert => Some(vec![foreign.to_vec(), piece]),
            Deed::Truncate | Deed::BreakOff | Deed::Hold => None,
            Deed::Carry
            | Deed::Splice
            | Deed::WrongTarget
            | Deed::PlayTarget
            | Deed::PlayBack
            | Deed::PlayController
            | Deed::InventOpen => Some(vec![piece]),
        }
    }

    fn carried_on(&self, way: Way) -> u64 {
        match way {
            Way::There => self.carried_there,
            Way::Back => self.carried_back,
        }
    }

    async fn pass(&mut self, way: Way, piece: Vec<u8>) -> io::Result<()> {
        let room = self.record_max - self.record.len();
        let leg = match way {
            Way::There => {
                self.carried_there += piece.len() as u64;
                self.record.extend(piece.iter().take(room));
                &mut self.far
            }
            Way::Back => {
                self.carried_back += piece.len() as u64;
                &mut self.near
            }
        };
        let writing = async {
            leg.write_all(&piece).await?;
            leg.flush().await
        };
        tokio::time::timeout(WRITE_MAX, writing).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}
