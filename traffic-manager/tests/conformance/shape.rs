//! T and L: what an answer looks like, and how long it may be cached.

use hickory_server::proto::op::Message;
use hickory_server::proto::rr::{RData, RecordType};

use crate::stage::{Backend, Stage, endpoint, profile, query, simple};

const NAMED: &str = "b1.example.net";

fn v6_only(backend: Backend) -> Stage {
    Stage::new(backend, &(profile("p", "Priority", "") + &endpoint("p", "e1", "2001:db8::1", "")))
}

fn named(backend: Backend) -> Stage {
    Stage::new(backend, &(profile("p", "Priority", "") + &endpoint("p", "e1", NAMED, "")))
}

fn mixed(backend: Backend) -> Stage {
    let text = profile("p", "MultiValue", "max_return = 10")
        + &endpoint("p", "e1", "203.0.113.1", "")
        + &endpoint("p", "e2", "203.0.113.2", "")
        + &endpoint("p", "e3", "2001:db8::1", "")
        + &endpoint("p", "e4", "2001:db8::2", "");
    Stage::new(backend, &text)
}

pub(crate) fn t_01(backend: Backend) {
    let reply = Stage::new(backend, &simple("Priority", "", &[""])).ask("p", RecordType::A);
    assert_eq!((reply.only().kind, reply.only().data.as_str()), (RecordType::A, "203.0.113.1"));
}

pub(crate) fn t_02(backend: Backend) {
    let reply = v6_only(backend).ask("p", RecordType::AAAA);
    assert_eq!((reply.only().kind, reply.only().data.as_str()), (RecordType::AAAA, "2001:db8::1"));
}

pub(crate) fn t_03(backend: Backend) {
    let reply = named(backend).ask("p", RecordType::A);
    let found = reply.only();
    assert_eq!((found.owner.as_str(), found.data.as_str()), ("p.tm.test.", "b1.example.net."));
    assert_eq!(found.kind, RecordType::CNAME);
}

pub(crate) fn t_04(backend: Backend) {
    assert!(v6_only(backend).ask("p", RecordType::A).is_no_data());
    // The choice comes first: another endpoint that would fit is not looked for.
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@c1", "priority = 1")
        + &endpoint("p", "n2", "@c2", "priority = 2")
        + &profile("c1", "Priority", "")
        + &endpoint("c1", "e1", "2001:db8::1", "")
        + &profile("c2", "Priority", "")
        + &endpoint("c2", "e2", "203.0.113.2", "");
    let stage = Stage::new(backend, &text);
    assert!(stage.ask("p", RecordType::A).is_no_data());
    assert_eq!(stage.ask("p", RecordType::AAAA).only().data, "2001:db8::1");
}

pub(crate) fn t_05(backend: Backend) {
    assert!(Stage::new(backend, &simple("Priority", "", &[""])).ask("p", RecordType::AAAA).is_no_data());
}

pub(crate) fn t_06_to_t_08(backend: Backend) {
    let stage = named(backend);
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME] {
        let reply = stage.ask("p", kind);
        assert_eq!((reply.only().kind, reply.only().data.as_str()), (RecordType::CNAME, "b1.example.net."));
    }
}

pub(crate) fn t_09(backend: Backend) {
    assert!(Stage::new(backend, &simple("Weighted", "", &[""])).ask("p", RecordType::CNAME).is_no_data());
    assert!(v6_only(backend).ask("p", RecordType::CNAME).is_no_data());
}

pub(crate) fn t_10(backend: Backend) {
    let kind = |stage: Stage| stage.ask("p", RecordType::ANY).only().kind;
    assert_eq!(kind(Stage::new(backend, &simple("Priority", "", &["", ""]))), RecordType::A);
    assert_eq!(kind(v6_only(backend)), RecordType::AAAA);
    assert_eq!(kind(named(backend)), RecordType::CNAME);
}

pub(crate) fn t_11(backend: Backend) {
    for (method, each) in
        [("Priority", [""; 5]), ("Weighted", [""; 5]), ("Performance", ["location = \"eu\""; 5])]
    {
        assert_eq!(Stage::new(backend, &simple(method, "", &each)).a("p").len(), 1, "{method}");
    }
    let world = "regions = [\"WORLD\"]";
    let each = [world, "regions = [\"IE\"]", "regions = [\"FR\"]"];
    assert_eq!(Stage::new(backend, &simple("Geographic", "", &each)).a("p").len(), 1);
    let each = ["subnets = [\"127.0.0.0/8\"]", "subnets = [\"10.0.0.0/8\"]", ""];
    assert_eq!(Stage::new(backend, &simple("Subnet", "", &each)).a("p").len(), 1);
}

