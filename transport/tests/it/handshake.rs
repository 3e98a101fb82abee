//! Who gets in, who does not, and what each side says.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::{BROKER, Door, SOON, service};
use rc_proto::wire::{Alpn, Role};
use rc_transport::testing::{Blueprint, TestCa};
use rc_transport::{
    AcceptError, AcceptLimits, Accepted, ConnectError, Connector, ControlPeer, Credentials, Expectation, Leg,
    LegError, PathPeer, PeerFault, TcpNet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROLES: [(&str, Role); 5] = [
    ("broker/us/b-2", Role::Broker),
    ("controller/alice", Role::Controller),
    ("target/pc-1", Role::Target),
    ("rc-server/main", Role::RcServer),
    ("traffic-manager/t-1", Role::TrafficManager),
];

async fn first_read(leg: &mut Leg) -> io::Result<usize> {
    leg.read(&mut [0; 16]).await
}

fn who(accepted: &Accepted) -> String {
    match accepted {
        Accepted::Control { peer: ControlPeer::Controller(id), .. } => format!("control controller {id}"),
        Accepted::Control { peer: ControlPeer::Target(id), .. } => format!("control target {id}"),
        Accepted::Control { peer: ControlPeer::TrafficManager(id), .. } => {
            format!("control traffic-manager {id}")
        }
        Accepted::Path { peer: PathPeer::Controller(id), .. } => format!("path controller {id}"),
        Accepted::Path { peer: PathPeer::Target(id), .. } => format!("path target {id}"),
        Accepted::Path { peer: PathPeer::Broker(id), .. } => format!("path broker {id}"),
        Accepted::Mesh { broker, .. } => format!("mesh broker {broker}"),
    }
}

#[tokio::test]
async fn each_role_gets_in_by_exactly_the_protocols_of_the_table() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let mut admitted = Vec::new();
    for (path, role) in ROLES {
        for alpn in [Alpn::Control, Alpn::Path, Alpn::Mesh] {
            let us = ca.credentials(path, &[]);
            if alpn.admits(role) {
                let (dialled, accepted) = door.meet(us, &service(), alpn).await;
                assert_eq!(dialled.unwrap().peer().id, ca.id(BROKER));
                admitted.push(who(&accepted.unwrap()));
            } else {
                let (_, accepted) = door.clash(us, &service(), alpn).await;
                let Err(AcceptError::Certificate { fault: PeerFault::WrongRole { found, id }, .. }) =
                    accepted
                else {
                    panic!("{role} {alpn:?}: {accepted:?}")
                };
                assert_eq!((found, id), (role, ca.id(path)));
            }
        }
    }
    assert_eq!(
        admitted,
        [
            "path broker us/b-2",
            "mesh broker us/b-2",
            "control controller alice",
            "path controller alice",
            "control target pc-1",
            "path target pc-1",
            "control traffic-manager t-1",
        ]
    );
}

#[tokio::test]
async fn bytes_cross_both_ways_and_a_clean_end_reads_as_the_end() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let (dialled, accepted) = door.meet(ca.credentials("target/pc-1", &[]), &service(), Alpn::Path).await;
    let mut ours = dialled.unwrap();
    let Accepted::Path { leg: mut theirs, .. } = accepted.unwrap() else { panic!() };
    assert_eq!((ours.remote(), ours.local()), (theirs.local(), theirs.remote()));
    assert_eq!((ours.alpn(), theirs.alpn()), (Alpn::Path, Alpn::Path));
    assert!(ours.handshake_round_trip() > Duration::ZERO && theirs.handshake_round_trip() > Duration::ZERO);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let sent = payload.clone();
    let write = tokio::spawn(async move {
        ours.write_all(&sent).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut back = Vec::new();
        ours.read_to_end(&mut back).await.unwrap();
        back
    });
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    assert!(got == payload);
    theirs.write_all(b"back").await.unwrap();
    theirs.shutdown().await.unwrap();
    assert_eq!(write.await.unwrap(), b"back");
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let (dialled, accepted) = door.meet(ca.credentials("target/pc-1", &[]), &service(), Alpn::Path).await;
    let ours = dialled.unwrap();
    let Accepted::Path { leg: mut theirs, .. } = accepted.unwrap() else { panic!() };
    let remote = theirs.remote();
    drop(ours);
    let error = first_read(&mut theirs).await.unwrap_err();
    assert_eq!(LegError::of(&error), Some(&LegError::BrokeOff { remote }));
    assert!(LegError::of(&error).unwrap().is_retryable());
}

