//! Keeps one broker pinned: finds it, registers there, watches the link, moves when told or when another is clearly
//! better, and finds the next one when it is lost.
//!
//! ```text
//!              established                drain, better broker: link and registration there first
//! Searching ────────────────▶ Held ───────────────────────────────────────────────▶ Held (other)
//!     ▲                         │ link lost
//!     └─────────────────────────┘ next-ranked at once, then looks with back-off
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rand::Rng;
use rc_proto::Moment;
use rc_proto::select::eject::reconnect_share;
use rc_proto::select::{Backoff, Choice, Occupancy, Pin, PinVerdict, ReprobeTimer, Trigger};
use rc_proto::wire::message::{Drain, Invite, Superseded};
use rc_proto::wire::{BrokerId, Generation, InstanceId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::contact::BrokerContact;
use super::control::{ControlLink, Heart, LinkEvent};
use super::register::Registration;
use crate::error::LocateError;
use crate::event::Event;
use crate::locate::{Located, Locator, ProbeLink};
use crate::reach::Reach;
use crate::status::whole_ms;

/// Shortest wait after another instance took the registration; it doubles each time.
const SUPERSEDED_WAIT: Duration = Duration::from_secs(60);
/// Longest such wait.
const SUPERSEDED_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Brokers that are avoided at a time because they answer probes and nothing more.
const SHUNNED_MAX: usize = 8;
/// A lost registration is renewed within this while a session lives.
const IN_SESSION_WAIT: Duration = Duration::from_millis(500);

/// Which broker is pinned, for everybody who needs one.
#[derive(Debug, Clone)]
pub(crate) enum PinState {
    /// None yet, or none again; and why the last look failed.
    Searching { last: Option<LocateError> },
    /// This one.
    Held(Arc<Held>),
    /// The endpoint has shut down.
    Stopped,
}

/// A pinned broker.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) contact: BrokerContact,
    pub(crate) link: LinkFacts,
}

/// What a status shows of a control link.
#[derive(Debug)]
pub(crate) struct LinkFacts {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) incarnation: rc_proto::wire::Incarnation,
    pub(crate) heart: Arc<Heart>,
    pub(crate) since: Moment,
    pub(crate) registered: bool,
}

/// What the keeper shares with its endpoint.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pin: watch::Sender<PinState>,
    pub(crate) choice: Arc<ArcSwapOption<Choice>>,
    /// Live sessions; decides how soon a lost broker is replaced and whether a better one is taken.
    pub(crate) sessions: Arc<AtomicUsize>,
    pub(crate) invites: mpsc::Sender<Invite>,
}

/// The task that keeps the pin.
pub(crate) struct Keeper {
    reach: Arc<Reach>,
    locator: Locator,
    registration: Option<Registration>,
    shared: Shared,
    pin: Pin,
    backoff: Backoff,
    superseded_wait: Duration,
    /// Brokers that answer probes and nothing more; avoided until another one is pinned.
    shunned: Vec<BrokerId>,
}

/// A link that stands, with the registration that it carries.
struct Standing {
    link: ControlLink,
    generation: Option<Generation>,
}

/// Why a broker that answers did not become the pinned one.
enum Rejection {
    Failed(String),
    RetryAfter(Duration),
    Superseded(Superseded),
}

/// How a hold ended.
enum HoldEnd {
    Lost { broker: BrokerId, reason: String, spread_ms: u32 },
    Superseded(Superseded),
    Moved(Box<Standing>),
}

impl Keeper {
    pub(crate) fn new(
        reach: Arc<Reach>,
        locator: Locator,
        target: Option<(InstanceId, u64)>,
        shared: Shared,
    ) -> Self {
        Self {
            reach,
            locator,
            registration: target.map(|(instance, started_ms)| Registration::new(instance, started_ms)),
            shared,
            pin: Pin::default(),
            backoff: Backoff::reconnect(),
            superseded_wait: SUPERSEDED_WAIT,
            shunned: Vec::new(),
        }
    }

