//! What a Target answers to each kind of ATTACH: paths through a real broker, and a Controller that says what the test
//! wants.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what went wrong by stopping"
)]

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/doc-mesh.rs"));

use std::sync::Arc;
use std::time::Duration;

use rc_client::CredentialFiles;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{KeyThumbprint, TicketClaims};
use rc_proto::session::{PathKey, Session, SessionConfig, SessionEvent};
use rc_proto::wire::codes::{AttachKind, Denial, EndCode, Lane, Purpose, Refusal};
use rc_proto::wire::frame::{Attach, Attached, EndToEnd as Answer, Refused};
use rc_proto::wire::message::OpenPath;
use rc_proto::wire::{Alpn, Envelope, Epoch, Ext, InstanceId, Jti, PathId, SessionId};
use rc_target_client::{Event, Target, TargetConfig};
use rc_transport::{
    BootClock, Clock, Connector, Credentials, EndToEnd, EndToEndStream, Expectation, Leg, MessageStream,
    PathIo, TcpNet, TicketSigner,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(20);

type Stream = EndToEndStream<PathIo<Leg>>;

/// A mesh of one broker, a Target, and who signs its tickets.
struct Scene {
    mesh: DocMesh,
    signer: TicketSigner,
    target: Target,
}

fn unix_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

async fn scene(change: impl FnOnce(&mut TargetConfig)) -> Scene {
    let mesh = DocMesh::start().await;
    let key_file = mesh.directory().join("ticket-keys.json");
    let mut client = mesh.config("pc-17");
    client.resume_window = Some(Duration::from_secs(150));
    let mut config = TargetConfig::new(client, [key_file]);
    change(&mut config);
    let target = Target::start(config).unwrap();
    target.registered().await.unwrap();
    let key = std::fs::read_to_string(mesh.directory().join("ticket.key")).unwrap();
    Scene { signer: TicketSigner::from_pem(&key).unwrap(), mesh, target }
}

/// A Controller with a key of its own.
struct Controller<'s> {
    scene: &'s Scene,
    id: SpiffeId,
    credentials: Arc<Credentials>,
}

impl Scene {
    fn alice(&self) -> Controller<'_> {
        self.controller("alice", &DocMesh::files(&self.mesh.ca, "alice"))
    }

    fn bob(&self) -> Controller<'_> {
        let files = self.mesh.ca.issue(&self.mesh.ca.id("controller/bob"), &[]);
        self.controller("bob", &files)
    }

    fn controller(&self, name: &str, files: &CredentialFiles) -> Controller<'_> {
        let credentials = Arc::new(Credentials::load(files).unwrap());
        Controller { scene: self, id: self.mesh.ca.id(&format!("controller/{name}")), credentials }
    }
}