/// Every bad client certificate, by name, with the fault that the broker's event must show.
fn bad_certificates(ca: &TestCa) -> Vec<(&'static str, Credentials)> {
    let id = ca.id("target/pc-1");
    let good = || Blueprint::of(&id, &[]);
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let foreign = TestCa::new("mesh.test");
    let revoked = ca.issue(&id, &[]);
    let unchecked = |blueprint: &Blueprint| ca.unchecked(&ca.issue_as(blueprint));
    let list = vec![
        ("wrong CA", ca.unchecked(&foreign.issue(&id, &[]))),
        ("expired", unchecked(&Blueprint { not_before: now - 2 * hour, not_after: now - hour, ..good() })),
        ("not yet valid", unchecked(&Blueprint { not_before: now + hour, ..good() })),
        ("wrong role", unchecked(&Blueprint::of(&ca.id("rc-server/main"), &[]))),
        ("no client EKU", unchecked(&Blueprint { client_auth: false, ..good() })),
        ("no server EKU", unchecked(&Blueprint { server_auth: false, ..good() })),
        ("no EKU", unchecked(&Blueprint { client_auth: false, server_auth: false, ..good() })),
        (
            "two URI SANs",
            unchecked(&Blueprint {
                uri_names: vec![id.to_string(), ca.id("target/pc-2").to_string()],
                ..good()
            }),
        ),
        ("no URI SAN", unchecked(&Blueprint { uri_names: vec![], ..good() })),
        ("odd URI SAN", unchecked(&Blueprint { uri_names: vec!["https://a.example/".to_owned()], ..good() })),
        (
            "other trust domain",
            unchecked(&Blueprint { uri_names: vec!["spiffe://other.test/target/pc-1".to_owned()], ..good() }),
        ),
        ("revoked", Credentials::load(&revoked).unwrap()),
    ];
    ca.revoke(&revoked);
    list
}

#[tokio::test]
async fn every_bad_client_certificate_gets_the_same_alert_and_its_own_cause() {
    let ca = TestCa::new("mesh.test");
    let bad = bad_certificates(&ca);
    let door = Door::open(&ca).await;
    let mut alerts = Vec::new();
    for (name, credentials) in bad {
        let own = credentials.own_certificate();
        let (heard, accepted) = door.clash(credentials, &service(), Alpn::Control).await;
        let Err(AcceptError::Certificate { fault, shown }) = accepted else { panic!("{name}: {accepted:?}") };
        assert!(shown.contains(&format!("serial {}", own.serial)), "{name}: {shown}");
        let as_expected = match name {
            "wrong CA" => matches!(fault, PeerFault::OtherAuthority { .. }),
            "expired" => matches!(fault, PeerFault::Expired { .. }),
            "not yet valid" => matches!(fault, PeerFault::NotYetValid { .. }),
            "wrong role" => matches!(fault, PeerFault::WrongRole { found: Role::RcServer, .. }),
            "no client EKU" | "no EKU" | "no server EKU" => matches!(fault, PeerFault::Purpose { .. }),
            "two URI SANs" => fault == PeerFault::UriNames { count: 2 },
            "no URI SAN" => fault == PeerFault::UriNames { count: 0 },
            "odd URI SAN" => matches!(fault, PeerFault::Identity(_)),
            "other trust domain" => matches!(fault, PeerFault::OtherTrustDomain { .. }),
            "revoked" => matches!(fault, PeerFault::Revoked { .. }),
            _ => false,
        };
        assert!(as_expected, "{name}: {fault:?}");
        let error = heard.unwrap();
        let Some(LegError::CertificateRefused { own: named, alert, .. }) = LegError::of(&error) else {
            panic!("{name}: {error:?}")
        };
        assert_eq!(**named, own, "{name}");
        assert!(error.to_string().contains(&own.serial) && error.to_string().contains("log"), "{error}");
        alerts.push(alert.clone());
    }
    assert_eq!(alerts, vec!["CertificateUnknown"; 12]);
}

