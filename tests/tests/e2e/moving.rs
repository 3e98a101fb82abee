//! Sessions that brokers carry and cannot kill.

use rc_client::{Event, MoveReason, OpenOptions};
use rc_proto::wire::codes::{Class, Purpose};
use rc_tests::{Mesh, eventually, ms};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{pattern, program, session};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_under_a_transfer_costs_no_byte() {
    let mut mesh = Mesh::builder(program()).region("in", 2).region("us", 2).start().await.unwrap();
    let _target = mesh.target("in", "pc-1").start(&mesh).await.unwrap();
    let alice = mesh.controller("us", "alice").unwrap();
    let (controller, session) = session(&mesh, &alice, "pc-1", &["echo"]).await;
    let mut events = controller.events();
    let channel =
        session.open(&"echo".parse().unwrap(), OpenOptions::default().class(Class::BULK)).await.unwrap();
    let (mut from_target, mut to_target) = tokio::io::split(channel);
    let block = pattern(9, 1 << 20);
    let (blocks, mut sent) = (50, Sha256::new());
    (0..blocks).for_each(|_| sent.update(&block));
    let sending = tokio::spawn(async move {
        for _ in 0..blocks {
            to_target.write_all(&block).await.unwrap();
        }
        to_target.shutdown().await.unwrap();
    });
    let receiving = tokio::spawn(async move {
        let (mut received, mut count, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        loop {
            let read = from_target.read(&mut buffer).await.unwrap();
            if read == 0 {
                return (count, received.finalize());
            }
            received.update(&buffer[..read]);
            count += read;
        }
    });
    for kill_first in [true, false] {
        let before = session.status().received_bytes;
        assert!(eventually(ms(20_000), || session.status().received_bytes > before + (4 << 20)).await);
        let path = session.paths().into_iter().find(|path| path.in_use).unwrap();
        let hop = if kill_first { path.hops.first() } else { path.hops.last() }.unwrap();
        assert!(mesh.kill_broker(&hop.broker).await);
        let moved = async {
            loop {
                let event = events.next().await.unwrap();
                if let Event::SessionMoved { purpose: Purpose::RESUME, reason, .. } = event {
                    return reason;
                }
            }
        };
        let reason = tokio::time::timeout(ms(30_000), moved).await.expect("the session moves");
        assert_eq!(reason, Some(MoveReason::PathLost));
        assert_eq!(session.status().last_move.unwrap().moved.reason, reason);
    }
    sending.await.unwrap();
    let (count, received) = tokio::time::timeout(ms(60_000), receiving).await.unwrap().unwrap();
    assert_eq!((count, received), (blocks << 20, sent.finalize()));
    session.close().await.unwrap();
    controller.shutdown().await;
}
