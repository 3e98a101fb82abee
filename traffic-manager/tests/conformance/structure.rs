//! S, U, O, N and parts of C and D: states, subnets, nesting, client subnets and the rules of a profile.

use hickory_server::proto::rr::RecordType;
use rc_traffic_manager::decide::EndpointStatus::{
    self, CheckingEndpoint, Degraded, Disabled, Inactive, Online, Stopped, Unmonitored,
};
use rc_traffic_manager::decide::{Directive, ProfileStatus};
use rc_traffic_manager::monitor::Watch;

use crate::stage::{Backend, Stage, endpoint, profile, simple};

const E1: &str = "203.0.113.1";
const E2: &str = "203.0.113.2";
const E3: &str = "203.0.113.3";

fn two(backend: Backend) -> Stage {
    Stage::new(backend, &simple("Priority", "", &["", ""]))
}

pub(crate) fn s_01(backend: Backend) {
    let stage = Stage::new(
        backend,
        &(simple("Priority", "", &["", "", "", "always_serve = true", "enabled = false"])
            + &endpoint("p", "n1", "@off", "")
            + &profile("off", "Priority", "enabled = false")
            + &endpoint("off", "o1", E1, "")),
    );
    let mut stage = stage;
    stage.set(&["e2"], Degraded);
    stage.set(&["e3"], CheckingEndpoint);
    let found = ["e1", "e2", "e3", "e4", "e5", "n1", "o1"].map(|name| stage.status(name));
    assert_eq!(found, [Online, Degraded, CheckingEndpoint, Unmonitored, Disabled, Stopped, Inactive]);
    let names = found.map(EndpointStatus::name);
    assert_eq!(
        names,
        ["Online", "Degraded", "CheckingEndpoint", "Unmonitored", "Disabled", "Stopped", "Inactive"]
    );
}

pub(crate) fn s_02(backend: Backend) {
    assert_eq!(two(backend).one("p"), E1);
}

pub(crate) fn s_03(backend: Backend) {
    let mut stage = two(backend);
    stage.down(&["e1"]);
    assert_eq!(stage.one("p"), E2);
}

pub(crate) fn s_04(backend: Backend) {
    let mut stage = two(backend);
    stage.checking(&["e1"]);
    assert_eq!(stage.one("p"), E1);
}

pub(crate) fn s_05(backend: Backend) {
    for method in ["Priority", "Weighted", "MultiValue"] {
        let mut stage = Stage::new(backend, &simple(method, "", &["", "", ""]));
        stage.down(&["e1", "e3"]);
        stage.checking(&["e2"]);
        assert_eq!(stage.a("p"), [E2], "{method}");
    }
}

pub(crate) fn s_06(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "", &["enabled = false", ""]));
    assert_eq!(stage.one("p"), E2);
    let stage = two(backend);
    stage.direct("p", "e1", Directive::Disabled);
    assert_eq!(stage.one("p"), E2);
}

fn watch(stage: &Stage, endpoint: &str) -> Watch {
    stage.config.endpoints.iter().find(|known| known.name == endpoint).unwrap().watch
}

pub(crate) fn s_07(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "", &["enabled = false", ""]));
    // The monitor never probes what has a fixed state; its own tests hold that.
    assert_eq!(watch(&stage, "e1"), Watch::Fixed(Disabled));
    assert_eq!(stage.one("p"), E2);
}

pub(crate) fn s_08(backend: Backend) {
    let stage = Stage::new(backend, &simple("Priority", "enabled = false", &["", ""]));
    assert_eq!((watch(&stage, "e1"), stage.status("e1")), (Watch::Fixed(Inactive), Inactive));
    assert!(stage.ask("p", RecordType::A).is_no_name());
}

pub(crate) fn s_09(backend: Backend) {
    let mut stage = two(backend);
    stage.stopped(&["e1"]);
    assert_eq!(stage.one("p"), E2);
}

