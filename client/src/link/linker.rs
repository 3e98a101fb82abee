//! From a connection that answers probes to a link that stands: Welcome, and for a Target its registration.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Drain, RetryAfter, Superseded};
use rc_proto::wire::{BrokerId, Generation};

use super::contact::BrokerContact;
use super::control::{ControlLink, LinkEvent};
use super::enrol::Enrolment;
use super::held::{Draining, Held, LinkFacts, LinkNews};
use super::register::Registration;
use super::shared::Shared;
use crate::event::Event;
use crate::limits::retry_slot;
use crate::locate::ProbeLink;
use crate::reach::Reach;

/// A link that stands, with the registration that it carries.
pub(super) struct Standing {
    pub(super) link: ControlLink,
    /// A Target's.
    pub(super) enrolment: Option<Enrolment>,
    since: Moment,
}

impl Standing {
    /// The same for everybody else.
    pub(super) fn held(&self) -> Held {
        let link = &self.link;
        let facts = LinkFacts {
            address: link.address,
            incarnation: link.incarnation(),
            heart: Arc::clone(&link.heart),
            since: self.since,
            role: self.enrolment.as_ref().and_then(Enrolment::role),
        };
        Held { contact: BrokerContact::of_welcome(&link.welcome, link.address), link: facts }
    }
}

/// Why a broker that answers does not carry a link.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    #[error("{0}")]
    Failed(String),
    #[error("it is busy and asks to come back in {} ms", .0.after_ms)]
    RetryAfter(RetryAfter),
    #[error("another process with this identity is registered")]
    Superseded(Superseded),
}

impl Rejection {
    /// When the broker wants us back.
    pub(super) fn slot(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter(later) => Some(retry_slot(later.after_ms)),
            Self::Failed(_) | Self::Superseded(_) => None,
        }
    }
}

/// Makes and leaves control links: what the primary and the second one have in common.
#[derive(Clone)]
pub(super) struct Linker {
    pub(super) reach: Arc<Reach>,
    pub(super) shared: Shared,
    /// A Target's.
    pub(super) registration: Option<Registration>,
}

impl Linker {
    /// Waits for Welcome, and for a Target until it is registered as `role`. One that was superseded is registered as
    /// resume while it has a session; who superseded it comes back, too.
    pub(super) async fn connect(
        &self,
        link: ProbeLink,
        role: RegistrationRole,
        scores: Vec<(BrokerId, u32)>,
    ) -> Result<(Standing, Option<Superseded>), Rejection> {
        let ask =
            |role| self.registration.as_ref().map(|registration| registration.next(role, scores.clone()));
        let (generation, first) = ask(role).unzip();
        let opened = ControlLink::open(&self.reach, link, first, &self.shared).await;
        let mut link = opened.map_err(Rejection::Failed)?;
        let since = self.reach.now();
        let Some(generation) = generation else {
            return Ok((Standing { link, enrolment: None, since }, None));
        };
        let by = match self.await_registered(&mut link, generation).await {
            Ok(()) => {
                let enrolment = Some(Enrolment::standing(generation, role));
                return Ok((Standing { link, enrolment, since }, None));
            }
            Err(Rejection::Superseded(by)) if self.shared.is_in_session() => by,
            Err(rejection) => return Err(rejection),
        };
        let role = RegistrationRole::RESUME;
        let Some((generation, again)) = ask(role) else { return Err(Rejection::Superseded(by)) };
        let sent = link.outgoing.try_send(again);
        sent.map_err(|_| Rejection::Failed("the link takes no message".to_owned()))?;
        self.await_registered(&mut link, generation).await?;
        let enrolment = Some(Enrolment::standing(generation, role));
        Ok((Standing { link, enrolment, since }, Some(by)))
    }

    async fn await_registered(
        &self,
        link: &mut ControlLink,
        generation: Generation,
    ) -> Result<(), Rejection> {
        let deadline = self.reach.timers.keep_alive_answer;
        match tokio::time::timeout(deadline, registered(link, generation)).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(Rejection::Failed(format!("no registration within {deadline:?}"))),
        }
    }

    /// Asks for what the registration is to be, when that is due. Says whether anything went out.
    pub(super) fn renew(
        &self,
        standing: &mut Standing,
        scores: impl FnOnce() -> Vec<(BrokerId, u32)>,
    ) -> bool {
        let (Some(enrolment), Some(registration)) = (&mut standing.enrolment, &self.registration) else {
            return false;
        };
        let now = self.reach.now();
        let Some(role) = enrolment.poll(now) else { return false };
        let (generation, register) = registration.next(role, scores());
        enrolment.handle_asked(generation, role, now + self.reach.timers.keep_alive_answer);
        // A full queue is a link that the broker does not read: it is asked again after the deadline.
        drop(standing.link.outgoing.try_send(register));
        true
    }

    /// A Target's registration was confirmed over `standing`. Says whether it is another one than before.
    pub(super) fn note_registered(
        &self,
        standing: &mut Standing,
        generation: Generation,
        role: RegistrationRole,
    ) -> bool {
        let Some(enrolment) = &mut standing.enrolment else { return false };
        let changed = enrolment.handle_registered(generation, role);
        if changed {
            let broker = standing.link.broker.clone();
            self.reach.events.publish(Event::Registered { broker, role });
        }
        changed
    }

    /// Tells who moves sessions that a broker stops: the one that said so, or a peer of it.
    pub(super) fn pass_on(&self, told_by: &BrokerId, drain: &Drain, now: Moment) {
        let Some(draining) = Draining::of(told_by, drain, now) else { return };
        let (broker, deadline_ms) = (draining.broker.clone(), drain.deadline_ms);
        self.reach.events.publish(Event::Draining { broker, deadline_ms });
        self.shared.tell(LinkNews::Drain(Arc::new(draining)));
    }

    /// Says goodbye to a broker.
    pub(super) async fn leave(&self, standing: Standing) {
        let Standing { link, enrolment, .. } = standing;
        let generation = enrolment.as_ref().and_then(Enrolment::generation);
        if let (Some(generation), Some(registration)) = (generation, &self.registration) {
            drop(link.outgoing.try_send(registration.end(generation)));
        }
        link.close().await;
    }
}

async fn registered(link: &mut ControlLink, generation: Generation) -> Result<(), Rejection> {
    loop {
        match link.next_event().await {
            LinkEvent::Registered(done) if done.generation == generation => return Ok(()),
            LinkEvent::Registered(_) | LinkEvent::Pong(_) | LinkEvent::Woke(_) => {}
            LinkEvent::RetryAfter(later) => return Err(Rejection::RetryAfter(later)),
            LinkEvent::Superseded(by) => return Err(Rejection::Superseded(by)),
            LinkEvent::Drain(_) => return Err(Rejection::Failed("the broker drains".to_owned())),
            LinkEvent::Moved { .. } => {
                return Err(Rejection::Failed("this machine's address has changed".to_owned()));
            }
            LinkEvent::Ended(reason) => return Err(Rejection::Failed(reason)),
        }
    }
}
