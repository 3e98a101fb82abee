//! Further paths of a session that runs: the Controller attaches them, the Target accepts what its caller has judged.
//!
//! Whoever calls has proven the other end of a stream; everything else about a path, from its first frame to its end, is
//! the session's. A path that dies, is retired or refused takes only its own stream with it. A session without a path
//! waits for the next one until its resume window has run out.

use std::sync::Arc;

use rc_proto::identity::ticket::KeyThumbprint;
use rc_proto::recovery::AttemptId;
use rc_proto::session::{AttachError, PathKey};
use rc_proto::wire::codes::{Denial, Purpose, Refusal};
use rc_proto::wire::frame::{Attach, Refused};
use rc_proto::wire::{Epoch, ServiceName, SessionId};
use tokio::sync::oneshot;

use super::core::SessionCore;
use super::handle::{SessionHandle, ended};
use super::pump::PathStream;
use super::state::{AttachAnswer, PathFacts};

/// Paths of one session at once, those that stand by or are on their way out included; a further one is refused.
const PATHS_MAX: usize = 8;

/// A path whose ATTACH is on its way.
#[derive(Debug)]
pub(crate) struct Attaching {
    pub(crate) key: PathKey,
    /// 0 for a path that will stand by.
    #[cfg_attr(not(test), expect(dead_code, reason = "the session knows it; tests compare it"))]
    pub(crate) epoch: Epoch,
    pub(super) answer: oneshot::Receiver<AttachAnswer>,
}

impl SessionCore {
    /// Controller: sends ATTACH over `stream` for the session to use as `purpose` says, and pumps the path from now on.
    /// What becomes of it is told by the session; [`Attaching`] tells the answer to this ATTACH alone. The planner is told
    /// that the path of `attempt` is being attached.
    ///
    /// # Errors
    /// When the session is over; the stream is dropped then.
    pub(crate) fn attach_path<S: PathStream>(
        self: &Arc<Self>,
        stream: S,
        facts: PathFacts,
        purpose: Purpose,
        ticket: String,
        attempt: Option<AttemptId>,
    ) -> Result<Attaching, AttachError> {
        let attaching = self.with(|state, now| {
            let lane = facts.lane.unwrap_or(rc_proto::wire::codes::Lane::INTERACTIVE);
            let key = state.add_path(facts);
            let answer = state.await_attach(key);
            match state.session.attach(key, purpose, lane, ticket, now) {
                Ok(epoch) => {
                    if let Some(plan) = &mut state.moves.plan
                        && let Some(attempt) = attempt
                    {
                        plan.handle_attaching(attempt, key, epoch, purpose, now);
                    }
                    Ok(Attaching { key, epoch, answer })
                }
                Err(error) => {
                    state.forget_path(key);
                    Err(error)
                }
            }
        })?;
        self.spawn_pump(attaching.key, stream, Vec::new());
        Ok(attaching)
    }

    /// Target: gives the session a further path whose other end is the session's Controller and whose ATTACH the
    /// caller has judged. `permits` is what the ticket of this ATTACH allows; it replaces what an earlier one allowed,
    /// and resets the channels that are no longer permitted. `early` are the bytes that came behind the ATTACH.
    ///
    /// # Errors
    /// The stream, and the answer that the caller writes on it with [`super::refuse`]. The session is unchanged.
    pub(crate) fn accept_path<S: PathStream>(
        self: &Arc<Self>,
        stream: S,
        attach: &Attach,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
        early: Vec<u8>,
        facts: PathFacts,
    ) -> Result<Epoch, (S, Box<Refused>)> {
        let accepted = self.with(|state, now| {
            if state.paths.len() >= PATHS_MAX {
                let refused = Refused::denied(Denial::BUSY, self.setup.instance);
                return Err(Box::new(refused));
            }
            let key = state.add_path(facts);
            match state.session.accept_attach(key, attach, permits, now) {
                Ok(epoch) => Ok((key, epoch)),
                Err(refused) => {
                    state.forget_path(key);
                    Err(refused)
                }
            }
        });
        match accepted {
            Ok((key, epoch)) => {
                self.spawn_pump(key, stream, early);
                Ok(epoch)
            }
            Err(refused) => Err((stream, refused)),
        }
    }
}

impl SessionHandle {
    /// Target: gives the session a further path; see [`SessionCore::accept_path`].
    pub(crate) fn accept_path<S: PathStream>(
        &self,
        stream: S,
        attach: &Attach,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
        early: Vec<u8>,
        facts: PathFacts,
    ) -> Result<Epoch, (S, Box<Refused>)> {
        self.shared_core().accept_path(stream, attach, permits, early, facts)
    }

    /// Target: the next ATTACH on a path that stood by, for the caller to judge; `None` once the session has ended.
    /// Dropping the future loses nothing.
    pub async fn next_attach_request(&self) -> Option<AttachRequest> {
        let core = self.shared_core();
        loop {
            let mut told = std::pin::pin!(core.requests.notified());
            told.as_mut().enable();
            if let Some((path, attach)) = core.with(|state, _| state.moves.take_request()) {
                return Some(AttachRequest { core: Arc::clone(&core), path, attach, answered: false });
            }
            tokio::select! {
                biased;
                () = told => {}
                _ = ended(&core) => return None,
            }
        }
    }
}

/// Target: the Controller wants to use a path that stood by. Dropping the request closes the path without a word.
pub struct AttachRequest {
    core: Arc<SessionCore>,
    path: PathKey,
    attach: Box<Attach>,
    answered: bool,
}

impl std::fmt::Debug for AttachRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachRequest").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AttachRequest {
    /// The session.
    pub fn session(&self) -> SessionId {
        self.attach.session
    }

    /// The ticket that it presents, as compact JWS.
    pub fn ticket(&self) -> &str {
        &self.attach.ticket
    }

    /// Thumbprint of the key that the Controller proved when the path was made, when it is known.
    pub fn key(&self) -> Option<KeyThumbprint> {
        self.core.look(|state, _| state.paths.get(&self.path).and_then(|path| path.facts.peer_key))
    }

    /// Moves the session to the path. `permits` replaces what an earlier ticket allowed.
    ///
    /// # Errors
    /// Why the protocol's own rules forbid it; the Controller is told.
    pub fn accept(
        mut self,
        permits: impl Fn(&ServiceName) -> bool + Send + Sync + 'static,
    ) -> Result<Epoch, Refusal> {
        self.answered = true;
        let accepted =
            self.core.with(|state, now| state.session.accept_attach(self.path, &self.attach, permits, now));
        accepted.map_err(|refused| refused.code)
    }

    /// Says no to the ticket; the path is closed behind the answer.
    pub fn deny(mut self, denial: Denial, reason: &str) {
        self.answered = true;
        let refused =
            Refused { reason: reason.to_owned(), ..Refused::denied(denial, self.core.setup.instance) };
        self.core.with(|state, _| state.session.refuse_attach(self.path, &refused));
    }
}

impl Drop for AttachRequest {
    fn drop(&mut self) {
        if !self.answered {
            self.core.with(|state, _| state.close_path(self.path, "nobody judged its ticket"));
        }
    }
}
