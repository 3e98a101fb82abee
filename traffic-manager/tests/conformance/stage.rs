//! A small configuration that is asked: the decision alone, or the real server over UDP or over TCP.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::rdata::opt::{ClientSubnet as WireSubnet, EdnsCode, EdnsOption};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rc_daemon::config::{ConfigSources, Settings};
use rc_traffic_manager::DnsName;
use rc_traffic_manager::config::{BINARY, Config, KNOBS};
use rc_traffic_manager::decide::{
    Answer, AskedType, Asker, ClientSubnet, Decision, Directive, Directives, EndpointStatus, Health, View,
    decide,
};
use rc_traffic_manager::monitor::LatestSnapshot;
use rc_traffic_manager::server::{
    Counters, DnsServer, LatestMaps, LatestServing, Listening, ServerOptions, Serving,
};
use rc_traffic_manager::zone::{Found, Node};
use tokio_util::sync::{CancellationToken, DropGuard};

use EndpointStatus::{CheckingEndpoint, Degraded, Online, Stopped};

/// Nothing on loopback takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The decision, without any socket.
    Pure,
    /// The server, over UDP.
    Udp,
    /// The server, over TCP.
    Tcp,
}

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::Pure, Self::Udp, Self::Tcp];
}

/// A profile of `tm.test` whose endpoints are probed over TCP.
pub(crate) fn profile(name: &str, method: &str, more: &str) -> String {
    format!("[[profile]]\nname = \"{name}.tm.test\"\nmethod = \"{method}\"\nprotocol = \"TCP\"\n{more}\n")
}

/// An endpoint of it: at an address, at a name, or (with `@`) a nested profile of `tm.test`.
pub(crate) fn endpoint(profile: &str, name: &str, target: &str, more: &str) -> String {
    let target = match target.strip_prefix('@') {
        Some(child) => format!("nested = \"{child}.tm.test\""),
        None if target.parse::<IpAddr>().is_ok() => format!("address = \"{target}\""),
        None => format!("target = \"{target}\""),
    };
    format!("[[endpoint]]\nprofile = \"{profile}.tm.test\"\nname = \"{name}\"\n{target}\n{more}\n")
}

/// A profile `p` with endpoints `e1` to `en` at 203.0.113.1 and so on.
pub(crate) fn simple(method: &str, more: &str, each: &[&str]) -> String {
    let endpoints = each
        .iter()
        .enumerate()
        .map(|(at, more)| endpoint("p", &format!("e{}", at + 1), &format!("203.0.113.{}", at + 1), more));
    profile("p", method, more) + &endpoints.collect::<String>()
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) owner: String,
    pub(crate) kind: RecordType,
    pub(crate) ttl: u32,
    pub(crate) data: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// `NOERROR`, `NXDOMAIN`, …
    pub(crate) code: String,
    pub(crate) answers: Vec<Answered>,
    /// The scope of the client subnet, when one was asked with; bits.
    pub(crate) scope: Option<u8>,
}

impl Reply {
    /// What the answers say, sorted.
    pub(crate) fn data(&self) -> Vec<&str> {
        let mut data: Vec<&str> = self.answers.iter().map(|answer| answer.data.as_str()).collect();
        data.sort_unstable();
        data
    }

    /// The one answer.
    pub(crate) fn only(&self) -> &Answered {
        let [only] = self.answers.as_slice() else { panic!("one answer, not {self:?}") };
        only
    }

    pub(crate) fn is_no_data(&self) -> bool {
        self.code == "NOERROR" && self.answers.is_empty()
    }

    pub(crate) fn is_no_name(&self) -> bool {
        self.code == "NXDOMAIN" && self.answers.is_empty()
    }
}

/// The server and the sockets to it.
struct Wire {
    runtime: tokio::runtime::Runtime,
    _stop: DropGuard,
    serving: LatestServing,
    address: SocketAddr,
    address_v6: SocketAddr,
    tcp: RefCell<BTreeMap<IpAddr, TcpStream>>,
    udp: RefCell<BTreeMap<IpAddr, UdpSocket>>,
}

pub(crate) struct Stage {
    pub(crate) backend: Backend,
    pub(crate) config: Config,
    pub(crate) latest: LatestSnapshot,
    observed: Vec<Health>,
    maps: LatestMaps,
    rng: RefCell<StdRng>,
    wire: Option<Wire>,
    directory: tempfile::TempDir,
}

/// Reads a configuration of the zone `tm.test` with `text` in it; problems come as one text.
fn read(directory: &tempfile::TempDir, text: &str) -> Result<Config, String> {
    let file = directory.path().join("tm.toml");
    let zone = "[[zone]]\nname = \"tm.test\"\nttl = 300\nnegative_ttl = 60\n";
    std::fs::write(&file, format!("{text}\n{zone}")).unwrap();
    let settings = Settings::load(ConfigSources::new(BINARY).file(&file), KNOBS);
    rc_traffic_manager::config::read(&settings).map_err(|errors| errors.to_string())
}

