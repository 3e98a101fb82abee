//! The probe of a broker: TLS with our own identity, then one Ping that the broker's data path answers. A process
//! that is frozen or stuck still accepts TCP; it does not answer this.

use std::net::SocketAddr;
use std::time::Duration;

use rc_proto::wire::message::{Message, Ping, Pong};
use rc_proto::wire::{Alpn, Ext};
use rc_transport::{Clock, ConnectError, Connector, Expectation, FramingError, LegError, MessageStream};

use super::outcome::{BrokerReport, ProbeFailure, Report};

/// Asks the broker at `address`.
pub(super) async fn ping(
    connector: &Connector,
    clock: &impl Clock,
    address: SocketAddr,
    expect: &Expectation,
    timeout: Duration,
) -> Result<Report, ProbeFailure> {
    let started = clock.now();
    let leg = connector
        .connect(address, expect, Alpn::Control, timeout)
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
            reason: format!("{} closed the connection without an answer", address),
        }),
    }
}

fn report(pong: Pong, took: Duration) -> Report {
    Report {
        took,
        load: pong.load,
        accepting: pong.accepting && pong.drain_deadline_ms.is_none(),
        mesh_healthy: pong.mesh_healthy,
        broker: Some(BrokerReport { broker: pong.broker, incarnation: pong.incarnation, paths: pong.paths }),
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
