//! Which paths cross this broker, how many an identity has, and which carry nothing any more.
//!
//! One entry per path; `H` is the handle by which its tasks are stopped and measured. Called under a lock.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::{Lane, Purpose};
use rc_proto::wire::limits::{NEW_PATHS_PER_IDENTITY_MAX, PATHS_PER_IDENTITY_MAX};
use rc_proto::wire::{BrokerId, EndpointId, PathId};

/// Numbers a path's entry: one path id may be tried again after its entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId(u64);

/// What this broker is to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The Controller's leg ends here.
    Ingress,
    /// A leg from another broker ends here.
    Transit,
}

/// What a path is asked for as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRequest {
    /// The path.
    pub path: PathId,
    /// Who asked.
    pub controller: EndpointId,
    /// Who is wanted.
    pub target: EndpointId,
    /// What for.
    pub purpose: Purpose,
    /// Its kind.
    pub lane: Lane,
    /// What this broker is to it.
    pub part: Part,
    /// The broker that it came from, in transit.
    pub from: Option<BrokerId>,
}

/// How far a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// Its far end is sought.
    Opening,
    /// Bytes flow.
    Open {
        /// The next broker; `None` when the Target's leg ends here.
        to: Option<BrokerId>,
        /// Since when.
        since: Moment,
    },
}

/// One path.
#[derive(Debug, Clone)]
pub struct PathEntry<H> {
    /// What was asked for.
    pub request: PathRequest,
    /// How far it is.
    pub state: PathState,
    /// How its tasks are reached.
    pub handle: H,
    carried: u64,
    last_progress: Moment,
}

/// Why a path is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathLimit {
    /// The broker carries as many as it may.
    #[error("the broker carries as many paths as it may")]
    Broker,
    /// The identity has as many as it may.
    #[error("the Controller has as many paths here as it may")]
    Identity,
    /// The path is here already.
    #[error("the path is here already")]
    Duplicate,
}

/// The paths of one broker.
#[derive(Debug)]
pub struct PathTable<H> {
    entries: BTreeMap<EntryId, PathEntry<H>>,
    by_controller: BTreeMap<EndpointId, Vec<EntryId>>,
    by_path: BTreeMap<PathId, Vec<EntryId>>,
    next: u64,
    limit: usize,
    broke_at: Option<Moment>,
}

impl<H: Clone> PathTable<H> {
    /// An empty table for at most `limit` paths.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_controller: BTreeMap::new(),
            by_path: BTreeMap::new(),
            next: 0,
            limit,
            broke_at: None,
        }
    }

    /// Takes a path on.
    ///
    /// # Errors
    /// Which limit it would exceed.
    pub fn begin(&mut self, request: PathRequest, handle: H, now: Moment) -> Result<EntryId, PathLimit> {
        if self.entries.len() >= self.limit {
            return Err(PathLimit::Broker);
        }
        let ids = self.by_controller.get(&request.controller).map(Vec::as_slice).unwrap_or_default();
        let own = || ids.iter().filter_map(|id| self.entries.get(id));
        if own().any(|entry| entry.request.path == request.path && entry.request.part == request.part) {
            return Err(PathLimit::Duplicate);
        }
        let new = own().filter(|entry| entry.request.purpose == Purpose::NEW).count();
        let is_new = request.purpose == Purpose::NEW;
        if own().count() >= PATHS_PER_IDENTITY_MAX || (is_new && new >= NEW_PATHS_PER_IDENTITY_MAX) {
            return Err(PathLimit::Identity);
        }
        let id = EntryId(self.next);
        self.next += 1;
        self.by_controller.entry(request.controller.clone()).or_default().push(id);
        self.by_path.entry(request.path).or_default().push(id);
        let entry = PathEntry { request, state: PathState::Opening, handle, carried: 0, last_progress: now };
        self.entries.insert(id, entry);
        Ok(id)
    }

    /// The path is open, towards another broker or the Target itself.
    pub fn opened(&mut self, id: EntryId, to: Option<BrokerId>, now: Moment) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state = PathState::Open { to, since: now };
            entry.last_progress = now;
        }
    }

    /// The path is gone.
    pub fn end(&mut self, id: EntryId) -> Option<PathEntry<H>> {
        let ended = self.entries.remove(&id)?;
        forget(&mut self.by_controller, &ended.request.controller, id);
        forget(&mut self.by_path, &ended.request.path, id);
        Some(ended)
    }

    /// A path ended that neither endpoint had closed: its session may come back.
    pub fn note_broken(&mut self, now: Moment) {
        self.broke_at = Some(now);
    }

    /// Whether a path broke within `span`.
    pub fn broke_within(&self, span: Duration, now: Moment) -> bool {
        self.broke_at.is_some_and(|at| now.since(at) <= span)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries of one path: it may be here in more than one part, and another Controller may use its id too.
    pub fn of_path(&self, path: PathId) -> impl Iterator<Item = &PathEntry<H>> {
        self.by_path.get(&path).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    /// Every path, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &PathEntry<H>> {
        self.entries.values()
    }

    /// The open paths that have carried nothing for `idle`. `carried` reads a path's byte count.
    pub fn idle(&mut self, idle: Duration, now: Moment, carried: impl Fn(&H) -> u64) -> Vec<H> {
        let mut over = Vec::new();
        for entry in self.entries.values_mut() {
            let total = carried(&entry.handle);
            if total != entry.carried {
                entry.carried = total;
                entry.last_progress = now;
            }
            let is_open = matches!(entry.state, PathState::Open { .. });
            if is_open && now.since(entry.last_progress) >= idle {
                over.push(entry.handle.clone());
            }
        }
        over
    }
}

