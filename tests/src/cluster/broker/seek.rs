//! Looking for the Target: the real search and its questions, with what they wait for.

use std::time::Duration;

use rc_broker::core::registry::{Found, ParkId, Settled};
use rc_broker::core::search::{Candidate, Step, View};
use rc_proto::Moment;
use rc_proto::mesh::{LocateEvent, LocateKind, LocateQuery, Question};
use rc_proto::wire::codes::{PathFailure, Purpose};
use rc_proto::wire::message::{Here, Locate, NotHere};
use rc_proto::wire::{BrokerId, Ext};

use super::Broker;
use super::open::Stage;
use crate::cluster::ctx::Ctx;

/// Attempts of one open at a time.
const ATTEMPTS_MAX: usize = 3;
/// A Target's link on its way out is looked at again after this.
const LEAVING: Duration = Duration::from_millis(250);

impl Broker {
    /// Looks for the Target until something has to be waited for.
    pub(super) fn advance(&mut self, ctx: &mut Ctx, number: u64) {
        loop {
            let Some(open) = self.opens.get_mut(&number) else { return };
            let Some(search) = open.search.as_mut() else {
                return self.fail(ctx, number, PathFailure::NOT_HERE);
            };
            if std::mem::take(&mut open.is_woken) {
                open.watch = None;
                search.woken();
            }
            let (target, instance) = (open.ask.request.target.clone(), open.ask.request.instance);
            let registration = if open.watch.is_some() {
                self.cores.registry.find(&target, instance)
            } else {
                match self.cores.registry.find_or_park(&target, instance, number) {
                    Found::Here(registration) => Some(registration),
                    Found::Parked { park, hints } => {
                        let candidates = self.candidates(&hints);
                        self.note_candidates(number, candidates, Some(park));
                        None
                    }
                    Found::Full => return self.fail(ctx, number, PathFailure::BUSY),
                }
            };
            let view = View {
                is_here: registration.is_some(),
                peers_linked: self.peers_linked(),
                has_directory: false,
                is_mesh_healthy: self.cores.members.is_healthy(ctx.now),
            };
            let Some(search) = self.opens.get_mut(&number).and_then(|open| open.search.as_mut()) else {
                return;
            };
            let step = search.next(view, ctx.now);
            match (step, registration) {
                (Step::InviteHere, Some(registration)) => {
                    let candidates = self.candidates(&self.cores.registry.hints(&target, instance));
                    self.note_candidates(number, candidates, None);
                    return self.invite(ctx, number, &registration);
                }
                (Step::InviteHere, None) | (Step::Consult, _) => {}
                (Step::Along(route), _) => return self.try_along(ctx, number, route),
                (Step::Locate, _) => {
                    let query = self.ask_peers(ctx, number);
                    let Some((open, query)) = self.opens.get_mut(&number).zip(query) else { return };
                    open.stage = Stage::Locating(query);
                    return self.locating(ctx, number);
                }
                (Step::Park(until), _) => {
                    if self.park(ctx, number, until) {
                        return;
                    }
                }
                (Step::Fail(code), _) => return self.fail(ctx, number, code),
            }
        }
    }

    fn note_candidates(&mut self, number: u64, found: Vec<Candidate>, watch: Option<ParkId>) {
        if let Some(open) = self.opens.get_mut(&number) {
            open.watch = watch.or(open.watch);
            if let Some(search) = open.search.as_mut() {
                search.add_candidates(found);
            }
        }
    }

    /// Waits for a registration; false when there is something to do at once.
    fn park(&mut self, ctx: &mut Ctx, number: u64, until: Moment) -> bool {
        let Some(open) = self.opens.get_mut(&number) else { return true };
        let Some(watch) = open.watch else {
            open.stage = Stage::Parked { until: until.min(ctx.now + LEAVING), counted: false };
            return true;
        };
        let (target, controller) = (open.ask.request.target.clone(), open.ask.controller.clone());
        match self.cores.registry.settle(&target, watch) {
            Settled::Woken => {
                open.is_woken = true;
                return false;
            }
            Settled::Full => self.fail(ctx, number, PathFailure::BUSY),
            Settled::Waiting if self.cores.admission.begin_park(&controller) => {
                open.stage = Stage::Parked { until, counted: true };
            }
            Settled::Waiting => self.fail(ctx, number, PathFailure::BUSY),
        }
        true
    }

    /// A registration came: the opens that watched for it look again.
    pub(super) fn wake(&mut self, ctx: &mut Ctx, woken: &[u64]) {
        for number in woken {
            let Some(open) = self.opens.get_mut(number) else { continue };
            open.is_woken = true;
            if matches!(open.stage, Stage::Parked { .. }) {
                self.unpark_stage(*number);
                self.advance(ctx, *number);
            }
        }
    }

