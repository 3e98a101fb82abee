//! The way of a Controller from an invite to a session: rate limits, the leg, the end-to-end handshake, the ticket. What
//! it asks for is a session that starts, or a further path of one that runs.
//!
//! ```text
//! invite ─▶ joined ─▶ ended lately?    ─▶ Ended(code)
//!                     runs, and is its own? ─ ticket judged ─▶ the session takes the path
//!                     asks to start?    ─ ticket judged, single use ─▶ a session
//!                     else             ─▶ UnknownSession
//! ```
//! A session ends with the ticket that it last attached with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rc_client::{
    AttachRequest, Endpoint, Event, Invitation, Joined, OfferQueue, PendingChannel, SessionHandle, Unfit,
};
use rc_proto::Moment;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{Start, Ticket};
use rc_proto::wire::codes::{Denial, EndCode, ResetCode};
use rc_proto::wire::{EndpointId, PathId, Role};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TargetLimits;
use crate::deadlines::Deadlines;
use crate::gate::{Gate, Refusal, Request, unix_s};
use crate::limits::RateLimit;

/// Longest nap of a session's deadline: the runtime's clock stops in suspend.
const NAP_MAX: Duration = Duration::from_secs(30);

/// Admits Controllers, and passes their offers on.
pub(crate) struct Reception {
    pub(crate) endpoint: Endpoint,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: TargetLimits,
    pub(crate) offers: mpsc::Sender<PendingChannel>,
    pub(crate) attaches: Mutex<RateLimit>,
    pub(crate) deadlines: Deadlines,
    /// Held while a session starts: of two requests to start the same one, the second finds it running.
    pub(crate) starting: tokio::sync::Mutex<()>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// A session that has started.
struct Started {
    handle: SessionHandle,
    offers: OfferQueue,
    deadline: watch::Receiver<Moment>,
}

/// How a request to start ended.
enum Starting {
    Started(Box<Started>),
    /// The session runs: the request is for a further path of it.
    Runs(Box<Joined>, SessionHandle),
    Refused(Box<Joined>, Refusal),
    Unfit(Box<Unfit>),
}

impl Reception {
    /// Follows invites until the Target stops.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.follow_invites()).await;
    }

