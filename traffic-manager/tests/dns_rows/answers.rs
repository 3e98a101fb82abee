//! T, L and V: what is answered, and for how long.

use std::collections::BTreeSet;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use rc_traffic_manager::decide::EndpointStatus::{Degraded, Disabled, Online};

use crate::lab::{Lab, addresses, code, query, read, tcp, udp};

#[tokio::test]
async fn t_01_and_t_02_addresses_are_answered_as_a_and_aaaa_under_the_name_asked() {
    let lab = Lab::start();
    let answer = lab.ask("mixed.tm.test.", RecordType::A).await;
    assert!(answer.answers.iter().all(|record| record.record_type() == RecordType::A));
    assert!(answer.answers.iter().all(|record| record.name.to_ascii() == "mixed.tm.test."));
    let answer = lab.ask("mixed.tm.test.", RecordType::AAAA).await;
    assert!(answer.answers.iter().all(|record| record.record_type() == RecordType::AAAA));
    assert_eq!(answer.answers.len(), 2);
}

#[tokio::test]
async fn t_12_to_t_15_mixed_families_are_filtered_by_the_type_asked() {
    let lab = Lab::start();
    let of = async |kind| addresses(&lab.ask("mixed.tm.test.", kind).await);
    assert_eq!(of(RecordType::A).await, ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(of(RecordType::AAAA).await, ["2001:db8::1", "2001:db8::2"]);
    assert_eq!(of(RecordType::CNAME).await, Vec::<String>::new());
    assert_eq!(of(RecordType::ANY).await.len(), 4);
}

#[tokio::test]
async fn v_01_v_02_and_v_05_healthy_endpoints_are_answered_up_to_max_return() {
    let lab = Lab::start();
    let found = addresses(&lab.ask("p.tm.test.", RecordType::A).await);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 3);
    lab.set(&[Degraded, Online, Degraded, Online, Disabled], Online);
    assert_eq!(addresses(&lab.ask("p.tm.test.", RecordType::A).await), ["203.0.113.2", "203.0.113.4"]);
}

#[tokio::test]
async fn v_06_over_many_queries_every_healthy_endpoint_appears() {
    let lab = Lab::start();
    let question = query("p.tm.test.", RecordType::A).to_vec().unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.extend(addresses(&read(&udp(lab.v4, &question).await)));
    }
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn v_07_when_all_are_degraded_the_answer_is_as_if_all_were_online() {
    let lab = Lab::start();
    lab.all(Degraded);
    assert_eq!(lab.ask("p.tm.test.", RecordType::A).await.answers.len(), 3);
    lab.set(&[Degraded, Disabled, Disabled, Disabled, Degraded], Online);
    assert_eq!(addresses(&lab.ask("p.tm.test.", RecordType::A).await), ["203.0.113.1", "203.0.113.5"]);
}

#[tokio::test]
async fn v_12_no_address_comes_twice() {
    let lab = Lab::start();
    let found = addresses(&lab.ask("big.tm.test.", RecordType::AAAA).await);
    assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (10, 10));
}

#[tokio::test]
async fn v_13_ten_ipv6_addresses_fit_without_edns() {
    let lab = Lab::start();
    let question = query("big.tm.test.", RecordType::AAAA).to_vec().unwrap();
    let bytes = udp(lab.v4, &question).await;
    assert!(bytes.len() <= 512, "{}", bytes.len());
    assert!(!read(&bytes).metadata.truncation);
    assert_eq!(read(&bytes).answers.len(), 10);
    assert_eq!(tcp(lab.v4, &question).await.len(), bytes.len());
}

#[tokio::test]
async fn l_01_l_02_and_l_03_the_ttl_is_that_of_the_profile() {
    let lab = Lab::start();
    for (name, ttl) in [("p", 42), ("zero", 0), ("far", 2_147_483_647), ("mixed", 300)] {
        for _ in 0..2 {
            let answer = lab.ask(&format!("{name}.tm.test."), RecordType::A).await;
            assert!(answer.answers.iter().all(|record| record.ttl == ttl), "{name}");
        }
    }
}

#[tokio::test]
async fn a_fixed_name_is_answered_with_its_own_ttl() {
    let lab = Lab::start();
    let answer = lab.ask("broker-3.in.tm.test.", RecordType::A).await;
    assert_eq!((addresses(&answer), answer.answers[0].ttl), (vec!["203.0.113.30".to_owned()], 5));
    assert_eq!(addresses(&lab.ask("broker-3.in.tm.test.", RecordType::AAAA).await), ["2001:db8::30"]);
    assert_eq!(lab.ask("broker-3.in.tm.test.", RecordType::ANY).await.answers.len(), 2);
}

#[tokio::test]
async fn a_change_of_health_is_in_the_next_answer() {
    let lab = Lab::start();
    for round in 0..20 {
        let mut statuses = [Degraded; 5];
        statuses[round % 5] = Online;
        lab.set(&statuses, Online);
        let answer = lab.ask("p.tm.test.", RecordType::A).await;
        assert_eq!(addresses(&answer), [format!("203.0.113.{}", round % 5 + 1)]);
        assert_eq!(code(&answer), ResponseCode::NoError);
    }
    assert_eq!((lab.counters.profile(0), lab.counters.view().answers), (80, 80));
}