    pub(super) fn unpark_stage(&mut self, number: u64) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        let before = std::mem::replace(&mut open.stage, Stage::Trying { hedge_at: open.ask.deadline });
        if let Stage::Parked { counted: true, .. } = before {
            self.cores.admission.end_park(&open.ask.controller);
        }
    }

    /// The open's own timers: its deadline, the hedge, the question, the end of parking.
    pub(super) fn open_timeout(&mut self, ctx: &mut Ctx, number: u64) {
        let now = ctx.now;
        let Some(open) = self.opens.get_mut(&number) else { return };
        if now >= open.ask.deadline {
            return self.fail(ctx, number, PathFailure::TIMEOUT);
        }
        if let Some(query) = open.beside.as_mut() {
            query.handle_timeout(now);
        }
        match &mut open.stage {
            Stage::Trying { hedge_at } if now >= *hedge_at => self.hedge(ctx, number),
            Stage::Trying { .. } => {}
            Stage::Locating(query) => {
                query.handle_timeout(now);
                self.locating(ctx, number);
            }
            Stage::Parked { until, .. } if now >= *until => {
                self.unpark_stage(number);
                self.advance(ctx, number);
            }
            Stage::Parked { .. } => {}
        }
        self.located_beside(ctx, number);
    }

    /// The attempt is slow: another one beside it, or a question where else the Target is.
    fn hedge(&mut self, ctx: &mut Ctx, number: u64) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        open.stage = Stage::Trying { hedge_at: open.ask.deadline };
        let Some(search) = open.search.as_mut() else { return };
        if open.attempts.len() < ATTEMPTS_MAX
            && let Some(route) = search.next_candidate()
        {
            return self.try_along(ctx, number, route);
        }
        if search.begin_locate() {
            let query = self.ask_peers(ctx, number);
            if let Some(open) = self.opens.get_mut(&number) {
                open.beside = query;
            }
        }
    }

    fn ask_peers(&mut self, ctx: &mut Ctx, number: u64) -> Option<Box<LocateQuery>> {
        let open = self.opens.get(&number)?;
        let (target, instance) = (open.ask.request.target.clone(), open.ask.request.instance);
        let is_resume = open.ask.request.purpose == Purpose::RESUME;
        let kind = if is_resume { LocateKind::Resume } else { LocateKind::New };
        let peers: Vec<_> =
            self.links.mesh.values().map(|link| (link.peer.clone(), link.round_trip)).collect();
        for conn in self.links.mesh.keys() {
            let target = target.clone();
            ctx.tell(
                *conn,
                self.host,
                Locate { query: number, target, instance, watch_ms: 0, ext: Ext::none() },
            );
        }
        let question = Question { query: number, target, instance, kind, watch: Duration::ZERO };
        Some(Box::new(LocateQuery::new(question, &peers, ctx.now)))
    }

    fn query_mut(&mut self, number: u64) -> Option<&mut LocateQuery> {
        let open = self.opens.get_mut(&number)?;
        match &mut open.stage {
            Stage::Locating(query) => Some(query),
            Stage::Trying { .. } | Stage::Parked { .. } => open.beside.as_deref_mut(),
        }
    }

    pub(super) fn located_here(&mut self, ctx: &mut Ctx, peer: &BrokerId, here: &Here) {
        if let Some(query) = self.query_mut(here.query) {
            query.handle_here(peer, here.instance, here.role, here.cost_us, ctx.now);
            self.locating(ctx, here.query);
        }
    }

    pub(super) fn located_not_here(&mut self, ctx: &mut Ctx, peer: &BrokerId, answer: &NotHere) {
        if let Some(query) = self.query_mut(answer.query) {
            query.handle_not_here(peer, ctx.now);
            self.locating(ctx, answer.query);
        }
    }

    pub(super) fn located_link_lost(&mut self, ctx: &mut Ctx, peer: &BrokerId) {
        for number in self.opens.keys().copied().collect::<Vec<_>>() {
            if let Some(query) = self.query_mut(number) {
                query.handle_link_lost(peer, ctx.now);
                self.locating(ctx, number);
            }
        }
    }

    /// What a question has come to.
    fn locating(&mut self, ctx: &mut Ctx, number: u64) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        let Stage::Locating(query) = &mut open.stage else { return self.located_beside(ctx, number) };
        let Some((found, unknown)) = conclusion(query) else { return };
        open.stage = Stage::Trying { hedge_at: open.ask.deadline };
        if let Some(search) = open.search.as_mut() {
            search.located(found, unknown);
        }
        self.advance(ctx, number);
    }

    fn located_beside(&mut self, ctx: &mut Ctx, number: u64) {
        let Some(open) = self.opens.get_mut(&number) else { return };
        let Some((found, unknown)) = open.beside.as_deref_mut().and_then(conclusion) else { return };
        open.beside = None;
        if let Some(search) = open.search.as_mut() {
            search.located(found, unknown);
        }
        if matches!(open.stage, Stage::Trying { .. }) {
            self.hedge(ctx, number);
        }
    }
}

/// Where the Target is, best first, and how many peers did not say.
fn conclusion(query: &mut LocateQuery) -> Option<(Vec<Candidate>, usize)> {
    match query.poll_event()? {
        LocateEvent::Found(best) => {
            let others = std::iter::from_fn(|| query.next_positive());
            let found = std::iter::once(best).chain(others).map(|location| Candidate {
                broker: location.broker,
                role: location.role,
                cost_us: u32::try_from(location.cost.as_micros()).unwrap_or(u32::MAX),
            });
            Some((found.collect(), 0))
        }
        LocateEvent::NotFound { .. } => Some((Vec::new(), 0)),
        LocateEvent::Partial { .. } => Some((Vec::new(), 1)),
        LocateEvent::Ended => Some((Vec::new(), usize::from(query.has_unknown()))),
    }
}
