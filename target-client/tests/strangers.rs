//! What strangers may cost a Target, through a real broker on loopback.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::{Lane, Purpose};
use rc_proto::wire::message::OpenPath;
use rc_proto::wire::{Alpn, Ext, PathId};
use rc_target_client::{Event, Events, Target, TargetConfig};
use rc_transport::{Connector, Credentials, Expectation, Leg, MessageStream, TcpNet};

include!("../../client/doc-mesh.rs");

const DEADLINE: Duration = Duration::from_secs(10);

/// A Controller that opens a path and then says nothing.
async fn silent_controller(mesh: &DocMesh, path: u8) -> MessageStream<Leg> {
    let credentials = Credentials::load(&DocMesh::files(&mesh.ca, "alice")).unwrap();
    let connector = Connector::new(Arc::new(credentials), Arc::new(TcpNet));
    let expect = Expectation::Broker(mesh.broker.id().clone());
    let leg = connector.connect(mesh.broker.addresses()[0], &expect, Alpn::Path, DEADLINE).await.unwrap();
    let mut messages = MessageStream::over(leg);
    let open = OpenPath {
        path_id: PathId([path; 16]),
        target: "pc-17".parse().unwrap(),
        ticket: std::fs::read_to_string(mesh.directory().join("pc-17.ticket")).unwrap(),
        purpose: Purpose::NEW,
        lane: Lane::INTERACTIVE,
        instance: None,
        route: vec![],
        avoid: vec![],
        deadline_ms: 10_000,
        ext: Ext::none(),
    };
    messages.send(&open.into()).await.unwrap();
    messages
}

async fn failed_invite(events: &mut Events) -> (PathId, String) {
    let failed = async {
        loop {
            if let Event::InviteFailed { path, reason, .. } = events.next().await.unwrap() {
                return (path, reason);
            }
        }
    };
    tokio::time::timeout(DEADLINE, failed).await.unwrap()
}

#[tokio::test]
async fn a_stranger_beyond_the_limit_is_dropped_and_a_silent_one_leaves_after_its_time() {
    let mesh = DocMesh::start().await;
    let mut client = mesh.config("pc-17");
    client.timers.attach = Duration::from_millis(500);
    let mut config = TargetConfig::new(client, [mesh.directory().join("ticket-keys.json")]);
    config.limits.handshakes = 1;
    let target = Target::start(config).unwrap();
    let mut events = target.events();
    target.registered().await.unwrap();
    let _first = silent_controller(&mesh, 1).await;
    let _second = silent_controller(&mesh, 2).await;
    let (dropped, reason) = failed_invite(&mut events).await;
    assert!(reason.contains("as many strangers"), "{reason}");
    let (left, reason) = failed_invite(&mut events).await;
    assert!(reason.contains("no end-to-end handshake within 500ms"), "{reason}");
    let mut both = [dropped, left];
    both.sort_unstable();
    assert_eq!(both, [PathId([1; 16]), PathId([2; 16])]);
    target.shutdown().await;
}
