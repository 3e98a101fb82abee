//! Several sockets for one address, wildcard addresses, and floods.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use rc_traffic_manager::decide::Directives;
use rc_traffic_manager::monitor::LatestSnapshot;
use rc_traffic_manager::server::{Counters, DnsServer, LatestServing, Listening, ServerOptions, Serving};
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lab::{code, query, read, tcp, udp, zones};

const DEADLINE: Duration = Duration::from_secs(10);

struct Server {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    _stop: DropGuard,
}

fn start(listen: &[&str], responses_per_second: Option<u32>) -> Server {
    let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
    let listening = Listening::bind_many(&listen, 3).unwrap();
    let addresses = listening.addresses().to_vec();
    let zones = Arc::new(zones());
    let snapshot = LatestSnapshot::new(Arc::clone(&zones), Directives::default());
    let counters = Arc::new(Counters::new(zones.profiles().len()));
    let serving = LatestServing::new(Serving::new(zones, snapshot, Arc::clone(&counters)));
    let options = ServerOptions { udp_threads: 3, tcp_idle: DEADLINE, responses_per_second };
    let server = DnsServer::start_with(listening, &serving, options).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    Server { addresses, counters, _stop: stop.drop_guard() }
}

#[tokio::test]
async fn a_wildcard_address_answers_from_the_address_that_was_asked() {
    let server = start(&["0.0.0.0:0", "[::]:0"], None);
    let question = query("p.tm.test.", RecordType::A).to_vec().unwrap();
    let [v4, v6] = [server.addresses[0].port(), server.addresses[1].port()];
    // Sockets that are connected take nothing from any other address.
    for asked in [format!("127.0.0.1:{v4}"), format!("127.0.0.77:{v4}"), format!("[::1]:{v6}")] {
        let asked: SocketAddr = asked.parse().unwrap();
        assert_eq!(read(&udp(asked, &question).await).answers.len(), 3, "{asked}");
    }
}

#[tokio::test]
async fn every_one_of_several_sockets_answers() {
    let server = start(&["127.0.0.1:0"], None);
    let question = query("p.tm.test.", RecordType::A).to_vec().unwrap();
    // The system chooses the socket by the client's port.
    for _ in 0..60 {
        assert_eq!(code(&read(&udp(server.addresses[0], &question).await)), ResponseCode::NoError);
    }
    assert_eq!(server.counters.view().answers, 60);
}

#[tokio::test]
async fn m15_a_flood_gets_no_more_than_twice_its_bytes_back_and_tcp_still_answers() {
    const FLOOD: usize = 4000;
    let server = start(&["127.0.0.1:0"], Some(100));
    let question = query("big.tm.test.", RecordType::AAAA).to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addresses[0]).await.unwrap();
    let (mut sent, mut received, mut shortened) = (0, 0, 0);
    let mut answer = [0; 1500];
    for _ in 0..FLOOD {
        sent += socket.send(&question).await.unwrap();
        while let Ok(length) = socket.try_recv(&mut answer) {
            received += length;
            shortened += usize::from(answer[2] & 0x02 != 0);
        }
    }
    while let Ok(Ok(length)) =
        tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut answer)).await
    {
        received += length;
        shortened += usize::from(answer[2] & 0x02 != 0);
    }
    assert!(received <= 2 * sent, "{received} bytes for {sent}");
    let limited = server.counters.view().limited;
    assert!(shortened > 0 && limited > shortened as u64, "{shortened} of {limited} are told");
    let whole = read(&tcp(server.addresses[0], &question).await);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (10, false));
}
