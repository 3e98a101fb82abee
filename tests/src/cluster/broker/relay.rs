//! The pipe between two legs, and what an evil broker does to it.

use std::time::Duration;

use rc_proto::wire::PathId;

use super::{Broker, LegUse};
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, Payload, Record};

/// What a broker does to the next record that passes, or to the next invite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cluster) enum Malice {
    /// It is honest.
    #[default]
    None,
    /// It flips a bit.
    Flip,
    /// It passes the record on, but not what comes behind it, and closes the path.
    Truncate,
    /// It passes the record on twice.
    Replay,
    /// It keeps everything of this path back for so long.
    Delay(Duration),
    /// It puts the record on another path.
    Splice,
    /// It sends the next invite twice.
    InviteTwice,
}

impl Broker {
    pub(super) fn pass_on(&mut self, ctx: &mut Ctx, to: ConnId, mut record: Record) {
        match self.malice {
            Malice::None | Malice::InviteTwice => {
                ctx.send(to, self.host, Payload::Record(record));
                return;
            }
            Malice::Flip => {
                record.is_tampered = true;
                ctx.send(to, self.host, Payload::Record(record));
            }
            Malice::Truncate => {
                ctx.send(to, self.host, Payload::Record(record));
                self.drop_leg(ctx, to);
            }
            Malice::Replay => {
                ctx.send(to, self.host, Payload::Record(record.clone()));
                ctx.send(to, self.host, Payload::Record(record));
            }
            Malice::Delay(span) => {
                if let Some(peer) = ctx.net.peer(to, self.host) {
                    ctx.hold(to, peer, span);
                }
                ctx.send(to, self.host, Payload::Record(record));
            }
            Malice::Splice => {
                let others = self.links.legs.iter();
                let mut others = others.filter(|(_, leg)| matches!(leg, LegUse::Spliced { .. }));
                let other = others.find(|(conn, _)| **conn != to).map_or(to, |(conn, _)| *conn);
                ctx.send(other, self.host, Payload::Record(record));
            }
        }
        ctx.note(format_args!("{} was evil: {:?}", self.id, self.malice));
        self.malice = Malice::None;
    }

    /// Closes a leg, and with it its path.
    pub(super) fn drop_leg(&mut self, ctx: &mut Ctx, conn: ConnId) {
        ctx.close(conn, self.host);
        self.leg_ended(ctx, conn);
    }

    /// A leg is gone: so is its path.
    pub(super) fn leg_ended(&mut self, ctx: &mut Ctx, conn: ConnId) {
        match self.links.legs.remove(&conn) {
            Some(LegUse::Spliced { other, entry }) => {
                self.links.legs.remove(&other);
                ctx.close(other, self.host);
                self.cores.table.end(entry);
            }
            Some(LegUse::Near(number)) => self.cancel_open(ctx, number),
            Some(LegUse::Far(number)) => self.attempt_ended(ctx, number, conn),
            None => {}
        }
    }

    /// An endpoint is done with a path.
    pub(super) fn close_path(&mut self, ctx: &mut Ctx, path: PathId) {
        let found: Vec<ConnId> = self.cores.table.of_path(path).map(|entry| entry.handle).collect();
        for conn in found {
            self.drop_leg(ctx, conn);
        }
    }
}
