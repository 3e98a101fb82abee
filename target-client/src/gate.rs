//! Who is admitted: the ticket's signature, its judgement, single use and its record on disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rc_client::{Joined, SetupError};
use rc_proto::Moment;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{
    Claim, DenyLists, KeyThumbprint, Presented, Start, Ticket, TicketKeys, UsedTickets, judge_at_target,
};
use rc_proto::session::Tombstones;
use rc_proto::wire::SessionId;
use rc_proto::wire::codes::{Denial, EndCode};

use crate::used_store::UsedStore;

/// Why a Controller is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) denial: Denial,
    pub(crate) reason: String,
}

/// Who asks for what.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) ticket: String,
    pub(crate) controller: SpiffeId,
    pub(crate) key: KeyThumbprint,
    pub(crate) session: SessionId,
}

impl Request {
    pub(crate) fn of(joined: &Joined) -> Self {
        Self {
            ticket: joined.ticket().to_owned(),
            controller: joined.controller().clone(),
            key: *joined.key(),
            session: joined.session(),
        }
    }
}

/// Judges tickets; shared by every path that is being joined.
pub(crate) struct Gate {
    own_id: SpiffeId,
    keys: TicketKeys,
    state: Arc<Mutex<GateState>>,
}

struct GateState {
    used: UsedTickets,
    store: Option<UsedStore>,
    denied: DenyLists,
    ended: Tombstones,
}

impl Gate {
    /// Reads the ticket keys, and what earlier runs remember of used tickets.
    pub(crate) fn open(
        own_id: SpiffeId,
        key_files: &[PathBuf],
        state_dir: Option<PathBuf>,
    ) -> Result<Self, SetupError> {
        let keys = read_keys(key_files)?;
        let now_unix_s = unix_s();
        let (store, used) = match state_dir {
            None => (None, UsedTickets::without_history(now_unix_s)),
            Some(directory) => {
                let (store, used) = UsedStore::open(&directory, now_unix_s).map_err(|error| {
                    SetupError::StateDir { path: directory.display().to_string(), reason: error.to_string() }
                })?;
                (Some(store), used)
            }
        };
        let state = GateState { used, store, denied: DenyLists::default(), ended: Tombstones::default() };
        Ok(Self { own_id, keys, state: Arc::new(Mutex::new(state)) })
    }

    /// Judges the ticket of a session that wants to start; its use is on disk when this returns.
    pub(crate) async fn judge(&self, request: Request) -> Result<Ticket, Refusal> {
        let check = rc_transport::verify_with(&self.keys);
        let ticket = Ticket::parse(&request.ticket)
            .and_then(|ticket| ticket.verify(&check))
            .map_err(|error| Refusal { denial: Denial::NOT_PERMITTED, reason: error.to_string() })?;
        let (own_id, state) = (self.own_id.clone(), Arc::clone(&self.state));
        let judged = tokio::task::spawn_blocking(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.claim(&ticket, &own_id, &request).map(|()| ticket)
        });
        judged.await.unwrap_or_else(|_| Err(internal("the ticket could not be judged")))
    }

    /// How `session` ended, if it did lately.
    pub(crate) fn ended(&self, session: SessionId, now: Moment) -> Option<EndCode> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended.ended(session, now)
    }

    /// A session has ended: a late ATTACH is told so.
    pub(crate) fn note_ended(&self, session: SessionId, code: EndCode, now: Moment) {
        let window = std::time::Duration::ZERO;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended.insert(session, code, window, now);
    }
}

impl GateState {
    fn claim(&mut self, ticket: &Ticket, own_id: &SpiffeId, request: &Request) -> Result<(), Refusal> {
        let presented = Presented { controller: &request.controller, key: &request.key, target: own_id };
        let start = Start::New(request.session);
        let claim = judge_at_target(ticket, &presented, unix_s(), &self.denied, start, &mut self.used)
            .map_err(|refusal| Refusal { denial: refusal.denial(), reason: refusal.to_string() })?;
        if let (Some(Claim::First(used)), Some(store)) = (claim, &mut self.store) {
            store.keep(&used, &self.used).map_err(|error| {
                tracing::error!(%error, "a used ticket cannot be written to the state directory");
                internal("the target cannot remember used tickets: its state directory is not writable")
            })?;
        }
        Ok(())
    }
}

fn internal(reason: &str) -> Refusal {
    Refusal { denial: Denial::BUSY, reason: reason.to_owned() }
}

fn read_keys(files: &[PathBuf]) -> Result<TicketKeys, SetupError> {
    let mut keys = TicketKeys::default();
    for file in files {
        let wrong = |reason: String| SetupError::TicketKeys { file: file.display().to_string(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let parsed = TicketKeys::parse(&text).map_err(|error| wrong(error.to_string()))?;
        for (kid, key) in parsed.iter() {
            keys.insert(kid.clone(), *key).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(keys)
}

/// The wall clock in unix s.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
