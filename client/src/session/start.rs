//! How a session begins on its first path: the Controller attaches, the Target reads the ATTACH, admits or refuses it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::session::attach::{FirstEnvelopeError, read_first};
use rc_proto::session::{Session, SessionConfig};
use rc_proto::wire::codes::{Lane, Purpose, Refusal};
use rc_proto::wire::frame::{Attach, Refused};
use rc_proto::wire::{EndpointId, InstanceId, ServiceName, SessionId};
use rc_transport::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::SessionCore;
use super::handle::{OfferQueue, Owner, SessionHandle};
use super::pump::{PathStream, pump};
use super::state::{AttachAnswer, PathFacts};
use crate::error::AttachError;
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
    /// Owns the session's tasks.
    pub(crate) tasks: TaskTracker,
    /// Ends them without a word.
    pub(crate) stop: CancellationToken,
}

impl SessionSetup {
    /// Runs the pump of a path that is there.
    fn spawn_pump<S: PathStream>(
        &self,
        core: &Arc<SessionCore>,
        key: rc_proto::session::PathKey,
        stream: S,
        early: Vec<u8>,
    ) {
        let (core, stop) = (Arc::clone(core), self.stop.clone());
        self.tasks.spawn(async move {
            let moved = stop.run_until_cancelled(pump(Arc::clone(&core), key, stream, early)).await;
            if moved.is_none() {
                core.path_gone(key, "this process stops");
            }
        });
    }

    fn spawn_timer(&self, core: &Arc<SessionCore>) {
        let (core, stop) = (Arc::clone(core), self.stop.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(keep_time(core)).await });
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

/// Controller: starts session `id` over `stream` and waits for the Target's answer.
pub(crate) async fn attach<S: PathStream>(
    setup: &SessionSetup,
    id: SessionId,
    target: EndpointId,
    stream: S,
    facts: PathFacts,
    ticket: String,
    deadline: Duration,
) -> Result<SessionHandle, AttachError> {
    let now = setup.clock.now();
    let session = Session::controller(setup.config.clone(), id, setup.instance, now);
    let core = Arc::new(SessionCore::new(id, target.clone(), session, Arc::clone(&setup.clock), None));
    let owner = Owner::of(Arc::clone(&core));
    let lane = facts.lane.unwrap_or(Lane::INTERACTIVE);
    let key = core.add_path(facts);
    let answer = core.with(|state, now| {
        let answer = state.await_attach(key);
        state.session.attach(key, Purpose::NEW, lane, ticket, now).map(|_| answer)
    });
    let answer = answer
        .map_err(|error| AttachError::Refused { target: target.clone(), refusal: error.to_string() })?;
    setup.spawn_pump(&core, key, stream, Vec::new());
    setup.spawn_timer(&core);
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(AttachAnswer::Attached)) => Ok(SessionHandle::new(owner)),
        Ok(Ok(AttachAnswer::Refused(refused))) => {
            core.give_up();
            Err(refusal(target, &refused))
        }
        Ok(Ok(AttachAnswer::PathGone(reason))) => {
            core.give_up();
            Err(AttachError::PathEnded { peer: target.to_string(), reason })
        }
        Ok(Err(_)) => {
            core.give_up();
            Err(AttachError::PathEnded { peer: target.to_string(), reason: "the path is gone".to_owned() })
        }
        Err(_) => {
            core.give_up();
            Err(AttachError::Deadline { peer: target.to_string(), waited: deadline })
        }
    }
}

impl SessionCore {
    /// The session never began: ends it and its path without a word.
    fn give_up(&self) {
        self.with(|state, _| state.abandon());
        self.timer.notify_one();
    }
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
    let clock = Arc::clone(&setup.clock);
    let core = Arc::new(SessionCore::new(attach.session, controller, session, clock, Some(tell)));
    let owner = Owner::of(Arc::clone(&core));
    let key = core.add_path(facts);
    let accepted = core.with(|state, now| state.session.accept_attach(key, attach, permits, now));
    if let Err(refused) = accepted {
        return Err((stream, refused));
    }
    setup.spawn_pump(&core, key, stream, early);
    setup.spawn_timer(&core);
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
