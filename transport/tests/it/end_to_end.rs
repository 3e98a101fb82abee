//! The handshake between the two ends of a path, over a pipe that stands for the brokers.

use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{Message, PathFailed, PathOpened};
use rc_proto::wire::{Alpn, Ext, PathId, Role};
use rc_transport::testing::TestCa;
use rc_transport::{EndToEnd, EndToEndError, MessageStream, PeerFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const PIPE_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn both_ends_prove_each_other_and_bytes_cross() {
    let ca = TestCa::new("mesh.test");
    let (alice, pc) = (ca.credentials("controller/alice", &[]), ca.credentials("target/pc-1", &[]));
    let (near, far) = duplex(PIPE_BYTES);
    let wanted = ca.id("target/pc-1");
    let (client, server) = tokio::join!(EndToEnd::client(&alice, near, &wanted), EndToEnd::server(&pc, far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!((&client.peer().id, &server.peer().id), (pc.spiffe_id(), alice.spiffe_id()));
    assert_eq!(server.peer().certificate, alice.certificate_ref());
    client.write_all(b"to the target").await.unwrap();
    client.flush().await.unwrap();
    let mut got = [0; 13];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"to the target");
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut got).await.unwrap(), 0, "a clean end");
    drop(client);
    assert!(server.read(&mut got).await.is_err(), "an end without close_notify");
}

#[tokio::test]
async fn a_sound_certificate_of_another_target_is_not_the_wanted_one() {
    let ca = TestCa::new("mesh.test");
    let (near, far) = duplex(PIPE_BYTES);
    let (alice, other) = (ca.credentials("controller/alice", &[]), ca.credentials("target/pc-2", &[]));
    let wanted = ca.id("target/pc-1");
    let (client, server) =
        tokio::join!(EndToEnd::client(&alice, near, &wanted), EndToEnd::server(&other, far));
    let error = client.unwrap_err();
    let EndToEndError::Certificate(PeerFault::SomebodyElse { wanted, shown }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (wanted.as_str(), shown.as_str()),
        ("spiffe://mesh.test/target/pc-1", "spiffe://mesh.test/target/pc-2")
    );
    assert!(!error.is_retryable());
    assert!(matches!(server, Err(EndToEndError::Refused { .. })), "{server:?}");
}

#[tokio::test]
async fn a_target_takes_controllers_only_and_they_hear_of_it() {
    let ca = TestCa::new("mesh.test");
    let foreign = TestCa::new("mesh.test");
    let pc = ca.credentials("target/pc-1", &[]);
    let wanted = ca.id("target/pc-1");
    for (path, expected) in [
        ("target/pc-2", Some(Role::Target)),
        ("broker/in/b-1", Some(Role::Broker)),
        ("traffic-manager/t", Some(Role::TrafficManager)),
        ("controller/foreign", None),
    ] {
        let credentials = match expected {
            Some(_) => ca.credentials(path, &[]),
            None => ca.unchecked(&foreign.issue(&foreign.id(path), &[])),
        };
        let (near, far) = duplex(PIPE_BYTES);
        let dial = async {
            let mut client = EndToEnd::client(&credentials, near, &wanted).await.unwrap();
            let error = client.read(&mut [0; 1]).await.unwrap_err();
            client.explain(error)
        };
        let (heard, server) = tokio::join!(dial, EndToEnd::server(&pc, far));
        match (server, expected) {
            (Err(EndToEndError::Certificate(PeerFault::WrongRole { found, .. })), Some(role)) => {
                assert_eq!(found, role);
            }
            (Err(EndToEndError::Certificate(PeerFault::OtherAuthority { .. })), None) => {}
            (other, _) => panic!("{path}: {other:?}"),
        }
        let EndToEndError::Refused { own, .. } = heard else { panic!("{heard:?}") };
        assert_eq!(*own, credentials.own_certificate());
    }
}

fn answer(message: impl Into<Message>) -> Vec<u8> {
    message.into().to_bytes().unwrap()
}

/// What the broker next to the Controller does: answers, then copies.
async fn forward(mut from: DuplexStream, mut to: DuplexStream, early_bytes_min: usize) {
    let mut early = vec![0; early_bytes_min];
    // The end-to-end ClientHello is there before any answer was given.
    from.read_exact(&mut early).await.unwrap();
    to.write_all(&early).await.unwrap();
    let opened = PathOpened { path_id: PathId([1; 16]), hops: vec![], ext: Ext::default() };
    from.write_all(&answer(opened)).await.unwrap();
    // Either end may close first.
    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
}

#[tokio::test]
async fn the_handshake_starts_before_the_path_is_opened() {
    let ca = TestCa::new("mesh.test");
    let (alice, pc) = (ca.credentials("controller/alice", &[]), ca.credentials("target/pc-1", &[]));
    let wanted = ca.id("target/pc-1");
    let (near, broker_near) = duplex(PIPE_BYTES);
    let (broker_far, far) = duplex(PIPE_BYTES);
    let relay = tokio::spawn(forward(broker_near, broker_far, 500));
    let path = MessageStream::new(near, Role::Broker, Alpn::Path).into_path();
    let (client, server) = tokio::join!(EndToEnd::client(&alice, path, &wanted), EndToEnd::server(&pc, far));
    let client = client.unwrap();
    assert_eq!(client.io().opened().map(|opened| opened.path_id), Some(PathId([1; 16])));
    drop((client, server.unwrap()));
    relay.await.unwrap();
}

#[tokio::test]
async fn a_refused_path_comes_out_of_the_handshake_as_the_brokers_answer() {
    let ca = TestCa::new("mesh.test");
    let alice = ca.credentials("controller/alice", &[]);
    let (near, mut broker) = duplex(PIPE_BYTES);
    let failed = PathFailed {
        path_id: PathId([1; 16]),
        code: PathFailure::NOT_FOUND,
        retry_after_ms: 0,
        alternates: Vec::new(),
        ext: Ext::default(),
    };
    broker.write_all(&answer(failed.clone())).await.unwrap();
    let path = MessageStream::new(near, Role::Broker, Alpn::Path).into_path();
    let error = EndToEnd::client(&alice, path, &ca.id("target/pc-1")).await.unwrap_err();
    let EndToEndError::PathFailed { failed: found } = error else { panic!("{error:?}") };
    assert_eq!(*found, failed);
}

#[tokio::test]
async fn a_path_that_breaks_or_is_altered_is_retryable() {
    let ca = TestCa::new("mesh.test");
    let alice = ca.credentials("controller/alice", &[]);
    let wanted = ca.id("target/pc-1");
    let (near, broker) = duplex(PIPE_BYTES);
    drop(broker);
    let error = EndToEnd::client(&alice, near, &wanted).await.unwrap_err();
    assert!(matches!(error, EndToEndError::PathLost { .. }) && error.is_retryable(), "{error:?}");
    let (near, mut broker) = duplex(PIPE_BYTES);
    broker.write_all(&[22, 3, 3, 0, 4, 99, 0, 0, 0]).await.unwrap();
    let error = EndToEnd::client(&alice, near, &wanted).await.unwrap_err();
    assert!(matches!(error, EndToEndError::Tls { .. }) && error.is_retryable(), "{error:?}");
}