impl Controller<'_> {
    fn ticket(&self, number: u8, change: impl FnOnce(&mut TicketClaims)) -> String {
        let now = unix_s();
        let mut claims = TicketClaims {
            iss: "test".to_owned(),
            sub: self.id.clone(),
            aud: self.scene.mesh.ca.id("target/pc-17"),
            iat: now,
            nbf: now,
            jti: Jti([number; 16]),
            perm: vec!["echo".parse().unwrap()],
            cnf: KeyThumbprint(self.credentials.key_thumbprint()),
            start_by: now + 300,
            exp: now + 3600,
        };
        change(&mut claims);
        self.scene.signer.sign_ticket(&claims).unwrap()
    }

    /// A path to the Target, with end-to-end TLS done.
    async fn path(&self, ticket: &str, purpose: Purpose) -> Stream {
        let broker = &self.scene.mesh.broker;
        let connector = Connector::new(Arc::clone(&self.credentials), Arc::new(TcpNet));
        let expect = Expectation::Broker(broker.id().clone());
        let leg = connector.connect(broker.addresses()[0], &expect, Alpn::Path, DEADLINE).await.unwrap();
        let open = OpenPath {
            path_id: PathId(rand_bytes()),
            target: "pc-17".parse().unwrap(),
            ticket: ticket.to_owned(),
            purpose,
            lane: Lane::INTERACTIVE,
            instance: None,
            route: Vec::new(),
            avoid: Vec::new(),
            deadline_ms: 15_000,
            ext: Ext::none(),
        };
        let mut messages = MessageStream::over(leg);
        messages.send(&open.into()).await.unwrap();
        let wanted = self.scene.mesh.ca.id("target/pc-17");
        EndToEnd::client(&self.credentials, messages.into_path(), &wanted).await.unwrap()
    }

    /// Attaches over a fresh path; the path is to be held for as long as it is wanted.
    async fn attach(
        &self,
        kind: AttachKind,
        session: SessionId,
        epoch: u64,
        ticket: &str,
    ) -> (Result<Attached, Refused>, Stream) {
        let purpose = match kind {
            AttachKind::NEW => Purpose::NEW,
            AttachKind::STANDBY => Purpose::STANDBY,
            _ => Purpose::RESUME,
        };
        let mut stream = self.path(ticket, purpose).await;
        let attach = Attach {
            session,
            epoch: Epoch(epoch),
            kind,
            lane: Lane::INTERACTIVE,
            instance: InstanceId([1; 16]),
            ticket: ticket.to_owned(),
            channels: Vec::new(),
            features: 0,
            ext: Ext::none(),
        };
        stream.write_all(&Answer::Attach(attach).to_bytes().unwrap()).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            if let Some((envelope, _)) = Envelope::parse_prefix(&bytes, 1 << 14).unwrap() {
                let answer = match Answer::from_envelope(&envelope).unwrap().unwrap() {
                    Answer::Attached(attached) => Ok(attached),
                    Answer::Refused(refused) => Err(refused),
                    Answer::Attach(_) => panic!("a Target attaches nothing"),
                };
                return (answer, stream);
            }
            let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "the path ended without an answer");
        }
    }
}

fn rand_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let drawn = std::collections::hash_map::RandomState::new();
    for half in bytes.chunks_mut(8) {
        half.copy_from_slice(&std::hash::BuildHasher::hash_one(&drawn, half.as_ptr()).to_be_bytes());
    }
    bytes
}

const SESSION: SessionId = SessionId([7; 16]);
const OTHER: SessionId = SessionId([8; 16]);

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_session_takes_a_further_path_with_any_ticket_that_is_good_now() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let mut events = scene.target.events();
    let (started, _first) = alice.attach(AttachKind::NEW, SESSION, 1, &alice.ticket(1, |_| {})).await;
    assert_eq!(started.unwrap().epoch, Epoch(1));
    // Its time to start is over, and it has started nothing.
    let late = alice.ticket(2, |claims| {
        claims.iat -= 3000;
        claims.nbf -= 3000;
        claims.start_by -= 2000;
    });
    let (resumed, _second) = alice.attach(AttachKind::RESUME, SESSION, 2, &late).await;
    assert_eq!(resumed.unwrap().epoch, Epoch(2));
    let (ready, _third) = alice.attach(AttachKind::STANDBY, SESSION, 0, &late).await;
    assert_eq!(ready.unwrap().epoch, Epoch(0));
    let (stale, _) = alice.attach(AttachKind::RESUME, SESSION, 2, &late).await;
    let stale = stale.unwrap_err();
    assert_eq!((stale.code, stale.highest), (Refusal::STALE_EPOCH, Epoch(2)));
    assert_eq!(scene.target.sessions().len(), 1);
    let mut epochs = Vec::new();
    while epochs.len() < 2 {
        if let Event::PathOpened { epoch, .. } = events.next().await.unwrap()
            && epoch != Epoch(1)
        {
            epochs.push(epoch);
        }
    }
    assert_eq!(epochs, [Epoch(2), Epoch(0)]);
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_repeated_and_starts_nothing_new() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let ticket = alice.ticket(1, |_| {});
    for epoch in [1, 2] {
        let (started, _) = alice.attach(AttachKind::NEW, SESSION, epoch, &ticket).await;
        assert_eq!(started.unwrap().epoch, Epoch(epoch));
    }
    assert_eq!(scene.target.sessions().len(), 1);
    let (other, _) = alice.attach(AttachKind::NEW, OTHER, 1, &ticket).await;
    assert_eq!(other.unwrap_err().denial, Some(Denial::TICKET_USED));
}

