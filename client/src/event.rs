//! What happened, with reasons: a bounded broadcast that an application may follow or ignore.

use std::net::{IpAddr, SocketAddr};

use rc_proto::recovery::Reason;
use rc_proto::wire::codes::{Denial, PathFailure, Purpose, RegistrationRole, ResetCode};
use rc_proto::wire::{BrokerId, ChannelId, EndpointId, Epoch, InstanceId, PathId, ServiceName, SessionId};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::status::SessionEnd;

/// Events that a follower may be behind before it misses some.
const EVENTS_BACKLOG_MAX: usize = 256;

/// Something that an operator or an application may want to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Event {
    /// A name could not be resolved now; a last-known-good list serves meanwhile when there is one.
    ResolveFailed {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A broker was tried and cannot be used.
    CandidateFailed {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A broker was chosen and its control link is up.
    Pinned {
        /// Which.
        broker: BrokerId,
        /// Where.
        address: SocketAddr,
        /// The rule that decided.
        rule: String,
    },
    /// The control link to the pinned broker ended.
    PinLost {
        /// Which.
        broker: BrokerId,
        /// Why.
        reason: String,
    },
    /// A broker is about to stop: the pinned one, and the endpoint moves, or a peer of it that a path crosses.
    Draining {
        /// Which.
        broker: BrokerId,
        /// Ms until it stops.
        deadline_ms: u32,
    },
    /// A Target's registration was confirmed.
    Registered {
        /// Where.
        broker: BrokerId,
        /// What it is registered as.
        role: RegistrationRole,
    },
    /// A second control link stands, which serves when the pinned broker is lost.
    SecondLinked {
        /// Which broker.
        broker: BrokerId,
        /// Where.
        address: SocketAddr,
    },
    /// The second control link ended.
    SecondLost {
        /// Which broker.
        broker: BrokerId,
        /// Why.
        reason: String,
    },
    /// This machine's own address changed: links and paths are made again.
    NetworkChanged {
        /// The address before.
        from: IpAddr,
        /// The address now.
        to: IpAddr,
    },
    /// This machine slept: links and paths are checked.
    Woke {
        /// About how long, in ms.
        slept_ms: u64,
    },
    /// Another process with the same identity took the registration.
    Superseded {
        /// The instance that has it now.
        by: InstanceId,
        /// Ms until this one tries again.
        back_off_ms: u64,
    },
    /// An invite, a leg or an end-to-end handshake did not become a session.
    InviteFailed {
        /// The path.
        path: PathId,
        /// Who asked, as the broker says.
        controller: EndpointId,
        /// Why.
        reason: String,
    },
    /// A Controller's ticket was refused.
    AttachRefused {
        /// Who asked.
        controller: EndpointId,
        /// Why.
        denial: Denial,
        /// The same in words.
        reason: String,
    },
    /// A broker refused a path.
    PathRefused {
        /// Which broker.
        broker: BrokerId,
        /// Why.
        code: PathFailure,
    },
    /// A fifth of the life of this process's certificate is left, or less.
    CertificateLow {
        /// Its file.
        file: String,
        /// Ms until it ends; 0 when it has.
        left_ms: u64,
        /// The command that renews it.
        renew: String,
    },
    /// A session began.
    SessionStarted {
        /// The session.
        session: SessionId,
        /// The other endpoint.
        peer: EndpointId,
        /// The path it began on, when a broker carries it.
        path: Option<PathId>,
    },
    /// A path was attached: it carries the session, or with epoch 0 stands by.
    PathOpened {
        /// The session.
        session: SessionId,
        /// The path, when a broker carries it.
        path: Option<PathId>,
        /// Its epoch.
        epoch: Epoch,
        /// The brokers that it crosses; on the Target's side only its own.
        brokers: Vec<BrokerId>,
    },
    /// The other endpoint is not heard on a path.
    PathSuspect {
        /// The session.
        session: SessionId,
        /// The path.
        path: Option<PathId>,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The other endpoint is heard on it again.
    PathTrusted {
        /// The session.
        session: SessionId,
        /// The path.
        path: Option<PathId>,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A path of a session that goes on is gone.
    PathEnded {
        /// The session.
        session: SessionId,
        /// The path.
        path: Option<PathId>,
        /// Its epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// No path carries the session; it is kept for its resume window.
    SessionDetached {
        /// The session.
        session: SessionId,
        /// How its last path ended.
        reason: String,
    },
    /// A Controller looks for another path.
    SessionMoving {
        /// The session.
        session: SessionId,
        /// Resume or handover.
        purpose: Purpose,
        /// Why.
        reason: Reason,
    },
    /// A path that a session wants could not be had; it goes on trying.
    PathAttemptFailed {
        /// The session.
        session: SessionId,
        /// Through which broker, and what happened.
        reason: String,
    },
    /// The session goes on over another path.
    SessionMoved {
        /// The session.
        session: SessionId,
        /// The path.
        path: Option<PathId>,
        /// Resume or handover.
        purpose: Purpose,
        /// Why; `None` at a Target when the Controller alone knows.
        reason: Option<Reason>,
        /// Ms from the suspicion, the loss or the wish until the path carried the session.
        took_ms: u64,
    },
    /// No fresh ticket could be had; it is asked for again. The session ends a minute after its ticket does.
    TicketRenewalFailed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// The other endpoint.
        peer: EndpointId,
        /// How.
        end: SessionEnd,
    },
    /// A channel was opened and accepted.
    ChannelOpened {
        /// The session.
        session: SessionId,
        /// The channel.
        channel: ChannelId,
        /// What it was opened to.
        service: ServiceName,
    },
    /// A channel was refused.
    ChannelRefused {
        /// The session.
        session: SessionId,
        /// The channel.
        channel: ChannelId,
        /// What it was to be opened to.
        service: ServiceName,
        /// Why.
        code: ResetCode,
    },
    /// The follower was too slow and missed events.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Where events are published; cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog {
    sender: broadcast::Sender<Event>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_BACKLOG_MAX) }
    }
}

impl EventLog {
    /// Publishes `event` to every follower, and to the log at DEBUG.
    pub fn publish(&self, event: Event) {
        tracing::debug!(?event, "event");
        // Nobody listening is normal: events are an offer.
        drop(self.sender.send(event));
    }

    /// Follows events from now on.
    pub fn follow(&self) -> Events {
        Events { receiver: self.sender.subscribe() }
    }
}

/// Follows the events of one Controller or Target.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the Controller or Target is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_follower_is_told_how_many_events_it_missed() {
        let log = EventLog::default();
        let mut events = log.follow();
        for _ in 0..EVENTS_BACKLOG_MAX + 3 {
            log.publish(Event::Missed { count: 0 });
        }
        assert_eq!(events.next().await, Some(Event::Missed { count: 3 }));
        assert_eq!(events.next().await, Some(Event::Missed { count: 0 }));
    }

    #[test]
    fn an_event_serialises_under_its_kebab_case_name() {
        let event = Event::Draining { broker: "in/b".parse().unwrap(), deadline_ms: 7 };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"draining","broker":"in/b","deadline_ms":7}"#);
    }
}
