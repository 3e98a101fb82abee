//! Moves one Controller session from path to path: carries out what its planner decides, and tells it what came of it.
//!
//! The planner sits beside the session under the session's lock, so what it decides and what the session does are one
//! step. This task opens paths, fetches tickets and follows the control links; it ends with the session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::identity::ticket::Ticket;
use rc_proto::recovery::{
    Action, AttemptId, BrokerView, OpenFailure, OpenOrder, OpenedPath, Planner, Report,
};
use rc_proto::session::{PathKey, SessionEvent};
use rc_proto::wire::codes::{EndCode, Purpose};
use rc_proto::wire::{BrokerId, Epoch};
use rc_transport::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{AbortHandle, JoinSet};

use super::core::SessionCore;
use super::handle::SessionHandle;
use super::state::PathFacts;
use crate::endpoint::Endpoint;
use crate::error::PathError;
use crate::event::Event;
use crate::link::{BrokerContact, LinkNews, Links};
use crate::path::{PathFault, PathRequest, open_path};
use crate::proven_path::ProvenPath;
use crate::reach::{nap_until, unix_ms};
use crate::status::{EndedBy, MoveStatus, whole_ms};

/// Brokers that others have named and that are kept.
const NAMED_MAX: usize = 16;
/// Time for a ticket to come.
const TICKET_MAX: Duration = Duration::from_secs(60);

/// Gives a session its further tickets. Called when the one in use is near its end or is refused.
pub trait TicketRenewal: Send + Sync + 'static {
    /// A ticket for the same Controller and Target, as compact JWS; or why there is none, in words.
    fn renew(&self) -> BoxFuture<'_, Result<String, String>>;
}

type Opened = Box<(ProvenPath, PathFacts)>;
type Opening = (AttemptId, Result<Opened, PathFault>);

/// See the module.
pub(crate) struct Mover {
    core: Arc<SessionCore>,
    endpoint: Endpoint,
    /// What every path of the session has in common; holds the ticket in use.
    request: PathRequest,
    tickets: Arc<dyn TicketRenewal>,
    named: Vec<BrokerContact>,
    opening: JoinSet<Opening>,
    aborts: BTreeMap<AttemptId, AbortHandle>,
    open: BTreeMap<AttemptId, Opened>,
    renewing: JoinSet<Result<String, String>>,
}

impl Mover {
    /// Takes over a session that has just begun; `request` holds the ticket that it began with.
    pub(crate) fn new(
        endpoint: &Endpoint,
        session: &SessionHandle,
        request: PathRequest,
        tickets: Arc<dyn TicketRenewal>,
    ) -> Self {
        let core = session.shared_core();
        let planner = Planner::new(endpoint.planner(), rand::random());
        core.plan_with(planner);
        Self {
            core,
            endpoint: endpoint.clone(),
            request,
            tickets,
            named: Vec::new(),
            opening: JoinSet::new(),
            aborts: BTreeMap::new(),
            open: BTreeMap::new(),
            renewing: JoinSet::new(),
        }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let mut links = self.endpoint.links();
        let mut news = self.endpoint.link_news();
        let mut end = self.core.ended();
        self.tell_ticket();
        let standing = links.borrow_and_update().clone();
        self.tell_brokers(&standing);
        loop {
            self.carry_out();
            let due = self.core.plan_timeout();
            tokio::select! {
                biased;
                _ = end.wait_for(Option::is_some) => return,
                () = self.core.moves.notified() => {}
                told = news.recv() => self.hear(told),
                Ok(()) = links.changed() => {
                    let standing = links.borrow_and_update().clone();
                    self.tell_brokers(&standing);
                }
                Some(opened) = self.opening.join_next() => {
                    if let Ok((attempt, opened)) = opened {
                        self.note_opening(attempt, opened);
                    }
                }
                Some(renewed) = self.renewing.join_next() => self.note_ticket(renewed.ok()),
                () = nap_until(self.core.clock(), due) => self.core.plan(Planner::handle_timeout),
            }
        }
    }

    // ---- what the planner wants