pub(crate) fn t_12(backend: Backend) {
    assert_eq!(mixed(backend).ask("p", RecordType::A).data(), ["203.0.113.1", "203.0.113.2"]);
}

pub(crate) fn t_13(backend: Backend) {
    assert_eq!(mixed(backend).ask("p", RecordType::AAAA).data(), ["2001:db8::1", "2001:db8::2"]);
}

pub(crate) fn t_14(backend: Backend) {
    assert!(mixed(backend).ask("p", RecordType::CNAME).is_no_data());
}

pub(crate) fn t_15(backend: Backend) {
    assert_eq!(mixed(backend).ask("p", RecordType::ANY).data().len(), 4);
}

pub(crate) fn t_16(backend: Backend) {
    let text = profile("parent", "Priority", "")
        + &endpoint("parent", "n1", "@child", "")
        + &profile("child", "Weighted", "")
        + &endpoint("child", "n2", "@grandchild", "")
        + &profile("grandchild", "Priority", "")
        + &endpoint("grandchild", "e1", NAMED, "");
    let reply = Stage::new(backend, &text).ask("parent", RecordType::A);
    assert_eq!(
        (reply.only().owner.as_str(), reply.only().data.as_str()),
        ("parent.tm.test.", "b1.example.net.")
    );
}

pub(crate) fn t_17(backend: Backend) {
    let text = profile("p", "Priority", "")
        + &endpoint("p", "e1", NAMED, "priority = 2")
        + &endpoint("p", "e2", "b2.example.net", "priority = 1");
    let stage = Stage::new(backend, &text);
    let target = |kind| stage.ask("p", kind).only().data.clone();
    assert_eq!(
        (target(RecordType::A), target(RecordType::AAAA)),
        (target(RecordType::A), target(RecordType::A))
    );
    assert_eq!(target(RecordType::AAAA), "b2.example.net.");
}

pub(crate) fn t_18(backend: Backend) {
    let (named, plain) = (named(backend), Stage::new(backend, &simple("Priority", "", &[""])));
    for kind in [RecordType::TXT, RecordType::MX, RecordType::HTTPS, RecordType::SVCB] {
        assert_eq!(named.ask("p", kind).only().kind, RecordType::CNAME, "{kind}");
        assert!(plain.ask("p", kind).is_no_data(), "{kind}");
    }
}

pub(crate) fn t_19(backend: Backend) {
    let alias = "[[alias]]\nname = \"www.tm.test\"\ntarget = \"p.tm.test\"\nttl = 77\n";
    let reply =
        Stage::new(backend, &(simple("Priority", "ttl = 20", &[""]) + alias)).ask("www", RecordType::A);
    let [alias, address] = reply.answers.as_slice() else { panic!("two records, not {reply:?}") };
    assert_eq!((alias.data.as_str(), alias.ttl), ("p.tm.test.", 77));
    assert_eq!(
        (address.owner.as_str(), address.data.as_str(), address.ttl),
        ("p.tm.test.", "203.0.113.1", 20)
    );
}

const APEX: &str = "[[alias]]\nname = \"tm.test\"\ntarget = \"p.tm.test\"\nflatten = true\nttl = 300\n";

pub(crate) fn t_20(backend: Backend) {
    let reply = Stage::new(backend, &(simple("Priority", "ttl = 17", &[""]) + APEX)).ask("@", RecordType::A);
    let found = reply.only();
    assert_eq!(
        (found.owner.as_str(), found.kind, found.data.as_str()),
        ("tm.test.", RecordType::A, "203.0.113.1")
    );
    let named = profile("p", "Priority", "") + &endpoint("p", "e1", NAMED, "") + APEX;
    assert!(Stage::problems(&named).contains("answers names"));
}

pub(crate) fn t_21(backend: Backend) {
    let stage = Stage::new(backend, &(simple("Priority", "ttl = 17", &[""]) + APEX));
    assert_eq!(stage.ask("@", RecordType::A).only().ttl, 17);
}

fn ttl_of(backend: Backend, more: &str) -> u32 {
    Stage::new(backend, &simple("Priority", more, &[""])).ask("p", RecordType::A).only().ttl
}

