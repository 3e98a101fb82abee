//! A control connection that has carried a probe and may become the control link.

use std::net::SocketAddr;

use rc_proto::Moment;
use rc_proto::select::{AttemptFailure, Candidate, Expectation, ProbeState};
use rc_proto::wire::message::{Message, Ping, Pong};
use rc_proto::wire::{Alpn, BrokerId, Ext};
use rc_transport::{ConnectError, FramingError, Leg, LegError, MessageStream};

use crate::error::CandidateFault;
use crate::reach::Reach;

/// Messages that may come in front of a probe's answer before the broker is given up.
const STRAY_MESSAGES_MAX: usize = 64;

/// A proven control connection to a broker that answered a probe.
pub(crate) struct ProbeLink {
    pub(crate) messages: MessageStream<Leg>,
    pub(crate) broker: BrokerId,
    pub(crate) address: SocketAddr,
    pub(crate) state: ProbeState,
}

/// Why a candidate is not usable, for the machine and for people.
#[derive(Debug, Clone)]
pub(crate) struct ProbeFailure {
    pub(crate) kind: AttemptFailure,
    pub(crate) fault: CandidateFault,
    pub(crate) reason: String,
}

impl ProbeFailure {
    fn new(kind: AttemptFailure, reason: impl Into<String>) -> Self {
        let untrusted = kind == AttemptFailure::Identity;
        let fault = if untrusted { CandidateFault::Untrusted } else { CandidateFault::Unusable };
        Self { kind, fault, reason: reason.into() }
    }

    /// The broker does not take our certificate.
    fn refused_us(reason: String) -> Self {
        Self { kind: AttemptFailure::Handshake, fault: CandidateFault::RefusedUs, reason }
    }
}

impl From<ConnectError> for ProbeFailure {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Unreachable { .. } => AttemptFailure::Unreachable,
            ConnectError::Deadline { .. } => AttemptFailure::TimedOut,
            ConnectError::Certificate { .. } => AttemptFailure::Identity,
            ConnectError::Refused { .. } => return Self::refused_us(error.to_string()),
            ConnectError::BrokeOff { .. } | ConnectError::Tls { .. } => AttemptFailure::Handshake,
            ConnectError::Protocol { .. } => AttemptFailure::Protocol,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<FramingError> for ProbeFailure {
    fn from(error: FramingError) -> Self {
        let refused = match &error {
            FramingError::Io(io) => match LegError::of(io) {
                Some(refused @ LegError::CertificateRefused { .. }) => Some(refused.to_string()),
                Some(LegError::BrokeOff { .. } | LegError::Tls { .. }) | None => None,
            },
            FramingError::Truncated { .. }
            | FramingError::Envelope(_)
            | FramingError::Budget { .. }
            | FramingError::Message(_)
            | FramingError::NotAllowed { .. }
            | FramingError::Encode(_) => None,
        };
        match refused {
            Some(reason) => Self::refused_us(reason),
            None => Self::new(AttemptFailure::Protocol, error.to_string()),
        }
    }
}

impl ProbeLink {
    /// Dials a candidate and waits for one probe answer, all within the time for a dial.
    pub(crate) async fn dial(reach: &Reach, candidate: &Candidate) -> Result<Self, ProbeFailure> {
        let deadline = reach.timers.dial;
        match tokio::time::timeout(deadline, Self::prove(reach, candidate)).await {
            Ok(proven) => proven,
            Err(_) => {
                let reason = format!("{} answered no probe within {deadline:?}", candidate.address);
                Err(ProbeFailure::new(AttemptFailure::TimedOut, reason))
            }
        }
    }

    async fn prove(reach: &Reach, candidate: &Candidate) -> Result<Self, ProbeFailure> {
        let expect = match &candidate.expectation {
            Expectation::Name(name) => rc_transport::Expectation::ServiceName(name.clone()),
            Expectation::Broker(id) => rc_transport::Expectation::Broker(id.clone()),
        };
        let leg =
            reach.connector.connect(candidate.address, &expect, Alpn::Control, reach.timers.dial).await?;
        let Some(broker) = leg.peer().id.broker_id() else {
            return Err(ProbeFailure::new(AttemptFailure::Identity, "the peer is no broker"));
        };
        let mut messages = MessageStream::over(leg);
        let nonce = rand::random();
        messages.send(&Message::from(Ping { nonce, ext: Ext::none() })).await?;
        for _ in 0..STRAY_MESSAGES_MAX {
            let Some(message) = messages.recv().await? else {
                return Err(ProbeFailure::new(
                    AttemptFailure::Protocol,
                    format!("{} closed the connection before it answered a probe", candidate.address),
                ));
            };
            if let Message::Pong(pong) = message
                && pong.nonce == nonce
            {
                let state = checked_state(&broker, &pong, reach.now())?;
                return Ok(Self { messages, broker, address: candidate.address, state });
            }
        }
        Err(ProbeFailure::new(AttemptFailure::Protocol, "the broker sends, but answers no probe"))
    }

    /// Sends a probe.
    pub(crate) async fn send_probe(&mut self, nonce: u64) -> Result<(), ProbeFailure> {
        Ok(self.messages.send(&Message::from(Ping { nonce, ext: Ext::none() })).await?)
    }

    /// The next probe answer. Cancel-safe.
    pub(crate) async fn next_pong(&mut self, reach: &Reach) -> Result<Pong, ProbeFailure> {
        loop {
            match self.messages.recv().await? {
                Some(Message::Pong(pong)) => {
                    self.state = checked_state(&self.broker, &pong, reach.now())?;
                    return Ok(pong);
                }
                Some(_) => {}
                None => {
                    return Err(ProbeFailure::new(AttemptFailure::Protocol, "the broker closed the link"));
                }
            }
        }
    }
}

/// A probe answer must name the broker that the certificate names.
fn checked_state(broker: &BrokerId, pong: &Pong, now: Moment) -> Result<ProbeState, ProbeFailure> {
    if pong.broker != *broker {
        let reason = format!("{broker} says that it is {}", pong.broker);
        return Err(ProbeFailure::new(AttemptFailure::Identity, reason));
    }
    Ok(ProbeState::from_pong(pong, now))
}
