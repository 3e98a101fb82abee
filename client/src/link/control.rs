//! One control link: Hello and Welcome, then keep-alives and messages both ways in a task of its own.
//!
//! The task never waits for whoever takes its messages: invites go to a bounded queue that drops the newest, all else
//! to one whose overflow ends the link, since no honest broker fills it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::wire::message::{
    Drain, Hello, Invite, Message, Ping, Pong, Registered, RetryAfter, Superseded, Welcome,
};
use rc_proto::wire::{BrokerId, Ext, Incarnation, MessageKind, version};
use rc_transport::{Leg, MessageStream};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::shared::Shared;
use super::vigil::{Finding, Vigil};
use crate::locate::ProbeLink;
use crate::reach::Reach;

/// Messages to the broker that wait for the link; a further sender waits.
const OUTGOING_MAX: usize = 32;
/// Messages and answers that wait for the keeper; a further one ends the link.
const INCOMING_MAX: usize = 64;
/// Shortest keep-alive that a broker may ask for.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
/// Longest keep-alive that a broker may ask for.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(60);
/// Time for a clean close.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// What comes from a control link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The registration stands.
    Registered(Registered),
    /// Come back later.
    RetryAfter(RetryAfter),
    /// Another instance took the registration.
    Superseded(Superseded),
    /// The broker is about to stop.
    Drain(Drain),
    /// A keep-alive was answered.
    Pong(Pong),
    /// This machine slept about this long; the link is being checked.
    Woke(Duration),
    /// This machine has another address now: the link is of no more use.
    Moved {
        /// The address before.
        from: IpAddr,
        /// The address now.
        to: IpAddr,
    },
    /// The link is gone, and why.
    Ended(String),
}

/// What a link tells about itself while it runs.
#[derive(Debug, Default)]
pub(crate) struct Heart {
    round_trip_us: AtomicU32,
    load: AtomicU16,
}

impl Heart {
    /// Round trip of the last keep-alive in µs.
    pub(crate) fn round_trip_us(&self) -> Option<u32> {
        Some(self.round_trip_us.load(Ordering::Relaxed)).filter(|round_trip| *round_trip > 0)
    }

    /// Load per mille, from the last answer.
    pub(crate) fn load(&self) -> u16 {
        self.load.load(Ordering::Relaxed)
    }
}

/// A control link that a broker has welcomed.
pub(crate) struct ControlLink {
    pub(crate) broker: BrokerId,
    pub(crate) address: SocketAddr,
    pub(crate) welcome: Welcome,
    pub(crate) heart: Arc<Heart>,
    pub(crate) outgoing: mpsc::Sender<Message>,
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl ControlLink {
    /// Says Hello, and `first` right behind it, and waits for Welcome.
    ///
    /// # Errors
    /// Why the broker does not welcome us, in words.
    pub(crate) async fn open(
        reach: &Arc<Reach>,
        link: ProbeLink,
        first: Option<Message>,
        shared: &Shared,
    ) -> Result<Self, String> {
        let ProbeLink { mut messages, broker, address, state } = link;
        let deadline = reach.timers.keep_alive_answer;
        let greeted = tokio::time::timeout(deadline, greet(&mut messages, &broker, first)).await;
        let welcome = greeted.map_err(|_| format!("{broker} did not say welcome within {deadline:?}"))??;
        messages.accepted();
        let heart = Arc::new(Heart::default());
        heart.load.store(state.load, Ordering::Relaxed);
        let (outgoing, queued) = mpsc::channel(OUTGOING_MAX);
        let (tell, events) = mpsc::channel(INCOMING_MAX);
        let stop = CancellationToken::new();
        let asked = Duration::from_millis(welcome.keep_alive_ms.into());
        let keep_alive = if asked.is_zero() { reach.timers.keep_alive } else { asked };
        let running = Running {
            reach: Arc::clone(reach),
            messages,
            queued,
            tell,
            invites: shared.invites.clone(),
            sessions: shared.sessions.subscribe(),
            address,
            vigil: Vigil::new(reach.source.towards(address), reach.now()),
            heart: Arc::clone(&heart),
            keep_alive: keep_alive.clamp(KEEP_ALIVE_MIN, KEEP_ALIVE_MAX),
            unanswered: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(running.run(stop.clone())));
        Ok(Self { broker, address, welcome, heart, outgoing, events, stop, task })
    }

    /// The broker's incarnation.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.welcome.incarnation
    }

    /// What comes next. Cancel-safe.
    pub(crate) async fn next_event(&mut self) -> LinkEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => LinkEvent::Ended("the link has ended".to_owned()),
        }
    }

    /// Sends what is queued, closes cleanly, and waits for it a moment.
    pub(crate) async fn close(self) {
        let Self { outgoing, events, stop, task, .. } = self;
        drop((outgoing, events));
        stop.cancel();
        drop(tokio::time::timeout(CLOSE_MAX * 2, task).await);
    }
}

async fn greet(
    messages: &mut MessageStream<Leg>,
    broker: &BrokerId,
    first: Option<Message>,
) -> Result<Welcome, String> {
    let hello = Hello {
        versions: version::SUPPORTED,
        features: version::FEATURES,
        incarnation: Incarnation(0),
        name: String::new(),
        addresses: Vec::new(),
        ext: Ext::none(),
    };
    messages.send(&hello.into()).await.map_err(|error| error.to_string())?;
    if let Some(first) = first {
        messages.send(&first).await.map_err(|error| error.to_string())?;
    }
    loop {
        match messages.recv().await.map_err(|error| error.to_string())? {
            Some(Message::Welcome(welcome)) if welcome.broker != *broker => {
                return Err(format!("{broker} says that it is {}", welcome.broker));
            }
            Some(Message::Welcome(welcome)) => {
                let (lowest, highest) = version::SUPPORTED;
                return if (lowest..=highest).contains(&welcome.version) {
                    Ok(welcome)
                } else {
                    Err(format!("{broker} speaks version {}: upgrade the older side", welcome.version))
                };
            }
            Some(_) => {}
            None => return Err(format!("{broker} closed the link before it said welcome")),
        }
    }
}