#[tokio::test]
async fn two_starts_of_one_session_at_once_are_one_session() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let ticket = alice.ticket(1, |_| {});
    let (one, two) = tokio::join!(
        alice.attach(AttachKind::NEW, SESSION, 1, &ticket),
        alice.attach(AttachKind::NEW, SESSION, 2, &ticket),
    );
    // The later epoch is always taken; the earlier one only when it came first.
    assert_eq!(two.0.unwrap().epoch, Epoch(2));
    let stale = |refused: Refused| assert_eq!(refused.code, Refusal::STALE_EPOCH);
    one.0.map_or_else(stale, |attached| assert_eq!(attached.epoch, Epoch(1)));
    assert_eq!(scene.target.sessions().len(), 1);
}

#[tokio::test]
async fn a_session_is_unknown_to_everybody_but_its_controller() {
    let scene = scene(|_| {}).await;
    let (alice, bob) = (scene.alice(), scene.bob());
    let (started, _first) = alice.attach(AttachKind::NEW, SESSION, 1, &alice.ticket(1, |_| {})).await;
    let instance = started.unwrap().instance;
    for kind in [AttachKind::RESUME, AttachKind::NEW, AttachKind::STANDBY] {
        let epoch = if kind == AttachKind::STANDBY { 0 } else { 9 };
        let (refused, _) = bob.attach(kind, SESSION, epoch, &bob.ticket(2, |_| {})).await;
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.instance), (Refusal::UNKNOWN_SESSION, instance));
    }
    let (refused, _) = alice.attach(AttachKind::RESUME, OTHER, 1, &alice.ticket(3, |_| {})).await;
    assert_eq!(refused.unwrap_err().code, Refusal::UNKNOWN_SESSION);
    let (resumed, _) = alice.attach(AttachKind::RESUME, SESSION, 2, &alice.ticket(3, |_| {})).await;
    assert!(resumed.is_ok(), "{resumed:?}");
}

#[tokio::test]
async fn a_session_that_has_ended_says_how() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let mut talk = alice.talk();
    talk.add_path(&alice, 1, Purpose::NEW, alice.ticket(1, |_| {})).await;
    let mut events = scene.target.events();
    assert!(scene.target.disconnect(SESSION));
    talk.until(ended).await;
    while !matches!(events.next().await.unwrap(), Event::SessionEnded { .. }) {}
    let told = async {
        loop {
            let (refused, _) = alice.attach(AttachKind::RESUME, SESSION, 2, &alice.ticket(2, |_| {})).await;
            let refused = refused.unwrap_err();
            if refused.code == Refusal::ENDED {
                return refused.ended;
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, told).await.unwrap(), Some(EndCode::DISCONNECTED));
}

#[tokio::test]
async fn a_full_target_refuses_a_session_and_takes_a_further_path() {
    let scene = scene(|config| config.limits.sessions = 1).await;
    let alice = scene.alice();
    let (started, _first) = alice.attach(AttachKind::NEW, SESSION, 1, &alice.ticket(1, |_| {})).await;
    started.unwrap();
    let (refused, _) = alice.attach(AttachKind::NEW, OTHER, 1, &alice.ticket(2, |_| {})).await;
    assert_eq!(refused.unwrap_err().denial, Some(Denial::BUSY));
    let (resumed, _second) = alice.attach(AttachKind::RESUME, SESSION, 2, &alice.ticket(3, |_| {})).await;
    assert_eq!(resumed.unwrap().epoch, Epoch(2));
}

#[tokio::test]
async fn a_session_ends_with_the_ticket_that_it_last_attached_with() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let mut talk = alice.talk();
    talk.add_path(&alice, 1, Purpose::NEW, alice.ticket(1, |_| {})).await;
    // Within the leeway, and over in three seconds.
    let ending = alice.ticket(2, |claims| {
        claims.iat -= 3000;
        claims.nbf -= 3000;
        claims.start_by = claims.iat + 300;
        claims.exp = unix_s() - 57;
    });
    talk.add_path(&alice, 2, Purpose::RESUME, ending).await;
    assert_eq!(talk.until(ended).await, EndCode::TICKET_EXPIRED);
}

