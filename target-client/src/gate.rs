//! Who is admitted: the ticket's signature, its judgement, single use and its record on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rc_client::{Joined, SetupError};
use rc_proto::Moment;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{
    Claim, DenyList, DenyLists, KeyThumbprint, Presented, Start, Ticket, TicketKeys, UsedTickets,
    judge_at_target,
};
use rc_proto::session::Tombstones;
use rc_proto::wire::SessionId;
use rc_proto::wire::codes::{Denial, EndCode};

use crate::used_store::UsedStore;

/// Longest file of revoked tickets that is read.
const DENY_FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

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
    pub(crate) start: Start,
}

impl Request {
    pub(crate) fn of(joined: &Joined, start: Start) -> Self {
        Self {
            ticket: joined.ticket().to_owned(),
            controller: joined.controller().clone(),
            key: *joined.key(),
            start,
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
    /// Reads the ticket keys, the list of revoked tickets, and what earlier runs remember of used ones.
    pub(crate) fn open(
        own_id: SpiffeId,
        key_files: &[PathBuf],
        deny_list: Option<&Path>,
        state_dir: Option<PathBuf>,
    ) -> Result<Self, SetupError> {
        let keys = read_keys(key_files)?;
        let mut denied = DenyLists::default();
        if let Some(file) = deny_list {
            denied.adopt(read_deny_list(file, &keys)?);
        }
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
        let state = GateState { used, store, denied, ended: Tombstones::default() };
        Ok(Self { own_id, keys, state: Arc::new(Mutex::new(state)) })
    }

    /// Judges the ticket of a session that wants to start, whose use is on disk when this returns, or of a further path.
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

    /// A session that is kept for `window` without a path has ended: a late ATTACH is told so.
    pub(crate) fn note_ended(&self, session: SessionId, code: EndCode, window: Duration, now: Moment) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended.insert(session, code, window, now);
    }
}

impl GateState {
    fn claim(&mut self, ticket: &Ticket, own_id: &SpiffeId, request: &Request) -> Result<(), Refusal> {
        let presented = Presented { controller: &request.controller, key: &request.key, target: own_id };
        let start = request.start;
        let claim = judge_at_target(ticket, &presented, unix_s(), &self.denied, start, &mut self.used)
            .map_err(|refusal| Refusal { denial: refusal.denial(), reason: refusal.to_string() })?;
        if let (Some(Claim::First(used)), Some(store)) = (claim, &mut self.store)
            && let Err(error) = store.keep(&used, &self.used)
        {
            // Nothing was started, so the same ticket may come again once the directory can be written.
            self.used.take_back(&used);
            tracing::error!(%error, "a used ticket cannot be written to the state directory");
            return Err(internal(
                "the target cannot remember used tickets: its state directory is not writable",
            ));
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

fn read_deny_list(file: &Path, keys: &TicketKeys) -> Result<DenyList, SetupError> {
    let wrong = |reason: String| SetupError::DenyList { file: file.display().to_string(), reason };
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > DENY_FILE_BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes, at most {DENY_FILE_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let check = rc_transport::verify_with(keys);
    DenyList::parse(text.trim())
        .and_then(|list| list.verify(&check))
        .map_err(|error| wrong(error.to_string()))
}

/// The wall clock in unix s.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use rc_proto::identity::ticket::{DenyClaims, TicketClaims};
    use rc_proto::wire::Jti;
    use rc_transport::TicketSigner;

    use super::*;

    const KEY: KeyThumbprint = KeyThumbprint([5; 32]);

    struct Scene {
        signer: TicketSigner,
        dir: tempfile::TempDir,
    }

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://mesh.test/{path}").parse().unwrap()
    }

    impl Scene {
        fn new() -> Self {
            let scene = Self { signer: TicketSigner::generate().unwrap(), dir: tempfile::tempdir().unwrap() };
            let mut keys = TicketKeys::default();
            keys.insert(scene.signer.kid().clone(), scene.signer.public_key()).unwrap();
            std::fs::write(scene.keys(), keys.to_json()).unwrap();
            scene
        }

        fn keys(&self) -> PathBuf {
            self.dir.path().join("ticket-keys.json")
        }

        fn gate(&self, state_dir: Option<&Path>) -> Gate {
            Gate::open(id("target/pc-17"), &[self.keys()], None, state_dir.map(Path::to_owned)).unwrap()
        }

        fn claims(&self) -> TicketClaims {
            let now = unix_s();
            TicketClaims {
                iss: "test".to_owned(),
                sub: id("controller/alice"),
                aud: id("target/pc-17"),
                iat: now,
                nbf: now,
                jti: Jti([1; 16]),
                perm: vec!["echo".parse().unwrap()],
                cnf: KEY,
                start_by: now + 300,
                exp: now + 3600,
            }
        }

        fn request(&self, change: impl FnOnce(&mut TicketClaims)) -> Request {
            let mut claims = self.claims();
            change(&mut claims);
            Request {
                ticket: self.signer.sign_ticket(&claims).unwrap(),
                controller: id("controller/alice"),
                key: KEY,
                start: Start::New(SessionId([1; 16])),
            }
        }
    }

    async fn denial(gate: &Gate, request: Request) -> Denial {
        gate.judge(request).await.unwrap_err().denial
    }

    #[tokio::test]
    async fn a_ticket_starts_one_session_and_only_that_one() {
        let scene = Scene::new();
        let gate = scene.gate(Some(scene.dir.path()));
        let ticket = gate.judge(scene.request(|_| {})).await.unwrap();
        assert!(ticket.permits(&"echo".parse().unwrap()));
        assert!(gate.judge(scene.request(|_| {})).await.is_ok());
        let other = Request { start: Start::New(SessionId([2; 16])), ..scene.request(|_| {}) };
        assert_eq!(denial(&gate, other).await, Denial::TICKET_USED);
    }

    #[tokio::test]
    async fn a_used_ticket_stays_used_after_a_restart() {
        let scene = Scene::new();
        let state = scene.dir.path();
        scene.gate(Some(state)).judge(scene.request(|_| {})).await.unwrap();
        let other = Request { start: Start::New(SessionId([2; 16])), ..scene.request(|_| {}) };
        assert_eq!(denial(&scene.gate(Some(state)), other).await, Denial::TICKET_USED);
        assert!(scene.gate(Some(state)).judge(scene.request(|_| {})).await.is_ok());
    }

    #[tokio::test]
    async fn without_a_state_directory_tickets_from_before_the_start_are_refused() {
        let scene = Scene::new();
        let old = scene.request(|claims| claims.iat -= 120);
        assert_eq!(denial(&scene.gate(None), old).await, Denial::TICKET_USED);
        assert!(scene.gate(None).judge(scene.request(|_| {})).await.is_ok());
    }

    #[tokio::test]
    async fn a_further_path_takes_any_ticket_that_is_good_now_and_uses_none_up() {
        let scene = Scene::new();
        let gate = scene.gate(Some(scene.dir.path()));
        let resume = |change: &dyn Fn(&mut TicketClaims)| Request {
            start: Start::Resume,
            ..scene.request(|claims| {
                claims.nbf -= 4000;
                claims.iat -= 4000;
                change(claims);
            })
        };
        let now = unix_s();
        // The time to start is over, the ticket was never used here, and it comes twice.
        for _ in 0..2 {
            gate.judge(resume(&|claims| claims.start_by = now - 3000)).await.unwrap();
        }
        gate.judge(scene.request(|_| {})).await.unwrap();
        assert_eq!(denial(&gate, resume(&|claims| claims.exp = now - 100)).await, Denial::TICKET_EXPIRED);
        let other_key = Request { key: KeyThumbprint([6; 32]), ..resume(&|_| {}) };
        assert_eq!(denial(&gate, other_key).await, Denial::NOT_PERMITTED);
    }

    #[tokio::test]
    async fn each_flaw_of_a_ticket_has_its_denial() {
        let scene = Scene::new();
        let gate = scene.gate(None);
        let now = unix_s();
        let expired = scene.request(|claims| {
            claims.nbf = now - 300;
            claims.exp = now - 100;
        });
        assert_eq!(denial(&gate, expired).await, Denial::TICKET_EXPIRED);
        assert_eq!(
            denial(&gate, scene.request(|claims| claims.start_by = now - 100)).await,
            Denial::TICKET_EXPIRED
        );
        assert_eq!(denial(&gate, scene.request(|claims| claims.nbf = now + 200)).await, Denial::CLOCK);
        let other_target = scene.request(|claims| claims.aud = id("target/pc-18"));
        assert_eq!(denial(&gate, other_target).await, Denial::NOT_PERMITTED);
        let other_controller = scene.request(|claims| claims.sub = id("controller/bob"));
        assert_eq!(denial(&gate, other_controller).await, Denial::NOT_PERMITTED);
        let other_key = Request { key: KeyThumbprint([6; 32]), ..scene.request(|_| {}) };
        assert_eq!(denial(&gate, other_key).await, Denial::NOT_PERMITTED);
    }

    #[tokio::test]
    async fn a_flipped_bit_and_an_unknown_key_are_refused() {
        let scene = Scene::new();
        let gate = scene.gate(None);
        let mut flipped = scene.request(|_| {});
        let middle = flipped.ticket.len() / 2;
        let flip = if flipped.ticket.as_bytes()[middle] == b'A' { "B" } else { "A" };
        flipped.ticket.replace_range(middle..=middle, flip);
        assert_eq!(denial(&gate, flipped).await, Denial::NOT_PERMITTED);
        let stranger = Scene::new().request(|_| {});
        assert_eq!(denial(&gate, stranger).await, Denial::NOT_PERMITTED);
    }

    #[test]
    fn a_key_file_that_cannot_be_used_is_named() {
        let scene = Scene::new();
        std::fs::write(scene.keys(), "{}").unwrap();
        let error = Gate::open(id("target/pc-17"), &[scene.keys()], None, None).err().unwrap().to_string();
        assert!(error.contains("ticket-keys.json"), "{error}");
    }

    #[tokio::test]
    async fn a_ticket_whose_use_cannot_be_kept_starts_nothing_and_is_good_later() {
        let scene = Scene::new();
        let state = scene.dir.path();
        let gate = scene.gate(Some(state));
        gate.state.lock().unwrap().store.as_mut().unwrap().fail_next_write();
        assert_eq!(denial(&gate, scene.request(|_| {})).await, Denial::BUSY);
        // Neither session got it, so another one may, and its use is on disk.
        let other = Request { start: Start::New(SessionId([2; 16])), ..scene.request(|_| {}) };
        gate.judge(other).await.unwrap();
        assert_eq!(denial(&scene.gate(Some(state)), scene.request(|_| {})).await, Denial::TICKET_USED);
    }

    #[tokio::test]
    async fn a_ticket_on_the_deny_list_is_revoked() {
        let scene = Scene::new();
        let claims = DenyClaims { number: 1, iat: unix_s(), jti: [Jti([1; 16])].into(), sub: [].into() };
        let file = scene.dir.path().join("deny.jws");
        std::fs::write(&file, scene.signer.sign_deny_list(&claims).unwrap() + "\n").unwrap();
        let gate = Gate::open(id("target/pc-17"), &[scene.keys()], Some(&file), None).unwrap();
        assert_eq!(denial(&gate, scene.request(|_| {})).await, Denial::REVOKED);
        assert!(gate.judge(scene.request(|claims| claims.jti = Jti([2; 16]))).await.is_ok());
    }

    #[test]
    fn a_deny_list_of_an_unknown_key_is_refused_by_name() {
        let (scene, stranger) = (Scene::new(), Scene::new());
        let claims = DenyClaims { number: 1, iat: unix_s(), jti: [].into(), sub: [].into() };
        let file = scene.dir.path().join("deny.jws");
        std::fs::write(&file, stranger.signer.sign_deny_list(&claims).unwrap()).unwrap();
        let error = Gate::open(id("target/pc-17"), &[scene.keys()], Some(&file), None).err().unwrap();
        assert!(error.to_string().contains("deny.jws"), "{error}");
    }
}
