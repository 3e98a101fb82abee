//! The way of a Controller from an invite to a session: rate limits, the leg, the end-to-end handshake, the ticket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rc_client::{Endpoint, Event, Invitation, Joined, OfferQueue, PendingChannel, SessionHandle};
use rc_proto::identity::ticket::Ticket;
use rc_proto::wire::codes::{Denial, EndCode, ResetCode};
use rc_proto::wire::{EndpointId, PathId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TargetLimits;
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
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
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

    /// One Controller, from its invite to the end of its session. `handshake` counts it as a stranger until its
    /// ticket is judged.
    async fn welcome(self: Arc<Self>, invitation: Invitation, handshake: OwnedSemaphorePermit) {
        let joined = match self.endpoint.join(&invitation).await {
            Ok(joined) => joined,
            Err(error) => return self.note_failed(&invitation, &error.reason),
        };
        let session = joined.session();
        let now = self.endpoint.clock().now();
        if !self.attaches.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            let reason = "more sessions were asked for than are judged in a minute".to_owned();
            return self.deny(joined, Refusal { denial: Denial::BUSY, reason }).await;
        }
        if let Some(code) = self.gate.ended(session, now) {
            return joined.refuse_ended(code).await;
        }
        let known = self.endpoint.sessions().iter().any(|known| known.session == session);
        if !joined.is_new() || known {
            return joined.refuse_unknown().await;
        }
        let ticket = match self.judge(Request::of(&joined)).await {
            Ok(ticket) => ticket,
            Err(refusal) => return self.deny(joined, refusal).await,
        };
        drop(handshake);
        let end = ticket.session_end_unix_s();
        let admitted = joined.admit(move |service| ticket.permits(service), self.limits.pending_offers).await;
        match admitted {
            Ok((handle, offers)) => self.attend(handle, offers, end).await,
            Err(error) => self.note_failed(&invitation, &error.reason),
        }
    }

    async fn judge(&self, request: Request) -> Result<Ticket, Refusal> {
        if self.endpoint.sessions().len() >= self.limits.sessions {
            let reason = format!("the target has {} sessions and takes no more", self.limits.sessions);
            return Err(Refusal { denial: Denial::BUSY, reason });
        }
        self.gate.judge(request).await
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

    /// Passes the session's offers on until it ends, or its ticket does.
    async fn attend(&self, handle: SessionHandle, mut offers: OfferQueue, end_unix_s: u64) {
        let clock = Arc::clone(self.endpoint.clock());
        let left = Duration::from_secs(end_unix_s.saturating_sub(unix_s()));
        let deadline = clock.now() + left;
        loop {
            let nap = deadline.since(clock.now()).min(NAP_MAX);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => handle.disconnect(EndCode::SHUTDOWN, ""),
                offer = offers.next() => match offer {
                    Some(offer) => self.pass_on(offer),
                    None => break,
                },
                () = tokio::time::sleep(nap) => {
                    if clock.now() >= deadline {
                        handle.disconnect(EndCode::TICKET_EXPIRED, "the ticket ran out");
                        break;
                    }
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        let end = handle.ended().await;
        self.gate.note_ended(handle.id(), end.code, clock.now());
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