    fn carry_out(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Open(order) => self.start_opening(&order),
                Action::Attach { attempt, purpose } => self.attach(attempt, purpose),
                Action::Activate(path) => self.core.activate(path, self.request.ticket.clone()),
                Action::Cancel(attempt) => {
                    if let Some(task) = self.aborts.remove(&attempt) {
                        task.abort();
                    }
                    drop(self.open.remove(&attempt));
                }
                Action::Retire(path) => self.core.retire(path),
                Action::Close(path) => self.core.close(path),
                Action::FetchTicket => self.fetch_ticket(),
                Action::End(code) => self.core.give_up(code, "the target does not have the session any more"),
                Action::Report(report) => self.tell(&report),
            }
        }
    }

    fn start_opening(&mut self, order: &OpenOrder) {
        let attempt = order.attempt;
        let Some(contact) = self.contact(&order.via) else {
            return self.note_opening(
                attempt,
                Err(PathFault::Path(PathError::Dial {
                    broker: order.via.clone(),
                    reason: "no address of it is known".to_owned(),
                })),
            );
        };
        let request = PathRequest {
            purpose: order.purpose,
            instance: order.instance,
            route: order.route.clone(),
            avoid: order.avoid.clone(),
            ..self.request.clone()
        };
        let (endpoint, deadline) = (self.endpoint.clone(), order.deadline);
        let opening = Box::pin(async move {
            let opened = open_path(endpoint.reach(), &contact, &request, deadline).await;
            (attempt, opened.map(Box::new))
        });
        self.aborts.insert(attempt, self.opening.spawn(opening));
    }

    fn attach(&mut self, attempt: AttemptId, purpose: Purpose) {
        let Some(opened) = self.open.remove(&attempt) else { return };
        let (stream, facts) = *opened;
        let ticket = self.request.ticket.clone();
        if let Err(error) = self.core.attach_path(stream, facts, purpose, ticket, Some(attempt)) {
            tracing::debug!(%error, "a path that was open is not attached");
            self.core.plan(|plan, now| plan.handle_open_failed(attempt, OpenFailure::Unreachable, now));
        }
    }

    fn fetch_ticket(&mut self) {
        let tickets = Arc::clone(&self.tickets);
        self.renewing.spawn(async move {
            match tokio::time::timeout(TICKET_MAX, tickets.renew()).await {
                Ok(renewed) => renewed,
                Err(_) => Err(format!("no ticket came within {TICKET_MAX:?}")),
            }
        });
    }

    fn tell(&self, report: &Report) {
        let session = self.core.session_id();
        let event = match *report {
            Report::Moving { purpose, reason } => Event::SessionMoving { session, purpose, reason },
            Report::Moved { path, purpose, reason, took, attempts } => {
                let (took_ms, reason) = (whole_ms(took), Some(reason));
                let moved = MoveStatus { purpose, reason, took_ms, attempts: Some(attempts) };
                let path = self.core.note_moved(path, moved);
                Event::SessionMoved { session, path, purpose, reason, took_ms }
            }
            // The failure itself is told where it is seen, the paths' own fate by the session.
            Report::AttemptFailed { .. }
            | Report::AttachRefused { .. }
            | Report::Suspect { .. }
            | Report::Trusted { .. }
            | Report::Lost { .. }
            | Report::StandsBy { .. } => return,
        };
        self.endpoint.event_log().publish(event);
    }

    // ---- what the planner is told

    fn note_opening(&mut self, attempt: AttemptId, opened: Result<Opened, PathFault>) {
        self.aborts.remove(&attempt);
        let fault = match opened {
            Ok(opened) => {
                let crossed = opened_path(&opened.1);
                self.open.insert(attempt, opened);
                return self.core.plan(|plan, now| plan.handle_opened(attempt, crossed, now));
            }
            Err(fault) => fault,
        };
        let session = self.core.session_id();
        self.endpoint.event_log().publish(Event::PathAttemptFailed { session, reason: fault.to_string() });
        let failure = self.failure_of(fault);
        self.core.plan(|plan, now| plan.handle_open_failed(attempt, failure, now));
    }

    fn failure_of(&mut self, fault: PathFault) -> OpenFailure {
        match fault {
            PathFault::Path(PathError::Refused { code, retry_after, alternates, .. }) => {
                let alternates = self.remember(&alternates);
                OpenFailure::Refused { code, retry_after, alternates }
            }
            PathFault::Path(PathError::Deadline { .. }) => OpenFailure::Deadline,
            PathFault::Path(PathError::Dial { .. } | PathError::Leg { .. })
            | PathFault::Altered(_)
            | PathFault::Attach(_) => OpenFailure::Unreachable,
        }
    }

    /// Keeps brokers that another one named, and gives their ids.
    fn remember(&mut self, named: &[(BrokerId, String)]) -> Vec<BrokerId> {
        for (broker, name) in named.iter().take(NAMED_MAX) {
            self.named.retain(|known| known.broker != *broker);
            self.named.push(BrokerContact::named(broker, name));
        }
        let surplus = self.named.len().saturating_sub(NAMED_MAX);
        self.named.drain(..surplus);
        named.iter().take(NAMED_MAX).map(|(broker, _)| broker.clone()).collect()
    }

    fn contact(&self, broker: &BrokerId) -> Option<BrokerContact> {
        let linked =
            self.endpoint.links().borrow().iter().map(|held| held.contact.clone()).collect::<Vec<_>>();
        let known = self.endpoint.measured_brokers();
        linked
            .into_iter()
            .chain(known)
            .chain(self.named.iter().cloned())
            .find(|contact| contact.broker == *broker)
    }

    fn tell_brokers(&mut self, links: &Links) {
        let linked: Vec<BrokerId> = links.iter().map(|held| held.contact.broker.clone()).collect();
        let measured = self.endpoint.measured_brokers().into_iter().map(|contact| contact.broker);
        let rest = measured.filter(|broker| !linked.contains(broker)).collect::<Vec<_>>();
        let mut view: Vec<BrokerView> =
            linked.into_iter().map(|broker| BrokerView { broker, linked: true }).collect();
        view.extend(rest.into_iter().map(|broker| BrokerView { broker, linked: false }));
        self.core.plan(|plan, now| plan.handle_brokers(view, now));
    }

    fn hear(&mut self, told: Result<LinkNews, RecvError>) {
        match told {
            Ok(LinkNews::Lost { broker, incarnation }) => {
                tracing::debug!(%broker, ?incarnation, "a control link ended: paths that start there are doubtful");
                self.core.plan(|plan, now| plan.handle_link_lost(&broker, now));
            }
            Ok(LinkNews::Drain(drain)) => {
                let alternates = self.remember(&drain.alternates);
                let (broker, until) = (&drain.broker, drain.until);
                self.core.plan(|plan, now| plan.handle_drain(broker, &drain.slots, &alternates, until, now));
            }
            Ok(LinkNews::NetworkChanged) | Err(RecvError::Lagged(_)) => {
                self.core.plan(Planner::handle_network_changed);
            }
            // The paths' own liveness finds out which of them the sleep has cost.
            Ok(LinkNews::Woke) => self.core.ping_every_path(),
            Err(RecvError::Closed) => {}
        }
    }

    fn tell_ticket(&mut self) {
        let ends = ticket_end(&self.request.ticket, self.core.clock().now());
        self.core.plan(|plan, now| plan.handle_ticket(ends, now));
    }

    fn note_ticket(&mut self, renewed: Option<Result<String, String>>) {
        match renewed {
            Some(Ok(ticket)) => {
                self.request.ticket = ticket;
                self.tell_ticket();
            }
            Some(Err(reason)) => {
                let session = self.core.session_id();
                self.endpoint.event_log().publish(Event::TicketRenewalFailed { session, reason });
                self.core.plan(Planner::handle_ticket_failed);
            }
            None => self.core.plan(Planner::handle_ticket_failed),
        }
    }
}

