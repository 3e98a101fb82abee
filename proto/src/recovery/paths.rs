//! The session's paths as the planner sees them: what each crosses, and whether it is trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::order::{AttemptId, OpenedPath};
use crate::Moment;
use crate::session::PathKey;
use crate::wire::codes::Purpose;
use crate::wire::{BrokerId, Epoch, PathId};

/// A second suspicion within this moves the session although the path speaks again.
pub(super) const SECOND_SUSPICION: Duration = Duration::from_secs(30);

/// Where a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// ATTACH is on its way.
    Attaching { attempt: Option<AttemptId>, purpose: Purpose, since: Moment },
    /// It carries the session, or may.
    Live { since: Moment },
    /// A handover has replaced it; the session retires it.
    Leaving,
    /// It is ready, and used when it must.
    Standby { since: Moment },
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) opened: OpenedPath,
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    pub(super) suspect: bool,
    pub(super) suspected: Option<Moment>,
}

impl Known {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live { .. })
    }

    pub(super) fn crosses(&self, broker: &BrokerId) -> bool {
        self.opened.hops.contains(broker)
    }
}

/// Every path that was attached and is not gone.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeMap<PathKey, Known>);

impl Paths {
    pub(super) fn insert(&mut self, key: PathKey, opened: OpenedPath, epoch: Epoch, stage: Stage) {
        self.0.insert(key, Known { opened, epoch, stage, suspect: false, suspected: None });
    }

    /// Every other live path is replaced by `newer`.
    pub(super) fn leave_all_but(&mut self, newer: PathKey) {
        for (key, known) in &mut self.0 {
            if *key != newer && known.is_live() {
                known.stage = Stage::Leaving;
            }
        }
    }

    /// A path that only a fall-back would need.
    pub(super) fn spare(&self, newest: PathKey) -> Option<PathKey> {
        let mut others = self.0.iter().filter(|(key, _)| **key != newest);
        others
            .find(|(_, known)| matches!(known.stage, Stage::Live { .. } | Stage::Leaving))
            .map(|(key, _)| *key)
    }

    pub(super) fn get_mut(&mut self, key: PathKey) -> Option<&mut Known> {
        self.0.get_mut(&key)
    }

    pub(super) fn remove(&mut self, key: PathKey) -> Option<Known> {
        self.0.remove(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathKey, &Known)> {
        self.0.iter().map(|(key, known)| (*key, known))
    }

    pub(super) fn by_epoch(&self, epoch: Epoch) -> Option<PathKey> {
        self.iter().find(|(_, known)| known.epoch == epoch && epoch != Epoch(0)).map(|(key, _)| key)
    }

    pub(super) fn by_id(&self, path: PathId) -> Option<&Known> {
        self.0.values().find(|known| known.opened.path == Some(path))
    }

    /// Whether a path carries the session and the other end is heard on it.
    pub(super) fn trusted(&self) -> bool {
        self.0.values().any(|known| known.is_live() && !known.suspect)
    }

    /// The live path that the session prefers.
    pub(super) fn newest(&self) -> Option<(PathKey, &Known)> {
        self.iter()
            .filter(|(_, known)| known.is_live())
            .max_by_key(|(_, known)| (!known.suspect, known.epoch))
    }

    pub(super) fn standby(&self) -> Option<PathKey> {
        self.iter()
            .find(|(_, known)| matches!(known.stage, Stage::Standby { .. }) && !known.suspect)
            .map(|(key, _)| key)
    }

    /// Since when the youngest ATTACH that is to carry the session is unanswered.
    pub(super) fn attaching_since(&self) -> Option<Moment> {
        let since = |known: &Known| match known.stage {
            Stage::Attaching { purpose, since, .. } if purpose != Purpose::STANDBY => Some(since),
            Stage::Attaching { .. } | Stage::Live { .. } | Stage::Leaving | Stage::Standby { .. } => None,
        };
        self.0.values().filter_map(since).max()
    }

    /// Whether a path stands by or is about to.
    pub(super) fn has_standby(&self) -> bool {
        self.0.values().any(|known| {
            matches!(known.stage, Stage::Standby { .. } | Stage::Attaching { purpose: Purpose::STANDBY, .. })
        })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
