//! The path table with the handles by which running paths are stopped and measured.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::PathEnd;
use rc_proto::wire::message::CertificateRef;
use rc_proto::wire::{BrokerId, PathId};
use tokio_util::sync::CancellationToken;

use super::waiting::WaitingLegs;
use crate::core::paths::{EntryId, PathEntry, PathLimit, PathRequest, PathState, PathTable};
use crate::node::lock;
use crate::relay::PathMeter;

/// Stops and measures one path.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathHandle {
    pub(crate) meter: Arc<PathMeter>,
    pub(crate) stop: CancellationToken,
    reason: Arc<OnceLock<PathEnd>>,
    controller: Arc<OnceLock<CertificateRef>>,
    target: Arc<OnceLock<CertificateRef>>,
}

impl PathHandle {
    /// Ends the path; the first reason stays.
    pub(crate) fn stop(&self, reason: PathEnd) {
        self.reason.get_or_init(|| reason);
        self.stop.cancel();
    }

    /// The Controller's certificate, as the ingress proved it.
    pub(crate) fn set_controller(&self, certificate: CertificateRef) {
        self.controller.get_or_init(|| certificate);
    }

    /// The certificate of the Target's leg, where it ends here.
    pub(crate) fn set_target(&self, certificate: CertificateRef) {
        self.target.get_or_init(|| certificate);
    }

    /// What the path is judged by while it lives.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &CertificateRef> {
        self.controller.get().into_iter().chain(self.target.get())
    }

    /// Why it was stopped.
    pub(crate) fn reason(&self) -> PathEnd {
        self.reason.get().copied().unwrap_or(PathEnd::DRAINED)
    }
}

/// All paths of this broker, and the legs that may become one.
#[derive(Debug)]
pub(crate) struct Paths {
    table: Mutex<PathTable<PathHandle>>,
    pub(crate) waiting: WaitingLegs,
}

impl Paths {
    pub(crate) fn new(limit: usize, waiting_limit: usize) -> Self {
        Self { table: Mutex::new(PathTable::new(limit)), waiting: WaitingLegs::new(waiting_limit) }
    }

    pub(crate) fn begin(
        &self,
        request: PathRequest,
        now: Moment,
    ) -> Result<(EntryId, PathHandle), PathLimit> {
        let handle = PathHandle::default();
        lock(&self.table).begin(request, handle.clone(), now).map(|id| (id, handle))
    }

    pub(crate) fn opened(&self, id: EntryId, to: Option<BrokerId>, now: Moment) {
        lock(&self.table).opened(id, to, now);
    }

    pub(crate) fn end(&self, id: EntryId) -> Option<PathEntry<PathHandle>> {
        lock(&self.table).end(id)
    }

    /// A path ended that neither endpoint had closed.
    pub(crate) fn note_broken(&self, now: Moment) {
        lock(&self.table).note_broken(now);
    }

    /// Whether a path broke within `span`.
    pub(crate) fn broke_within(&self, span: Duration, now: Moment) -> bool {
        lock(&self.table).broke_within(span, now)
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.table).len()
    }

    /// Bytes that are held for legs that do not take them yet.
    pub(crate) fn held_bytes(&self) -> u64 {
        lock(&self.table).entries().map(|entry| entry.handle.meter.held.load(Ordering::Relaxed)).sum()
    }

    /// A copy of all.
    pub(crate) fn all(&self) -> Vec<PathEntry<PathHandle>> {
        lock(&self.table).entries().cloned().collect()
    }

    /// Ends the path of this id, where `chosen` agrees.
    pub(crate) fn stop_path(&self, path: PathId, reason: PathEnd, chosen: impl Fn(&PathRequest) -> bool) {
        let table = lock(&self.table);
        let ended = table.of_path(path).filter(|entry| chosen(&entry.request));
        let handles: Vec<_> = ended.map(|entry| entry.handle.clone()).collect();
        drop(table);
        handles.iter().for_each(|handle| handle.stop(reason));
    }

    /// Ends every path that `chosen` names; returns how many.
    pub(crate) fn stop_where(&self, reason: PathEnd, chosen: impl Fn(&PathRequest) -> bool) -> usize {
        let handles: Vec<_> = lock(&self.table)
            .entries()
            .filter(|entry| chosen(&entry.request))
            .map(|entry| entry.handle.clone())
            .collect();
        handles.iter().for_each(|handle| handle.stop(reason));
        handles.len()
    }

    /// Ends the paths that have carried nothing for `idle`.
    pub(crate) fn stop_idle(&self, idle: Duration, now: Moment) {
        let over = lock(&self.table).idle(idle, now, |handle| handle.meter.total());
        over.iter().for_each(|handle| handle.stop(PathEnd::IDLE));
    }

    /// What every path was asked for as, and the next broker of an open one.
    pub(crate) fn requests(&self) -> Vec<(PathRequest, Option<BrokerId>)> {
        let next = |entry: &PathEntry<PathHandle>| match &entry.state {
            PathState::Opening => None,
            PathState::Open { to, .. } => to.clone(),
        };
        lock(&self.table).entries().map(|entry| (entry.request.clone(), next(entry))).collect()
    }
}