/// Takes an entry out of an index, and its key with the last one.
fn forget<K: Ord>(index: &mut BTreeMap<K, Vec<EntryId>>, key: &K, id: EntryId) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn request(controller: &str, path: u8, purpose: Purpose) -> PathRequest {
        PathRequest {
            path: PathId([path; 16]),
            controller: controller.parse().unwrap(),
            target: "pc-1".parse().unwrap(),
            purpose,
            lane: Lane::INTERACTIVE,
            part: Part::Ingress,
            from: None,
        }
    }

    fn at(s: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(s))
    }

    #[test]
    fn an_identity_has_sixteen_new_paths_and_sixty_four_in_all() {
        let mut table = PathTable::new(1_000);
        for path in 0..16 {
            assert!(table.begin(request("alice", path, Purpose::NEW), (), at(0)).is_ok(), "{path}");
        }
        assert_eq!(table.begin(request("alice", 16, Purpose::NEW), (), at(0)), Err(PathLimit::Identity));
        for path in 16..64 {
            assert!(table.begin(request("alice", path, Purpose::RESUME), (), at(0)).is_ok(), "{path}");
        }
        assert_eq!(table.begin(request("alice", 64, Purpose::RESUME), (), at(0)), Err(PathLimit::Identity));
        assert!(table.begin(request("bob", 64, Purpose::NEW), (), at(0)).is_ok());
    }

    #[test]
    fn the_broker_has_a_limit_and_an_ended_path_makes_room() {
        let mut table = PathTable::new(1);
        let id = table.begin(request("alice", 1, Purpose::NEW), (), at(0)).unwrap();
        assert_eq!(table.begin(request("bob", 2, Purpose::NEW), (), at(0)), Err(PathLimit::Broker));
        assert!(table.end(id).is_some());
        assert!(table.by_controller.is_empty());
        assert!(table.by_path.is_empty());
        assert!(table.begin(request("bob", 2, Purpose::NEW), (), at(0)).is_ok());
    }

    #[test]
    fn one_path_is_here_once_in_each_part() {
        let mut table = PathTable::new(9);
        table.begin(request("alice", 1, Purpose::NEW), (), at(0)).unwrap();
        assert_eq!(table.begin(request("alice", 1, Purpose::NEW), (), at(0)), Err(PathLimit::Duplicate));
        let transit = PathRequest { part: Part::Transit, ..request("alice", 1, Purpose::NEW) };
        assert!(table.begin(transit, (), at(0)).is_ok());
        assert_eq!(table.of_path(PathId([1; 16])).count(), 2);
        assert_eq!(table.of_path(PathId([2; 16])).count(), 0);
    }

    #[test]
    fn a_path_that_broke_is_remembered_for_a_while() {
        let mut table = PathTable::<()>::new(9);
        let span = Duration::from_secs(150);
        assert!(!table.broke_within(span, at(0)));
        table.note_broken(at(10));
        assert!(table.broke_within(span, at(160)));
        assert!(!table.broke_within(span, at(161)));
    }

    #[test]
    fn an_open_path_without_a_byte_is_idle_after_a_minute() {
        let carried = Rc::new(Cell::new(0_u64));
        let mut table = PathTable::new(9);
        let id = table.begin(request("alice", 1, Purpose::NEW), Rc::clone(&carried), at(0)).unwrap();
        let idle = Duration::from_secs(60);
        assert_eq!(table.idle(idle, at(100), |h| h.get()).len(), 0);
        table.opened(id, None, at(100));
        assert_eq!(table.idle(idle, at(159), |h| h.get()).len(), 0);
        carried.set(1);
        assert_eq!(table.idle(idle, at(160), |h| h.get()).len(), 0);
        assert_eq!(table.idle(idle, at(219), |h| h.get()).len(), 0);
        assert_eq!(table.idle(idle, at(220), |h| h.get()).len(), 1);
    }
}
