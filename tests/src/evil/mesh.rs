//! What an evil broker says to an honest one: that every Target is here, and that Controllers have asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Announce, Here, MeshOpen, Message};
use rc_proto::wire::{Alpn, BrokerId, Ext, Generation, InstanceId, PathId};
use rc_transport::{Connector, Expectation, Leg, MessageStream, TcpNet};
use tokio::time::timeout;

use super::broker::{EvilBroker, Shared, Wanted};
use super::deed::Deed;

const DIAL_MAX: Duration = Duration::from_secs(3);
/// For an honest broker to open what was invented.
const OPEN_MAX: Duration = Duration::from_secs(5);

impl EvilBroker {
    /// Joins the mesh of an honest broker, stays in it until it is left, and lies about every Target it knows.
    ///
    /// # Errors
    /// When the honest broker does not answer.
    pub async fn join_mesh(&self, honest: &BrokerId, address: SocketAddr) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        shared.remember(honest, address);
        let leg = dial(&shared, honest, address, Alpn::Mesh).await?;
        let mut stream = MessageStream::over(leg);
        stream.send(&shared.hello().into()).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move { shared.converse(stream).await });
        Ok(())
    }
}

async fn dial(shared: &Shared, broker: &BrokerId, address: SocketAddr, alpn: Alpn) -> Result<Leg, String> {
    let connector = Connector::new(Arc::clone(&shared.credentials), Arc::new(TcpNet));
    let expect = Expectation::Broker(broker.clone());
    connector.connect(address, &expect, alpn, DIAL_MAX).await.map_err(|error| error.to_string())
}

impl Shared {
    pub(super) async fn serve_mesh(&self, leg: Leg) {
        let mut stream = MessageStream::over(leg);
        if let Ok(Some(Message::Hello(_))) = stream.recv().await {
            stream.accepted();
            if stream.send(&self.welcome().into()).await.is_ok() {
                self.converse(stream).await;
            }
        }
    }

    /// Answers everything, and everything with a lie where one is possible.
    async fn converse(&self, mut stream: MessageStream<Leg>) {
        let mut announced = 0_u64;
        while let Ok(Some(message)) = stream.recv().await {
            let mut answers: Vec<Message> = Vec::new();
            if let Message::Ping(ping) = message {
                answers.push(self.pong(ping.nonce).into());
                // A registration of each Target that is later than any that it made.
                for (target, instance, generation) in self.targets() {
                    announced += 1;
                    let announce = Announce {
                        incarnation: self.incarnation,
                        target,
                        instance,
                        instance_started_ms: 0,
                        generation: Generation(generation.0 + 1_000 + announced),
                        role: RegistrationRole::PRIMARY,
                        present: true,
                        ext: Ext::none(),
                    };
                    answers.push(announce.into());
                }
            } else if let Message::Locate(locate) = message {
                let here = Here {
                    query: locate.query,
                    instance: locate.instance.unwrap_or(InstanceId(rand::random())),
                    role: RegistrationRole::PRIMARY,
                    cost_us: 1,
                    ext: Ext::none(),
                };
                answers.push(here.into());
            }
            for answer in answers {
                if stream.send(&answer).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Asks an honest broker for the Target in a Controller's name, with that Controller's own ticket, and plays an
    /// earlier path into what it gets.
    pub(super) async fn invent_open(&self, wanted: &Wanted) {
        let Some((honest, address)) = self.honest() else { return };
        let Ok(leg) = dial(self, &honest, address, Alpn::Path).await else { return };
        let mut open = wanted.open.clone();
        open.path_id = PathId(rand::random());
        open.route = Vec::new();
        let request = MeshOpen {
            origin: self.id.clone(),
            controller: wanted.controller.clone(),
            controller_certificate: wanted.certificate.clone(),
            open,
            ext: Ext::none(),
        };
        let mut stream = MessageStream::over(leg);
        if stream.send(&request.into()).await.is_err() {
            return;
        }
        if let Ok(Ok(Some(Message::PathOpened(_)))) = timeout(OPEN_MAX, stream.recv()).await {
            let (leg, _) = stream.into_inner();
            self.impose(Deed::PlayBack, leg, wanted).await;
        }
    }
}
