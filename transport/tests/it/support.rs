//! A broker's listener and what a test needs around it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::Alpn;
use rc_transport::testing::TestCa;
use rc_transport::{
    AcceptError, AcceptLimits, Accepted, Acceptor, ConnectError, Connector, Credentials, Expectation, Leg,
    Listener, Net, TcpNet,
};
use tokio::io::AsyncReadExt;

/// Generous: a test that needs it has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const BROKER: &str = "broker/in/b-1";
pub(crate) const SERVICE: &str = "mesh.example";

/// One broker's way in.
pub(crate) struct Door {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) acceptor: Acceptor,
}

impl Door {
    pub(crate) async fn open(ca: &TestCa) -> Self {
        Self::with(ca.credentials(BROKER, &[SERVICE]), AcceptLimits::default()).await
    }

    pub(crate) async fn with(credentials: Credentials, limits: AcceptLimits) -> Self {
        let listener = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self { listener, acceptor: Acceptor::new(Arc::new(credentials), limits) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    pub(crate) async fn accept(&self) -> Result<Accepted, AcceptError> {
        let connection = self.listener.accept().await.unwrap();
        self.acceptor.accept(connection).await
    }

    /// Dials this door and takes the connection in.
    pub(crate) async fn meet(
        &self,
        credentials: Credentials,
        expect: &Expectation,
        alpn: Alpn,
    ) -> (Result<Leg, ConnectError>, Result<Accepted, AcceptError>) {
        let connector = Connector::new(Arc::new(credentials), Arc::new(TcpNet));
        let dial = connector.connect(self.address(), expect, alpn, SOON);
        tokio::join!(dial, self.accept())
    }

    /// The same, when one side refuses: what the dialler hears, and why the connection was not taken.
    pub(crate) async fn clash(
        &self,
        credentials: Credentials,
        expect: &Expectation,
        alpn: Alpn,
    ) -> (Result<io::Error, ConnectError>, Result<Accepted, AcceptError>) {
        let connector = Connector::new(Arc::new(credentials), Arc::new(TcpNet));
        let dial = async {
            // The peer judges our certificate after this side is done: its word comes with the first read.
            let mut leg = connector.connect(self.address(), expect, alpn, SOON).await?;
            Ok(leg.read(&mut [0; 16]).await.unwrap_err())
        };
        tokio::join!(dial, self.accept())
    }
}

pub(crate) fn service() -> Expectation {
    Expectation::ServiceName(SERVICE.to_owned())
}