pub(crate) fn s_10(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "", &["always_serve = true", ""]));
    stage.down(&["e1"]);
    assert_eq!((watch(&stage, "e1"), stage.status("e1")), (Watch::Fixed(Unmonitored), Unmonitored));
    assert_eq!(stage.one("p"), E1);
}

pub(crate) fn s_11(backend: Backend) {
    let nested = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@child", "always_serve = true")
        + &profile("child", "Priority", "")
        + &endpoint("child", "e1", E1, "");
    two(backend).refuses(&nested, "endpoint[0].always_serve");
}

pub(crate) fn s_12(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "", &["always_serve = true", ""]));
    stage.down(&["e1"]);
    stage.direct("p", "e1", Directive::Disabled);
    assert_eq!((stage.status("e1"), stage.one("p")), (Disabled, E2.to_owned()));
    stage.direct("p", "e1", Directive::Enabled);
    assert_eq!((stage.status("e1"), stage.one("p")), (Unmonitored, E1.to_owned()));
}

pub(crate) fn s_13(backend: Backend) {
    for (method, expected) in [("Priority", 1), ("Weighted", 1), ("Performance", 1), ("MultiValue", 2)] {
        let mut stage = Stage::new(backend, &simple(method, "", &["location = \"eu\"", "location = \"us\""]));
        stage.all(Degraded);
        assert_eq!(stage.a("p").len(), expected, "{method}");
    }
}

pub(crate) fn s_14(backend: Backend) {
    for method in ["Priority", "Weighted", "MultiValue"] {
        let mut stage = Stage::new(backend, &simple(method, "max_return = 5", &["enabled = false", "", ""]));
        stage.all(Degraded);
        assert!(!stage.counts("p", 50).contains_key(E1), "{method}");
    }
}

pub(crate) fn s_15(backend: Backend) {
    let mut stage = two(backend);
    stage.stopped(&["e1"]);
    stage.down(&["e2"]);
    assert_eq!(stage.one("p"), E2);
}

pub(crate) fn s_16(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "", &["", "", ""]));
    let mut of = |states: [EndpointStatus; 3]| {
        for (name, status) in ["e1", "e2", "e3"].into_iter().zip(states) {
            stage.set(&[name], status);
        }
        (stage.latest.load().profile(0), stage.ask("p", RecordType::A).code)
    };
    let ok = "NOERROR".to_owned();
    assert_eq!(of([Online, Degraded, CheckingEndpoint]), (ProfileStatus::Degraded, ok.clone()));
    assert_eq!(of([CheckingEndpoint, Online, Stopped]), (ProfileStatus::Online, ok.clone()));
    assert_eq!(of([CheckingEndpoint, Stopped, Disabled]), (ProfileStatus::CheckingEndpoints, ok));
    assert_eq!(of([Stopped, Stopped, Disabled]), (ProfileStatus::Inactive, "NXDOMAIN".to_owned()));
    let off = Stage::new(backend, &simple("Priority", "enabled = false", &[""]));
    assert_eq!(off.latest.load().profile(0), ProfileStatus::Disabled);
}

pub(crate) fn s_17(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("MultiValue", "", &["always_serve = true", "", ""]));
    stage.down(&["e2", "e3"]);
    assert_eq!(stage.a("p"), [E1]);
}

pub(crate) fn s_18(backend: Backend) {
    let mut stage = two(backend);
    let both = |stage: &Stage| [stage.one_from("p", "127.0.0.1"), stage.one_from("p", "127.0.0.2")];
    assert_eq!(both(&stage), [E1, E1]);
    stage.down(&["e1"]);
    assert_eq!(both(&stage), [E2, E2]);
}

fn by_subnet(backend: Backend) -> Stage {
    let each = [
        "subnets = [\"198.51.100.0/24\", \"127.1.0.10-127.1.0.20\", \"127.2.0.9\"]",
        "subnets = [\"2001:db8:1::/48\"]",
        "",
    ];
    let text = profile("p", "Subnet", "")
        + &endpoint("p", "e1", E1, each[0])
        + &endpoint("p", "e2", E2, each[1])
        + &endpoint("p", "e3", E3, each[2]);
    Stage::new(backend, &text)
}

