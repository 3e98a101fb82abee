//! Keeps one broker pinned: finds it, registers there, watches the link, moves when told or when another is clearly
//! better, and finds the next one when it is lost.
//!
//! ```text
//!              established                drain, better broker: link and registration there first
//! Searching ────────────────▶ Held ───────────────────────────────────────────────▶ Held (other)
//!     ▲                         │ link lost
//!     └─────────────────────────┘ next-ranked at once, then looks with back-off
//! ```
//! [`super::establish`] makes links, [`super::leave`] moves away from a broker that is about to stop.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rand::Rng;
use rc_proto::Moment;
use rc_proto::select::eject::reconnect_share;
use rc_proto::select::{Backoff, Choice, Occupancy, Pin, PinVerdict, ReprobeTimer, Trigger};
use rc_proto::wire::message::{Drain, Invite, Superseded};
use rc_proto::wire::{BrokerId, Generation, InstanceId};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::control::{ControlLink, LinkEvent};
use super::establish::{Rejection, Standing};
use super::held::{Draining, Held, LinkNews, Links, NEWS_BACKLOG_MAX, PinState};
use super::leave::Leaving;
use super::register::Registration;
use crate::error::{CandidateFailure, CandidateFault, LocateError};
use crate::event::Event;
use crate::locate::{Located, Locator, ProbeLink};
use crate::reach::Reach;
use crate::status::whole_ms;

/// Shortest wait after another instance took the registration; it doubles each time.
const SUPERSEDED_WAIT: Duration = Duration::from_secs(60);
/// Longest such wait.
const SUPERSEDED_WAIT_MAX: Duration = Duration::from_secs(3600);
/// News of a link that wait while something else is done; more stay in the link.
const WAITING_MAX: usize = 32;
/// A lost registration is renewed within this while a session lives.
const IN_SESSION_WAIT: Duration = Duration::from_millis(500);

/// What the keeper shares with its endpoint.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pin: watch::Sender<PinState>,
    /// Every link that stands.
    pub(crate) links: watch::Sender<Links>,
    /// What happens to them; nobody listening is normal.
    pub(crate) news: broadcast::Sender<LinkNews>,
    pub(crate) choice: Arc<ArcSwapOption<Choice>>,
    /// Live sessions: decides how soon a lost broker is replaced, whether a better one is taken, and whether a second
    /// link is held.
    pub(crate) sessions: watch::Sender<usize>,
    pub(crate) invites: mpsc::Sender<Invite>,
}

impl Shared {
    pub(crate) fn new(invites: mpsc::Sender<Invite>) -> Self {
        Self {
            pin: watch::Sender::new(PinState::Searching { last: None }),
            links: watch::Sender::default(),
            news: broadcast::Sender::new(NEWS_BACKLOG_MAX),
            choice: Arc::new(ArcSwapOption::empty()),
            sessions: watch::Sender::new(0),
            invites,
        }
    }

    /// Whether any session lives.
    pub(super) fn is_in_session(&self) -> bool {
        *self.sessions.borrow() > 0
    }

    /// No primary link stands; `last` says why the last look for one failed.
    pub(super) fn tell_searching(&self, last: Option<LocateError>) {
        self.links.send_modify(|links| links.primary = None);
        self.pin.send_replace(PinState::Searching { last });
    }

    /// This is the primary link.
    pub(super) fn tell_primary(&self, held: Held) {
        let held = Arc::new(held);
        self.links.send_modify(|links| links.primary = Some(Arc::clone(&held)));
        self.pin.send_replace(PinState::Held(held));
    }

    /// Something happened to a link.
    pub(super) fn tell(&self, news: LinkNews) {
        drop(self.news.send(news));
    }
}

/// The task that keeps the pin.
pub(crate) struct Keeper {
    pub(super) reach: Arc<Reach>,
    pub(super) locator: Locator,
    pub(super) registration: Option<Registration>,
    pub(super) shared: Shared,
    pub(super) pin: Pin,
    pub(super) backoff: Backoff,
    superseded_wait: Duration,
    /// Brokers that answer probes and nothing more; avoided until another one is pinned.
    pub(super) shunned: Vec<BrokerId>,
    /// Brokers that others named, newest first: tried when a look finds none that takes us.
    pub(super) alternates: Vec<(BrokerId, String)>,
}

