//! L: what does not exist, and for how long.

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use rc_traffic_manager::decide::EndpointStatus::{Disabled, Online};

use crate::lab::{Lab, code, soa};

#[tokio::test]
async fn l_08_l_09_and_l_10_a_profile_that_is_off_does_not_exist() {
    let lab = Lab::start();
    for name in ["off.tm.test.", "none.tm.test."] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::ANY] {
            let answer = lab.ask(name, kind).await;
            assert_eq!(code(&answer), ResponseCode::NXDomain, "{name}");
            soa(&answer);
        }
    }
    lab.set(&[Disabled; 5], Online);
    assert_eq!(code(&lab.ask("p.tm.test.", RecordType::A).await), ResponseCode::NXDomain);
}

#[tokio::test]
async fn l_11_and_l_12_an_unknown_name_is_nxdomain_with_the_soa_and_its_negative_ttl() {
    let lab = Lab::start();
    let answer = lab.ask("nosuch.tm.test.", RecordType::A).await;
    assert_eq!((code(&answer), answer.metadata.authoritative), (ResponseCode::NXDomain, true));
    let (record, minimum) = soa(&answer);
    assert_eq!((record.name.to_ascii().as_str(), record.ttl, minimum), ("tm.test.", 30, 30));
}

#[tokio::test]
async fn t_04_t_05_t_09_and_t_18_a_type_that_is_not_there_is_no_data() {
    let lab = Lab::start();
    let kinds = [
        RecordType::AAAA,
        RecordType::CNAME,
        RecordType::TXT,
        RecordType::MX,
        RecordType::HTTPS,
        RecordType::NS,
    ];
    for kind in kinds {
        let answer = lab.ask("p.tm.test.", kind).await;
        assert_eq!((code(&answer), answer.metadata.authoritative), (ResponseCode::NoError, true), "{kind}");
        assert_eq!(soa(&answer).0.ttl, 30, "{kind}");
    }
    assert_eq!(code(&lab.ask("short.tm.test.", RecordType::A).await), ResponseCode::NoError);
}

#[tokio::test]
async fn l_13_absence_is_cached_no_longer_than_an_answer_of_the_profile() {
    let lab = Lab::start();
    assert_eq!(soa(&lab.ask("short.tm.test.", RecordType::A).await).0.ttl, 10);
    assert_eq!(soa(&lab.ask("zero.tm.test.", RecordType::AAAA).await).0.ttl, 0);
    assert_eq!(soa(&lab.ask("broker-3.in.tm.test.", RecordType::TXT).await).0.ttl, 5);
}

#[tokio::test]
async fn a_name_with_something_below_it_exists() {
    let lab = Lab::start();
    for (name, expected) in [
        ("in.tm.test.", ResponseCode::NoError),
        ("tm.test.", ResponseCode::NoError),
        ("x.in.tm.test.", ResponseCode::NXDomain),
        ("x.p.tm.test.", ResponseCode::NXDomain),
    ] {
        let answer = lab.ask(name, RecordType::A).await;
        assert_eq!(code(&answer), expected, "{name}");
        soa(&answer);
    }
}
