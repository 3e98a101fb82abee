//! Beside gdnsd with the same weights and subnets: the answers are distributed alike, and hold for the same networks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_server::proto::rr::{Name, RecordType};

use crate::lab::{Running, free_port, have, start, start_other};

const DRAWS: u32 = 4000;

fn reference() -> Running {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = directory.path().display();
    let config = format!(
        "options => {{ listen => [ 127.0.0.1 ], dns_port => {port}, udp_threads => 1, tcp_threads => 1, \
           run_dir => {dir}/run, state_dir => {dir}/state }}\n\
         plugins => {{\n\
           weighted => {{ service_types => up, three => {{ a => [ 203.0.113.1, 1 ], b => [ 203.0.113.2, 2 ], \
             c => [ 203.0.113.5, 5 ] }} }}\n\
           geoip => {{\n\
             maps => {{ near => {{ datacenters => [ rest, first, second ], \
               nets => {{ 198.51.100.0/24 => [ first ], 192.0.2.0/25 => [ second ] }} }} }}\n\
             resources => {{ near => {{ map => near, service_types => up, \
               dcmap => {{ first => 203.0.113.1, second => 203.0.113.2, rest => 203.0.113.3 }} }} }}\n\
           }}\n\
         }}\n"
    );
    std::fs::write(directory.path().join("config"), config).unwrap();
    std::fs::create_dir(directory.path().join("zones")).unwrap();
    let zone = "@ SOA ns hostmaster (1 7200 1800 259200 60)\n@ NS ns\nns A 127.0.0.1\none A 203.0.113.1\n\
                weighted 0 DYNA weighted!three\nnear 300 DYNA geoip!near\n";
    std::fs::write(directory.path().join("zones/tm.test"), zone).unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    start_other("gdnsd", directory, port, &["-c", &path, "start"], "one.tm.test")
}

struct Client(UdpSocket);

impl Client {
    fn of(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.connect(server).unwrap();
        Self(socket)
    }

    fn ask(&self, name: &str, subnet: Option<&str>) -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(subnet) = subnet {
            let mut edns = Edns::new();
            let subnet: ClientSubnet = subnet.parse().unwrap();
            edns.options_mut().insert(EdnsOption::Subnet(subnet));
            question.edns = Some(edns);
        }
        self.0.send(&question.to_vec().unwrap()).unwrap();
        let mut bytes = [0; 1500];
        let length = self.0.recv(&mut bytes).unwrap();
        Message::from_vec(&bytes[..length]).unwrap()
    }

    fn address(&self, name: &str, subnet: Option<&str>) -> String {
        self.ask(name, subnet).answers[0].data.ip_addr().unwrap().to_string()
    }
}

#[test]
fn weighted_answers_are_distributed_as_those_of_gdnsd() {
    if !have(&["gdnsd", "dig"]) {
        return;
    }
    let servers = [start(), reference()];
    let counts = servers.each_ref().map(|server| {
        let (client, mut counts) = (Client::of(server.address), BTreeMap::<String, f64>::new());
        for _ in 0..DRAWS {
            *counts.entry(client.address("weighted.tm.test.", None)).or_default() += 1.0;
        }
        counts
    });
    let [ours, theirs] = counts;
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    // Two samples of equal size: the statistic has two degrees of freedom and passes 27.6 once in a million runs.
    let statistic: f64 = ours.iter().map(|(key, a)| (a - theirs[key]).powi(2) / (a + theirs[key])).sum();
    assert!(statistic < 27.6, "{statistic}: {ours:?} and {theirs:?}");
    // It is not blind: equal shares are told from these.
    let even = f64::from(DRAWS) / 3.0;
    let blind: f64 = ours.values().map(|a| (a - even).powi(2) / (a + even)).sum();
    assert!(blind > 27.6, "{blind}");
}

#[test]
fn subnets_give_the_answers_and_the_scopes_of_gdnsd() {
    if !have(&["gdnsd", "dig"]) {
        return;
    }
    let servers = [start(), reference()];
    let clients = servers.each_ref().map(|server| Client::of(server.address));
    for subnet in [
        "198.51.100.7/32",
        "198.51.100.0/24",
        "198.51.101.0/24",
        "192.0.2.1/32",
        "192.0.2.128/25",
        "192.0.2.127/32",
        "203.0.113.0/24",
        "8.8.8.8/32",
        "10.0.0.0/8",
    ] {
        let [ours, theirs] = clients.each_ref().map(|client| {
            let answer = client.ask("near.tm.test.", Some(subnet));
            let Some(EdnsOption::Subnet(echo)) = answer.edns.as_ref().unwrap().option(EdnsCode::Subnet)
            else {
                unreachable!("{subnet} is echoed")
            };
            (answer.answers[0].data.ip_addr().unwrap().to_string(), echo.scope_prefix())
        });
        assert_eq!(ours, theirs, "{subnet}: answer and scope");
    }
}
