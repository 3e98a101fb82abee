//! Holds the second control link while a session lives, and gives it to the keeper when the primary one is lost. What to
//! do when is [`SecondPlan`]'s to say.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::Superseded;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::contact::BrokerContact;
use super::control::LinkEvent;
use super::enrol::Enrolment;
use super::held::LinkNews;
use super::linker::{Linker, Rejection, Standing};
use super::second::{Second, SecondPlan, Step};
use crate::event::Event;
use crate::limits::retry_slot;
use crate::locate::probe_contact;

/// Requests for the second link that wait; the keeper makes one at a time.
const REQUESTS_MAX: usize = 1;

/// The brokers that may carry the second link.
#[derive(Debug, Clone, Default)]
pub(super) struct Spares {
    /// Best first.
    pub(super) brokers: Vec<BrokerContact>,
    /// What a registration tells.
    pub(super) scores: Vec<(BrokerId, u32)>,
    /// Whether loopback addresses are used.
    pub(super) allow_loopback: bool,
}

/// Which second link the keeper can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Whichever there is.
    Any,
    /// One whose broker goes on.
    Lasting,
    /// The one to this broker; what is being made to it is given up.
    At(BrokerId),
}

struct Request {
    wanted: Wanted,
    answer: oneshot::Sender<Standing>,
}

/// The keeper's side.
pub(super) struct ReserveHandle {
    requests: mpsc::Sender<Request>,
    spares: watch::Sender<Spares>,
}

impl ReserveHandle {
    /// Takes the second link over, if there is one that is wanted.
    pub(super) async fn take(&self, wanted: Wanted) -> Option<Standing> {
        let (answer, taken) = oneshot::channel();
        self.requests.send(Request { wanted, answer }).await.ok()?;
        taken.await.ok()
    }

    /// These brokers may carry the second link from now on.
    pub(super) fn offer(&self, spares: Spares) {
        self.spares.send_replace(spares);
    }
}

type Connected = Result<(Standing, Option<Superseded>), Rejection>;
type Dialling = (BrokerId, Pin<Box<dyn Future<Output = Connected> + Send>>);

/// The task that holds the second link.
pub(super) struct Reserve {
    linker: Linker,
    plan: SecondPlan,
    held: Option<Standing>,
    draining: bool,
    dialling: Option<Dialling>,
    requests: mpsc::Receiver<Request>,
    spares: watch::Receiver<Spares>,
}

enum Turn {
    Event(LinkEvent),
    Request(Request),
    Dialled(BrokerId, Box<Connected>),
    Look,
}

impl Reserve {
    pub(super) fn new(linker: Linker) -> (Self, ReserveHandle) {
        let (ask, requests) = mpsc::channel(REQUESTS_MAX);
        let offer = watch::Sender::default();
        let reserve = Self {
            linker,
            plan: SecondPlan::default(),
            held: None,
            draining: false,
            dialling: None,
            requests,
            spares: offer.subscribe(),
        };
        (reserve, ReserveHandle { requests: ask, spares: offer })
    }

