//! Keeps one broker pinned: finds it, registers there, watches the link, moves when told or when another is clearly
//! better, and finds the next one when it is lost.
//!
//! ```text
//!              established                drain, better broker: link and registration there first
//! Searching ────────────────▶ Held ───────────────────────────────────────────────▶ Held (other)
//!     ▲                         │ link lost: the second link serves at once ─────────▶ Held (second)
//!     └─────────────────────────┘ without one: next-ranked at once, then looks with back-off
//! ```
//! [`super::establish`] makes links, [`super::leave`] moves away from a broker that is about to stop,
//! [`super::reserve`] holds the second link.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rc_proto::select::eject::reconnect_share;
use rc_proto::select::{Backoff, Choice, Occupancy, Pin, PinVerdict, ReprobeTimer, Trigger};
use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Pong, Superseded, Welcome};
use rc_proto::wire::{BrokerId, InstanceId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alongside::{alongside, ends_a_move, ends_a_round};
use super::contact::BrokerContact;
use super::control::LinkEvent;
use super::enrol::{Enrolment, StayAway};
use super::held::{LinkNews, PinState};
use super::leave::Leaving;
use super::linker::{Linker, Rejection, Standing};
use super::register::Registration;
use super::reserve::{Reserve, ReserveHandle, Spares, Wanted};
use super::shared::Shared;
use crate::error::{CandidateFailure, CandidateFault};
use crate::event::Event;
use crate::limits::retry_slot;
use crate::locate::{Located, Locator, ProbeLink};
use crate::reach::Reach;
use crate::status::whole_ms;

/// A lost registration is renewed within this while a session lives.
const IN_SESSION_WAIT: Duration = Duration::from_millis(500);
/// Brokers that are offered to the reserve.
const SPARES_MAX: usize = 8;
/// Between two looks at this machine's own address while no broker is found.
const ADDRESS_LOOK: Duration = Duration::from_secs(1);

/// The task that keeps the pin.
pub(super) struct Keeper {
    pub(super) linker: Linker,
    pub(super) locator: Locator,
    pub(super) pin: Pin,
    pub(super) backoff: Backoff,
    pub(super) away: StayAway,
    /// Brokers that answer probes and nothing more; avoided until another one is pinned.
    pub(super) shunned: Vec<BrokerId>,
    /// Brokers that others named, newest first: tried when a look finds none that takes us.
    pub(super) alternates: Vec<(BrokerId, String)>,
    pub(super) reserve: ReserveHandle,
    /// Where the last link went.
    last_address: Option<SocketAddr>,
}

/// How a hold ended.
pub(super) enum HoldEnd {
    Lost { broker: BrokerId, reason: String, spread_ms: u32 },
    NetworkChanged { broker: BrokerId, from: IpAddr, to: IpAddr },
    Superseded(Superseded),
    Moved(Box<Standing>),
}

/// Keeps the control links of an endpoint until `stop` is cancelled. `target` is the instance of a Target and its start in
/// unix ms.
pub(crate) fn start(
    reach: Arc<Reach>,
    locator: Locator,
    target: Option<(InstanceId, u64)>,
    shared: Shared,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let registration = target.map(|(instance, started_ms)| Registration::new(instance, started_ms));
    let linker = Linker { reach, shared, registration };
    let (reserve, handle) = Reserve::new(linker.clone());
    let keeper = Keeper {
        linker,
        locator,
        pin: Pin::default(),
        backoff: Backoff::reconnect(),
        away: StayAway::default(),
        shunned: Vec::new(),
        alternates: Vec::new(),
        reserve: handle,
        last_address: None,
    };
    tasks.spawn(keeper.run(stop.clone()));
    tasks.spawn(reserve.run(stop.clone()));
}

impl Keeper {
    /// Keeps a broker pinned until `stop` is cancelled, then unregisters and closes.
    async fn run(mut self, stop: CancellationToken) {
        let mut standing = None;
        let mut lost = None;
        while let Some(ControlFlow::Continue(())) =
            stop.run_until_cancelled(Box::pin(self.turn(&mut standing, &mut lost))).await
        {}
        self.linker.shared.links.send_modify(|links| links.primary = None);
        self.linker.shared.pin.send_replace(PinState::Stopped);
        if let Some(standing) = standing {
            self.linker.leave(standing).await;
        }
    }

    /// One search or one hold. `standing` is there whenever a link is, so that a cancelled turn loses none. `lost` says
    /// that a link was, and which brokers the search for another one avoids.
    async fn turn(
        &mut self,
        standing: &mut Option<Standing>,
        lost: &mut Option<Vec<BrokerId>>,
    ) -> ControlFlow<()> {
        let Some(held) = standing else {
            *standing = self.search(lost.take()).await;
            return ControlFlow::Continue(());
        };
        match self.hold(held).await {
            HoldEnd::Moved(to) => {
                if let Some(left) = standing.replace(*to) {
                    self.linker.leave(left).await;
                }
            }
            HoldEnd::Lost { broker, reason, spread_ms } => {
                let (link, incarnation) = (&held.link, held.link.incarnation());
                self.last_address = Some(link.address);
                self.note_alternates(&link.welcome.alternates.clone());
                *standing = None;
                self.locator.note_dead_link(&broker);
                self.note_lost(&broker, reason, LinkNews::Lost { broker: broker.clone(), incarnation });
                *standing = self.second_serves().await;
                if standing.is_none() {
                    self.pause_before_return(spread_ms).await;
                    *lost = Some(vec![broker]);
                }
            }
            HoldEnd::NetworkChanged { broker, from, to } => {
                self.last_address = Some(held.link.address);
                *standing = None;
                self.locator.forget_failures();
                self.linker.reach.events.publish(Event::NetworkChanged { from, to });
                let reason = format!("this machine's address changed from {from} to {to}");
                self.note_lost(&broker, reason, LinkNews::NetworkChanged);
                *lost = Some(Vec::new());
            }
            HoldEnd::Superseded(by) => {
                *standing = None;
                self.wait_superseded(&by).await;
            }
        }
        ControlFlow::Continue(())
    }

    /// The primary link is gone and the second one, if there is any, takes its place at once. A Target's registration there
    /// answers meanwhile; it becomes the primary one after a random part of 500 ms.
    async fn second_serves(&mut self) -> Option<Standing> {
        let second = self.reserve.take(Wanted::Any).await?;
        let after = rand::rng().random_range(Duration::ZERO..=IN_SESSION_WAIT);
        Some(self.promote(second, "the second link serves", after))
    }

    /// Looks once, and establishes the link; `None` after a failure and its wait.
    async fn search(&mut self, lost: Option<Vec<BrokerId>>) -> Option<Standing> {
        if let Some(second) = self.second_serves().await {
            return Some(second);
        }
        let trigger = if lost.is_some() { Trigger::BrokerLost } else { Trigger::Start };
        let mut located = None;
        if let Some(avoid) = &lost {
            located = self.locator.next_ranked(trigger, avoid).await;
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
                        self.linker.shared.tell_searching(Some(self.locator.no_broker(vec![failure])));
                        rejection
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no broker found");
                self.shunned.clear();
                self.linker.shared.tell_searching(Some(error));
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
        self.pause_unless_moved(pause).await;
        None
    }

    /// Waits for `span`, or until this machine gets another address: then the next attempt may go well.
    async fn pause_unless_moved(&mut self, span: Duration) {
        let reach = &self.linker.reach;
        let source = || self.last_address.and_then(|address| reach.source.towards(address));
        let (before, end) = (source(), reach.now() + span);
        while reach.now() < end {
            reach.nap_until(Some(end.min(reach.now() + ADDRESS_LOOK))).await;
            let now = source();
            if now.is_some() && now != before {
                self.backoff.reset();
                return;
            }
        }
    }

    /// Watches the link until it is lost or left. Whatever else is done meanwhile, the link is read.
    async fn hold(&mut self, standing: &mut Standing) -> HoldEnd {
        let broker = standing.link.broker.clone();
        let mut timer = ReprobeTimer::new(self.linker.reach.now(), &mut rand::rng());
        let mut leaving: Option<Leaving> = None;
        let mut waiting = VecDeque::new();
        let mut sessions = self.linker.shared.sessions.subscribe();
        loop {
            while let Some(event) = waiting.pop_front() {
                if let ControlFlow::Break(end) = self.handle_event(standing, event, &mut leaving) {
                    return end;
                }
            }
            self.linker.renew(standing, || self.locator.scores());
            let renewal = standing.enrolment.as_ref().and_then(Enrolment::poll_timeout);
            let work_due = leaving.as_ref().and_then(Leaving::due).unwrap_or(timer.poll_timeout());
            tokio::select! {
                biased;
                event = standing.link.next_event() => {
                    waiting.push_back(event);
                    continue;
                }
                Ok(()) = sessions.changed() => {
                    self.offer_spares(&standing.link.welcome);
                    continue;
                }
                () = self.linker.reach.nap_until(Some(renewal.map_or(work_due, |at| at.min(work_due)))) => {}
            }
            if self.linker.reach.now() < work_due {
                continue;
            }
            let before = self.pin.clone();
            let done = match leaving.as_mut().filter(|leaving| leaving.due().is_some()) {
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
            self.offer_spares(&standing.link.welcome);
            if self.pin.published() != before.published() {
                // What was cut off had proposed another broker; this one is still the pinned one.
                self.pin = before;
            }
        }
    }

    fn handle_event(
        &mut self,
        standing: &mut Standing,
        event: LinkEvent,
        leaving: &mut Option<Leaving>,
    ) -> ControlFlow<HoldEnd> {
        let now = self.linker.reach.now();
        let broker = standing.link.broker.clone();
        self.pin.handle_heard(&broker, now);
        match event {
            LinkEvent::Pong(pong) => {
                self.backoff.reset();
                if !self.linker.shared.is_demoted() {
                    self.away.reset();
                }
                self.locator.note_pong(&pong);
                self.heed(&pong, leaving);
            }
            LinkEvent::Drain(drain) => {
                self.linker.pass_on(&broker, &drain, now);
                // When a peer of our broker stops, the pin stays.
                if !drain.is_passed_on() {
                    let (left, spread_ms) =
                        (Duration::from_millis(drain.deadline_ms.into()), spread_of(standing));
                    self.note_alternates(&standing.link.welcome.alternates);
                    self.note_alternates(&drain.alternates);
                    self.locator.note_draining(&broker, left);
                    if leaving.as_ref().is_none_or(Leaving::is_advice) {
                        *leaving = Some(Leaving::new(now, left, self.smear(spread_ms)));
                    }
                }
            }
            LinkEvent::Superseded(by) if self.linker.shared.is_in_session() => {
                let wait = self.note_superseded(&by);
                if let Some(enrolment) = &mut standing.enrolment {
                    enrolment.handle_superseded(Some(now + wait), now);
                }
                self.linker.shared.tell_primary(standing.held());
            }
            LinkEvent::Superseded(by) => return ControlFlow::Break(HoldEnd::Superseded(by)),
            LinkEvent::Registered(done) => {
                if self.linker.note_registered(standing, done.generation, done.role) {
                    self.linker.shared.set_demoted(done.role == RegistrationRole::RESUME);
                    self.linker.shared.tell_primary(standing.held());
                }
            }
            LinkEvent::RetryAfter(later) => {
                self.note_alternates(&later.alternates);
                if let Some(enrolment) = &mut standing.enrolment {
                    enrolment.handle_retry_after(retry_slot(later.after_ms), now);
                }
            }
            LinkEvent::Woke(span) => {
                self.linker.reach.events.publish(Event::Woke { slept_ms: whole_ms(span) });
                self.linker.shared.tell(LinkNews::Woke);
            }
            LinkEvent::Moved { from, to } => {
                return ControlFlow::Break(HoldEnd::NetworkChanged { broker, from, to });
            }
            LinkEvent::Ended(reason) => {
                let spread_ms = spread_of(standing);
                return ControlFlow::Break(HoldEnd::Lost { broker, reason, spread_ms });
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes the advice of an isolated broker, and lets go of one that no longer holds. In session the second link is
    /// enough.
    fn heed(&self, pong: &Pong, leaving: &mut Option<Leaving>) {
        let advice = pong.move_after_ms().filter(|_| !self.linker.shared.is_in_session());
        match (advice, leaving.as_ref()) {
            (Some(after_ms), None) => {
                let after = Duration::from_millis(after_ms.into());
                *leaving = Some(Leaving::isolated(self.linker.reach.now(), after));
            }
            (None, Some(before)) if before.is_advice() => *leaving = None,
            // What was tried in vain is tried again after the next answer that says so.
            (Some(_), Some(before)) if before.is_advice() && before.due().is_none() => *leaving = None,
            (Some(_) | None, _) => {}
        }
    }

    /// How long a broker that stops is not left yet: idle Targets go one by one.
    fn smear(&self, spread_ms: u32) -> Duration {
        if self.linker.registration.is_none() || self.linker.shared.is_in_session() {
            return Duration::ZERO;
        }
        reconnect_share(spread_ms, &mut rand::rng())
    }

    /// Tells the reserve where a second link may go, while one is wanted.
    pub(super) fn offer_spares(&self, welcome: &Welcome) {
        if !self.linker.shared.is_in_session() {
            return;
        }
        let mut brokers = self.locator.spares(SPARES_MAX);
        for (broker, name) in &welcome.alternates {
            if brokers.iter().all(|spare| spare.broker != *broker) && brokers.len() < SPARES_MAX {
                brokers.push(BrokerContact::named(broker, name));
            }
        }
        let (scores, allow_loopback) = (self.locator.scores(), self.locator.allows_loopback());
        self.reserve.offer(Spares { brokers, scores, allow_loopback });
    }

    /// A round of probes when one is due, and what it means for the pin.
    async fn probe_and_judge(&mut self, timer: &mut ReprobeTimer, broker: &BrokerId) -> Option<HoldEnd> {
        let round = timer.poll_round(self.linker.reach.now(), &mut rand::rng())?;
        self.locator.probe_round(round, broker).await;
        let moved = self.judge_round().await?;
        Some(HoldEnd::Moved(Box::new(moved)))
    }

    /// Judges the pin after a round of probes; a link to a clearly better broker when it is time to move there.
    async fn judge_round(&mut self) -> Option<Standing> {
        let occupancy =
            if self.linker.shared.is_in_session() { Occupancy::InSession } else { Occupancy::Idle };
        let now = self.linker.reach.now();
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
        ProbeLink::dial(&self.linker.reach, &candidate).await.ok()
    }

    fn note_lost(&mut self, broker: &BrokerId, reason: String, news: LinkNews) {
        tracing::info!(%broker, reason, "the pinned broker is lost");
        self.pin.handle_lost(broker);
        self.linker.shared.tell_searching(None);
        self.linker.shared.tell(news);
        self.linker.reach.events.publish(Event::PinLost { broker: broker.clone(), reason });
    }

    /// An idle Target waits its share of the spread, one in session at most 500 ms; a Controller goes at once.
    async fn pause_before_return(&self, spread_ms: u32) {
        if self.linker.registration.is_none() {
            return;
        }
        let idle = !self.linker.shared.is_in_session();
        let pause = if idle {
            reconnect_share(spread_ms, &mut rand::rng())
        } else {
            rand::rng().random_range(Duration::ZERO..=IN_SESSION_WAIT)
        };
        self.linker.reach.pause(pause).await;
    }

    /// Another process runs with this identity: how long this one stays away.
    pub(super) fn note_superseded(&mut self, by: &Superseded) -> Duration {
        let asked = Duration::from_millis(by.back_off_ms.into());
        let wait = self.away.handle_superseded(asked, self.linker.reach.now());
        tracing::warn!(instance = %by.by, ?wait, "another process with this identity took the registration");
        self.linker.shared.set_demoted(true);
        self.linker.reach.events.publish(Event::Superseded { by: by.by, back_off_ms: whole_ms(wait) });
        wait
    }

    /// The same without a session: without any link until then.
    async fn wait_superseded(&mut self, by: &Superseded) {
        self.linker.shared.tell_searching(None);
        let wait = self.note_superseded(by);
        self.linker.reach.pause(wait).await;
    }
}

fn spread_of(standing: &Standing) -> u32 {
    standing.link.welcome.reconnect_spread_ms
}