    /// Keeps a broker pinned until `stop` is cancelled, then unregisters and closes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut standing = None;
        let mut lost = None;
        while let Some(ControlFlow::Continue(())) =
            stop.run_until_cancelled(self.turn(&mut standing, &mut lost)).await
        {}
        self.shared.pin.send_replace(PinState::Stopped);
        if let Some(Standing { link, generation }) = standing {
            self.leave(link, generation).await;
        }
    }

    /// One search or one hold. `standing` is there whenever a link is, so that a cancelled turn loses none.
    async fn turn(
        &mut self,
        standing: &mut Option<Standing>,
        lost: &mut Option<BrokerId>,
    ) -> ControlFlow<()> {
        let Some(held) = standing else {
            *standing = self.search(lost.take()).await;
            return ControlFlow::Continue(());
        };
        match self.hold(held).await {
            HoldEnd::Moved(to) => {
                if let Some(Standing { link, generation }) = standing.replace(*to) {
                    self.leave(link, generation).await;
                }
            }
            HoldEnd::Lost { broker, reason, spread_ms } => {
                *standing = None;
                self.note_lost(&broker, reason);
                self.pause_before_return(spread_ms).await;
                *lost = Some(broker);
            }
            HoldEnd::Superseded(by) => {
                *standing = None;
                self.wait_superseded(&by).await;
            }
        }
        ControlFlow::Continue(())
    }

    /// Looks once, and establishes the link; `None` after a failure and its wait.
    async fn search(&mut self, lost: Option<BrokerId>) -> Option<Standing> {
        let trigger = if lost.is_some() { Trigger::BrokerLost } else { Trigger::Start };
        let mut located = None;
        if let Some(lost) = &lost {
            located = self.locator.next_ranked(trigger, lost).await;
        }
        let located = match located {
            Some(located) => Ok(located),
            None => self.locator.locate(trigger, &self.shunned).await,
        };
        let rejection = match located {
            Ok(located) => match self.establish(located).await {
                Ok(standing) => return Some(standing),
                Err(rejection) => rejection,
            },
            Err(error) => {
                tracing::warn!(%error, "no broker found");
                self.shunned.clear();
                self.shared.pin.send_replace(PinState::Searching { last: Some(error) });
                Rejection::Failed(String::new())
            }
        };
        self.wait_after(rejection).await;
        None
    }

    async fn wait_after(&mut self, rejection: Rejection) {
        match rejection {
            Rejection::Failed(_) => {
                let delay = self.backoff.next_delay(&mut rand::rng());
                self.reach.pause(delay).await;
            }
            Rejection::RetryAfter(slot) => self.reach.pause(slot).await,
            Rejection::Superseded(by) => self.wait_superseded(&by).await,
        }
    }

    /// Makes the control link, registers a Target, and publishes the pin.
    async fn establish(&mut self, located: Located) -> Result<Standing, Rejection> {
        let Located { choice, link } = located;
        let (broker, address) = (link.broker.clone(), link.address);
        self.pin.propose(broker.clone());
        let standing = match self.connect(link).await {
            Ok(standing) => standing,
            Err(rejection) => {
                if let Rejection::Failed(reason) = &rejection {
                    let reason = reason.clone();
                    self.reach.events.publish(Event::CandidateFailed { address, reason });
                    self.locator.note_failure(&broker);
                    if !self.shunned.contains(&broker) && self.shunned.len() < SHUNNED_MAX {
                        self.shunned.push(broker.clone());
                    }
                }
                self.pin.handle_lost(&broker);
                return Err(rejection);
            }
        };
        self.pin.confirm(&broker, self.reach.now());
        self.shunned.clear();
        self.reach.events.publish(Event::Pinned { broker: broker.clone(), address, rule: choice.summary() });
        if standing.generation.is_some() {
            self.reach.events.publish(Event::Registered { broker });
        }
        self.shared.choice.store(Some(Arc::new(choice)));
        self.publish(&standing);
        Ok(standing)
    }

    fn publish(&self, standing: &Standing) {
        let link = &standing.link;
        let facts = LinkFacts {
            address: link.address,
            incarnation: link.incarnation(),
            heart: Arc::clone(&link.heart),
            since: self.reach.now(),
            registered: standing.generation.is_some(),
        };
        let contact = BrokerContact::of_welcome(&link.welcome, link.address);
        let held = Held { contact, link: facts };
        self.shared.pin.send_replace(PinState::Held(Arc::new(held)));
    }

    async fn connect(&mut self, link: ProbeLink) -> Result<Standing, Rejection> {
        let scores = self.locator.scores();
        let register = self.registration.as_mut().map(|registration| registration.next(scores));
        let (generation, first) = register.unzip();
        let mut link = ControlLink::open(&self.reach, link, first, self.shared.invites.clone())
            .await
            .map_err(Rejection::Failed)?;
        if let Some(generation) = generation {
            let confirmed = self.await_registered(&mut link, generation);
            let deadline = self.reach.timers.keep_alive_answer;
            match tokio::time::timeout(deadline, confirmed).await {
                Ok(confirmed) => confirmed?,
                Err(_) => return Err(Rejection::Failed(format!("no registration within {deadline:?}"))),
            }
        }
        Ok(Standing { link, generation })
    }

    async fn await_registered(
        &self,
        link: &mut ControlLink,
        generation: Generation,
    ) -> Result<(), Rejection> {
        loop {
            match link.next_event().await {
                LinkEvent::Registered(done) if done.generation == generation => return Ok(()),
                LinkEvent::Registered(_) | LinkEvent::Pong(_) => {}
                LinkEvent::RetryAfter(later) => {
                    return Err(Rejection::RetryAfter(Duration::from_millis(later.after_ms.into())));
                }
                LinkEvent::Superseded(by) => return Err(Rejection::Superseded(by)),
                LinkEvent::Drain(_) => return Err(Rejection::Failed("the broker drains".to_owned())),
                LinkEvent::Ended(reason) => return Err(Rejection::Failed(reason)),
            }
        }
    }

    /// Watches the link until it is lost or left.
    async fn hold(&mut self, standing: &mut Standing) -> HoldEnd {
        let mut timer = ReprobeTimer::new(self.reach.now(), &mut rand::rng());
        loop {
            tokio::select! {
                biased;
                event = standing.link.next_event() => {
                    if let ControlFlow::Break(end) = self.handle_event(&standing.link, event).await {
                        return end;
                    }
                }
                () = self.reach.nap_until(Some(timer.poll_timeout())) => {
                    let round = timer.poll_round(self.reach.now(), &mut rand::rng());
                    if let Some(round) = round {
                        self.locator.probe_round(round, &standing.link.broker).await;
                        if let Some(to) = self.judge_round().await {
                            return HoldEnd::Moved(Box::new(to));
                        }
                    }
                }
            }
        }
    }

    async fn handle_event(&mut self, link: &ControlLink, event: LinkEvent) -> ControlFlow<HoldEnd> {
        self.pin.handle_heard(&link.broker, self.reach.now());
        match event {
            LinkEvent::Pong(pong) => {
                self.backoff.reset();
                self.superseded_wait = SUPERSEDED_WAIT;
                self.locator.note_pong(&pong);
                ControlFlow::Continue(())
            }
            LinkEvent::Drain(drain) => self.handle_drain(&link.broker, &drain).await,
            LinkEvent::Superseded(by) => ControlFlow::Break(HoldEnd::Superseded(by)),
            LinkEvent::Registered(_) | LinkEvent::RetryAfter(_) => ControlFlow::Continue(()),
            LinkEvent::Ended(reason) => ControlFlow::Break(HoldEnd::Lost {
                broker: link.broker.clone(),
                reason,
                spread_ms: link.welcome.reconnect_spread_ms,
            }),
        }
    }

    /// The broker is about to stop: the link elsewhere first, then leave. Without another broker, stay.
    async fn handle_drain(&mut self, broker: &BrokerId, drain: &Drain) -> ControlFlow<HoldEnd> {
        let event = Event::Draining { broker: broker.clone(), deadline_ms: drain.deadline_ms };
        self.reach.events.publish(event);
        let avoid = std::slice::from_ref(broker);
        match self.locator.locate(Trigger::Drain, avoid).await {
            Ok(located) => match self.establish(located).await {
                Ok(to) => ControlFlow::Break(HoldEnd::Moved(Box::new(to))),
                Err(_) => ControlFlow::Continue(()),
            },
            Err(error) => {
                tracing::warn!(%broker, %error, "the pinned broker drains and there is no other");
                ControlFlow::Continue(())
            }
        }
    }

    /// Judges the pin after a round of probes; a link to a clearly better broker when it is time to move there.
    async fn judge_round(&mut self) -> Option<Standing> {
        let occupancy = match self.shared.sessions.load(Ordering::Relaxed) {
            0 => Occupancy::Idle,
            _ => Occupancy::InSession,
        };
        let now = self.reach.now();
        let (standings, ejections) = self.locator.judgement();
        let verdict = self.pin.handle_round(standings, ejections, occupancy, now, &mut rand::rng());
        match verdict {
            PinVerdict::Move(choice) => {
                let before = self.pin.broker().cloned();
                let link = self.dial_chosen(&choice).await?;
                match self.establish(Located { choice, link }).await {
                    Ok(standing) => Some(standing),
                    Err(_) => {
                        // The old link still stands: it stays the pinned one.
                        if let Some(before) = before {
                            self.pin.propose(before.clone());
                            self.pin.confirm(&before, self.reach.now());
                        }
                        None
                    }
                }
            }
            PinVerdict::Handover(choice) => {
                tracing::debug!(
                    choice = choice.summary(),
                    "another broker is better; sessions stay where they are"
                );
                None
            }
            PinVerdict::Stay(_) => None,
        }
    }

    async fn dial_chosen(&self, choice: &Choice) -> Option<ProbeLink> {
        let chosen = choice.chosen.as_ref()?;
        let candidate = rc_proto::select::Candidate {
            address: self.locator.address_of(chosen)?,
            expectation: rc_proto::select::Expectation::Broker(chosen.clone()),
        };
        ProbeLink::dial(&self.reach, &candidate).await.ok()
    }

    fn note_lost(&mut self, broker: &BrokerId, reason: String) {
        tracing::info!(%broker, reason, "the pinned broker is lost");
        self.locator.note_dead_link(broker);
        self.pin.handle_lost(broker);
        self.shared.pin.send_replace(PinState::Searching { last: None });
        self.reach.events.publish(Event::PinLost { broker: broker.clone(), reason });
    }

    /// An idle Target waits its share of the spread, one in session at most 500 ms; a Controller goes at once.
    async fn pause_before_return(&self, spread_ms: u32) {
        if self.registration.is_none() {
            return;
        }
        let idle = self.shared.sessions.load(Ordering::Relaxed) == 0;
        let pause = if idle {
            reconnect_share(spread_ms, &mut rand::rng())
        } else {
            rand::rng().random_range(Duration::ZERO..=IN_SESSION_WAIT)
        };
        self.reach.pause(pause).await;
    }

    /// Another process runs with this identity: stays away for a while that doubles.
    async fn wait_superseded(&mut self, by: &Superseded) {
        let asked = Duration::from_millis(by.back_off_ms.into());
        let wait = self.superseded_wait.max(asked).min(SUPERSEDED_WAIT_MAX);
        self.superseded_wait = (self.superseded_wait * 2).min(SUPERSEDED_WAIT_MAX);
        tracing::warn!(instance = %by.by, ?wait, "another process with this identity took the registration");
        self.shared.pin.send_replace(PinState::Searching { last: None });
        self.reach.events.publish(Event::Superseded { by: by.by, back_off_ms: whole_ms(wait) });
        self.reach.pause(wait).await;
    }

    /// Says goodbye to a broker.
    async fn leave(&self, link: ControlLink, generation: Option<Generation>) {
        if let (Some(generation), Some(registration)) = (generation, &self.registration) {
            drop(link.outgoing.try_send(registration.end(generation)));
        }
        link.close().await;
    }
}