    /// Holds the second link until `stop` is cancelled, then leaves it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let stopped = stop.run_until_cancelled(self.work()).await;
        debug_assert!(stopped.is_none(), "it works until it is stopped");
        if let Some(second) = self.take_held() {
            self.linker.leave(second).await;
        }
    }

    async fn work(&mut self) {
        let mut sessions = self.linker.shared.sessions.subscribe();
        let mut links = self.linker.shared.links.subscribe();
        loop {
            let now = self.linker.reach.now();
            self.plan.handle_sessions(*sessions.borrow_and_update(), now);
            let primary = links.borrow_and_update().primary.as_ref().map(|held| held.contact.broker.clone());
            self.advance(primary.as_ref()).await;
            let enrolment = self.held.as_ref().and_then(|held| held.enrolment.as_ref());
            let due = [self.plan.poll_timeout(now), enrolment.and_then(Enrolment::poll_timeout)];
            let due = due.into_iter().flatten().min();
            let turn = tokio::select! {
                biased;
                Some(request) = self.requests.recv() => Turn::Request(request),
                event = next_event(&mut self.held) => Turn::Event(event),
                (broker, connected) = dialled(&mut self.dialling) => Turn::Dialled(broker, Box::new(connected)),
                Ok(()) = sessions.changed() => Turn::Look,
                Ok(()) = links.changed() => Turn::Look,
                Ok(()) = self.spares.changed() => Turn::Look,
                () = self.linker.reach.nap_until(due) => Turn::Look,
            };
            match turn {
                Turn::Event(event) => self.handle_event(event),
                Turn::Request(request) => self.answer(request),
                Turn::Dialled(broker, connected) => self.handle_dialled(&broker, *connected).await,
                Turn::Look => {}
            }
        }
    }

    /// Does what the plan says and what the registration needs.
    async fn advance(&mut self, primary: Option<&BrokerId>) {
        let now = self.linker.reach.now();
        let second =
            self.held.as_ref().map(|held| Second { broker: &held.link.broker, draining: self.draining });
        let step = match self.dialling {
            Some(_) => Step::Wait,
            None => self.plan.poll(primary, second, &self.spares.borrow().brokers, now),
        };
        match step {
            Step::Wait => {}
            Step::Dial(contact) => self.dialling = Some(self.dial(contact)),
            Step::Close => {
                if let Some(second) = self.take_held() {
                    self.linker.leave(second).await;
                }
            }
        }
        let is_demoted = self.linker.shared.is_demoted();
        let Some(held) = &mut self.held else { return };
        if let Some(enrolment) = &mut held.enrolment
            && enrolment.role() == Some(RegistrationRole::RESUME)
            && !is_demoted
        {
            enrolment.want(RegistrationRole::STANDBY, now);
        }
        self.linker.renew(held, || self.spares.borrow().scores.clone());
    }

    fn dial(&self, contact: BrokerContact) -> Dialling {
        let (linker, spares) = (self.linker.clone(), self.spares.borrow().clone());
        let demoted = linker.shared.is_demoted();
        let role = if demoted { RegistrationRole::RESUME } else { RegistrationRole::STANDBY };
        let broker = contact.broker.clone();
        let connected = async move {
            let probed = probe_contact(&linker.reach, &contact, spares.allow_loopback).await;
            let link = probed.map_err(Rejection::Failed)?;
            if !link.state.accepting && role != RegistrationRole::RESUME {
                return Err(Rejection::Failed("the broker takes nobody now".to_owned()));
            }
            linker.connect(link, role, spares.scores).await
        };
        (broker, Box::pin(connected))
    }

    async fn handle_dialled(&mut self, broker: &BrokerId, connected: Connected) {
        let now = self.linker.reach.now();
        match connected {
            Ok((standing, superseded)) => {
                if let Some(by) = superseded {
                    self.note_superseded(&by);
                }
                self.plan.handle_linked();
                let before = self.take_held();
                let (broker, address) = (standing.link.broker.clone(), standing.link.address);
                self.linker.reach.events.publish(Event::SecondLinked { broker: broker.clone(), address });
                if let Some(role) = standing.enrolment.as_ref().and_then(Enrolment::role) {
                    self.linker.reach.events.publish(Event::Registered { broker, role });
                }
                self.held = Some(standing);
                self.publish();
                if let Some(before) = before {
                    self.linker.leave(before).await;
                }
            }
            Err(rejection) => {
                tracing::debug!(%broker, %rejection, "no second link there");
                if let Rejection::Superseded(by) = &rejection {
                    self.note_superseded(by);
                }
                self.plan.handle_failed(broker, rejection.slot(), now, &mut rand::rng());
            }
        }
    }

    fn answer(&mut self, Request { wanted, answer }: Request) {
        let fits = match (&wanted, &self.held) {
            (_, None) => false,
            (Wanted::Any, Some(_)) => true,
            (Wanted::Lasting, Some(_)) => !self.draining,
            (Wanted::At(broker), Some(held)) => held.link.broker == *broker,
        };
        if let Wanted::At(broker) = &wanted
            && self.dialling.as_ref().is_some_and(|(dialled, _)| dialled == broker)
        {
            self.dialling = None;
        }
        if !fits {
            return;
        }
        self.plan.handle_taken(self.linker.reach.now(), &mut rand::rng());
        if let Some(second) = self.take_held() {
            // The keeper waits for it; when it is gone, so is the endpoint.
            drop(answer.send(second));
        }
    }

    fn handle_event(&mut self, event: LinkEvent) {
        let now = self.linker.reach.now();
        let Some(held) = &mut self.held else { return };
        let broker = held.link.broker.clone();
        match event {
            LinkEvent::Pong(_) | LinkEvent::Woke(_) => {}
            LinkEvent::Registered(done) => {
                if self.linker.note_registered(held, done.generation, done.role) {
                    self.publish();
                }
            }
            LinkEvent::RetryAfter(later) => {
                if let Some(enrolment) = &mut held.enrolment {
                    enrolment.handle_retry_after(retry_slot(later.after_ms), now);
                }
            }
            LinkEvent::Superseded(by) => {
                if let Some(enrolment) = &mut held.enrolment {
                    enrolment.handle_superseded(None, now);
                }
                self.note_superseded(&by);
                self.publish();
            }
            LinkEvent::Drain(drain) => {
                self.linker.pass_on(&broker, &drain, now);
                if !drain.is_passed_on() {
                    self.draining = true;
                    let left = Duration::from_millis(drain.deadline_ms.into());
                    self.plan.handle_draining(&broker, left, now);
                }
            }
            LinkEvent::Moved { from, to } => {
                self.lose(LinkNews::NetworkChanged, format!("the address changed from {from} to {to}"));
                self.plan.handle_taken(now, &mut rand::rng());
            }
            LinkEvent::Ended(reason) => {
                let incarnation = held.link.incarnation();
                self.lose(LinkNews::Lost { broker: broker.clone(), incarnation }, reason);
                self.plan.handle_lost(&broker, now, &mut rand::rng());
            }
        }
    }

    /// The second link is gone.
    fn lose(&mut self, news: LinkNews, reason: String) {
        let Some(lost) = self.take_held() else { return };
        let broker = lost.link.broker.clone();
        tracing::info!(%broker, reason, "the second link is lost");
        self.linker.shared.tell(news);
        self.linker.reach.events.publish(Event::SecondLost { broker, reason });
    }

    /// A later instance took the registration: this one registers for its sessions only until it is the primary again.
    fn note_superseded(&self, by: &Superseded) {
        tracing::warn!(instance = %by.by, "another process with this identity took the second registration");
        self.linker.shared.set_demoted(true);
    }

    fn publish(&self) {
        let held = self.held.as_ref().map(|held| Arc::new(held.held()));
        self.linker.shared.links.send_modify(|links| links.second = held);
    }

    fn take_held(&mut self) -> Option<Standing> {
        let held = self.held.take()?;
        self.draining = false;
        self.publish();
        Some(held)
    }
}

async fn next_event(held: &mut Option<Standing>) -> LinkEvent {
    match held {
        Some(held) => held.link.next_event().await,
        None => std::future::pending().await,
    }
}

async fn dialled(dialling: &mut Option<Dialling>) -> (BrokerId, Connected) {
    let Some((broker, connected)) = dialling else { return std::future::pending().await };
    let done = (broker.clone(), connected.await);
    *dialling = None;
    done
}