struct Running {
    reach: Arc<Reach>,
    messages: MessageStream<Leg>,
    queued: mpsc::Receiver<Message>,
    tell: mpsc::Sender<LinkEvent>,
    invites: mpsc::Sender<Invite>,
    sessions: watch::Receiver<usize>,
    address: SocketAddr,
    vigil: Vigil,
    heart: Arc<Heart>,
    keep_alive: Duration,
    unanswered: Option<(u64, Moment)>,
}

impl Running {
    async fn run(mut self, stop: CancellationToken) {
        if let Err(reason) = self.work(&stop).await {
            drop(self.tell.try_send(LinkEvent::Ended(reason)));
        }
        let (mut leg, _) = self.messages.into_inner();
        drop(tokio::time::timeout(CLOSE_MAX, leg.shutdown()).await);
    }

    /// Runs until the link is stopped (`Ok`) or ends by itself (`Err` with the reason).
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), String> {
        let mut next_ping = self.reach.now();
        loop {
            let answer_by = self.unanswered.map(|(_, sent)| sent + self.reach.timers.keep_alive_answer);
            let deadline = answer_by.unwrap_or(next_ping).min(next_ping).min(self.vigil.due());
            tokio::select! {
                biased;
                message = self.messages.recv() => self.handle_message(message.map_err(|e| e.to_string())?)?,
                Some(message) = self.queued.recv() => self.send(&message).await?,
                () = stop.cancelled() => return Ok(()),
                () = self.reach.nap_until(Some(deadline)) => {
                    let now = self.reach.now();
                    if now >= self.vigil.due() && self.look(now)? {
                        next_ping = now + jittered(self.keep_alive);
                        self.unanswered = None;
                        self.ping(now).await?;
                        continue;
                    }
                    if answer_by.is_some_and(|by| now >= by) {
                        return Err(format!("no answer for {:?}", self.reach.timers.keep_alive_answer));
                    }
                    if now >= next_ping {
                        next_ping = now + jittered(self.keep_alive);
                        self.ping(now).await?;
                    }
                }
            }
        }
    }

    /// Looks whether this machine slept or moved. True when the link is to be checked at once; an error when it is of no
    /// more use.
    fn look(&mut self, now: Moment) -> Result<bool, String> {
        let source = self.reach.source.towards(self.address);
        let in_session = *self.sessions.borrow() > 0;
        match self.vigil.look(source, in_session, now) {
            Finding::Calm => Ok(false),
            Finding::Slept(span) => {
                drop(self.tell.try_send(LinkEvent::Woke(span)));
                Ok(true)
            }
            Finding::Moved { from, to } => {
                drop(self.tell.try_send(LinkEvent::Moved { from, to }));
                Err(format!("this machine's address changed from {from} to {to}"))
            }
        }
    }

    async fn ping(&mut self, now: Moment) -> Result<(), String> {
        let nonce = rand::random();
        self.unanswered = self.unanswered.or(Some((nonce, now)));
        self.send(&Ping { nonce, ext: Ext::none() }.into()).await
    }

    async fn send(&mut self, message: &Message) -> Result<(), String> {
        let sent =
            tokio::time::timeout(self.reach.timers.keep_alive_answer, self.messages.send(message)).await;
        sent.map_err(|_| "the broker does not read".to_owned())?.map_err(|error| error.to_string())
    }

    fn handle_message(&mut self, message: Option<Message>) -> Result<(), String> {
        let event = match message {
            None => return Err("the broker closed the link".to_owned()),
            Some(Message::Invite(invite)) => {
                if self.invites.try_send(invite).is_err() {
                    tracing::warn!("an invite is dropped: too many wait");
                }
                return Ok(());
            }
            Some(Message::Pong(pong)) => {
                if let Some((nonce, sent)) = self.unanswered
                    && nonce == pong.nonce
                {
                    let round_trip = self.reach.now().since(sent).as_micros();
                    self.heart
                        .round_trip_us
                        .store(u32::try_from(round_trip).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
                    self.unanswered = None;
                }
                self.heart.load.store(pong.load, Ordering::Relaxed);
                LinkEvent::Pong(pong)
            }
            Some(Message::Registered(done)) => LinkEvent::Registered(done),
            Some(Message::RetryAfter(later)) => LinkEvent::RetryAfter(later),
            Some(Message::Superseded(by)) => LinkEvent::Superseded(by),
            Some(Message::Drain(drain)) => LinkEvent::Drain(drain),
            Some(other) if asks_for_nothing(other.kind()) => return Ok(()),
            Some(other) => {
                return Err(format!("the broker sent {:?}, which is not its to send", other.kind()));
            }
        };
        self.tell.try_send(event).map_err(|_| "the broker sends more than is taken".to_owned())
    }
}

/// What a broker may send on a control link and nobody here acts on.
fn asks_for_nothing(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::Welcome
            | MessageKind::PathClosed
            | MessageKind::Crl
            | MessageKind::Deny
            | MessageKind::ScoreReport
    )
}

/// `span` ± 10 %, so that thousands of links do not ping in step.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.9..=1.1))
}
