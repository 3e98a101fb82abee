//! D: the rules of the protocol.

use hickory_server::proto::op::{OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, RData, RecordType};
use tokio::net::TcpStream;

use crate::lab::{Lab, code, query, read, receive, soa, tcp_on, udp, udp_to};

#[tokio::test]
async fn d_01_the_answer_is_authoritative_offers_no_recursion_and_copies_rd() {
    let lab = Lab::start();
    for desired in [true, false] {
        let mut question = query("p.tm.test.", RecordType::A);
        question.metadata.recursion_desired = desired;
        let answer = lab.ask_all(&question).await.metadata;
        assert!(answer.authoritative && !answer.recursion_available && !answer.authentic_data);
        assert_eq!(answer.recursion_desired, desired);
    }
}

#[tokio::test]
async fn d_02_a_name_outside_the_zones_is_refused() {
    let lab = Lab::start();
    for name in ["x.other.", "test.", "xtm.test.", "."] {
        let answer = lab.ask(name, RecordType::A).await;
        assert_eq!((code(&answer), answer.metadata.authoritative), (ResponseCode::Refused, false), "{name}");
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
    }
    assert_eq!(lab.counters.view().refusals, 16);
}

#[tokio::test]
async fn d_03_and_d_04_letter_case_is_returned_as_asked_and_makes_no_difference() {
    let lab = Lab::start();
    let question = query("MiXeD.Tm.TeSt.", RecordType::A).to_vec().unwrap();
    let answer = udp(lab.v4, &question).await;
    let at = question.len() - 12;
    assert_eq!(answer[12..at + 12], question[12..], "the question comes back byte for byte");
    let answer = read(&answer);
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.answers.iter().all(|record| record.name.to_ascii() == "MiXeD.Tm.TeSt."));
}

#[tokio::test]
async fn d_09_tcp_takes_several_queries_on_one_connection() {
    let lab = Lab::start();
    let mut stream = TcpStream::connect(lab.v4).await.unwrap();
    for (name, count) in [("p.tm.test.", 3), ("mixed.tm.test.", 2), ("nosuch.tm.test.", 0)] {
        let answer = tcp_on(&mut stream, &query(name, RecordType::A).to_vec().unwrap()).await;
        assert_eq!(read(&answer).answers.len(), count, "{name}");
    }
}

#[tokio::test]
async fn d_10_other_opcodes_are_not_implemented_and_transfers_are_refused() {
    let lab = Lab::start();
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(15)] {
        let mut question = query("p.tm.test.", RecordType::A);
        question.metadata.op_code = opcode;
        let answer = lab.ask_all(&question).await;
        assert_eq!((code(&answer), answer.metadata.op_code), (ResponseCode::NotImp, opcode));
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&lab.ask("tm.test.", kind).await), ResponseCode::Refused);
    }
}

#[tokio::test]
async fn d_11_the_apex_has_soa_and_ns_and_other_classes_are_not_ours() {
    let lab = Lab::start();
    let answer = lab.ask("tm.test.", RecordType::SOA).await;
    let RData::SOA(found) = &answer.answers[0].data else { panic!("a SOA") };
    assert_eq!((found.mname.to_ascii().as_str(), found.serial, found.minimum), ("ns.tm.test.", 2026, 30));
    assert_eq!((answer.answers[0].ttl, answer.answers.len()), (600, 1));
    let answer = lab.ask("tm.test.", RecordType::NS).await;
    assert_eq!(answer.answers[0].data.to_string(), "ns.tm.test.");
    assert!(answer.authorities.is_empty());
    assert_eq!(lab.ask("tm.test.", RecordType::ANY).await.answers.len(), 2);
    assert_eq!(soa(&lab.ask("tm.test.", RecordType::A).await).0.ttl, 30);
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY] {
        let mut question = query("p.tm.test.", RecordType::A);
        question.queries[0].set_query_class(class);
        assert_eq!(code(&lab.ask_all(&question).await), ResponseCode::Refused, "{class}");
    }
}

#[tokio::test]
async fn d_12_responses_and_fragments_are_dropped_silently() {
    let lab = Lab::start();
    let socket = udp_to(lab.v4).await;
    let mut response = query("p.tm.test.", RecordType::A).to_vec().unwrap();
    response[2] |= 0x80;
    let whole = query("p.tm.test.", RecordType::A).to_vec().unwrap();
    for dropped in [response.as_slice(), &whole[..11], &[]] {
        socket.send(dropped).await.unwrap();
    }
    for id in [1_u16, 2, 3] {
        let mut question = whole.clone();
        question[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&question).await.unwrap();
        assert_eq!(read(&receive(&socket).await).metadata.id, id);
    }
    assert_eq!(lab.counters.view().queries, 3);
}

#[tokio::test]
async fn a_query_without_exactly_one_question_is_formerr() {
    let lab = Lab::start();
    let mut none = query("p.tm.test.", RecordType::A);
    none.queries.clear();
    let mut two = query("p.tm.test.", RecordType::A);
    two.add_query(two.queries[0].clone());
    for question in [none, two] {
        assert_eq!(code(&lab.ask_all(&question).await), ResponseCode::FormErr);
    }
}
