//! From a broker that answers to one that is pinned: a new link, or the second one that takes the primary's place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::select::Trigger;
use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::RegistrationRole;

use super::enrol::Enrolment;
use super::keeper::Keeper;
use super::linker::{Rejection, Standing};
use super::reserve::Wanted;
use crate::event::Event;
use crate::locate::Located;

/// Brokers that are avoided at a time because they answer probes and nothing more.
const SHUNNED_MAX: usize = 8;
/// Brokers that others named and that are remembered.
const ALTERNATES_MAX: usize = 8;

impl Keeper {
    /// Makes the control link, registers a Target, and publishes the pin. On an error the pin is as before.
    pub(super) async fn establish(&mut self, located: Located) -> Result<Standing, Rejection> {
        let Located { choice, link } = located;
        let (broker, address) = (link.broker.clone(), link.address);
        if let Some(second) = self.reserve.take(Wanted::At(broker.clone())).await {
            let standing = self.promote(second, &choice.summary(), Duration::ZERO);
            self.linker.shared.choice.store(Some(Arc::new(choice)));
            return Ok(standing);
        }
        let before = self.pin.clone();
        self.pin.propose(broker.clone());
        let connected = self.linker.connect(link, RegistrationRole::PRIMARY, self.locator.scores()).await;
        let (mut standing, superseded) = match connected {
            Ok(connected) => connected,
            Err(rejection) => {
                self.pin = before;
                self.note_rejection(broker, address, &rejection);
                return Err(rejection);
            }
        };
        if let Some(by) = superseded {
            let now = self.linker.reach.now();
            let returns = now + self.note_superseded(&by);
            if let Some(enrolment) = &mut standing.enrolment {
                enrolment.handle_superseded(Some(returns), now);
            }
        }
        self.publish(&standing, &choice.summary());
        if let Some(role) = standing.enrolment.as_ref().and_then(Enrolment::role) {
            self.linker.shared.set_demoted(role == RegistrationRole::RESUME);
            self.linker.reach.events.publish(Event::Registered { broker, role });
        }
        self.linker.shared.choice.store(Some(Arc::new(choice)));
        Ok(standing)
    }

    fn note_rejection(&mut self, broker: BrokerId, address: SocketAddr, rejection: &Rejection) {
        match rejection {
            Rejection::Failed(reason) => {
                let reason = reason.clone();
                self.linker.reach.events.publish(Event::CandidateFailed { address, reason });
                self.locator.note_failure(&broker);
                if !self.shunned.contains(&broker) && self.shunned.len() < SHUNNED_MAX {
                    self.shunned.push(broker);
                }
            }
            Rejection::RetryAfter(later) => self.note_alternates(&later.alternates),
            Rejection::Superseded(_) => {}
        }
    }

    /// The second link becomes the primary one at once; a Target's registration follows after `wait`.
    pub(super) fn promote(&mut self, mut second: Standing, rule: &str, wait: Duration) -> Standing {
        let at = self.linker.reach.now() + wait;
        if let Some(enrolment) = &mut second.enrolment {
            let not_before = self.away.until().filter(|_| self.linker.shared.is_demoted());
            enrolment.want(RegistrationRole::PRIMARY, not_before.map_or(at, |until| at.max(until)));
        }
        self.pin.propose(second.link.broker.clone());
        self.publish(&second, rule);
        second
    }

    /// The proposed broker is the pinned one.
    fn publish(&mut self, standing: &Standing, rule: &str) {
        let (broker, address) = (standing.link.broker.clone(), standing.link.address);
        self.pin.confirm(&broker, self.linker.reach.now());
        self.shunned.clear();
        self.alternates.clear();
        self.linker.reach.events.publish(Event::Pinned { broker, address, rule: rule.to_owned() });
        self.linker.shared.tell_primary(standing.held());
        self.offer_spares(&standing.link.welcome);
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
}
