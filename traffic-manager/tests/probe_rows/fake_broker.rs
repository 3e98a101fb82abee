//! A broker as far as a probe can see: it accepts, shakes hands and answers Ping, or stops somewhere on the way.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::message::{Message, Pong, Unregister};
use rc_proto::wire::{BrokerId, Ext, Incarnation};
use rc_transport::testing::TestCa;
use rc_transport::{
    AcceptLimits, Accepted, Acceptor, Connection, ControlPeer, Leg, MessageStream, Net, TcpNet,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(crate) const SERVICE: &str = "brokers.mesh.test";

/// What the broker does with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    Draining,
    CutOff,
    /// Accepts TCP and nothing else, as a stopped process does.
    Frozen,
    /// Shakes hands and does not answer, as a stuck data path does.
    Stuck,
    /// Answers another probe.
    WrongNonce,
    /// Answers with another message.
    OtherMessage,
    /// Closes without an answer.
    Closing,
}

pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: AbortHandle,
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeBroker {
    pub(crate) async fn start(ca: &TestCa, id: &str) -> Self {
        let listener = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address();
        let credentials = Arc::new(ca.credentials(&format!("broker/{id}"), &[SERVICE]));
        let acceptor = Arc::new(Acceptor::new(credentials, AcceptLimits::default()));
        let (mode, current) = watch::channel(Mode::Healthy);
        let broker: BrokerId = id.parse().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let connection = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, Arc::clone(&acceptor), *current.borrow(), broker.clone()));
            }
        });
        Self { address, mode, accepting: accepting.abort_handle() }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send(mode).unwrap();
    }
}

async fn serve(connection: Connection, acceptor: Arc<Acceptor>, mode: Mode, broker: BrokerId) {
    if mode == Mode::Frozen {
        let _held = connection;
        std::future::pending::<()>().await;
        return;
    }
    let Ok(Accepted::Control { peer, leg }) = acceptor.accept(connection).await else { return };
    assert!(matches!(peer, ControlPeer::TrafficManager(_)), "{peer:?}");
    answer(leg, mode, broker).await;
}

async fn answer(leg: Leg, mode: Mode, broker: BrokerId) {
    let mut stream = MessageStream::over(leg);
    let Ok(Some(Message::Ping(ping))) = stream.recv().await else { return };
    let pong = Pong {
        nonce: if mode == Mode::WrongNonce { ping.nonce.wrapping_add(1) } else { ping.nonce },
        broker,
        incarnation: Incarnation(3),
        load: 125,
        paths: 4,
        accepting: mode != Mode::Draining,
        drain_deadline_ms: (mode == Mode::Draining).then_some(60_000),
        mesh_healthy: mode != Mode::CutOff,
        ext: Ext::default(),
    };
    match mode {
        Mode::Stuck => std::future::pending().await,
        Mode::Closing => return,
        Mode::OtherMessage => stream.send(&other_message()).await.unwrap_or_default(),
        Mode::Healthy | Mode::Draining | Mode::CutOff | Mode::WrongNonce | Mode::Frozen => {
            stream.send(&pong.into()).await.unwrap();
        }
    }
    // Until the prober has closed.
    stream.recv().await.ok();
}

fn other_message() -> Message {
    Unregister {
        instance: rc_proto::wire::InstanceId([1; 16]),
        generation: rc_proto::wire::Generation(1),
        ext: Ext::default(),
    }
    .into()
}

/// Waits until the condition holds; panics with the last state when it does not in time.
pub(crate) async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    deadline: Duration,
    mut look: impl FnMut() -> F,
    holds: impl Fn(&T) -> bool,
) -> Duration {
    let begin = tokio::time::Instant::now();
    loop {
        let state = look().await;
        if holds(&state) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < deadline, "not within {deadline:?}: {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