#[tokio::test]
async fn a_dialler_refuses_whoever_is_not_the_one_that_was_meant() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let us = || ca.credentials("controller/alice", &[]);
    for (expect, shown) in [
        (Expectation::ServiceName("other.example".to_owned()), "mesh.example"),
        (Expectation::Broker("in/b-2".parse().unwrap()), "broker/in/b-1"),
    ] {
        let (dialled, accepted) = door.meet(us(), &expect, Alpn::Control).await;
        let error = dialled.unwrap_err();
        let ConnectError::Certificate { fault: PeerFault::SomebodyElse { .. }, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(!error.is_retryable());
        let text = error.to_string();
        assert!(text.contains(&door.address().to_string()) && text.contains(shown), "{text}");
        assert!(matches!(accepted, Err(AcceptError::RefusedUs { .. })), "{accepted:?}");
    }
    for expect in
        [Expectation::ServiceName("MESH.example.".to_owned()), Expectation::Broker("in/b-1".parse().unwrap())]
    {
        let (dialled, accepted) = door.meet(us(), &expect, Alpn::Control).await;
        assert!(dialled.is_ok() && accepted.is_ok(), "{expect}");
    }
}

#[tokio::test]
async fn a_dialler_refuses_what_is_no_broker_of_its_mesh() {
    let ca = TestCa::new("mesh.test");
    let foreign = TestCa::new("mesh.test");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let broker = || Blueprint::of(&ca.id(BROKER), &[crate::support::SERVICE]);
    let unchecked = |blueprint: Blueprint| ca.unchecked(&ca.issue_as(&blueprint));
    let revoked = ca.issue(&ca.id(BROKER), &[crate::support::SERVICE]);
    let list = [
        ("target", ca.credentials("target/pc-1", &[crate::support::SERVICE])),
        ("rc-server", ca.credentials("rc-server/main", &[crate::support::SERVICE])),
        ("wrong CA", foreign.credentials(BROKER, &[crate::support::SERVICE])),
        ("expired", unchecked(Blueprint { not_before: now - 2 * hour, not_after: now - hour, ..broker() })),
        ("no server EKU", unchecked(Blueprint { server_auth: false, ..broker() })),
        ("revoked", Credentials::load(&revoked).unwrap()),
    ];
    ca.revoke(&revoked);
    for (name, credentials) in list {
        let door = Door::with(credentials, AcceptLimits::default()).await;
        let us = ca.credentials("controller/alice", &[]);
        let (dialled, _) = door.meet(us, &service(), Alpn::Control).await;
        let Err(ConnectError::Certificate { fault, .. }) = dialled else { panic!("{name}: {dialled:?}") };
        let as_expected = match name {
            "target" => matches!(fault, PeerFault::WrongRole { found: Role::Target, .. }),
            "rc-server" => matches!(fault, PeerFault::WrongRole { found: Role::RcServer, .. }),
            "wrong CA" => matches!(fault, PeerFault::OtherAuthority { .. }),
            "expired" => matches!(fault, PeerFault::Expired { .. }),
            "no server EKU" => matches!(fault, PeerFault::Purpose { .. }),
            "revoked" => matches!(fault, PeerFault::Revoked { .. }),
            _ => false,
        };
        assert!(as_expected, "{name}: {fault:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_the_next_connection_on() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let old = door.acceptor.credentials().certificate_ref();
    let renewed = ca.credentials(BROKER, &[crate::support::SERVICE]);
    let new = renewed.certificate_ref();
    assert_ne!(old.serial, new.serial);
    door.acceptor.set_credentials(Arc::new(renewed));
    let (dialled, _) = door.meet(ca.credentials("target/pc-1", &[]), &service(), Alpn::Control).await;
    assert_eq!(dialled.unwrap().peer().certificate, new);
}

#[tokio::test]
async fn a_connection_that_is_opened_and_closed_is_silent_and_normal() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let (client, accepted) =
        tokio::join!(async { drop(TcpStream::connect(door.address()).await.unwrap()) }, door.accept());
    let () = client;
    let error = accepted.unwrap_err();
    assert!(matches!(error, AcceptError::Silent), "{error:?}");
    assert!(error.is_normal());
}

#[tokio::test]
async fn a_stranger_who_says_nothing_is_cut_at_the_deadline() {
    let ca = TestCa::new("mesh.test");
    let limits = AcceptLimits { deadline: Duration::from_millis(50), ..AcceptLimits::default() };
    let door = Door::with(ca.credentials(BROKER, &[]), limits).await;
    let (client, accepted) = tokio::join!(TcpStream::connect(door.address()), door.accept());
    assert!(matches!(accepted, Err(AcceptError::Deadline { .. })), "{accepted:?}");
    assert_eq!(client.unwrap().read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(AcceptLimits::default().deadline, Duration::from_secs(5));
}

/// A TLS handshake record that announces a long `ClientHello` and delivers `length` bytes of it.
fn endless_hello(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut body = vec![1, 0, 0xf0, 0];
    body.resize(length, 0);
    for chunk in body.chunks(4096) {
        bytes.extend_from_slice(&[22, 3, 1]);
        bytes.extend_from_slice(&u16::try_from(chunk.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(chunk);
    }
    bytes
}

#[tokio::test]
async fn a_stranger_may_not_send_more_than_its_budget() {
    let ca = TestCa::new("mesh.test");
    let limits = AcceptLimits { handshake_bytes: 8192, ..AcceptLimits::default() };
    let door = Door::with(ca.credentials(BROKER, &[]), limits).await;
    for (length, over) in [(8191, false), (8192, false), (8193, true)] {
        let client = async {
            let mut stream = TcpStream::connect(door.address()).await.unwrap();
            stream.write_all(&endless_hello(9000)[..length]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read(&mut [0; 64]).await
        };
        let (_, accepted) = tokio::join!(client, door.accept());
        let is_budget = matches!(accepted, Err(AcceptError::Budget { limit: 8192 }));
        assert_eq!(is_budget, over, "{length}: {accepted:?}");
    }
}

#[tokio::test]
async fn garbage_is_refused_and_an_http_request_gets_an_alert() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let client = async {
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: mesh.example\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (answer, accepted) = tokio::join!(client, door.accept());
    assert!(matches!(accepted, Err(AcceptError::Tls { .. })), "{accepted:?}");
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
}

#[tokio::test]
async fn a_dial_to_nobody_is_retryable_and_names_the_address() {
    let ca = TestCa::new("mesh.test");
    let address = Door::open(&ca).await.address();
    let connector = Connector::new(Arc::new(ca.credentials("target/pc-1", &[])), Arc::new(TcpNet));
    let error = connector.connect(address, &service(), Alpn::Control, SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.is_retryable() && error.to_string().contains(&address.to_string()));
}

#[tokio::test]
async fn a_dial_to_a_frozen_process_ends_at_its_deadline() {
    let ca = TestCa::new("mesh.test");
    // The kernel completes the connection; nobody accepts it.
    let door = Door::open(&ca).await;
    let connector = Connector::new(Arc::new(ca.credentials("target/pc-1", &[])), Arc::new(TcpNet));
    let deadline = Duration::from_millis(50);
    let error = connector.connect(door.address(), &service(), Alpn::Control, deadline).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deadline { stage: "TLS handshake", .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_dial_to_something_that_speaks_no_tls_says_so() {
    let ca = TestCa::new("mesh.test");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = Connector::new(Arc::new(ca.credentials("target/pc-1", &[])), Arc::new(TcpNet));
    let expect = service();
    let ssh = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        stream.read(&mut [0; 4096]).await.unwrap()
    };
    let (dialled, _) = tokio::join!(connector.connect(address, &expect, Alpn::Control, SOON), ssh);
    let error = dialled.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(!error.is_retryable());
}