/// How a hold ended.
pub(super) enum HoldEnd {
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
            alternates: Vec::new(),
        }
    }

    /// Keeps a broker pinned until `stop` is cancelled, then unregisters and closes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut standing = None;
        let mut lost = None;
        while let Some(ControlFlow::Continue(())) =
            stop.run_until_cancelled(Box::pin(self.turn(&mut standing, &mut lost))).await
        {}
        self.shared.links.send_replace(Links::default());
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
                self.note_alternates(&held.link.welcome.alternates.clone());
                let incarnation = held.link.incarnation();
                *standing = None;
                self.note_lost(&broker, reason);
                self.shared.tell(LinkNews::Lost { broker: broker.clone(), incarnation });
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
            Ok(located) => {
                let address = located.link.address;
                match self.establish(located).await {
                    Ok(standing) => return Some(standing),
                    Err(rejection) => {
                        let (fault, reason) = (CandidateFault::Unusable, rejection.to_string());
                        let failure = CandidateFailure { address, fault, reason };
                        self.shared.tell_searching(Some(self.locator.no_broker(vec![failure])));
                        rejection
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no broker found");
                self.shunned.clear();
                self.shared.tell_searching(Some(error));
                Rejection::Failed(String::new())
            }
        };
        if let Rejection::Superseded(by) = rejection {
            self.wait_superseded(&by).await;
            return None;
        }
        if let Some(standing) = self.try_alternates(trigger, &[]).await {
            return Some(standing);
        }
        let pause = match rejection.slot() {
            Some(slot) => slot,
            None => self.backoff.next_delay(&mut rand::rng()),
        };
        self.reach.pause(pause).await;
        None
    }

    /// Watches the link until it is lost or left. Whatever else is done meanwhile, the link is read.
    async fn hold(&mut self, standing: &mut Standing) -> HoldEnd {
        let broker = standing.link.broker.clone();
        let mut timer = ReprobeTimer::new(self.reach.now(), &mut rand::rng());
        let mut leaving: Option<Leaving> = None;
        let mut waiting = VecDeque::new();
        loop {
            while let Some(event) = waiting.pop_front() {
                if let ControlFlow::Break(end) = self.handle_event(&standing.link, event, &mut leaving) {
                    return end;
                }
            }
            let due = leaving.as_ref().and_then(Leaving::due).unwrap_or(timer.poll_timeout());
            tokio::select! {
                biased;
                event = standing.link.next_event() => {
                    waiting.push_back(event);
                    continue;
                }
                () = self.reach.nap_until(Some(due)) => {}
            }
            if self.reach.now() < due {
                continue;
            }
            let before = self.pin.clone();
            let done = match &mut leaving {
                Some(leaving) => {
                    let work = self.try_to_leave(&broker, leaving);
                    alongside(&mut standing.link, work, ends_a_move, &mut waiting).await
                }
                None => {
                    let work = self.probe_and_judge(&mut timer, &broker);
                    alongside(&mut standing.link, work, ends_a_round, &mut waiting).await
                }
            };
            if let Some(end) = done {
                return end;
            }
            if self.pin.published() != before.published() {
                // What was cut off had proposed another broker; this one is still the pinned one.
                self.pin = before;
            }
        }
    }

    fn handle_event(
        &mut self,
        link: &ControlLink,
        event: LinkEvent,
        leaving: &mut Option<Leaving>,
    ) -> ControlFlow<HoldEnd> {
        let now = self.reach.now();
        self.pin.handle_heard(&link.broker, now);
        match event {
            LinkEvent::Pong(pong) => {
                self.backoff.reset();
                self.superseded_wait = SUPERSEDED_WAIT;
                self.locator.note_pong(&pong);
                ControlFlow::Continue(())
            }
            LinkEvent::Drain(drain) => {
                let deadline_ms = drain.deadline_ms;
                self.pass_on(&link.broker, &drain, now);
                if drain.is_passed_on() {
                    // A peer of our broker stops, not our broker: the pin stays.
                    return ControlFlow::Continue(());
                }
                self.note_alternates(&link.welcome.alternates);
                self.note_alternates(&drain.alternates);
                *leaving = Some(Leaving::new(now, Duration::from_millis(deadline_ms.into())));
                ControlFlow::Continue(())
            }
            LinkEvent::Superseded(by) => ControlFlow::Break(HoldEnd::Superseded(by)),
            LinkEvent::Registered(_) | LinkEvent::RetryAfter(_) => ControlFlow::Continue(()),
            LinkEvent::Ended(reason) => ControlFlow::Break(HoldEnd::Lost {
                broker: link.broker.clone(),
                reason,
                spread_ms: link.welcome.reconnect_spread_ms,
            }),
        }
    }

    /// Tells who moves sessions that a broker stops: the one of the link, or a peer of it.
    fn pass_on(&self, told_by: &BrokerId, drain: &Drain, now: Moment) {
        let Some(draining) = Draining::of(told_by, drain, now) else { return };
        let (broker, deadline_ms) = (draining.broker.clone(), drain.deadline_ms);
        self.reach.events.publish(Event::Draining { broker, deadline_ms });
        self.shared.tell(LinkNews::Drain(Arc::new(draining)));
    }

    /// A round of probes when one is due, and what it means for the pin.
    async fn probe_and_judge(&mut self, timer: &mut ReprobeTimer, broker: &BrokerId) -> Option<HoldEnd> {
        let round = timer.poll_round(self.reach.now(), &mut rand::rng())?;
        self.locator.probe_round(round, broker).await;
        let moved = self.judge_round().await?;
        Some(HoldEnd::Moved(Box::new(moved)))
    }

    /// Judges the pin after a round of probes; a link to a clearly better broker when it is time to move there.
    async fn judge_round(&mut self) -> Option<Standing> {
        let occupancy = if self.shared.is_in_session() { Occupancy::InSession } else { Occupancy::Idle };
        let now = self.reach.now();
        let (standings, ejections) = self.locator.judgement();
        let verdict = self.pin.handle_round(standings, ejections, occupancy, now, &mut rand::rng());
        match verdict {
            PinVerdict::Move(choice) => {
                let link = self.dial_chosen(&choice).await?;
                self.establish(Located { choice, link }).await.ok()
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
        self.shared.tell_searching(None);
        self.reach.events.publish(Event::PinLost { broker: broker.clone(), reason });
    }

    /// An idle Target waits its share of the spread, one in session at most 500 ms; a Controller goes at once.
    async fn pause_before_return(&self, spread_ms: u32) {
        if self.registration.is_none() {
            return;
        }
        let idle = !self.shared.is_in_session();
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
        self.shared.tell_searching(None);
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

/// Does `work` and reads the link meanwhile; what comes is put into `waiting`. `None` when the work came to nothing, or
/// when news for which `ends` holds made it pointless.
async fn alongside(
    link: &mut ControlLink,
    work: impl Future<Output = Option<HoldEnd>>,
    ends: fn(&LinkEvent) -> bool,
    waiting: &mut VecDeque<LinkEvent>,
) -> Option<HoldEnd> {
    let mut work = pin!(Box::pin(work));
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            event = link.next_event(), if !ended && waiting.len() < WAITING_MAX => {
                let ends = ends(&event);
                ended = matches!(event, LinkEvent::Ended(_));
                waiting.push_back(event);
                if ends {
                    return None;
                }
            }
        }
    }
}

/// A round of probes waits for nothing that matters more.
fn ends_a_round(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Drain(_) | LinkEvent::Superseded(_) | LinkEvent::Ended(_))
}

/// A move goes on when the broker that is left goes first.
fn ends_a_move(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Superseded(_))
}