/// What a path crosses, for the planner.
fn opened_path(facts: &PathFacts) -> OpenedPath {
    let hops = facts.hops.iter().map(|hop| hop.broker.clone()).collect();
    OpenedPath { path: facts.path, hops }
}

/// When a ticket ends on our clock; `None` when it cannot be read, so that nothing is planned by it.
fn ticket_end(ticket: &str, now: Moment) -> Option<Moment> {
    let claims = Ticket::parse(ticket).ok()?.unverified_claims().ok()?;
    let left = Duration::from_secs(claims.exp).saturating_sub(Duration::from_millis(unix_ms()));
    Some(now + left)
}

impl SessionCore {
    /// Gives the session its planner, which takes over the paths that are there.
    fn plan_with(&self, mut planner: Planner) {
        self.with(|state, now| {
            for path in state.session.status().paths.iter().filter(|path| path.live) {
                let facts = state.paths.get(&path.path).map(|slot| opened_path(&slot.facts));
                planner.adopt(path.path, path.epoch, facts.unwrap_or_default(), now);
            }
            if !state.session.status().paths.iter().any(|path| path.live) {
                // The first path is gone already.
                planner.handle_session_event(&SessionEvent::Detached, now);
            }
            state.moves.plan = Some(planner);
        });
    }

    /// Tells the planner something.
    fn plan(&self, tell: impl FnOnce(&mut Planner, Moment)) {
        self.with(|state, now| {
            state.quiet = true;
            if let Some(plan) = &mut state.moves.plan {
                tell(plan, now);
            }
        });
    }

    fn next_action(&self) -> Option<Action> {
        self.with(|state, _| {
            state.quiet = true;
            state.moves.poll_action()
        })
    }

    fn plan_timeout(&self) -> Option<Moment> {
        self.look(|state, _| state.moves.plan_timeout())
    }

    fn activate(&self, path: PathKey, ticket: String) {
        self.with(|state, now| {
            let activated: Result<Epoch, _> = state.session.activate(path, ticket, now);
            let Some(plan) = &mut state.moves.plan else { return };
            match activated {
                Ok(epoch) => plan.handle_activated(path, epoch, now),
                Err(_) => plan.handle_path_lost(path, now),
            }
        });
    }

    fn retire(&self, path: PathKey) {
        self.with(|state, now| state.session.retire(path, now));
    }

    fn close(&self, path: PathKey) {
        self.with(|state, _| state.close_path(path, "it stood by long enough"));
    }

    fn ping_every_path(&self) {
        self.with(|state, now| state.session.ping_all(now));
    }

    fn give_up(&self, code: EndCode, detail: &str) {
        self.with(|state, _| {
            state.moves.plan = None;
            state.finish(code, EndedBy::Peer, None, detail.to_owned());
        });
    }

    /// Notes the last move for `status`; returns the id of the path that it went to.
    fn note_moved(&self, path: PathKey, moved: MoveStatus) -> Option<rc_proto::wire::PathId> {
        self.with(|state, now| {
            state.quiet = true;
            state.moves.last = Some((now, moved));
            state.paths.get(&path).and_then(|slot| slot.facts.path)
        })
    }
}
