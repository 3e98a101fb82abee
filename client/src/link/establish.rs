//! From a broker that answers to one that is pinned: the control link, the registration, the pin.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::select::Trigger;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{RetryAfter, Superseded};
use rc_proto::wire::{BrokerId, Generation};

use super::contact::BrokerContact;
use super::control::{ControlLink, LinkEvent};
use super::held::{Held, LinkFacts};
use super::keeper::Keeper;
use crate::event::Event;
use crate::limits::retry_slot;
use crate::locate::{Located, ProbeLink};

/// Brokers that are avoided at a time because they answer probes and nothing more.
const SHUNNED_MAX: usize = 8;
/// Brokers that others named and that are remembered.
const ALTERNATES_MAX: usize = 8;

/// A link that stands, with the registration that it carries.
pub(super) struct Standing {
    pub(super) link: ControlLink,
    pub(super) generation: Option<Generation>,
}

/// Why a broker that answers did not become the pinned one.
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

impl Keeper {
    /// Makes the control link, registers a Target, and publishes the pin. On an error the pin is as before.
    pub(super) async fn establish(&mut self, located: Located) -> Result<Standing, Rejection> {
        let Located { choice, link } = located;
        let (broker, address) = (link.broker.clone(), link.address);
        let before = self.pin.clone();
        self.pin.propose(broker.clone());
        let standing = match self.connect(link).await {
            Ok(standing) => standing,
            Err(rejection) => {
                self.pin = before;
                match &rejection {
                    Rejection::Failed(reason) => {
                        let reason = reason.clone();
                        self.reach.events.publish(Event::CandidateFailed { address, reason });
                        self.locator.note_failure(&broker);
                        if !self.shunned.contains(&broker) && self.shunned.len() < SHUNNED_MAX {
                            self.shunned.push(broker);
                        }
                    }
                    Rejection::RetryAfter(later) => self.note_alternates(&later.alternates),
                    Rejection::Superseded(_) => {}
                }
                return Err(rejection);
            }
        };
        self.pin.confirm(&broker, self.reach.now());
        self.shunned.clear();
        self.alternates.clear();
        self.reach.events.publish(Event::Pinned { broker: broker.clone(), address, rule: choice.summary() });
        if standing.generation.is_some() {
            self.reach.events.publish(Event::Registered { broker });
        }
        self.shared.choice.store(Some(Arc::new(choice)));
        self.publish(&standing);
        Ok(standing)
    }

    /// Remembers brokers that another one named.
    pub(super) fn note_alternates(&mut self, named: &[(BrokerId, String)]) {
        for (broker, name) in named.iter().take(ALTERNATES_MAX).rev() {
            self.alternates.retain(|(known, _)| known != broker);
            self.alternates.insert(0, (broker.clone(), name.clone()));
        }
        self.alternates.truncate(ALTERNATES_MAX);
    }

    /// Tries the brokers that others named, each once.
    pub(super) async fn try_alternates(&mut self, trigger: Trigger, avoid: &[BrokerId]) -> Option<Standing> {
        for (broker, name) in std::mem::take(&mut self.alternates) {
            if avoid.contains(&broker) || self.shunned.contains(&broker) {
                continue;
            }
            let Some(located) = self.locator.dial_named(trigger, &broker, &name).await else { continue };
            if let Ok(standing) = self.establish(located).await {
                return Some(standing);
            }
        }
        None
    }

    fn publish(&self, standing: &Standing) {
        let link = &standing.link;
        let facts = LinkFacts {
            address: link.address,
            incarnation: link.incarnation(),
            heart: Arc::clone(&link.heart),
            since: self.reach.now(),
            role: standing.generation.map(|_| RegistrationRole::PRIMARY),
        };
        let contact = BrokerContact::of_welcome(&link.welcome, link.address);
        self.shared.tell_primary(Held { contact, link: facts });
    }

    async fn connect(&mut self, link: ProbeLink) -> Result<Standing, Rejection> {
        let scores = self.locator.scores();
        let register = self.registration.as_mut().map(|registration| registration.next(scores));
        let (generation, first) = register.unzip();
        let mut link = ControlLink::open(&self.reach, link, first, self.shared.invites.clone())
            .await
            .map_err(Rejection::Failed)?;
        if let Some(generation) = generation {
            let confirmed = await_registered(&mut link, generation);
            let deadline = self.reach.timers.keep_alive_answer;
            match tokio::time::timeout(deadline, confirmed).await {
                Ok(confirmed) => confirmed?,
                Err(_) => return Err(Rejection::Failed(format!("no registration within {deadline:?}"))),
            }
        }
        Ok(Standing { link, generation })
    }
}

async fn await_registered(link: &mut ControlLink, generation: Generation) -> Result<(), Rejection> {
    loop {
        match link.next_event().await {
            LinkEvent::Registered(done) if done.generation == generation => return Ok(()),
            LinkEvent::Registered(_) | LinkEvent::Pong(_) => {}
            LinkEvent::RetryAfter(later) => return Err(Rejection::RetryAfter(later)),
            LinkEvent::Superseded(by) => return Err(Rejection::Superseded(by)),
            LinkEvent::Drain(_) => return Err(Rejection::Failed("the broker drains".to_owned())),
            LinkEvent::Ended(reason) => return Err(Rejection::Failed(reason)),
        }
    }
}
