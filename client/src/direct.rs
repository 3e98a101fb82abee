//! A session whose path is a byte stream that the caller brings: no broker carries it and no ticket is judged.
//!
//! For measurements against the way through brokers, and for tests of applications.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::session::SessionConfig;
use rc_proto::wire::{EndpointId, InstanceId, SessionId};
use rc_transport::BootClock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::AttachError;
use crate::session::{OfferQueue, PathFacts, SessionHandle, SessionSetup, admit, attach, read_attach};

/// Channels that wait for the Target at once.
const OFFERS_MAX: usize = 16;

/// The Controller's side: a session with whoever is at the other end of `stream`, who should be `target`.
///
/// # Errors
/// When the other end does not answer within `deadline`.
pub async fn connect<S>(
    stream: S,
    target: EndpointId,
    deadline: Duration,
) -> Result<SessionHandle, AttachError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let session = SessionId(rand::random());
    attach(&setup(), session, target, stream, PathFacts::default(), String::new(), deadline).await
}

/// The Target's side: admits whoever is at the other end of `stream`, who should be `controller`, to everything.
///
/// # Errors
/// When the other end does not ask for a session within `deadline`.
pub async fn accept<S>(
    mut stream: S,
    controller: EndpointId,
    deadline: Duration,
) -> Result<(SessionHandle, OfferQueue), AttachError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (wanted, early) = read_attach(&mut stream, &controller, deadline).await.map_err(AttachError::from)?;
    let peer = controller.to_string();
    let facts = PathFacts::default();
    admit(&setup(), controller, &wanted, |_| true, stream, early, facts, OFFERS_MAX)
        .map_err(|(_, refused)| AttachError::Protocol { peer, reason: refused.code.to_string() })
}

fn setup() -> SessionSetup {
    SessionSetup {
        instance: InstanceId(rand::random()),
        // There is no other path to wait for.
        config: SessionConfig { resume_window: Duration::ZERO, ..SessionConfig::default() },
        clock: Arc::new(BootClock),
        events: crate::event::EventLog::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    }
}