pub(crate) fn l_01(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "ttl = 42", &[""]));
    assert_eq!(stage.ask("p", RecordType::A).only().ttl, 42);
    // Time goes on; an authority's TTL does not go down with it.
    std::thread::sleep(std::time::Duration::from_millis(if backend == Backend::Pure { 0 } else { 1100 }));
    assert_eq!(stage.ask("p", RecordType::A).only().ttl, 42);
}

pub(crate) fn l_02(backend: Backend) {
    assert_eq!(ttl_of(backend, "ttl = 0"), 0);
}

pub(crate) fn l_03(backend: Backend) {
    assert_eq!(ttl_of(backend, "ttl = 2147483647"), 2_147_483_647);
}

pub(crate) fn l_04(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "ttl = 42", &[""]));
    for wrong in ["2147483648", "-1"] {
        stage.refuses(&simple("Priority", &format!("ttl = {wrong}"), &[""]), wrong);
    }
    assert_eq!(stage.ask("p", RecordType::A).only().ttl, 42);
}

pub(crate) fn l_05(backend: Backend) {
    assert_eq!(ttl_of(backend, ""), 300);
}

fn family(backend: Backend) -> Stage {
    let text = profile("parent", "Priority", "ttl = 20")
        + &endpoint("parent", "n1", "@child", "")
        + &profile("child", "Priority", "ttl = 60")
        + &endpoint("child", "e1", "203.0.113.1", "");
    Stage::new(backend, &text)
}

pub(crate) fn l_06(backend: Backend) {
    assert_eq!(family(backend).ask("parent", RecordType::A).only().ttl, 20);
}

pub(crate) fn l_07(backend: Backend) {
    assert_eq!(family(backend).ask("child", RecordType::A).only().ttl, 60);
}

pub(crate) fn l_08(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "enabled = false", &["", "always_serve = true"]));
    for kind in [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::TXT] {
        assert!(stage.ask("p", kind).is_no_name(), "{kind}");
    }
}

pub(crate) fn l_09(backend: Backend) {
    for method in ["Priority", "Weighted", "MultiValue"] {
        let stage = Stage::new(backend, &simple(method, "", &["enabled = false", "enabled = false"]));
        assert!(stage.ask("p", RecordType::A).is_no_name(), "{method}");
    }
}

pub(crate) fn l_10(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "", &[]));
    assert_eq!(stage.latest.load().profile(0).name(), "Inactive");
    assert!(stage.ask("p", RecordType::A).is_no_name());
}

pub(crate) fn l_11(backend: Backend) {
    assert!(Stage::new(backend, &simple("Priority", "", &[""])).ask("nosuch", RecordType::A).is_no_name());
}

/// The TTL of the SOA in a negative answer and its minimum.
fn negative(stage: &Stage, name: &str, kind: RecordType) -> Option<(u32, u32)> {
    let bytes = stage.raw(&query(name, kind).to_vec().unwrap())?;
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.answers.is_empty());
    let [record] = message.authorities.as_slice() else { panic!("one SOA, not {message}") };
    let RData::SOA(soa) = &record.data else { panic!("a SOA, not {record}") };
    Some((record.ttl, soa.minimum))
}

pub(crate) fn l_12(backend: Backend) {
    let stage =
        Stage::new(backend, &(simple("Priority", "ttl = 400", &[""]) + &profile("off", "Priority", "")));
    for (name, kind) in
        [("nosuch", RecordType::A), ("p", RecordType::AAAA), ("off", RecordType::A), ("@", RecordType::TXT)]
    {
        assert_eq!(negative(&stage, name, kind), Some((60, 60)), "{name} {kind}");
    }
}

pub(crate) fn l_13(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "ttl = 10", &[""]));
    assert_eq!(negative(&stage, "p", RecordType::AAAA), Some((10, 60)));
}

pub(crate) fn l_14(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "", &["", ""]));
    for round in 0..20 {
        let (method, each) =
            if round % 2 == 0 { ("Weighted", ["weight = 1000", ""]) } else { ("Priority", ["", ""]) };
        stage.reload(&simple(method, "", &each)).unwrap();
        for _ in 0..20 {
            assert_eq!(stage.ask("p", RecordType::A).answers.len(), 1);
        }
    }
    stage.reload(&simple("Priority", "ttl = 7", &["priority = 2", "priority = 1"])).unwrap();
    let reply = stage.ask("p", RecordType::A);
    assert_eq!((reply.only().data.as_str(), reply.only().ttl), ("203.0.113.2", 7));
}
