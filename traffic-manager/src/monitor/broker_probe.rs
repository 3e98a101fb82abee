//! The probe of a broker: TLS with our own identity, then one Ping that the broker's data path answers. A process
//! that is frozen or stuck still accepts TCP; it does not answer this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::message::{Message, Ping, Pong};
use rc_proto::wire::{Alpn, Ext};
use rc_transport::{
    BoxFuture, Clock, ConnectError, Connector, Expectation, FramingError, LegError, MessageStream,
};

use super::driver::Prober;
use super::outcome::{ProbeFailure, Report};
use crate::decide::EndpointIndex;

/// Whom a probe dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where.
    pub address: SocketAddr,
    /// Who has to answer.
    pub expect: Expectation,
    /// How long the connection may take.
    pub timeout: Duration,
}

/// Probes brokers.
pub struct BrokerProbe<C> {
    connector: Arc<Connector>,
    clock: C,
    /// By endpoint index; `None` for endpoints that are not probed.
    targets: Vec<Option<ProbeTarget>>,
}

impl<C> std::fmt::Debug for BrokerProbe<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerProbe").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl<C: Clock + Clone> BrokerProbe<C> {
    /// A prober of these targets, each at its endpoint's index.
    pub const fn new(connector: Arc<Connector>, clock: C, targets: Vec<Option<ProbeTarget>>) -> Self {
        Self { connector, clock, targets }
    }
}

impl<C: Clock + Clone> Prober for BrokerProbe<C> {
    fn probe(&self, endpoint: EndpointIndex) -> BoxFuture<'static, Result<Report, ProbeFailure>> {
        let target = self.targets.get(endpoint.0).cloned().flatten();
        let (connector, clock) = (Arc::clone(&self.connector), self.clock.clone());
        Box::pin(async move {
            let Some(target) = target else {
                return Err(ProbeFailure::Unreachable { reason: "no address to probe".to_owned() });
            };
            ping(&connector, &clock, &target).await
        })
    }
}

async fn ping(
    connector: &Connector,
    clock: &impl Clock,
    target: &ProbeTarget,
) -> Result<Report, ProbeFailure> {
    let started = clock.now();
    let leg = connector
        .connect(target.address, &target.expect, Alpn::Control, target.timeout)
        .await
        .map_err(|error| connect_failure(&error))?;
    let mut stream = MessageStream::over(leg);
    let nonce = rand::random();
    stream.send(&Ping { nonce, ext: Ext::default() }.into()).await.map_err(|error| stream_failure(&error))?;
    let answer = stream.recv().await.map_err(|error| stream_failure(&error))?;
    let took = clock.now().since(started);
    let (_, mut writer) = stream.split();
    if let Err(error) = writer.close().await {
        tracing::trace!(%error, "a probe's connection did not end cleanly");
    }
    match answer {
        Some(Message::Pong(pong)) if pong.nonce == nonce => Ok(report(pong, took)),
        Some(Message::Pong(_)) => Err(misbehaved("the answer is to another probe")),
        Some(other) => Err(misbehaved(&format!("{:?} in place of Pong", other.kind()))),
        None => Err(ProbeFailure::Unreachable {
            reason: format!("{} closed the connection without an answer", target.address),
        }),
    }
}

fn report(pong: Pong, took: Duration) -> Report {
    Report {
        accepting: pong.accepting && pong.drain_deadline_ms.is_none(),
        broker: pong.broker,
        incarnation: pong.incarnation,
        load: pong.load,
        paths: pong.paths,
        mesh_healthy: pong.mesh_healthy,
        took,
    }
}

fn misbehaved(reason: &str) -> ProbeFailure {
    ProbeFailure::Misbehaved { reason: reason.to_owned() }
}

fn connect_failure(error: &ConnectError) -> ProbeFailure {
    let reason = error.to_string();
    match error {
        ConnectError::Deadline { deadline, .. } => ProbeFailure::Timeout { after: *deadline },
        ConnectError::Unreachable { .. } | ConnectError::BrokeOff { .. } => {
            ProbeFailure::Unreachable { reason }
        }
        ConnectError::Certificate { .. } | ConnectError::Refused { .. } => ProbeFailure::Untrusted { reason },
        ConnectError::Protocol { .. } | ConnectError::Tls { .. } => ProbeFailure::Misbehaved { reason },
    }
}

fn stream_failure(error: &FramingError) -> ProbeFailure {
    let reason = error.to_string();
    match error {
        FramingError::Io(source) => match LegError::of(source) {
            Some(LegError::CertificateRefused { .. }) => ProbeFailure::Untrusted { reason },
            Some(LegError::Tls { .. }) => ProbeFailure::Misbehaved { reason },
            Some(LegError::BrokeOff { .. }) | None => ProbeFailure::Unreachable { reason },
        },
        FramingError::Truncated { .. } => ProbeFailure::Unreachable { reason },
        FramingError::Envelope(_)
        | FramingError::Budget { .. }
        | FramingError::Message(_)
        | FramingError::NotAllowed { .. }
        | FramingError::Encode(_) => ProbeFailure::Misbehaved { reason },
    }
}
