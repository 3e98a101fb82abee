//! A server on loopback whose endpoints' health the test sets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use rc_traffic_manager::DnsName;
use rc_traffic_manager::decide::{
    Directives, Endpoint, EndpointIndex, EndpointStatus, Health, MaxReturn, Method, Profile, Target, Ttl,
};
use rc_traffic_manager::monitor::LatestSnapshot;
use rc_traffic_manager::server::{Counters, DnsServer, Listening};
use rc_traffic_manager::zone::{Zone, Zones};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Nothing on loopback takes this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// A profile name so long that 512 bytes do not hold it and ten IPv6 addresses.
pub(crate) const LONG_PROFILE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy.\
     zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz.wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww";

pub(crate) fn dns(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn ttl(seconds: u32) -> Ttl {
    Ttl::from_seconds(seconds).unwrap()
}

/// The profiles of the lab; endpoints have consecutive indices.
///
/// `p`: five IPv4, at most 3, TTL 42. `mixed`: two of each family, TTL 300. `big`: ten IPv6, at most 10. `zero`: TTL 0. `far`:
/// the largest TTL. `off`: disabled. `none`: no endpoints. `short`: one IPv6, TTL 10. And [`LONG_PROFILE`].
fn profiles() -> Vec<Profile> {
    let v4: Vec<String> = (1..=5).map(|n| format!("203.0.113.{n}")).collect();
    let v6: Vec<String> = (1..=10).map(|n| format!("2001:db8::{n:x}")).collect();
    let mixed = [&v4[..2], &v6[..2]].concat();
    let largest = Ttl::MAX.seconds();
    let made = [
        ("p", 42, 3, v4.clone(), true),
        ("mixed", 300, 10, mixed, true),
        ("big", 300, 10, v6.clone(), true),
        ("zero", 0, 2, v4.clone(), true),
        ("far", largest, 2, v4.clone(), true),
        ("off", 300, 2, v4, false),
        ("none", 300, 2, Vec::new(), true),
        ("short", 10, 2, v6[..1].to_vec(), true),
        (LONG_PROFILE, 300, 10, v6, true),
    ];
    let mut next = 0;
    let mut profile =
        |(name, seconds, max_return, addresses, enabled): (&str, u32, usize, Vec<String>, bool)| {
            let endpoints = addresses.iter().map(|address| {
                let index = EndpointIndex(next);
                next += 1;
                let target = Target::Address(address.parse().unwrap());
                Endpoint::new(index, address.clone(), target)
            });
            let method = Method::MultiValue { max_return: MaxReturn::new(max_return).unwrap() };
            let name = dns(&format!("{name}.tm.test"));
            let mut profile = Profile::new(name, method, ttl(seconds), endpoints.collect());
            profile.enabled = enabled;
            profile
        };
    made.into_iter().map(&mut profile).collect()
}

pub(crate) fn zones() -> Zones {
    let mut zones = Zones::default();
    let mut zone =
        Zone::new(dns("tm.test"), vec![dns("ns.tm.test")], dns("hostmaster.tm.test"), 2026, ttl(600));
    zone.negative_ttl = ttl(30);
    zones.add_zone(zone).unwrap();
    for profile in profiles() {
        zones.add_profile(profile).unwrap();
    }
    let addresses: Vec<IpAddr> = vec!["203.0.113.30".parse().unwrap(), "2001:db8::30".parse().unwrap()];
    zones.add_addresses(&dns("broker-3.in.tm.test"), Some(ttl(5)), addresses).unwrap();
    zones
}

pub(crate) struct Lab {
    pub(crate) v4: SocketAddr,
    pub(crate) v6: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    snapshot: LatestSnapshot,
    _stop: DropGuard,
}

impl Lab {
    pub(crate) fn start() -> Self {
        let listening =
            Listening::bind(&["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]).unwrap();
        let [v4, v6] = *listening.addresses() else { panic!("two addresses") };
        let zones = Arc::new(zones());
        let snapshot = LatestSnapshot::new(Arc::clone(&zones), Directives::default());
        let stop = CancellationToken::new();
        let counters = Arc::new(Counters::new(zones.profiles().len()));
        let server = DnsServer::start(listening, zones, snapshot.clone(), Arc::clone(&counters), DEADLINE);
        tokio::spawn(server.unwrap().run(stop.clone()));
        let lab = Self { v4, v6, counters, snapshot, _stop: stop.drop_guard() };
        lab.all(EndpointStatus::Online);
        lab
    }

    /// Gives all endpoints one state.
    pub(crate) fn all(&self, status: EndpointStatus) {
        self.set(&[], status);
    }

    /// The endpoints of `p` get these states, all others the last one.
    pub(crate) fn set(&self, first: &[EndpointStatus], others: EndpointStatus) {
        let count = profiles().iter().map(|profile| profile.endpoints().len()).sum();
        let mut statuses = first.to_vec();
        statuses.resize(count, others);
        self.snapshot.observe(statuses.into_iter().map(Health::with_status).collect());
    }

    /// Asks over UDP and over TCP, on both families; the answers must agree but for the chosen addresses.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_all(&query(name, kind)).await
    }

    pub(crate) async fn ask_all(&self, question: &Message) -> Message {
        let bytes = question.to_vec().unwrap();
        let first = read(&udp(self.v4, &bytes).await);
        for other in [udp(self.v6, &bytes).await, tcp(self.v4, &bytes).await, tcp(self.v6, &bytes).await] {
            let other = read(&other);
            assert_eq!(other.metadata, first.metadata);
            assert_eq!(other.answers.len(), first.answers.len());
            assert_eq!(other.authorities, first.authorities);
            assert_eq!(other.edns, first.edns);
        }
        assert_eq!(first.metadata.id, question.metadata.id);
        assert_eq!(first.metadata.message_type, MessageType::Response);
        first
    }
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn with_edns(mut message: Message, max_payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(max_payload);
    message.edns = Some(edns);
    message
}

pub(crate) async fn udp(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = udp_to(server).await;
    socket.send(bytes).await.unwrap();
    receive(&socket).await
}

pub(crate) async fn udp_to(server: SocketAddr) -> UdpSocket {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_535];
    let length = tokio::time::timeout(DEADLINE, socket.recv(&mut answer)).await.expect("an answer").unwrap();
    answer.truncate(length);
    answer
}

pub(crate) async fn tcp(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    tcp_on(&mut stream, bytes).await
}

pub(crate) async fn tcp_on(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await.unwrap();
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, read).await.expect("an answer")
}

pub(crate) fn read(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).unwrap()
}

/// The addresses of the answer, sorted.
pub(crate) fn addresses(message: &Message) -> Vec<String> {
    let mut found: Vec<String> =
        message.answers.iter().map(|record| record.data.ip_addr().unwrap().to_string()).collect();
    found.sort();
    found
}

pub(crate) fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// The SOA of a negative answer, with its minimum.
pub(crate) fn soa(message: &Message) -> (&Record, u32) {
    assert!(message.answers.is_empty());
    let [record] = message.authorities.as_slice() else { panic!("one SOA, not {:?}", message.authorities) };
    let RData::SOA(soa) = &record.data else { panic!("a SOA, not {record}") };
    (record, soa.minimum)
}