    async fn follow_invites(self) {
        let mut invites = RateLimit::new(self.limits.invites_per_second, Duration::from_secs(1));
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        let reception = Arc::new(self);
        while let Some(invitation) = reception.endpoint.next_invitation().await {
            let now = reception.endpoint.clock().now();
            if !invites.take(now) {
                reception.note_failed(&invitation, "more invites than are followed in this time");
                continue;
            }
            let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
                reception.note_failed(&invitation, "as many strangers as may be are at the door already");
                continue;
            };
            let guest = Arc::clone(&reception);
            let welcome = Box::pin(async move { guest.welcome(invitation, handshake).await });
            let stop = reception.stop.clone();
            reception.tasks.spawn(async move { stop.run_until_cancelled(welcome).await });
        }
    }

    fn note_failed(&self, invitation: &Invitation, reason: &str) {
        let (path, controller) = (invitation.path(), invitation.controller().clone());
        self.publish_failed(path, controller, reason.to_owned());
    }

    fn publish_failed(&self, path: PathId, controller: EndpointId, reason: String) {
        self.endpoint.event_log().publish(Event::InviteFailed { path, controller, reason });
    }

    /// One Controller, from its invite to the end of the session that it starts, or until its path is taken. `handshake`
    /// counts it as a stranger until its ticket is judged.
    async fn welcome(self: Arc<Self>, invitation: Invitation, handshake: OwnedSemaphorePermit) {
        let joined = match self.endpoint.join(&invitation).await {
            Ok(joined) => joined,
            Err(error) => return self.note_failed(&invitation, &error.reason),
        };
        let session = joined.session();
        let now = self.endpoint.clock().now();
        if !self.take_attach(now) {
            return self.deny(joined, too_many_attaches()).await;
        }
        if let Some(code) = self.gate.ended(session, now) {
            return joined.refuse_ended(code).await;
        }
        if let Some(running) = self.endpoint.session(session) {
            return self.take_path(joined, &running, &invitation).await;
        }
        let ending = self.endpoint.sessions().iter().any(|known| known.session == session);
        if !joined.is_new() || ending {
            return joined.refuse_unknown().await;
        }
        let starting = Box::pin(self.start(joined)).await;
        drop(handshake);
        match starting {
            Starting::Started(started) => self.attend(*started).await,
            Starting::Runs(joined, running) => self.take_path(*joined, &running, &invitation).await,
            Starting::Refused(joined, refusal) => self.deny(*joined, refusal).await,
            Starting::Unfit(unfit) => self.note_failed(&invitation, &unfit.tell().await.reason),
        }
    }

    fn take_attach(&self, now: Moment) -> bool {
        self.attaches.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Starts the session, unless it runs already. One at a time.
    async fn start(&self, joined: Joined) -> Starting {
        let _alone = self.starting.lock().await;
        if let Some(running) = self.endpoint.session(joined.session()) {
            return Starting::Runs(Box::new(joined), running);
        }
        let request = Request::of(&joined, Start::New(joined.session()));
        let ticket = match self.judge_new(request).await {
            Ok(ticket) => ticket,
            Err(refusal) => return Starting::Refused(Box::new(joined), refusal),
        };
        let (session, end) = (joined.session(), self.end_of(&ticket));
        match joined.admit(move |service| ticket.permits(service), self.limits.pending_offers) {
            Ok((handle, offers)) => {
                let deadline = self.deadlines.open(session, end);
                Starting::Started(Box::new(Started { handle, offers, deadline }))
            }
            Err(unfit) => Starting::Unfit(Box::new(unfit)),
        }
    }

    async fn judge_new(&self, request: Request) -> Result<Ticket, Refusal> {
        if self.endpoint.sessions().len() >= self.limits.sessions {
            let reason = format!("the target has {} sessions and takes no more", self.limits.sessions);
            return Err(Refusal { denial: Denial::BUSY, reason });
        }
        self.gate.judge(request).await
    }

    /// A further path of a session that runs, for the Controller that started it and a ticket that is good now. A
    /// Controller that never heard that it had started repeats its start, with the same ticket.
    async fn take_path(&self, joined: Joined, running: &SessionHandle, invitation: &Invitation) {
        if *joined.controller() != self.controller_of(running) {
            // Who is not its Controller is not told that there is such a session.
            return joined.refuse_unknown().await;
        }
        let session = joined.session();
        let start = if joined.is_new() { Start::New(session) } else { Start::Resume };
        let ticket = match self.gate.judge(Request::of(&joined, start)).await {
            Ok(ticket) => ticket,
            Err(refusal) => return self.deny(joined, refusal).await,
        };
        let end = self.end_of(&ticket);
        match joined.resume(running, move |service| ticket.permits(service)) {
            Ok(_) => self.deadlines.renew(session, end),
            Err(unfit) => self.note_failed(invitation, &unfit.tell().await.reason),
        }
    }

    /// The same over a path that stood by.
    async fn take_ready_path(&self, request: AttachRequest, controller: SpiffeId) {
        let refuse = |request: AttachRequest, Refusal { denial, reason }| {
            let controller = controller.endpoint_id();
            if let Some(controller) = controller {
                let reason = reason.clone();
                self.endpoint.event_log().publish(Event::AttachRefused { controller, denial, reason });
            }
            request.deny(denial, &reason);
        };
        if !self.take_attach(self.endpoint.clock().now()) {
            return refuse(request, too_many_attaches());
        }
        let Some(key) = request.key() else {
            let reason = "the key of the path is not known".to_owned();
            return refuse(request, Refusal { denial: Denial::NOT_PERMITTED, reason });
        };
        let (session, ticket) = (request.session(), request.ticket().to_owned());
        let presented = Request { ticket, controller: controller.clone(), key, start: Start::Resume };
        let ticket = match self.gate.judge(presented).await {
            Ok(ticket) => ticket,
            Err(refusal) => return refuse(request, refusal),
        };
        let end = self.end_of(&ticket);
        match request.accept(move |service| ticket.permits(service)) {
            Ok(_) => self.deadlines.renew(session, end),
            Err(refusal) => tracing::debug!(%session, %refusal, "an attach on a ready path does not hold"),
        }
    }

    /// Who started a session, as its certificate proved then.
    fn controller_of(&self, session: &SessionHandle) -> SpiffeId {
        SpiffeId::endpoint(self.endpoint.id().trust_domain().clone(), Role::Controller, session.peer())
    }

    /// When a session that attached with `ticket` ends, on a clock that counts suspend.
    fn end_of(&self, ticket: &Ticket) -> Moment {
        let left = ticket.session_end_unix_s().saturating_sub(unix_s());
        self.endpoint.clock().now() + Duration::from_secs(left)
    }

    async fn deny(&self, joined: Joined, refusal: Refusal) {
        let Refusal { denial, reason } = refusal;
        let controller = joined.controller_id().clone();
        self.endpoint.event_log().publish(Event::AttachRefused {
            controller,
            denial,
            reason: reason.clone(),
        });
        joined.deny(denial, &reason).await;
    }

    /// Passes the session's offers on, and judges the attaches on its ready paths, until it ends or its ticket does.
    async fn attend(self: &Arc<Self>, started: Started) {
        let Started { handle, mut offers, mut deadline } = started;
        let clock = Arc::clone(self.endpoint.clock());
        loop {
            let end = *deadline.borrow_and_update();
            let nap = end.since(clock.now()).min(NAP_MAX);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    handle.disconnect(EndCode::SHUTDOWN, "");
                    break;
                }
                offer = offers.next() => match offer {
                    Some(offer) => self.pass_on(offer),
                    None => break,
                },
                request = handle.next_attach_request() => match request {
                    Some(request) => self.judge_ready_path(request, self.controller_of(&handle)),
                    None => break,
                },
                Ok(()) = deadline.changed() => {}
                () = tokio::time::sleep(nap) => {
                    if clock.now() >= end {
                        handle.disconnect(EndCode::TICKET_EXPIRED, "the ticket ran out");
                        break;
                    }
                }
            }
        }
        let end = handle.ended().await;
        self.deadlines.close(handle.id());
        self.gate.note_ended(handle.id(), end.code, self.endpoint.resume_window(), clock.now());
    }

    /// Judges beside the session: at most one request of each of its paths is on its way.
    fn judge_ready_path(self: &Arc<Self>, request: AttachRequest, controller: SpiffeId) {
        let (reception, stop) = (Arc::clone(self), self.stop.clone());
        let judged = async move { reception.take_ready_path(request, controller).await };
        self.tasks.spawn(async move { stop.run_until_cancelled(judged).await });
    }

    fn pass_on(&self, offer: PendingChannel) {
        match self.offers.try_send(offer) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(offer) | mpsc::error::TrySendError::Closed(offer)) => {
                offer.refuse(ResetCode::TOO_MANY, "too many requests wait for an answer");
            }
        }
    }
}

fn too_many_attaches() -> Refusal {
    let reason = "more sessions were asked for than are judged in a minute".to_owned();
    Refusal { denial: Denial::BUSY, reason }
}