/// Without a fallback.
fn closed(backend: Backend, more: &str) -> Stage {
    Stage::new(
        backend,
        &simple("Subnet", more, &["subnets = [\"127.1.0.0/16\"]", "subnets = [\"127.2.0.0/16\"]"]),
    )
}

fn from(stage: &Stage, source: &str) -> crate::stage::Reply {
    stage.ask_as("p", RecordType::A, Some(source), None)
}

pub(crate) fn u_01(backend: Backend) {
    assert_eq!(by_subnet(backend).for_subnet("p", "198.51.100.5/32").only().data, E1);
    assert_eq!(closed(backend, "").one_from("p", "127.2.3.4"), E2);
}

pub(crate) fn u_02(backend: Backend) {
    let stage = by_subnet(backend);
    assert_eq!(stage.for_subnet("p", "198.51.100.0/25").only().data, E1);
    for source in ["127.1.0.15", "127.2.0.9"] {
        assert_eq!(stage.one_from("p", source), E1, "{source}");
    }
}

pub(crate) fn u_03(backend: Backend) {
    let stage = by_subnet(backend);
    for (source, expected) in [("127.1.0.9", E3), ("127.1.0.10", E1), ("127.1.0.20", E1), ("127.1.0.21", E3)]
    {
        assert_eq!(stage.one_from("p", source), expected, "{source}");
    }
}

pub(crate) fn u_04(backend: Backend) {
    let overlap = simple("Subnet", "", &["subnets = [\"10.0.0.0/8\"]", "subnets = [\"10.1.0.1-11.0.0.0\"]"]);
    by_subnet(backend).refuses(&overlap, "overlaps a subnet of e1");
}

pub(crate) fn u_05(backend: Backend) {
    let mut stage = by_subnet(backend);
    stage.refuses(&simple("Subnet", "", &["subnets = [\"10.0.0.9-10.0.0.8\"]"]), "is behind");
    stage.refuses(&simple("Subnet", "", &["subnets = [\"1.2.3.4/24\"]"]), "bits set behind the prefix");
}

pub(crate) fn u_06(backend: Backend) {
    assert_eq!(by_subnet(backend).one_from("p", "127.77.0.1"), E3);
}

pub(crate) fn u_07(backend: Backend) {
    assert!(from(&closed(backend, ""), "127.77.0.1").is_no_data());
    assert!(from(&closed(backend, "no_match = \"nxdomain\""), "127.77.0.1").is_no_name());
}

pub(crate) fn u_08(backend: Backend) {
    let stage = by_subnet(backend);
    stage.direct("p", "e1", Directive::Disabled);
    assert_eq!(stage.one_from("p", "127.2.0.9"), E3);
    let stage = closed(backend, "");
    stage.direct("p", "e1", Directive::Disabled);
    assert!(from(&stage, "127.1.0.1").is_no_data());
}

pub(crate) fn u_09(backend: Backend) {
    let mut stage = by_subnet(backend);
    stage.down(&["e1"]);
    assert!(from(&stage, "127.2.0.9").is_no_data());
    stage.all(Degraded);
    assert_eq!(stage.one_from("p", "127.2.0.9"), E1);
}

pub(crate) fn u_10(backend: Backend) {
    let stage = by_subnet(backend);
    assert_eq!(stage.for_subnet("p", "2001:db8:1:5::/64").only().data, E2);
    assert_eq!(stage.for_subnet("p", "2001:db8:2::/64").only().data, E3);
}

pub(crate) fn u_11(backend: Backend) {
    let reply = closed(backend, "").ask_as("p", RecordType::A, Some("127.1.0.1"), Some("127.2.0.0/24"));
    assert_eq!(reply.only().data, E2);
}

