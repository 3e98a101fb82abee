//! The exchange that binds a path: ATTACH as the Target judges it, ATTACHED and REFUSED as the Controller takes
//! them.

use std::time::Duration;

use super::config::Mutant;
use super::ending::Ending;
use super::event::{PathFault, PathKey, SessionEvent};
use super::life::{Session, Side, frame};
use super::liveness::Liveness;
use super::path::{Path, Stage};
use crate::Moment;
use crate::wire::codes::{AttachKind, EndCode, Lane, Refusal, ResetCode};
use crate::wire::frame::{Attach, Attached, ChannelClaim, EndToEnd, FrameType, Refused};
use crate::wire::{ChannelId, Epoch, Ext, ServiceName};

/// What the Controller keeps its window below the Target's by.
const WINDOW_MARGIN: Duration = Duration::from_secs(30);

impl Session {
    /// Target: takes an ATTACH whose identity and ticket the caller has checked; `permits` is what that ticket
    /// allows and replaces what the one before allowed.
    ///
    /// On success ATTACHED is queued for the path and bytes behind the ATTACH may be handled. A refusal of a
    /// path's first ATTACH is the caller's to write ([`Refused::to_bytes`]); one of a path that stood by is
    /// queued, and `PathRetired` follows.
    ///
    /// # Errors
    /// The answer for the peer.
    pub fn accept_attach(
        &mut self,
        path: PathKey,
        attach: &Attach,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
        now: Moment,
    ) -> Result<Epoch, Box<Refused>> {
        self.expire(now);
        if let Err(refused) = self.judge_attach(path, attach) {
            if self.paths.contains(path) {
                self.refuse_attach(path, &refused);
            }
            return Err(Box::new(refused));
        }
        self.permits = Some(Box::new(permits));
        self.identity.peer = Some(attach.instance);
        self.take_path(path, attach, now);
        self.drop_forbidden();
        if attach.kind != AttachKind::STANDBY {
            self.apply_claims(&attach.channels);
        }
        self.rebind(now);
        if let Some(surplus) = self.paths.surplus(attach.lane) {
            self.drop_path(surplus, SessionEvent::PathRetired(surplus), now);
        }
        self.events.push(SessionEvent::Attached { path, epoch: attach.epoch });
        self.read_held(path, now);
        self.settle();
        Ok(attach.epoch)
    }

    /// Target: answers an ATTACH that came on a path which stood by.
    pub fn refuse_attach(&mut self, path: PathKey, refused: &Refused) {
        if let Some(state) = self.paths.path_mut(path).filter(|state| state.stage == Stage::Judging) {
            state.owed.outbox.push_back(frame(FrameType::Envelope, ChannelId(0), 0, &refused.to_bytes()));
            self.events.push(SessionEvent::PathRetired(path));
        }
    }

    /// Whether the ATTACH holds against this session; changes nothing.
    fn judge_attach(&self, path: PathKey, attach: &Attach) -> Result<(), Refused> {
        let instance = self.identity.instance;
        if let Ending::Over { code } = &self.ending {
            return Err(Refused::ended(*code, instance));
        }
        if attach.session != self.identity.session || self.identity.side != Side::Target {
            return Err(Refused::new(Refusal::UNKNOWN_SESSION, instance));
        }
        let stands_by = match self.paths.path(path).map(|state| state.stage) {
            None => false,
            Some(Stage::Judging) => true,
            Some(_) => return Err(Refused::new(Refusal::VERSION, instance)),
        };
        let lane_known = matches!(attach.lane, Lane::INTERACTIVE | Lane::BULK);
        match attach.kind {
            AttachKind::STANDBY if lane_known && !stands_by => {
                let binds_nothing = attach.epoch == Epoch(0) && attach.channels.is_empty();
                if binds_nothing { Ok(()) } else { Err(Refused::new(Refusal::VERSION, instance)) }
            }
            AttachKind::NEW | AttachKind::RESUME if lane_known => {
                let highest = self.paths.highest;
                let is_checked = !self.config.flaw().is(Mutant::EpochCheckDropped);
                if attach.epoch > highest || !is_checked {
                    Ok(())
                } else {
                    Err(Refused::stale_epoch(highest, instance))
                }
            }
            _ => Err(Refused::new(Refusal::VERSION, instance)),
        }
    }

    fn take_path(&mut self, path: PathKey, attach: &Attach, now: Moment) {
        let standby = attach.kind == AttachKind::STANDBY;
        let attached = EndToEnd::Attached(Attached {
            epoch: attach.epoch,
            instance: self.identity.instance,
            channels: if standby { Vec::new() } else { self.table.claims() },
            resume_window_ms: u32::try_from(self.clock.window.as_millis()).unwrap_or(u32::MAX),
            features: self.config.features & attach.features,
            ext: Ext::none(),
        });
        let bytes = attached.to_bytes().unwrap_or_default();
        let stands_by = standby && !self.config.flaw().is(Mutant::StandbyBinds);
        let stage = if stands_by { Stage::Standby } else { Stage::Live };
        self.paths.highest = self.paths.highest.max(attach.epoch);
        match self.paths.path_mut(path) {
            Some(state) => {
                state.stage = stage;
                state.epoch = attach.epoch;
                state.lane = attach.lane;
                state.owed.outbox.push_back(frame(FrameType::Envelope, ChannelId(0), 0, &bytes));
            }
            None => {
                let mut state = Path::new(stage, attach.lane, attach.epoch, now, self.config.flaw());
                state.first_exchange = false;
                state.owed.outbox.push_back(bytes);
                self.paths.insert(path, state);
            }
        }
    }

