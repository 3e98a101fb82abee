//! C and D: EDNS, client subnets and the rules of DNS, over sockets.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_server::proto::rr::{DNSClass, Name, RData, RecordType};

use crate::stage::{Backend, DEADLINE, Stage, endpoint, profile, query, simple};

fn stage(backend: Backend) -> Stage {
    Stage::new(backend, &simple("MultiValue", "max_return = 3", &["", "", ""]))
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

fn with_option(code: u16, data: &[u8]) -> Message {
    let mut message = with_edns(query("p", RecordType::A), 1232);
    let option = EdnsOption::Unknown(code, data.to_vec());
    message.edns.as_mut().unwrap().options_mut().insert(option);
    message
}

pub(crate) fn c_03(backend: Backend) {
    let stage = stage(backend);
    for given in [[0, 1, 24, 0, 198, 51, 100].as_slice(), &[0, 2, 40, 0, 0x20, 1, 0xd, 0xb8, 0xff]] {
        let answer = stage.exchange(&with_option(8, given));
        let Some(EdnsOption::Subnet(subnet)) = answer.edns.as_ref().unwrap().option(EdnsCode::Subnet) else {
            panic!("a client subnet in {answer}")
        };
        assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (given[2], 0));
        let octets = match subnet.addr() {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert_eq!(octets[..given.len() - 4], given[4..]);
    }
}

pub(crate) fn c_07(backend: Backend) {
    let answer = stage(backend).exchange(&with_edns(query("p", RecordType::A), 1232));
    assert!(answer.edns.unwrap().option(EdnsCode::Subnet).is_none());
}

pub(crate) fn c_08(backend: Backend) {
    let stage = stage(backend);
    let wrong: [&[u8]; 5] = [
        &[0, 5, 24, 0, 203, 0, 113],
        &[0, 1, 24, 0, 203, 0],
        &[0, 1, 24, 0, 203, 0, 113, 5],
        &[0, 1, 20, 0, 203, 0, 255],
        &[0, 1, 33, 0, 203, 0, 113, 1, 128],
    ];
    for given in wrong {
        assert_eq!(code(&stage.exchange(&with_option(8, given))), ResponseCode::FormErr, "{given:?}");
    }
}

pub(crate) fn d_01(backend: Backend) {
    let stage = stage(backend);
    for desired in [true, false] {
        let mut question = query("p", RecordType::A);
        question.metadata.recursion_desired = desired;
        let answer = stage.exchange(&question).metadata;
        assert!(answer.authoritative && !answer.recursion_available);
        assert_eq!(answer.recursion_desired, desired);
    }
}

pub(crate) fn d_02(backend: Backend) {
    let stage = stage(backend);
    for other in ["x.other.", "test.", "xtm.test."] {
        let mut question = query("p", RecordType::A);
        question.queries[0].set_name(Name::from_ascii(other).unwrap());
        let answer = stage.exchange(&question);
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::Refused, 0), "{other}");
    }
}

/// The question as it was sent, and as it comes back.
fn sent_and_returned(stage: &Stage, name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut question = query("p", RecordType::A);
    question.queries[0].set_name(Name::from_ascii(name).unwrap());
    let sent = question.to_vec().unwrap();
    let answer = stage.raw(&sent).unwrap();
    (sent[12..].to_vec(), answer[12..sent.len()].to_vec())
}

pub(crate) fn d_03(backend: Backend) {
    let (sent, returned) = sent_and_returned(&stage(backend), "P.Tm.TeSt.");
    assert_eq!(sent, returned);
    assert!(sent.contains(&b'P') && sent.contains(&b'S'));
}

pub(crate) fn d_04(backend: Backend) {
    let stage = stage(backend);
    let mut question = query("p", RecordType::A);
    question.queries[0].set_name(Name::from_ascii("P.TM.TEST.").unwrap());
    let upper = stage.exchange(&question);
    let lower = stage.exchange(&query("p", RecordType::A));
    assert_eq!((code(&upper), upper.answers.len()), (code(&lower), lower.answers.len()));
    assert_eq!(upper.answers.len(), 3);
}

pub(crate) fn d_05(backend: Backend) {
    let mut question = with_edns(query("p", RecordType::A), 1232);
    question.edns.as_mut().unwrap().set_version(1);
    let answer = stage(backend).exchange(&question);
    // BADVERS; the number has two names.
    assert_eq!((u16::from(code(&answer)), answer.answers.len()), (16, 0));
    assert_eq!(answer.edns.unwrap().version(), 0);
}

pub(crate) fn d_06(backend: Backend) {
    let stage = stage(backend);
    let answer = stage.exchange(&with_option(100, &[1, 2, 3]));
    assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NoError, 3));
    assert!(answer.edns.unwrap().option(EdnsCode::Unknown(100)).is_none());
    // The flags are the last two bytes of the TTL of the OPT record, which ends the message with its length of zero.
    let mut bytes = with_edns(query("p", RecordType::A), 1232).to_vec().unwrap();
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&0x0040_u16.to_be_bytes());
    let answer = stage.raw(&bytes).unwrap();
    assert_eq!(answer[answer.len() - 4..], [0, 0, 0, 0]);
}