const MAPS: &str = "[maps]\nlatency = \"latency.csv\"\ngeography = \"places.csv\"\n";
const FILES: [(&str, &str); 2] = [
    ("latency.csv", "127.0.0.0/8,eu,10\n127.0.0.0/8,us,90\n"),
    ("places.csv", "127.0.0.0/8,IE\n198.51.100.0/24,IE\n"),
];

fn overridden(backend: Backend, method: &str) -> Stage {
    let each = [
        "location = \"eu\"\nregions = [\"WORLD\"]",
        "location = \"us\"\nregions = [\"BR\"]\nsubnets = [\"127.5.0.0/16\"]",
    ];
    Stage::with_files(backend, &(simple(method, "", &each) + MAPS), &FILES)
}

pub(crate) fn o_01(backend: Backend) {
    assert_eq!(overridden(backend, "Performance").one_from("p", "127.5.0.1"), E2);
}

pub(crate) fn o_02(backend: Backend) {
    let mut stage = overridden(backend, "Performance");
    stage.down(&["e2"]);
    assert_eq!(stage.one_from("p", "127.5.0.1"), E1);
}

pub(crate) fn o_03(backend: Backend) {
    let mut stage = overridden(backend, "Geographic");
    assert_eq!(stage.one_from("p", "127.5.0.1"), E2);
    stage.down(&["e2"]);
    assert_eq!(stage.one_from("p", "127.5.0.1"), E2);
}

pub(crate) fn o_04(backend: Backend) {
    for method in ["Performance", "Geographic"] {
        assert_eq!(overridden(backend, method).one_from("p", "127.6.0.1"), E1, "{method}");
    }
}

pub(crate) fn o_05(backend: Backend) {
    let stage = overridden(backend, "Weighted");
    let found: std::collections::BTreeSet<String> =
        (0..100).map(|_| stage.one_from("p", "127.5.0.1")).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(overridden(backend, "Priority").one_from("p", "127.5.0.1"), E1);
}

/// A Priority parent of a child with endpoints `c1`, `c2`, …, and of `alone`.
fn parent(backend: Backend, nested: &str, child: &str, count: usize) -> Stage {
    let children = (1..=count).map(|n| endpoint("child", &format!("c{n}"), &format!("203.0.113.{n}"), ""));
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@child", nested)
        + &endpoint("p", "alone", "203.0.113.99", "")
        + &profile("child", "Priority", child)
        + &children.collect::<String>();
    Stage::new(backend, &text)
}

const ALONE: &str = "203.0.113.99";

