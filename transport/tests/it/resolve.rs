//! What each kind of DNS answer becomes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rc_transport::{Families, Family, LookupError, Resolver, ResolverConfig};
use tokio::net::UdpSocket;

/// What the server says to a name, by the name's first label.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let label = &query[13..13 + usize::from(query[12])];
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_v4 = query[end - 3] == 1;
    let (code, address): (u8, Option<Vec<u8>>) = match (label, is_v4) {
        (b"both" | b"four", true) => (0, Some(vec![192, 0, 2, 7])),
        (b"both", false) => (0, Some("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec())),
        (b"missing", _) => (3, None),
        (b"broken", _) => (2, None),
        (b"refused", _) => (5, None),
        (b"silent", _) => return None,
        (b"garbage", _) => return Some([&query[..2], &[0xff; 40]].concat()),
        _ => (0, None),
    };
    let mut reply = query[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x84, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(address) = address {
        reply.extend_from_slice(&[0xc0, 12, 0, query[end - 3], 0, 1, 0, 0, 0, 42, 0, address.len() as u8]);
        reply.extend_from_slice(&address);
    }
    Some(reply)
}

async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::SeqCst);
            if let Some(reply) = answer(&buffer[..length]) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    (address, asked)
}

fn resolver(server: SocketAddr) -> Resolver {
    Resolver::new(ResolverConfig { servers: vec![server], timeout: Duration::from_millis(200), attempts: 1 })
}

#[tokio::test]
async fn each_family_is_its_own_lookup_with_its_own_result() {
    let (server, _) = server().await;
    let resolver = resolver(server);
    let both = resolver.addresses("both.test", Families::Both).await;
    let (v4, v6) = (both.v4.unwrap().unwrap(), both.v6.unwrap().unwrap());
    assert_eq!(v4.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(v6.addresses, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
    assert_eq!((v4.ttl, v6.ttl), (Duration::from_secs(42), Duration::from_secs(42)));
    let four = resolver.addresses("four.test.", Families::Both).await;
    assert!(four.v4.unwrap().is_ok());
    assert!(matches!(four.v6.unwrap(), Err(LookupError::NoData { family: Family::V6, .. })));
    assert_eq!(resolver.addresses("four.test", Families::V4Only).await.v6, None);
}

#[tokio::test]
async fn each_failure_has_its_own_kind_and_names_the_server_and_the_name() {
    let (server, _) = server().await;
    for name in ["missing.test", "broken.test", "refused.test", "silent.test", "garbage.test", "empty.test"] {
        let error = resolver(server).lookup(name, Family::V4).await.unwrap_err();
        let as_expected = match name {
            "missing.test" => matches!(error, LookupError::NxDomain { .. }),
            "broken.test" | "refused.test" => matches!(error, LookupError::ServFail { .. }),
            "silent.test" => matches!(error, LookupError::Timeout { .. }),
            "garbage.test" => matches!(error, LookupError::Garbage { .. } | LookupError::Timeout { .. }),
            _ => matches!(error, LookupError::NoData { .. }),
        };
        assert!(as_expected, "{name}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(name), "{text}");
        assert!(name == "empty.test" || text.contains(&server.to_string()), "{text}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_literal_address_is_answered_without_a_server() {
    let (server, asked) = server().await;
    let resolver = resolver(server);
    let four = resolver.addresses("192.0.2.1", Families::Both).await;
    assert_eq!(four.v4.unwrap().unwrap().addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert!(matches!(four.v6.unwrap(), Err(LookupError::NoData { .. })));
    let six = resolver.lookup("[2001:db8::1]", Family::V6).await.unwrap();
    assert_eq!(six.ttl, Duration::MAX);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_no_name_is_refused_without_a_server() {
    let (server, asked) = server().await;
    let resolver = resolver(server);
    let long = "a".repeat(64);
    for name in ["", "a..b", long.as_str()] {
        let error = resolver.lookup(name, Family::V4).await.unwrap_err();
        assert!(matches!(error, LookupError::NotAName { .. }), "{name:?}: {error:?}");
        assert!(!error.is_retryable());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_is_not_cached_behind_the_callers_back() {
    let (server, asked) = server().await;
    let resolver = resolver(server);
    for expected in 1..=3 {
        resolver.lookup("four.test", Family::V4).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn it_recovers_after_a_server_that_was_dead() {
    let (server, _) = server().await;
    let resolver = resolver(server);
    for _ in 0..4 {
        assert!(resolver.lookup("silent.test", Family::V4).await.is_err());
    }
    assert!(resolver.lookup("four.test", Family::V4).await.is_ok());
    resolver.rebuild();
    assert!(resolver.lookup("four.test", Family::V4).await.is_ok());
}