/// A Controller's session over real paths.
struct Conversation {
    session: Session,
    clock: BootClock,
    paths: Vec<(PathKey, Stream)>,
}

impl Controller<'_> {
    fn talk(&self) -> Conversation {
        let clock = BootClock;
        let instance = InstanceId([1; 16]);
        let session = Session::controller(SessionConfig::default(), SESSION, instance, clock.now());
        Conversation { session, clock, paths: Vec::new() }
    }
}

/// How the session ended.
fn ended(event: &SessionEvent) -> Option<EndCode> {
    let SessionEvent::Ended { code, .. } = event else { return None };
    Some(*code)
}

impl Conversation {
    /// Attaches a further path, and waits until the Target has taken it.
    async fn add_path(&mut self, controller: &Controller<'_>, number: u64, purpose: Purpose, ticket: String) {
        let key = PathKey(number);
        let stream = controller.path(&ticket, purpose).await;
        self.session.attach(key, purpose, Lane::INTERACTIVE, ticket, self.clock.now()).unwrap();
        self.paths.push((key, stream));
        let attached = |event: &SessionEvent| {
            matches!(event, SessionEvent::Attached { path, .. } if *path == key).then_some(())
        };
        self.until(attached).await;
    }

    /// Sends what is to be said.
    async fn flush(&mut self) {
        for (key, stream) in &mut self.paths {
            let mut out = Vec::new();
            self.session.poll_transmit(*key, self.clock.now(), 64 * 1024, &mut out);
            stream.write_all(&out).await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    async fn until<T>(&mut self, wanted: impl Fn(&SessionEvent) -> Option<T>) -> T {
        let by = std::time::Instant::now() + DEADLINE;
        loop {
            while let Some(event) = self.session.poll_event() {
                if let Some(found) = wanted(&event) {
                    self.flush().await;
                    return found;
                }
            }
            assert!(std::time::Instant::now() < by, "it did not happen in time");
            self.flush().await;
            for (key, stream) in &mut self.paths {
                let mut bytes = vec![0; 4096];
                let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut bytes)).await;
                if let Ok(count) = read {
                    let count = count.unwrap();
                    self.session.handle_bytes(*key, &bytes[..count], self.clock.now()).unwrap();
                }
            }
            self.session.handle_timeout(self.clock.now());
        }
    }
}

#[tokio::test]
async fn an_attach_on_a_path_that_stood_by_is_judged_like_any_other() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let ticket = alice.ticket(1, |_| {});
    let mut talk = alice.talk();
    talk.add_path(&alice, 1, Purpose::NEW, ticket.clone()).await;
    talk.add_path(&alice, 2, Purpose::STANDBY, ticket).await;
    // A ticket of another key.
    let stolen = alice.ticket(2, |claims| claims.cnf = KeyThumbprint([9; 32]));
    talk.session.activate(PathKey(2), stolen, talk.clock.now()).unwrap();
    let denial = talk
        .until(|event| {
            let SessionEvent::RefusedByPeer { path: PathKey(2), refused } = event else { return None };
            Some(refused.denial)
        })
        .await;
    assert_eq!(denial, Some(Denial::NOT_PERMITTED));
}

#[tokio::test]
async fn a_path_that_stood_by_carries_the_session_once_its_attach_is_accepted() {
    let scene = scene(|_| {}).await;
    let alice = scene.alice();
    let ticket = alice.ticket(1, |_| {});
    let mut talk = alice.talk();
    talk.add_path(&alice, 1, Purpose::NEW, ticket.clone()).await;
    talk.add_path(&alice, 2, Purpose::STANDBY, ticket).await;
    let epoch = talk.session.activate(PathKey(2), alice.ticket(2, |_| {}), talk.clock.now()).unwrap();
    let attached = talk
        .until(|event| {
            let SessionEvent::Attached { path: PathKey(2), epoch } = event else { return None };
            Some(*epoch)
        })
        .await;
    assert_eq!((attached, epoch), (Epoch(2), Epoch(2)));
    eventually("the target counts it", || {
        scene.target.sessions().iter().flat_map(|session| &session.paths).any(|path| path.epoch == Epoch(2))
    })
    .await;
}
