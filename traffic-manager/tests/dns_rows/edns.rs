//! C and D: EDNS, client subnet and answer sizes.

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use hickory_server::proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};

use crate::lab::{Lab, code, query, read, tcp, udp, with_edns};

#[tokio::test]
async fn d_05_a_later_edns_version_is_answered_with_badvers_and_version_0() {
    let lab = Lab::start();
    let mut question = with_edns(query("p.tm.test.", RecordType::A), 1232);
    question.edns.as_mut().unwrap().set_version(1);
    let answer = lab.ask_all(&question).await;
    // 16 is BADSIG in other contexts, and the library reads it so.
    assert_eq!(u16::from(code(&answer)), 16);
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty() && answer.authorities.is_empty());
}

#[tokio::test]
async fn d_06_unknown_options_and_flags_are_not_echoed_and_do_is_copied() {
    let lab = Lab::start();
    let mut question = with_edns(query("p.tm.test.", RecordType::A), 1232);
    let edns = question.edns.as_mut().unwrap();
    edns.options_mut().insert(EdnsOption::Unknown(100, vec![1, 2, 3]));
    edns.flags_mut().z = 0x40;
    edns.set_dnssec_ok(true);
    let answer = lab.ask_all(&question).await.edns.unwrap();
    assert!(answer.options().as_ref().is_empty());
    assert_eq!((answer.flags().z, answer.flags().dnssec_ok), (0, true));
}

#[tokio::test]
async fn d_07_an_opt_record_is_answered_with_one_on_errors_too_and_only_then() {
    let lab = Lab::start();
    for name in ["p.tm.test.", "nosuch.tm.test.", "x.other."] {
        let plain = query(name, RecordType::A);
        assert!(lab.ask_all(&plain).await.edns.is_none(), "{name}");
        assert!(lab.ask_all(&with_edns(plain, 1232)).await.edns.is_some(), "{name}");
    }
}

#[tokio::test]
async fn d_08_an_answer_has_at_most_the_bytes_that_client_and_we_allow() {
    let lab = Lab::start();
    for (asked, told) in
        [(0, 512), (511, 512), (512, 512), (700, 700), (1232, 1232), (4096, 1232), (65_535, 1232)]
    {
        let mut question = with_edns(query("big.tm.test.", RecordType::AAAA), 512);
        // The library raises what is too small; the wire may carry anything.
        let mut bytes = question.to_vec().unwrap();
        let at = bytes.len() - 8;
        bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(asked));
        let answer = udp(lab.v4, &bytes).await;
        assert_eq!(read(&answer).edns.unwrap().max_payload(), told, "{asked}");
        assert!(answer.len() <= usize::from(told));
        question.edns = None;
    }
}

#[tokio::test]
async fn d_08_an_answer_that_does_not_fit_says_so_and_is_whole_over_tcp() {
    let lab = Lab::start();
    // A question so long that ten addresses do not fit beside it: 512 bytes hold eight.
    let label = "x".repeat(63);
    let name = format!("{label}.{label}.{}.tm.test.", "y".repeat(40));
    let question = query(&name, RecordType::AAAA).to_vec().unwrap();
    assert!(!read(&udp(lab.v4, &question).await).metadata.truncation, "a negative answer fits");
    let long = query(&long_profile(), RecordType::AAAA);
    for question in [long.clone(), with_edns(long, 512)] {
        let bytes = question.to_vec().unwrap();
        let short = udp(lab.v4, &bytes).await;
        let short_message = read(&short);
        assert!(short.len() <= 512 && short_message.metadata.truncation);
        assert_eq!((short_message.answers.len(), short_message.edns.is_some()), (0, question.edns.is_some()));
        let whole = read(&tcp(lab.v4, &bytes).await);
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (10, false));
    }
    assert_eq!(lab.counters.view().truncations, 2);
}

fn long_profile() -> String {
    crate::lab::LONG_PROFILE.to_owned() + ".tm.test."
}

fn with_subnet(text: &str) -> hickory_server::proto::op::Message {
    let mut question = with_edns(query("p.tm.test.", RecordType::A), 1232);
    let subnet: ClientSubnet = text.parse().unwrap();
    question.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Subnet(subnet));
    question
}

#[tokio::test]
async fn c_03_c_04_and_c_06_a_client_subnet_is_echoed_with_scope_0() {
    let lab = Lab::start();
    for (text, prefix) in
        [("198.51.100.0/24", 24), ("2001:db8:ff00::/40", 40), ("0.0.0.0/0", 0), ("203.0.113.7/32", 32)]
    {
        let answer = lab.ask_all(&with_subnet(text)).await;
        let Some(EdnsOption::Subnet(echo)) = answer.edns.as_ref().unwrap().option(EdnsCode::Subnet) else {
            panic!("{text} is echoed")
        };
        assert_eq!(format!("{}/{}", echo.addr(), echo.source_prefix()), text);
        assert_eq!((echo.source_prefix(), echo.scope_prefix()), (prefix, 0));
        assert_eq!(answer.answers.len(), 3);
    }
}

#[tokio::test]
async fn c_07_without_a_client_subnet_none_is_answered() {
    let lab = Lab::start();
    let answer = lab.ask_all(&with_edns(query("p.tm.test.", RecordType::A), 1232)).await;
    assert!(answer.edns.unwrap().option(EdnsCode::Subnet).is_none());
}

#[tokio::test]
async fn c_08_a_malformed_client_subnet_is_formerr() {
    let lab = Lab::start();
    // Family 5; a byte short; a byte over; bits past the prefix.
    for option in ["00051800cb0071", "00011800cb00", "00011800cb007105", "00011400cb00ff"] {
        let data: Vec<u8> = (0..option.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&option[at..at + 2], 16).unwrap())
            .collect();
        let mut question = with_edns(query("p.tm.test.", RecordType::A), 1232);
        question.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(8, data));
        let bytes = question.to_vec().unwrap();
        for answer in [udp(lab.v4, &bytes).await, tcp(lab.v6, &bytes).await] {
            assert_eq!(code(&read(&answer)), ResponseCode::FormErr, "{option}");
        }
    }
}
