//! How a session begins on its first path: the Controller attaches, the Target reads the ATTACH, admits or refuses it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::session::attach::{FirstEnvelopeError, read_first};
use rc_proto::session::{PathKey, Session, SessionConfig};
use rc_proto::wire::codes::{Purpose, Refusal};
use rc_proto::wire::frame::{Attach, Refused};
use rc_proto::wire::{EndpointId, InstanceId, ServiceName, SessionId};
use rc_transport::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::SessionCore;
use super::handle::{OfferQueue, Owner, SessionHandle};
use super::paths::Attaching;
use super::pump::{PathStream, pump};
use super::state::{AttachAnswer, PathFacts};
use crate::error::AttachError;
use crate::event::EventLog;
use crate::reach::nap_until;

/// Time and bytes for a refusal to reach the peer before the path is closed.
const REFUSAL_MAX: Duration = Duration::from_secs(2);
const REFUSAL_DISCARD_BYTES_MAX: usize = 256 * 1024;

/// What a session needs from its endpoint.
#[derive(Clone)]
pub(crate) struct SessionSetup {
    pub(crate) instance: InstanceId,
    pub(crate) config: SessionConfig,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where it tells what happens to it.
    pub(crate) events: EventLog,
    /// Owns the session's tasks.
    pub(crate) tasks: TaskTracker,
    /// Ends them without a word.
    pub(crate) stop: CancellationToken,
}

impl SessionCore {
    /// Runs the pump of a path that is there.
    pub(super) fn spawn_pump<S: PathStream>(self: &Arc<Self>, key: PathKey, stream: S, early: Vec<u8>) {
        let (core, stop) = (Arc::clone(self), self.setup.stop.clone());
        self.setup.tasks.spawn(async move {
            let moved = stop.run_until_cancelled(pump(Arc::clone(&core), key, stream, early)).await;
            if moved.is_none() {
                core.path_gone(key, "this process stops");
            }
        });
    }

    fn spawn_timer(self: &Arc<Self>) {
        let (core, stop) = (Arc::clone(self), self.setup.stop.clone());
        self.setup.tasks.spawn(async move { stop.run_until_cancelled(keep_time(core)).await });
    }
}

/// Calls the session when it wants to be, until nothing can happen any more.
async fn keep_time(core: Arc<SessionCore>) {
    loop {
        let (deadline, spent) = core.look(|state, _| (state.timeout(), state.is_spent()));
        if spent {
            return;
        }
        tokio::select! {
            biased;
            () = core.timer.notified() => {}
            () = nap_until(core.clock(), deadline) => core.with(|state, now| state.session.handle_timeout(now)),
        }
    }
}

/// Controller: a session that no path has carried yet. Give it paths until one is taken.
pub(crate) struct Beginning {
    core: Arc<SessionCore>,
    owner: Arc<Owner>,
}

impl Beginning {
    /// Session `id` with `target`.
    pub(crate) fn new(setup: &SessionSetup, id: SessionId, target: EndpointId) -> Self {
        let now = setup.clock.now();
        let session = Session::controller(setup.config.clone(), id, setup.instance, now);
        let core = Arc::new(SessionCore::new(id, target, session, setup.clone(), None));
        let owner = Owner::of(Arc::clone(&core));
        core.spawn_timer();
        Self { core, owner }
    }

    /// Attaches over `stream` and waits for the Target's answer. After an error that another path may help against,
    /// call it again: the same session asks once more, with the next epoch, and an answer that was lost costs nothing.
    pub(crate) async fn attach<S: PathStream>(
        &self,
        stream: S,
        facts: PathFacts,
        ticket: String,
        deadline: Duration,
    ) -> Result<SessionHandle, AttachError> {
        let target = || self.core.peer().clone();
        let Attaching { key, answer, .. } = self
            .core
            .attach_path(stream, facts, Purpose::NEW, ticket, None)
            .map_err(|error| AttachError::Refused { target: target(), refusal: error.to_string() })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(AttachAnswer::Attached)) => Ok(SessionHandle::new(Arc::clone(&self.owner))),
            Ok(Ok(AttachAnswer::Refused(refused))) => Err(refusal(target(), &refused)),
            Ok(Ok(AttachAnswer::PathGone(reason))) => {
                Err(AttachError::PathEnded { peer: target().to_string(), reason })
            }
            Ok(Err(_)) => {
                let reason = "the path is gone".to_owned();
                Err(AttachError::PathEnded { peer: target().to_string(), reason })
            }
            Err(_) => {
                self.core.with(|state, _| state.close_path(key, "the target did not answer"));
                Err(AttachError::Deadline { peer: target().to_string(), waited: deadline })
            }
        }
    }
}