    /// Bytes that came behind an ATTACH on a path which stood by.
    fn read_held(&mut self, path: PathKey, now: Moment) {
        let held = self.paths.path_mut(path).map(|state| state.reader.take_held()).unwrap_or_default();
        if !held.is_empty() && self.handle_bytes(path, &held, now).is_err() {
            self.events.push(SessionEvent::Dead(path));
        }
    }

    /// Resets the peer's channels that the ticket now in force does not permit.
    fn drop_forbidden(&mut self) {
        let Some(permits) = &self.permits else { return };
        let forbidden: Vec<ChannelId> = self
            .table
            .open
            .iter()
            .filter(|(_, channel)| !channel.opened_here && !permits(&channel.open.service))
            .map(|(id, _)| *id)
            .collect();
        for channel in forbidden {
            self.reset_channel(channel, ResetCode::NOT_PERMITTED, "");
            let reason = String::new();
            self.events.push(SessionEvent::Reset { channel, code: ResetCode::NOT_PERMITTED, reason });
        }
    }

    fn apply_claims(&mut self, claims: &[ChannelClaim]) {
        self.table.forget_final_acks(claims);
        for claim in claims {
            let hash = Some(claim.hash).filter(|hash| *hash != 0);
            self.apply_ack(claim.channel, claim.next, claim.max, hash);
        }
    }

    /// Controller: the answer to an ATTACH.
    pub(super) fn handle_answer(
        &mut self,
        key: PathKey,
        message: EndToEnd,
        now: Moment,
    ) -> Result<(), PathFault> {
        match message {
            EndToEnd::Attach(_) => Err(PathFault::OutOfPlace { what: "ATTACH from a Target" }),
            EndToEnd::Attached(attached) => self.handle_attached(key, &attached, now),
            EndToEnd::Refused(refused) => {
                self.handle_refused(key, refused, now);
                Ok(())
            }
        }
    }

    fn handle_attached(&mut self, key: PathKey, attached: &Attached, now: Moment) -> Result<(), PathFault> {
        if self.ending.is_over() {
            return Ok(());
        }
        if self.identity.peer.is_some_and(|pinned| pinned != attached.instance) {
            return Err(PathFault::OutOfPlace { what: "ATTACHED from another instance" });
        }
        let Some(path) = self.paths.path_mut(key) else { return Err(PathFault::UnknownPath) };
        let Stage::Attaching { standby, sent, .. } = path.stage else {
            return Err(PathFault::OutOfPlace { what: "ATTACHED without an ATTACH" });
        };
        if attached.epoch != path.epoch {
            return Err(PathFault::OutOfPlace { what: "ATTACHED with another epoch" });
        }
        path.stage = if standby { Stage::Standby } else { Stage::Live };
        path.first_exchange = false;
        path.liveness = Liveness::new(now);
        if let Some(sent) = sent {
            path.liveness.sample(now.since(sent));
        }
        self.identity.peer = Some(attached.instance);
        let theirs = Duration::from_millis(u64::from(attached.resume_window_ms));
        self.clock.window = self.config.resume_window.min(theirs.saturating_sub(WINDOW_MARGIN));
        if !standby {
            self.apply_claims(&attached.channels);
        }
        self.events.push(SessionEvent::Attached { path: key, epoch: attached.epoch });
        self.rebind(now);
        if let Some(surplus) =
            self.paths.path(key).map(|path| path.lane).and_then(|lane| self.paths.surplus(lane))
        {
            self.retire(surplus, now);
        }
        Ok(())
    }

    fn handle_refused(&mut self, key: PathKey, refused: Refused, now: Moment) {
        self.paths.highest = self.paths.highest.max(refused.highest);
        let from_pinned = self.identity.peer.is_none_or(|pinned| pinned == refused.instance);
        let known_instance = self.identity.peer == Some(refused.instance);
        let end = match refused.code {
            Refusal::ENDED if from_pinned => Some(refused.ended.unwrap_or(EndCode::INTERNAL)),
            Refusal::DENIED if refused.denial.is_some_and(|denial| denial.ends_session()) => {
                Some(EndCode::REFUSED)
            }
            Refusal::UNKNOWN_SESSION if known_instance => Some(EndCode::REFUSED),
            _ => None,
        };
        let reason = refused.reason.clone();
        self.drop_path(key, SessionEvent::RefusedByPeer { path: key, refused: Box::new(refused) }, now);
        if let Some(code) = end {
            self.finish_session(code, reason, true);
        }
    }
}
