//! One end of one session with the paths that carry it: what both drivers do alike.

use std::collections::BTreeMap;

use rc_proto::session::sim::End;
use rc_proto::session::{PathKey, Session, SessionEvent};
use rc_proto::wire::SessionId;

use super::tls::Tls;
use crate::cluster::ctx::Ctx;
use crate::cluster::net::{ConnId, Host, Payload, RecordBody};

/// Bytes that a session is asked for at a time.
const BUDGET_BYTES: usize = 16 * 1024;

/// See the module.
pub(in crate::cluster) struct Seat {
    pub(in crate::cluster) id: SessionId,
    pub(in crate::cluster) end: End,
    pub(in crate::cluster) session: Session,
    pub(in crate::cluster) paths: BTreeMap<PathKey, (ConnId, Tls)>,
    /// Bytes that wait to be read by a slow application are read no earlier than told to.
    pub(in crate::cluster) is_reading: bool,
}

impl Seat {
    pub(in crate::cluster) fn new(id: SessionId, end: End, session: Session) -> Self {
        Self { id, end, session, paths: BTreeMap::new(), is_reading: true }
    }

    pub(in crate::cluster) fn key_of(&self, conn: ConnId) -> Option<PathKey> {
        self.paths.iter().find(|(_, (own, _))| *own == conn).map(|(key, _)| *key)
    }

    /// Writes what the session has for its paths, as far as they take it.
    pub(in crate::cluster) fn transmit(&mut self, ctx: &mut Ctx, host: Host) {
        for key in self.session.paths() {
            let Some((conn, tls)) = self.paths.get_mut(&key) else { continue };
            while ctx.net.has_room(*conn, host) {
                let mut bytes = Vec::new();
                if !self.session.poll_transmit(key, ctx.now, BUDGET_BYTES, &mut bytes) {
                    break;
                }
                let record = tls.seal(RecordBody::Data(bytes));
                ctx.send(*conn, host, Payload::Record(record));
            }
        }
        ctx.oracle.touch(self.id);
    }

    /// A path's leg is over, whoever ended it.
    pub(in crate::cluster) fn lose(&mut self, ctx: &mut Ctx, host: Host, key: PathKey) {
        self.session.path_lost(key, ctx.now);
        self.close(ctx, host, key);
    }

    /// The session has removed a path already: its leg is closed.
    pub(in crate::cluster) fn close(&mut self, ctx: &mut Ctx, host: Host, key: PathKey) {
        if let Some((conn, _)) = self.paths.remove(&key) {
            ctx.close(conn, host);
        }
    }

    /// What concerns application, oracle and legs alike at both ends; everything else is for the driver.
    pub(in crate::cluster) fn handle_event(
        &mut self,
        ctx: &mut Ctx,
        host: Host,
        event: SessionEvent,
    ) -> Option<SessionEvent> {
        match event {
            SessionEvent::Attached { epoch, .. } => {
                ctx.note(format_args!("{host:?} {:?} attached, epoch {epoch}", self.end));
                ctx.oracle.attached(self.id, self.end, epoch);
                return Some(event);
            }
            SessionEvent::Dead(path) => {
                ctx.note(format_args!("{host:?} path {} is dead", path.0));
                self.close(ctx, host, path);
                return Some(event);
            }
            SessionEvent::PathRetired(path) => {
                self.transmit(ctx, host);
                self.lose(ctx, host, path);
            }
            SessionEvent::Offered { channel, .. } => {
                // A channel that was reset meanwhile cannot be accepted any more.
                let _accepted = self.session.accept(channel).ok();
            }
            SessionEvent::Readable(channel) => self.read(ctx, channel),
            SessionEvent::PeerFinished(channel) => {
                ctx.oracle.peer_finished(self.id, channel, self.end);
                self.read(ctx, channel);
            }
            SessionEvent::Reset { channel, .. } => {
                ctx.oracle.reset(self.id, channel);
                self.session.forget(channel);
            }
            SessionEvent::Closed(channel) => self.read(ctx, channel),
            SessionEvent::Ended { code, .. } => {
                ctx.note(format_args!("{host:?} {:?} session over: {code}", self.end));
                ctx.oracle.session_ended(self.id, self.end, code);
                return Some(event);
            }
            SessionEvent::Aborted { code, ref reason, .. } => {
                let (id, end) = (self.id, self.end);
                ctx.oracle.violation(format!("session {id}: {end:?} aborted: {code} {reason}"));
                return Some(event);
            }
            SessionEvent::Detached => {
                ctx.note(format_args!("{host:?} {:?} detached", self.end));
                ctx.oracle.counts.detached += 1;
                return Some(event);
            }
            SessionEvent::RefusedByPeer { .. }
            | SessionEvent::AttachRequested { .. }
            | SessionEvent::Opened(_)
            | SessionEvent::Writable(_)
            | SessionEvent::Suspect(_)
            | SessionEvent::Recovered(_)
            | SessionEvent::RepathWanted { .. }
            | SessionEvent::Where(_) => return Some(event),
        }
        None
    }

    pub(in crate::cluster) fn read(&mut self, ctx: &mut Ctx, channel: rc_proto::wire::ChannelId) {
        if self.is_reading {
            ctx.oracle.read(self.id, self.end, channel, &mut self.session);
        }
    }
}