impl Stage {
    /// All endpoints are Online.
    pub(crate) fn new(backend: Backend, text: &str) -> Self {
        Self::with_files(backend, text, &[])
    }

    /// With files beside the configuration.
    pub(crate) fn with_files(backend: Backend, text: &str, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let config = read(&directory, text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let maps = LatestMaps::default();
        maps.store(config.maps.load().unwrap());
        let latest = LatestSnapshot::new(Arc::clone(&config.zones), Directives::default());
        let wire = (backend != Backend::Pure).then(|| Wire::start(&config, &latest, &maps));
        let rng = RefCell::new(StdRng::seed_from_u64(42));
        let mut stage = Self { backend, config, latest, observed: Vec::new(), maps, rng, wire, directory };
        stage.all(Online);
        stage
    }

    /// What is wrong with a configuration.
    pub(crate) fn problems(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        read(&directory, text).err().unwrap_or_else(|| panic!("this is taken:\n{text}"))
    }

    /// Takes another configuration in, as a running server does: all or nothing.
    pub(crate) fn reload(&mut self, text: &str) -> Result<(), String> {
        let next = read(&self.directory, text)?;
        let obstacles = next.obstacles_to_follow(&self.config);
        if !obstacles.is_empty() {
            return Err(obstacles.join("\n"));
        }
        self.maps.store(next.maps.load().map_err(|problems| format!("{problems:?}"))?);
        self.latest = LatestSnapshot::new(Arc::clone(&next.zones), self.latest.directives());
        if let Some(wire) = &self.wire {
            wire.serving.store(serving(&next, &self.latest, &self.maps));
        }
        self.config = next;
        self.all(Online);
        Ok(())
    }

    /// Asserts that a configuration is refused with a reason, and that the answers stay.
    pub(crate) fn refuses(&mut self, text: &str, reason: &str) {
        let before = self.ask("p", RecordType::A);
        let problems = self.reload(text).err().unwrap_or_else(|| panic!("this is taken:\n{text}"));
        assert!(problems.contains(reason), "{reason:?} is not said in\n{problems}");
        let after = self.ask("p", RecordType::A);
        assert_eq!((after.code, after.answers.len()), (before.code, before.answers.len()));
    }

    /// Replaces a file beside the configuration, and takes the tables in again.
    pub(crate) fn swap_map(&self, name: &str, content: &str) {
        std::fs::write(self.directory.path().join(name), content).unwrap();
        self.maps.store(self.config.maps.load().unwrap());
    }

    pub(crate) fn all(&mut self, status: EndpointStatus) {
        self.observed = vec![Health::with_status(status); self.config.endpoints.len()];
        self.latest.observe(self.observed.clone());
    }

    pub(crate) fn set(&mut self, endpoints: &[&str], status: EndpointStatus) {
        self.set_health(endpoints, Health::with_status(status));
    }

    pub(crate) fn set_health(&mut self, endpoints: &[&str], health: Health) {
        for name in endpoints {
            let at = self.config.endpoints.iter().position(|endpoint| endpoint.name == *name);
            self.observed[at.unwrap_or_else(|| panic!("there is no endpoint {name}"))] = health;
        }
        self.latest.observe(self.observed.clone());
    }

    pub(crate) fn up(&mut self, endpoints: &[&str]) {
        self.set(endpoints, Online);
    }

    pub(crate) fn down(&mut self, endpoints: &[&str]) {
        self.set(endpoints, Degraded);
    }

    pub(crate) fn checking(&mut self, endpoints: &[&str]) {
        self.set(endpoints, CheckingEndpoint);
    }

    pub(crate) fn stopped(&mut self, endpoints: &[&str]) {
        self.set(endpoints, Stopped);
    }

    pub(crate) fn direct(&self, profile: &str, endpoint: &str, directive: Directive) {
        self.latest.direct(name(profile), endpoint, directive);
    }

    /// The state of an endpoint as it is served.
    pub(crate) fn status(&self, endpoint: &str) -> EndpointStatus {
        let all = self.config.zones.profiles().iter().flat_map(|profile| profile.endpoints());
        let found = all.into_iter().find(|known| known.name == endpoint).unwrap();
        self.latest.load().health(found.index).status
    }

    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Reply {
        self.ask_as(name, kind, None, None)
    }

    /// `A`, and what it says.
    pub(crate) fn a(&self, name: &str) -> Vec<String> {
        self.ask(name, RecordType::A).data().into_iter().map(str::to_owned).collect()
    }

    /// The one answer to `A`.
    pub(crate) fn one(&self, name: &str) -> String {
        self.ask(name, RecordType::A).only().data.clone()
    }

    /// The one answer to `A` asked from a source on 127.0.0.0/8.
    pub(crate) fn one_from(&self, name: &str, source: &str) -> String {
        self.ask_as(name, RecordType::A, Some(source), None).only().data.clone()
    }

    /// The answer to `A` for a client subnet.
    pub(crate) fn for_subnet(&self, name: &str, subnet: &str) -> Reply {
        self.ask_as(name, RecordType::A, None, Some(subnet))
    }

    pub(crate) fn ask_as(
        &self,
        name: &str,
        kind: RecordType,
        source: Option<&str>,
        subnet: Option<&str>,
    ) -> Reply {
        let source: IpAddr = source.unwrap_or("127.0.0.1").parse().unwrap();
        let subnet = subnet.map(|text| {
            let (address, prefix) = text.split_once('/').unwrap();
            ClientSubnet { address: address.parse().unwrap(), source_prefix: prefix.parse().unwrap() }
        });
        match &self.wire {
            None => self.decide(name, kind, source, subnet),
            Some(wire) => wire.ask(self.backend, name, kind, source, subnet),
        }
    }

    /// How often each answer came in `count` queries for `A`.
    pub(crate) fn counts(&self, profile: &str, count: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            for data in self.a(profile) {
                *counts.entry(data).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Asserts that one answer has a share of many: within 3 standard deviations where the draw is seeded, within 6
    /// where it is not.
    pub(crate) fn share(&self, profile: &str, data: &str, expected: f64) {
        let (count, deviations) = if self.backend == Backend::Pure { (10_000, 3.0) } else { (2_000, 6.0) };
        let found = self.counts(profile, count).get(data).copied().unwrap_or(0);
        self.assert_share(found, count, expected, deviations);
    }

    fn assert_share(&self, found: usize, count: usize, expected: f64, deviations: f64) {
        let count = f64::from(u32::try_from(count).unwrap());
        let found = f64::from(u32::try_from(found).unwrap());
        let allowed = deviations * (count * expected * (1.0 - expected)).sqrt();
        let off = (found - count * expected).abs();
        assert!(off <= allowed, "{found} of {count}, {} expected, {allowed} allowed", count * expected);
    }

    /// The decision alone, put into words like an answer.
    fn decide(&self, text: &str, kind: RecordType, source: IpAddr, subnet: Option<ClientSubnet>) -> Reply {
        let asked = match kind {
            RecordType::A => AskedType::A,
            RecordType::AAAA => AskedType::Aaaa,
            RecordType::ANY => AskedType::Any,
            _ => AskedType::Other,
        };
        let asker = Asker { asked, source, subnet };
        let mut reply = Reply { code: "NOERROR".to_owned(), answers: Vec::new(), scope: subnet.map(|_| 0) };
        let mut at = name(text);
        for _ in 0..10 {
            let Some(next) = self.standing(&at, &asker, &mut reply) else { break };
            if kind == RecordType::CNAME {
                break;
            }
            at = next;
        }
        reply
    }

    /// Adds what stands at a name; gives the name to go on with.
    fn standing(&self, at: &DnsName, asker: &Asker, reply: &mut Reply) -> Option<DnsName> {
        let owner = format!("{at}.");
        let record = |kind, ttl, data: String| Answered { owner: owner.clone(), kind, ttl, data };
        let (position, ttl) = match self.config.zones.find(at) {
            Found::OutOfZone => return None,
            Found::Absent(_) => {
                reply.code = "NXDOMAIN".to_owned();
                return None;
            }
            Found::Present(_, Node::Empty | Node::Addresses { .. }) => return None,
            Found::Present(_, Node::Alias { ttl, target }) => {
                reply.answers.push(record(RecordType::CNAME, ttl.seconds(), format!("{target}.")));
                return Some(target.clone());
            }
            Found::Present(_, Node::Profile(position) | Node::Flattened(position)) => {
                (*position, self.config.zones.profile(*position).unwrap().ttl.seconds())
            }
        };
        let (snapshot, maps) = (self.latest.load(), self.maps.load());
        let view = View { profiles: self.config.zones.profiles(), snapshot: &snapshot, maps: &maps };
        let Decision { answer, scope_prefix } = decide(&view, position, asker, &mut *self.rng.borrow_mut());
        reply.scope = reply.scope.map(|scope| scope.max(scope_prefix));
        match answer {
            Answer::Addresses(addresses) => reply.answers.extend(addresses.into_iter().map(|address| {
                let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
                record(kind, ttl, address.to_string())
            })),
            Answer::Name(target) => {
                reply.answers.push(record(RecordType::CNAME, ttl, format!("{target}.")));
                return Some(target);
            }
            Answer::NoData => {}
            Answer::NameError => reply.code = "NXDOMAIN".to_owned(),
        }
        None
    }

    /// The runtime of the server, where there is one.
    pub(crate) fn runtime(&self) -> Option<&tokio::runtime::Runtime> {
        self.wire.as_ref().map(|wire| &wire.runtime)
    }

    /// Sends bytes and takes the answer's bytes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.raw_from("127.0.0.1", bytes)
    }

    /// The same from another source.
    pub(crate) fn raw_from(&self, source: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let wire = self.wire.as_ref()?;
        Some(wire.exchange(self.backend, source.parse().unwrap(), bytes))
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.wire.as_ref().unwrap().address
    }

    /// The answer to a message.
    pub(crate) fn exchange(&self, message: &Message) -> Message {
        Message::from_vec(&self.raw(&message.to_vec().unwrap()).unwrap()).unwrap()
    }
}

/// A name in `tm.test`, or the zone's own.
pub(crate) fn name(text: &str) -> DnsName {
    let whole = if text == "@" { "tm.test".to_owned() } else { format!("{text}.tm.test") };
    whole.parse().unwrap()
}

fn serving(config: &Config, latest: &LatestSnapshot, maps: &LatestMaps) -> Serving {
    let counters = Arc::new(Counters::new(config.zones.profiles().len()));
    Serving::new(Arc::clone(&config.zones), latest.clone(), counters).with_maps(maps.clone())
}

pub(crate) fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{}.", name(text))).unwrap(), kind));
    message
}

impl Wire {
    fn start(config: &Config, latest: &LatestSnapshot, maps: &LatestMaps) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serving = LatestServing::new(serving(config, latest, maps));
        let stop = CancellationToken::new();
        let [address, address_v6] = runtime.block_on(async {
            let wanted = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
            let listening = Listening::bind(&wanted).unwrap();
            let addresses = [listening.addresses()[0], listening.addresses()[1]];
            let options = ServerOptions { udp_threads: 1, tcp_idle: DEADLINE, responses_per_second: None };
            let server = DnsServer::start_with(listening, &serving, options).unwrap();
            tokio::spawn(server.run(stop.clone()));
            addresses
        });
        let _stop = stop.drop_guard();
        let (tcp, udp) = (RefCell::default(), RefCell::default());
        Self { runtime, _stop, serving, address, address_v6, tcp, udp }
    }

