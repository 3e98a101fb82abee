//! Bytes through brokers: every placement of the two ends, many sessions, both directions at full speed.

use std::time::Duration;

use rc_client::OpenOptions;
use rc_controller_client::Session;
use rc_proto::wire::codes::Class;
use rc_tests::{Mesh, ms};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{one_region, pattern, program, session};

/// Sends `block` `blocks` times through the Target's echo, both directions at once, and compares hashes.
async fn echo_holds(session: &Session, block: &[u8], blocks: usize) {
    let channel =
        session.open(&"echo".parse().unwrap(), OpenOptions::default().class(Class::BULK)).await.unwrap();
    let (mut from_target, mut to_target) = tokio::io::split(channel);
    let mut sent = Sha256::new();
    for _ in 0..blocks {
        sent.update(block);
    }
    let total = block.len() * blocks;
    let sending = async {
        for _ in 0..blocks {
            to_target.write_all(block).await.unwrap();
        }
        to_target.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut received = Sha256::new();
        let mut count = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_target.read(&mut buffer).await.unwrap();
            if read == 0 {
                return (count, received.finalize());
            }
            received.update(&buffer[..read]);
            count += read;
        }
    };
    let ((), (count, received)) = tokio::join!(sending, receiving);
    assert_eq!(count, total);
    assert_eq!(received, sent.finalize());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_on_one_broker_exchange_every_byte() {
    let mesh = one_region(1).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let (controller, session) = session(&mesh, &alice, "pc-1", &["echo"]).await;
    assert!(session.paths().iter().all(|path| path.hops.len() == 1));
    echo_holds(&session, &pattern(1, 1 << 20), 8).await;
    session.close().await.unwrap();
    controller.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_regions_are_joined_through_two_brokers() {
    let mesh = Mesh::builder(program())
        .region("in", 1)
        .region("us", 1)
        .rtt("in", "us", ms(60))
        .start()
        .await
        .unwrap();
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("us", "alice").unwrap();
    let (controller, session) = session(&mesh, &alice, "pc-1", &["echo"]).await;
    let hops: Vec<String> =
        session.paths().iter().flat_map(|path| &path.hops).map(|hop| hop.broker.to_string()).collect();
    assert_eq!(hops, ["us/broker-1", "in/broker-1"]);
    let round_trip = session.ping().await.unwrap();
    assert!(round_trip >= ms(60) && round_trip < ms(400), "{round_trip:?}");
    echo_holds(&session, &pattern(2, 1 << 20), 4).await;
    session.close().await.unwrap();
    controller.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_of_one_region_carry_ten_sessions_at_once() {
    let mesh = one_region(2).await;
    let mut targets = Vec::new();
    for number in 0..5 {
        targets.push(mesh.target("in", &format!("pc-{number}")).start(&mesh).await.unwrap());
    }
    let mut sessions = Vec::new();
    for number in 0..10 {
        let alice = mesh.controller("in", &format!("engineer-{number}")).unwrap();
        sessions.push(session(&mesh, &alice, &format!("pc-{}", number % 5), &["echo"]).await);
    }
    let exchanges = sessions.into_iter().enumerate().map(|(number, (controller, session))| {
        tokio::spawn(async move {
            echo_holds(&session, &pattern(number as u64, 1 << 20), 3).await;
            session.close().await.unwrap();
            controller.shutdown().await;
        })
    });
    for exchange in exchanges.collect::<Vec<_>>() {
        exchange.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_gigabyte_each_way_keeps_its_hash() {
    let mesh = one_region(2).await;
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("in", "alice").unwrap();
    let (controller, session) = session(&mesh, &alice, "pc-1", &["echo"]).await;
    let block = pattern(3, 1 << 20);
    let exchange = echo_holds(&session, &block, 512);
    tokio::time::timeout(Duration::from_secs(180), exchange).await.expect("no deadlock");
    session.close().await.unwrap();
    controller.shutdown().await;
}