pub(crate) fn d_07(backend: Backend) {
    let stage = stage(backend);
    assert!(stage.exchange(&query("p", RecordType::A)).edns.is_none());
    for name in ["p", "nosuch"] {
        assert!(stage.exchange(&with_edns(query(name, RecordType::A), 1232)).edns.is_some());
    }
    let mut refused = with_edns(query("p", RecordType::A), 1232);
    refused.queries[0].set_name(Name::from_ascii("x.other.").unwrap());
    let answer = stage.exchange(&refused);
    assert_eq!((code(&answer), answer.edns.is_some()), (ResponseCode::Refused, true));
}

pub(crate) fn d_08(backend: Backend) {
    let label = "x".repeat(60);
    let long = format!("{label}.{label}.{label}.{}", "y".repeat(45));
    let endpoints = (1..=10).map(|n| endpoint(&long, &format!("e{n}"), &format!("2001:db8::{n}"), ""));
    let stage = Stage::new(
        backend,
        &(profile(&long, "MultiValue", "max_return = 10") + &endpoints.collect::<String>()),
    );
    let plain = query(&long, RecordType::AAAA);
    for (question, limit) in
        [(plain.clone(), 512), (with_edns(plain.clone(), 512), 512), (with_edns(plain, 4096), 1232)]
    {
        let bytes = stage.raw(&question.to_vec().unwrap()).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        let is_whole = answer.answers.len() == 10;
        if backend == Backend::Udp {
            assert!(bytes.len() <= limit, "{} bytes of {limit}", bytes.len());
            assert_eq!(answer.metadata.truncation, !is_whole);
            assert_eq!(is_whole, limit == 1232);
        } else {
            assert!(is_whole && !answer.metadata.truncation);
        }
    }
}

pub(crate) fn d_09(backend: Backend) {
    // The stage keeps one connection, or one socket, for all its queries.
    let stage = stage(backend);
    for (name, count) in [("p", 3), ("nosuch", 0), ("p", 3)] {
        assert_eq!(stage.exchange(&query(name, RecordType::A)).answers.len(), count);
    }
}

pub(crate) fn d_10(backend: Backend) {
    let stage = stage(backend);
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(15)] {
        let mut question = query("p", RecordType::A);
        question.metadata.op_code = opcode;
        let answer = stage.exchange(&question);
        assert_eq!((code(&answer), answer.metadata.op_code), (ResponseCode::NotImp, opcode));
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&stage.exchange(&query("@", kind))), ResponseCode::Refused);
    }
}

pub(crate) fn d_11(backend: Backend) {
    let stage = stage(backend);
    let answer = stage.exchange(&query("@", RecordType::SOA));
    assert!(matches!(&answer.answers[0].data, RData::SOA(soa) if soa.minimum == 60));
    let answer = stage.exchange(&query("@", RecordType::NS));
    assert_eq!(answer.answers[0].data.to_string(), "ns.tm.test.");
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY] {
        let mut question = query("p", RecordType::A);
        question.queries[0].set_query_class(class);
        assert_eq!(code(&stage.exchange(&question)), ResponseCode::Refused, "{class}");
    }
}

pub(crate) fn d_12(backend: Backend) {
    let stage = stage(backend);
    let sound = query("p", RecordType::A).to_vec().unwrap();
    let mut response = sound.clone();
    response[2] |= 0x80;
    for dropped in [response.as_slice(), &sound[..11]] {
        match backend {
            Backend::Tcp => over_tcp(&stage, dropped, &sound),
            Backend::Udp | Backend::Pure => over_udp(&stage, dropped, &sound),
        }
    }
}

fn over_udp(stage: &Stage, dropped: &[u8], sound: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(stage.address()).unwrap();
    socket.send(dropped).unwrap();
    let mut question = sound.to_vec();
    question[..2].copy_from_slice(&[9, 9]);
    socket.send(&question).unwrap();
    let mut answer = [0; 1500];
    socket.recv(&mut answer).unwrap();
    assert_eq!(answer[..2], [9, 9], "only the sound one is answered");
}

/// The server may end a connection on which such a thing comes.
fn over_tcp(stage: &Stage, dropped: &[u8], sound: &[u8]) {
    let mut stream = TcpStream::connect(stage.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut question = sound.to_vec();
    question[..2].copy_from_slice(&[9, 9]);
    let mut bytes = Vec::new();
    for message in [dropped, &question] {
        bytes.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(message);
    }
    stream.write_all(&bytes).unwrap();
    let mut head = [0; 4];
    if stream.read_exact(&mut head).is_ok() {
        assert_eq!(head[2..], [9, 9], "only the sound one is answered");
    }
}

pub(crate) fn d_13(backend: Backend) {
    let stage = stage(backend);
    let question = query("p", RecordType::A).to_vec().unwrap();
    for source in ["127.0.0.1", "::1"] {
        let answer = Message::from_vec(&stage.raw_from(source, &question).unwrap()).unwrap();
        assert_eq!(
            (answer.metadata.message_type, answer.answers.len()),
            (MessageType::Response, 3),
            "{source}"
        );
    }
}