impl Drop for Beginning {
    /// A session that never began ends without a word, and its paths with it.
    fn drop(&mut self) {
        self.core.with(|state, _| state.abandon_unless_started());
        self.core.timer.notify_one();
    }
}

/// Controller: starts session `id` over `stream`, the only one that it ever gets, and waits for the Target's answer.
pub(crate) async fn attach<S: PathStream>(
    setup: &SessionSetup,
    id: SessionId,
    target: EndpointId,
    stream: S,
    facts: PathFacts,
    ticket: String,
    deadline: Duration,
) -> Result<SessionHandle, AttachError> {
    Beginning::new(setup, id, target).attach(stream, facts, ticket, deadline).await
}

fn refusal(target: EndpointId, refused: &Refused) -> AttachError {
    match (refused.code, refused.denial) {
        (Refusal::DENIED, Some(denial)) => {
            AttachError::Denied { target, denial, reason: refused.reason.clone() }
        }
        (code, _) if refused.reason.is_empty() => AttachError::Refused { target, refusal: code.to_string() },
        (code, _) => AttachError::Refused { target, refusal: format!("{code}: {}", refused.reason) },
    }
}

/// Why no ATTACH was read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The Controller speaks another version: tell it so.
    Version(AttachError),
    /// There is nobody to answer.
    Failed(AttachError),
}

impl From<Unread> for AttachError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Version(error) | Unread::Failed(error) => error,
        }
    }
}

/// Target: reads the ATTACH that starts a path, and what came behind it.
pub(crate) async fn read_attach<S: PathStream>(
    stream: &mut S,
    peer: &EndpointId,
    deadline: Duration,
) -> Result<(Attach, Vec<u8>), Unread> {
    let reading = async {
        let mut buffer = Vec::with_capacity(4096);
        loop {
            match read_first(&buffer) {
                Ok(Some((attach, used))) => return Ok((attach, buffer.split_off(used))),
                Ok(None) => {}
                Err(error) => return Err(first_error(peer, &error)),
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return Err(Unread::Failed(path_ended(peer, "closed without a request"))),
                Ok(_) => {}
                Err(error) => return Err(Unread::Failed(path_ended(peer, &error.to_string()))),
            }
        }
    };
    match tokio::time::timeout(deadline, reading).await {
        Ok(read) => read,
        Err(_) => Err(Unread::Failed(AttachError::Deadline { peer: peer.to_string(), waited: deadline })),
    }
}

fn first_error(peer: &EndpointId, error: &FirstEnvelopeError) -> Unread {
    let told = AttachError::Protocol { peer: peer.to_string(), reason: error.to_string() };
    match error {
        FirstEnvelopeError::Version { .. } => Unread::Version(told),
        FirstEnvelopeError::TooLarge
        | FirstEnvelopeError::Malformed { .. }
        | FirstEnvelopeError::NotAttach => Unread::Failed(told),
    }
}

fn path_ended(peer: &EndpointId, reason: &str) -> AttachError {
    AttachError::PathEnded { peer: peer.to_string(), reason: reason.to_owned() }
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is of another kind, and it has one caller per way to arrive"
)]
/// Target: takes the session that `attach` asks for; identity and ticket were judged. At most `offers_max` channels
/// wait for the application.
pub(crate) fn admit<S: PathStream>(
    setup: &SessionSetup,
    controller: EndpointId,
    attach: &Attach,
    permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
    stream: S,
    early: Vec<u8>,
    facts: PathFacts,
    offers_max: usize,
) -> Result<(SessionHandle, OfferQueue), (S, Box<Refused>)> {
    let now = setup.clock.now();
    let session = Session::target(setup.config.clone(), attach.session, setup.instance, now);
    let (tell, offers) = mpsc::channel(offers_max.max(1));
    let core = Arc::new(SessionCore::new(attach.session, controller, session, setup.clone(), Some(tell)));
    let owner = Owner::of(Arc::clone(&core));
    core.accept_path(stream, attach, permits, early, facts)?;
    core.spawn_timer();
    Ok((SessionHandle::new(owner), OfferQueue::new(offers, core)))
}

/// Target: answers an ATTACH with a refusal, and lets the peer read it before the path closes.
pub(crate) async fn refuse<S: PathStream>(mut stream: S, refused: &Refused) {
    let answer = async {
        stream.write_all(&refused.to_bytes()).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut left = REFUSAL_DISCARD_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut scratch).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    drop(tokio::time::timeout(REFUSAL_MAX, answer).await);
}