pub(crate) fn n_01(backend: Backend) {
    let mut stage = parent(backend, "min_children = 2", "", 3);
    stage.down(&["c1"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (Online, E2.to_owned()));
}

pub(crate) fn n_02(backend: Backend) {
    let mut stage = parent(backend, "min_children = 2", "", 2);
    stage.checking(&["c2"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (CheckingEndpoint, E1.to_owned()));
}

pub(crate) fn n_03(backend: Backend) {
    let mut stage = parent(backend, "min_children = 2", "", 2);
    stage.down(&["c2"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (Degraded, ALONE.to_owned()));
}

pub(crate) fn n_04(backend: Backend) {
    let mut stage = parent(backend, "", "", 3);
    stage.down(&["c1", "c2"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (Online, E3.to_owned()));
}

pub(crate) fn n_05(backend: Backend) {
    let stage = parent(backend, "min_children = 5", "", 2);
    assert_eq!((stage.status("n1"), stage.one("p")), (Degraded, ALONE.to_owned()));
}

pub(crate) fn n_06(backend: Backend) {
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@child", "min_children_ipv4 = 1\nmin_children_ipv6 = 2")
        + &endpoint("p", "alone", ALONE, "")
        + &profile("child", "MultiValue", "")
        + &endpoint("child", "c1", E1, "")
        + &endpoint("child", "c2", "2001:db8::1", "")
        + &endpoint("child", "c3", "2001:db8::2", "");
    let mut stage = Stage::new(backend, &text);
    assert_eq!((stage.status("n1"), stage.one("p")), (Online, E1.to_owned()));
    stage.down(&["c3"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (Degraded, ALONE.to_owned()));
    stage.up(&["c3"]);
    stage.down(&["c1"]);
    assert_eq!(stage.status("n1"), Degraded);
}

pub(crate) fn n_07(backend: Backend) {
    let stage = parent(backend, "", "enabled = false", 2);
    assert_eq!((stage.status("n1"), stage.one("p")), (Stopped, ALONE.to_owned()));
}

pub(crate) fn n_08(backend: Backend) {
    let mut stage = parent(backend, "", "", 2);
    stage.direct("child", "c1", Directive::Disabled);
    stage.stopped(&["c2"]);
    assert_eq!((stage.status("n1"), stage.one("p")), (Stopped, ALONE.to_owned()));
    assert_eq!(parent(backend, "", "", 0).status("n1"), Stopped);
}

pub(crate) fn n_09(backend: Backend) {
    let mut stage = parent(backend, "", "", 1);
    let probed =
        |name: &str| stage.config.endpoints.iter().find(|known| known.name == name).unwrap().target.is_some();
    assert_eq!((probed("n1"), probed("c1")), (false, true));
    stage.down(&["c1"]);
    assert_eq!(stage.status("n1"), Degraded);
}

pub(crate) fn n_10(backend: Backend) {
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@middle", "")
        + &endpoint("p", "alone", ALONE, "")
        + &profile("middle", "Weighted", "")
        + &endpoint("middle", "n2", "@leaf", "")
        + &profile("leaf", "Priority", "")
        + &endpoint("leaf", "e1", E1, "");
    let mut stage = Stage::new(backend, &text);
    assert_eq!(stage.one("p"), E1);
    stage.down(&["e1"]);
    assert_eq!(stage.one("p"), ALONE);
}

fn chain(levels: usize) -> String {
    let mut text = String::new();
    for level in 1..=levels {
        let name = if level == 1 { "p".to_owned() } else { format!("p{level}") };
        text.push_str(&profile(&name, "Priority", ""));
        let target = if level == levels { E1.to_owned() } else { format!("@p{}", level + 1) };
        text.push_str(&endpoint(&name, &format!("e{level}"), &target, ""));
    }
    text
}

pub(crate) fn n_11(backend: Backend) {
    let mut stage = Stage::new(backend, &chain(10));
    assert_eq!(stage.one("p"), E1);
    stage.refuses(&chain(11), "there are 11 levels of profiles");
}

pub(crate) fn n_12(backend: Backend) {
    let text = profile("p", "Priority", "")
        + &endpoint("p", "n1", "@b", "")
        + &profile("b", "Priority", "")
        + &endpoint("b", "n2", "@p", "");
    two(backend).refuses(&text, "contains itself");
    let text = profile("p", "Priority", "") + &endpoint("p", "n1", "@p", "");
    two(backend).refuses(&text, "contains itself");
}

pub(crate) fn n_13(backend: Backend) {
    let text = profile("p", "Weighted", "")
        + &endpoint("p", "n1", "@child", "")
        + &endpoint("p", "e2", E2, "")
        + &profile("child", "Priority", "")
        + &endpoint("child", "e1", E1, "");
    let counts = Stage::new(backend, &text).counts("p", 200);
    assert_eq!(counts.keys().collect::<Vec<_>>(), [E1, E2]);
}

pub(crate) fn n_14(backend: Backend) {
    let text = profile("p", "Performance", "")
        + &endpoint("p", "n1", "@child", "location = \"eu\"")
        + &endpoint("p", "e3", E3, "location = \"us\"")
        + &profile("child", "Weighted", "")
        + &endpoint("child", "e1", E1, "weight = 9")
        + &endpoint("child", "e2", E2, "weight = 1")
        + MAPS;
    Stage::with_files(backend, &text, &FILES).share("p", E1, 0.9);
}

pub(crate) fn n_15(backend: Backend) {
    let text = profile("p", "Performance", "")
        + &endpoint("p", "n1", "@eu", "location = \"eu\"")
        + &endpoint("p", "n2", "@us", "location = \"us\"")
        + &profile("eu", "Priority", "")
        + &endpoint("eu", "e1", E1, "")
        + &endpoint("eu", "e2", E2, "")
        + &profile("us", "Priority", "")
        + &endpoint("us", "e3", E3, "")
        + MAPS;
    let mut stage = Stage::with_files(backend, &text, &FILES);
    for (dead, expected) in [("", E1), ("e1", E2), ("e2", E3)] {
        if !dead.is_empty() {
            stage.down(&[dead]);
        }
        assert_eq!(stage.one("p"), expected);
    }
}

pub(crate) fn n_16(backend: Backend) {
    let mut stage = parent(backend, "", "", 2);
    stage.all(Degraded);
    assert_eq!(stage.one("p"), E1);
}

pub(crate) fn n_17(backend: Backend) {
    let stage = parent(backend, "", "", 2);
    assert_eq!((stage.one("p"), stage.one("child")), (E1.to_owned(), E1.to_owned()));
}

pub(crate) fn c_01(backend: Backend) {
    let text = |method: &str| {
        simple(
            method,
            "",
            &[
                "location = \"eu\"\nregions = [\"IE\"]\nsubnets = [\"10.0.0.0/8\"]",
                "location = \"us\"\nregions = [\"BR\"]\nsubnets = [\"198.51.100.0/24\"]",
            ],
        ) + MAPS
    };
    let files = [
        (
            "latency.csv",
            "127.0.0.0/8,eu,10\n127.0.0.0/8,us,90\n198.51.100.0/24,eu,90\n198.51.100.0/24,us,10\n",
        ),
        ("places.csv", "127.0.0.0/8,IE\n198.51.100.0/24,BR\n"),
    ];
    for method in ["Performance", "Geographic", "Subnet"] {
        let stage = Stage::with_files(backend, &text(method), &files);
        assert_eq!(stage.for_subnet("p", "198.51.100.0/24").only().data, E2, "{method}");
        let other = if method == "Subnet" { "10.1.0.0/16" } else { "127.3.0.0/16" };
        assert_eq!(stage.for_subnet("p", other).only().data, E1, "{method}");
    }
}

pub(crate) fn c_02(backend: Backend) {
    let text = simple("Geographic", "", &["regions = [\"IE\"]", "regions = [\"WORLD\"]"]) + MAPS;
    let files = [("latency.csv", ""), ("places.csv", "2001:db8::/56,IE\n")];
    let stage = Stage::with_files(backend, &text, &files);
    let reply = stage.for_subnet("p", "2001:db8::/56");
    assert_eq!((reply.only().data.as_str(), reply.scope), (E1, Some(56)));
    assert_eq!(stage.for_subnet("p", "2001:db8:0:100::/56").only().data, E2);
}

pub(crate) fn c_04(backend: Backend) {
    for method in ["Priority", "Weighted", "MultiValue"] {
        let stage = Stage::new(backend, &simple(method, "", &["subnets = [\"198.51.100.0/24\"]", ""]));
        assert_eq!(stage.for_subnet("p", "198.51.100.0/24").scope, Some(0), "{method}");
    }
    for method in ["Performance", "Geographic", "Subnet"] {
        let each = [
            "location = \"eu\"\nregions = [\"IE\"]\nsubnets = [\"198.51.100.0/24\"]",
            "location = \"us\"\nregions = [\"WORLD\"]",
        ];
        let stage = Stage::with_files(backend, &(simple(method, "", &each) + MAPS), &FILES);
        assert!(stage.for_subnet("p", "198.51.100.0/24").scope.unwrap() > 0, "{method}");
    }
}

pub(crate) fn c_05(backend: Backend) {
    let stage = by_subnet(backend);
    assert_eq!(stage.for_subnet("p", "198.51.100.7/32").scope, Some(24));
    let neighbour = stage.for_subnet("p", "198.51.101.7/32");
    assert_eq!((neighbour.only().data.as_str(), neighbour.scope), (E3, Some(24)));
    // The one address 127.2.0.9 is mapped; the one beside it must not be cached for it.
    assert_eq!(stage.for_subnet("p", "127.2.0.8/32").scope, Some(32));
}

pub(crate) fn c_06(backend: Backend) {
    let stage = closed(backend, "");
    for hidden in ["0.0.0.0/0", "::/0"] {
        let reply = stage.ask_as("p", RecordType::A, Some("127.2.0.1"), Some(hidden));
        assert_eq!((reply.only().data.as_str(), reply.scope), (E2, Some(0)), "{hidden}");
    }
}

pub(crate) fn d_14(backend: Backend) {
    let mut stage = two(backend);
    let strict = "[azure]\nstrict = true\n";
    let probe = "interval = \"30s\"";
    for private in
        ["10.0.0.1", "192.168.1.1", "203.0.113.7", "198.18.0.1", "192.88.99.1", "233.252.0.1", "127.0.0.1"]
    {
        let text = profile("p", "Priority", probe) + &endpoint("p", "e1", private, "");
        stage.refuses(&(text.clone() + strict), "is no public address");
        stage.reload(&text).unwrap();
        assert_eq!(stage.one("p"), private);
    }
    let public = profile("p", "Priority", probe) + &endpoint("p", "e1", "8.8.8.8", "") + strict;
    stage.reload(&public).unwrap();
    assert_eq!(stage.one("p"), "8.8.8.8");
}

pub(crate) fn d_15(backend: Backend) {
    let mut stage = two(backend);
    for target in [E1, "b1.example.net", "@child"] {
        let text = profile("p", "Priority", "")
            + &endpoint("p", "x1", target, "")
            + &endpoint("p", "x2", target, "")
            + &profile("child", "Priority", "");
        stage.refuses(&text, "two endpoints with the target");
    }
}

pub(crate) fn d_16(backend: Backend) {
    let mut stage = two(backend);
    for (one, other) in [(E1, "2001:db8::1"), (E1, "b1.example.net"), ("2001:db8::1", "b1.example.net")] {
        for method in ["Priority", "Weighted"] {
            let text =
                profile("p", method, "") + &endpoint("p", "x1", one, "") + &endpoint("p", "x2", other, "");
            stage.refuses(&text, "of another kind");
        }
    }
}

pub(crate) fn d_17(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Priority", "record_type = \"A\"", &[""]));
    let v6 = profile("p", "Priority", "record_type = \"A\"") + &endpoint("p", "e1", "2001:db8::1", "");
    stage.refuses(&v6, "answers A records only");
    let other = profile("p", "Priority", "record_type = \"AAAA\"") + &endpoint("p", "e1", "2001:db8::1", "");
    stage.refuses(&other, "bound to A records");
    assert_eq!(stage.one("p"), E1);
}

pub(crate) fn d_18(backend: Backend) {
    let endpoints = (0..200)
        .map(|n| endpoint("p", &format!("e{n}"), &format!("203.0.{}.{}", 100 + n / 100, n % 100), ""));
    let stage = Stage::new(backend, &(profile("p", "Weighted", "") + &endpoints.collect::<String>()));
    // One of 200 is missed by 4,000 draws with a chance of 200 · 0.995^4000, once in 2.5 million.
    assert_eq!(stage.counts("p", 4_000).len(), 200);
}

pub(crate) fn d_19(backend: Backend) {
    let flat = "[[alias]]\nname = \"tm.test\"\ntarget = \"p.tm.test\"\nflatten = true\n";
    let mut stage = Stage::new(backend, &(simple("Priority", "", &[""]) + flat));
    let gone = profile("q", "Priority", "") + &endpoint("q", "e1", E1, "") + flat;
    stage.refuses(&gone, "there is no profile p.tm.test");
    assert_eq!(stage.one("@"), E1);
}