    fn ask(
        &self,
        backend: Backend,
        name: &str,
        kind: RecordType,
        source: IpAddr,
        subnet: Option<ClientSubnet>,
    ) -> Reply {
        let mut message = query(name, kind);
        if let Some(subnet) = subnet {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            let option = WireSubnet::new(subnet.address, subnet.source_prefix, 0);
            edns.options_mut().insert(EdnsOption::Subnet(option));
            message.edns = Some(edns);
        }
        let bytes = self.exchange(backend, source, &message.to_vec().unwrap());
        let found = Message::from_vec(&bytes).unwrap();
        assert_eq!((found.metadata.id, found.metadata.message_type), (4711, MessageType::Response));
        assert!(!found.metadata.truncation);
        reply(&found)
    }

    fn exchange(&self, backend: Backend, source: IpAddr, bytes: &[u8]) -> Vec<u8> {
        if backend == Backend::Tcp {
            let mut streams = self.tcp.borrow_mut();
            let stream = streams.entry(source).or_insert_with(|| self.connect(source));
            return over_tcp(stream, bytes);
        }
        let mut sockets = self.udp.borrow_mut();
        let socket = sockets.entry(source).or_insert_with(|| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.connect(self.address_for(source)).unwrap();
            socket
        });
        socket.send(bytes).unwrap();
        let mut answer = vec![0; 65_535];
        let length = socket.recv(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }

    /// Where the server is for a source of this family.
    fn address_for(&self, source: IpAddr) -> SocketAddr {
        if source.is_ipv4() { self.address } else { self.address_v6 }
    }

    fn connect(&self, source: IpAddr) -> TcpStream {
        use socket2::{Domain, Socket, Type};
        let address = self.address_for(source);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

fn over_tcp(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn reply(found: &Message) -> Reply {
    let answered = |record: &Record| Answered {
        owner: record.name.to_ascii(),
        kind: record.record_type(),
        ttl: record.ttl,
        data: match &record.data {
            RData::CNAME(target) => target.0.to_ascii(),
            other => other.to_string(),
        },
    };
    let subnet = found.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet));
    let scope = match subnet {
        Some(EdnsOption::Subnet(subnet)) => Some(subnet.scope_prefix()),
        _ => None,
    };
    let code = match u16::from(found.metadata.response_code) {
        0 => "NOERROR",
        1 => "FORMERR",
        3 => "NXDOMAIN",
        5 => "REFUSED",
        _ => "another code",
    };
    Reply { code: code.to_owned(), answers: found.answers.iter().map(answered).collect(), scope }
}
