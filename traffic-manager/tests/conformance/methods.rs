//! P, W, F, E and V: the methods.

use std::collections::BTreeSet;

use hickory_server::proto::rr::RecordType;
use rc_traffic_manager::decide::EndpointStatus::{Degraded, Online};
use rc_traffic_manager::decide::Health;

use crate::stage::{Backend, Stage, endpoint, profile, simple};

const E1: &str = "203.0.113.1";
const E2: &str = "203.0.113.2";
const E3: &str = "203.0.113.3";

fn ordered(backend: Backend) -> Stage {
    Stage::new(backend, &simple("Priority", "", &["priority = 1", "priority = 2", "priority = 3"]))
}

pub(crate) fn p_01(backend: Backend) {
    let stage = ordered(backend);
    assert!((0..100).all(|_| stage.one("p") == E1));
}

pub(crate) fn p_02(backend: Backend) {
    let mut stage = ordered(backend);
    stage.down(&["e1"]);
    assert_eq!(stage.one("p"), E2);
    stage.down(&["e2"]);
    assert_eq!(stage.one("p"), E3);
}

pub(crate) fn p_03(backend: Backend) {
    let mut stage = ordered(backend);
    stage.down(&["e1"]);
    assert_eq!(stage.one("p"), E2);
    stage.up(&["e1"]);
    assert_eq!(stage.one("p"), E1);
}

pub(crate) fn p_04(backend: Backend) {
    let mut stage = ordered(backend);
    for wrong in ["0", "1001"] {
        stage.refuses(&simple("Priority", "", &[&format!("priority = {wrong}")]), "out of range");
    }
    stage.reload(&simple("Priority", "", &["priority = 1000", "priority = 1"])).unwrap();
    assert_eq!(stage.one("p"), E2);
}

pub(crate) fn p_05(backend: Backend) {
    let mut stage = ordered(backend);
    stage
        .refuses(&simple("Priority", "", &["priority = 1", "priority = 1"]), "two endpoints with priority 1");
    stage.refuses(&simple("Priority", "", &["priority = 1", ""]), "set it on all, or on none");
}

pub(crate) fn p_06(backend: Backend) {
    let mut stage = ordered(backend);
    stage.all(Degraded);
    assert!((0..20).all(|_| stage.one("p") == E1));
}

pub(crate) fn p_07(backend: Backend) {
    let text = profile("p", "Priority", "") + &endpoint("p", "e2", E2, "") + &endpoint("p", "e1", E1, "");
    assert_eq!(Stage::new(backend, &text).one("p"), E2);
}

pub(crate) fn p_08(backend: Backend) {
    let stage = ordered(backend);
    for subnet in ["198.51.100.0/24", "2001:db8::/48"] {
        let reply = stage.for_subnet("p", subnet);
        assert_eq!((reply.only().data.as_str(), reply.scope), (E1, Some(0)));
    }
    assert_eq!(stage.one_from("p", "127.9.9.9"), E1);
}

pub(crate) fn w_01(backend: Backend) {
    Stage::new(backend, &simple("Weighted", "", &["weight = 1", "weight = 3"])).share("p", E1, 0.25);
}

pub(crate) fn w_02(backend: Backend) {
    Stage::new(backend, &simple("Weighted", "", &["", "weight = 1"])).share("p", E1, 0.5);
}

pub(crate) fn w_03(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Weighted", "", &["", ""]));
    for wrong in ["0", "1001"] {
        stage.refuses(&simple("Weighted", "", &[&format!("weight = {wrong}")]), "out of range");
    }
}

pub(crate) fn w_04(backend: Backend) {
    let stage = Stage::new(backend, &simple("Weighted", "", &[""; 4]));
    let count = if backend == Backend::Pure { 10_000 } else { 2_000 };
    let expected = f64::from(count) / 4.0;
    let counts = stage.counts("p", usize::try_from(count).unwrap());
    let square = |found: usize| {
        let off = f64::from(u32::try_from(found).unwrap()) - expected;
        off * off / expected
    };
    let chi_square: f64 = counts.values().map(|found| square(*found)).sum();
    // Three degrees of freedom: 16.27 is exceeded by chance once in 1000 times, 38 once in 30 million.
    let limit = if backend == Backend::Pure { 16.27 } else { 38.0 };
    assert!(counts.len() == 4 && chi_square < limit, "{counts:?}");
}

pub(crate) fn w_05(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Weighted", "", &["weight = 1", "weight = 1", "weight = 2"]));
    stage.down(&["e3"]);
    stage.share("p", E1, 0.5);
    assert!(!stage.counts("p", 200).contains_key(E3));
}

pub(crate) fn w_06(backend: Backend) {
    let stage = Stage::new(backend, &simple("Weighted", "", &["", ""]));
    let (count, deviations) = if backend == Backend::Pure { (10_000, 3.0) } else { (2_000, 6.0) };
    let drawn: Vec<bool> = (0..=count).map(|_| stage.one("p") == E1).collect();
    let same = drawn.windows(2).filter(|pair| pair[0] == pair[1]).count();
    // Independent draws: half of the pairs are alike.
    let off = f64::from(u32::try_from(same).unwrap()) - f64::from(count) / 2.0;
    assert!(off.abs() <= deviations * (f64::from(count) * 0.25).sqrt(), "{same} of {count}");
}

pub(crate) fn w_07(backend: Backend) {
    let stage = Stage::new(backend, &simple("Weighted", "", &["weight = 1000", "weight = 1"]));
    // 100 are expected of 100,100 and 4 of 4,004; six standard deviations from it is 60 and 12.
    let (count, seen) = if backend == Backend::Pure { (100_100, 70..=130) } else { (4_004, 0..=16) };
    let rare = stage.counts("p", count).get(E2).copied().unwrap_or(0);
    assert!(seen.contains(&rare), "{rare} of {count}");
}

pub(crate) fn w_08(backend: Backend) {
    let mut stage = Stage::new(backend, &simple("Weighted", "", &["weight = 1", "weight = 3"]));
    stage.all(Degraded);
    stage.share("p", E1, 0.25);
}

const LATENCY: &str = "127.1.0.0/16,eu,10\n127.1.0.0/16,us,90\n127.1.0.0/16,in,150\n127.2.0.0/16,eu,95\n\
                       127.2.0.0/16,us,12\n198.51.100.0/24,eu,10\n198.51.100.0/24,us,90\n";

fn near(backend: Backend, locations: &[&str]) -> Stage {
    let each: Vec<String> = locations.iter().map(|location| format!("location = \"{location}\"")).collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    let text = simple("Performance", "", &each) + "[maps]\nlatency = \"latency.csv\"\n";
    Stage::with_files(backend, &text, &[("latency.csv", LATENCY)])
}

pub(crate) fn f_01(backend: Backend) {
    let stage = near(backend, &["eu", "us"]);
    assert_eq!(stage.one_from("p", "127.1.0.5"), E1);
    assert_eq!(stage.one_from("p", "127.2.0.5"), E2);
    assert_eq!(stage.for_subnet("p", "198.51.100.0/24").only().data, E1);
}

pub(crate) fn f_02(backend: Backend) {
    let mut stage = near(backend, &["us", "in", "eu"]);
    assert_eq!(stage.one_from("p", "127.1.0.5"), E3);
    stage.down(&["e3"]);
    assert_eq!(stage.one_from("p", "127.1.0.5"), E1);
}

pub(crate) fn f_03(backend: Backend) {
    let stage = near(backend, &["eu", "us", "in"]);
    let distinct: BTreeSet<String> = (0..100).map(|_| stage.one_from("p", "127.2.0.5")).collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), [E2]);
}

pub(crate) fn f_04(backend: Backend) {
    let text = profile("p", "Performance", "")
        + &endpoint("p", "e1", E1, "location = \"eu\"")
        + &endpoint("p", "e2", E2, "location = \"eu\"")
        + &endpoint("p", "e3", E3, "location = \"us\"")
        + "[maps]\nlatency = \"latency.csv\"\n";
    let stage =
        Stage::with_files(backend, &text, &[("latency.csv", "127.0.0.0/16,eu,5\n127.0.0.0/16,us,50\n")]);
    stage.share("p", E1, 0.5);
    assert!(!stage.counts("p", 100).contains_key(E3));
}

pub(crate) fn f_05(backend: Backend) {
    let mut stage = near(backend, &["eu", "us", "in"]);
    stage.down(&["e1"]);
    assert!((0..50).all(|_| stage.one_from("p", "127.1.0.5") == E2));
}

pub(crate) fn f_06(backend: Backend) {
    let mut stage = near(backend, &["eu", "us"]);
    stage.refuses(&simple("Performance", "", &["location = \"eu\"", ""]), "endpoint[1].location");
    let nested = profile("p", "Performance", "")
        + &endpoint("p", "n1", "@child", "")
        + &profile("child", "Priority", "")
        + &endpoint("child", "e1", E1, "");
    stage.refuses(&nested, "endpoint[0].location");
}

pub(crate) fn f_07(backend: Backend) {
    let stage = near(backend, &["eu", "us"]);
    assert_eq!(stage.one_from("p", "127.1.0.5"), E1);
    stage.swap_map("latency.csv", "127.1.0.0/16,eu,200\n127.1.0.0/16,us,20\n");
    assert_eq!(stage.one_from("p", "127.1.0.5"), E2);
}

pub(crate) fn f_08(backend: Backend) {
    let mut stage = near(backend, &["us", "eu", "in"]);
    stage.all(Degraded);
    assert!((0..50).all(|_| stage.one_from("p", "127.1.0.5") == E2));
}

pub(crate) fn f_09(backend: Backend) {
    let mut stage = near(backend, &["eu", "us"]);
    assert_eq!(stage.ask_as("p", RecordType::A, Some("127.77.0.1"), None).answers.len(), 1);
    stage.down(&["e1"]);
    assert!((0..20).all(|_| stage.one_from("p", "127.77.0.1") == E2));
}

pub(crate) fn f_10(backend: Backend) {
    let mut stage = near(backend, &["eu", "us"]);
    stage.set_health(&["e1"], Health { load: 1000, ..Health::with_status(Online) });
    assert!((0..50).all(|_| stage.one_from("p", "127.1.0.5") == E1));
}

const PLACES: &str = "127.1.0.0/16,IE\n127.2.0.0/16,FR\n127.3.0.0/16,US-CA\n127.4.0.0/16,US-NY\n127.5.0.0/16,BR\n\
                      127.6.0.0/16,IN\n127.7.0.0/16,DE\n198.51.100.0/24,IE\n2001:db8:1::/48,FR\n";

const IE: &str = "127.1.0.1";
const FR: &str = "127.2.0.1";
const CALIFORNIA: &str = "127.3.0.1";
const NEW_YORK: &str = "127.4.0.1";
const BR: &str = "127.5.0.1";
const IN: &str = "127.6.0.1";
const DE: &str = "127.7.0.1";
const NOWHERE: &str = "127.77.0.1";

/// A Geographic profile; each endpoint has these regions.
fn geographic(backend: Backend, regions: &[&str]) -> Stage {
    Stage::with_files(backend, &geographic_text(regions), &[("places.csv", PLACES)])
}

fn geographic_text(regions: &[&str]) -> String {
    let each: Vec<String> = regions.iter().map(|list| format!("regions = [{list}]")).collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    simple("Geographic", "", &each) + "[maps]\ngeography = \"places.csv\"\n"
}

fn is_no_data_from(stage: &Stage, source: &str) -> bool {
    stage.ask_as("p", RecordType::A, Some(source), None).is_no_data()
}

pub(crate) fn e_01(backend: Backend) {
    assert_eq!(geographic(backend, &["\"GEO-EU\"", "\"GEO-NA\""]).one_from("p", DE), E1);
    for group in ["GEO-EU", "GEO-ME", "GEO-NA", "GEO-AS", "GEO-AF", "GEO-AN", "GEO-SA", "GEO-AP", "WORLD"] {
        Stage::new(backend, &simple("Geographic", "", &[&format!("regions = [\"{group}\"]")]));
    }
    for wrong in ["GB-ENG", "DE-BY", "GEO-XX", "ZZ"] {
        let text = simple("Geographic", "", &[&format!("regions = [\"{wrong}\"]")]);
        assert!(Stage::problems(&text).contains("is no region"), "{wrong}");
    }
}

pub(crate) fn e_02(backend: Backend) {
    let stage = geographic(backend, &["\"IE\"", "\"GEO-EU\"", "\"WORLD\""]);
    assert_eq!((stage.one_from("p", IE), stage.one_from("p", FR)), (E1.to_owned(), E2.to_owned()));
    assert_eq!(stage.one_from("p", IN), E3);
}

pub(crate) fn e_03(backend: Backend) {
    let stage = geographic(backend, &["\"US\"", "\"US-CA\""]);
    assert_eq!(
        (stage.one_from("p", CALIFORNIA), stage.one_from("p", NEW_YORK)),
        (E2.to_owned(), E1.to_owned())
    );
}

pub(crate) fn e_04(backend: Backend) {
    let stage = geographic(backend, &["\"IE\"", "\"WORLD\""]);
    assert_eq!((stage.one_from("p", BR), stage.one_from("p", NOWHERE)), (E2.to_owned(), E2.to_owned()));
}

pub(crate) fn e_05(backend: Backend) {
    let stage = geographic(backend, &["\"GEO-EU\""]);
    assert!(is_no_data_from(&stage, BR) && is_no_data_from(&stage, NOWHERE));
}

pub(crate) fn e_06(backend: Backend) {
    let mut stage = geographic(backend, &["\"IE\"", "\"GEO-EU\"", "\"WORLD\""]);
    stage.down(&["e1"]);
    assert_eq!(stage.one_from("p", IE), E1);
}

fn with_child(backend: Backend, child: &str, each: &[&str]) -> Stage {
    let text = profile("p", "Geographic", "")
        + &endpoint("p", "n1", "@child", "regions = [\"IE\"]")
        + &endpoint("p", "eu", "203.0.113.9", "regions = [\"GEO-EU\"]")
        + &profile("child", "Priority", child)
        + &each
            .iter()
            .enumerate()
            .map(|(at, more)| {
                endpoint("child", &format!("e{}", at + 1), &format!("203.0.113.{}", at + 1), more)
            })
            .collect::<String>()
        + "[maps]\ngeography = \"places.csv\"\n";
    Stage::with_files(backend, &text, &[("places.csv", PLACES)])
}

pub(crate) fn e_07(backend: Backend) {
    let stage = with_child(backend, "enabled = false", &[""]);
    assert!(is_no_data_from(&stage, IE));
    assert_eq!(stage.one_from("p", FR), "203.0.113.9");
}

pub(crate) fn e_08(backend: Backend) {
    let text = geographic_text(&["\"IE\"", "\"GEO-EU\""]).replacen(
        "name = \"e1\"",
        "name = \"e1\"\nenabled = false",
        1,
    );
    let stage = Stage::with_files(backend, &text, &[("places.csv", PLACES)]);
    assert_eq!(stage.one_from("p", IE), E2);
}

pub(crate) fn e_09(backend: Backend) {
    let mut stage = geographic(backend, &["\"IE\"", "\"WORLD\""]);
    stage.refuses(&geographic_text(&["\"IE\"", "\"IE\""]), "IE is mapped to e1 already");
}

pub(crate) fn e_10(backend: Backend) {
    let stage = geographic(backend, &["\"IE\", \"BR\", \"US-CA\"", "\"WORLD\""]);
    for (source, expected) in [(IE, E1), (BR, E1), (CALIFORNIA, E1), (NEW_YORK, E2)] {
        assert_eq!(stage.one_from("p", source), expected);
    }
}

pub(crate) fn e_11(backend: Backend) {
    let mut stage = geographic(backend, &["\"IE\"", "\"WORLD\""]);
    stage.refuses(&geographic_text(&["\"IE\"", ""]), "endpoint[1].regions");
}

pub(crate) fn e_12(backend: Backend) {
    let mut stage = with_child(backend, "", &["", ""]);
    assert_eq!(stage.one_from("p", IE), E1);
    stage.down(&["e1"]);
    assert_eq!(stage.one_from("p", IE), E2);
}

pub(crate) fn e_13(backend: Backend) {
    let text = geographic_text(&["\"IN\"", "\"WORLD\""]).replacen(
        "name = \"e1\"",
        "name = \"e1\"\nlocation = \"us\"",
        1,
    );
    assert_eq!(Stage::with_files(backend, &text, &[("places.csv", PLACES)]).one_from("p", IN), E1);
}

pub(crate) fn e_14(backend: Backend) {
    let text =
        simple("Priority", "", &["priority = 2\nregions = [\"IE\"]", "priority = 1\nregions = [\"BR\"]"])
            + "[maps]\ngeography = \"places.csv\"\n";
    assert_eq!(Stage::with_files(backend, &text, &[("places.csv", PLACES)]).one_from("p", IE), E2);
}

pub(crate) fn e_15(backend: Backend) {
    let mut stage = with_child(backend, "", &["", ""]);
    stage.down(&["e1", "e2"]);
    assert_eq!(stage.status("n1"), Degraded);
    assert_eq!(stage.one_from("p", IE), E1);
}

fn many(backend: Backend, more: &str, count: usize) -> Stage {
    Stage::new(backend, &simple("MultiValue", more, &vec![""; count]))
}

pub(crate) fn v_01(backend: Backend) {
    let found: BTreeSet<String> = many(backend, "max_return = 3", 5).a("p").into_iter().collect();
    assert_eq!(found.len(), 3);
}

pub(crate) fn v_02(backend: Backend) {
    let mut stage = many(backend, "max_return = 8", 5);
    stage.down(&["e1", "e3", "e5"]);
    assert_eq!(stage.a("p"), ["203.0.113.2", "203.0.113.4"]);
}

pub(crate) fn v_03(backend: Backend) {
    assert_eq!(many(backend, "", 5).a("p").len(), 2);
}

pub(crate) fn v_04(backend: Backend) {
    let mut stage = many(backend, "max_return = 10", 12);
    assert_eq!(stage.a("p").len(), 10);
    stage.refuses(&simple("MultiValue", "max_return = 11", &[""]), "out of range");
}

pub(crate) fn v_05(backend: Backend) {
    let mut stage = many(backend, "max_return = 5", 3);
    stage.down(&["e2"]);
    assert_eq!(stage.a("p"), [E1, E3]);
}

pub(crate) fn v_06(backend: Backend) {
    // Each of five is missed by 1000 pairs of two with a chance of 0.6^1000.
    assert_eq!(many(backend, "max_return = 2", 5).counts("p", 1000).len(), 5);
}

pub(crate) fn v_07(backend: Backend) {
    let mut stage = many(backend, "max_return = 3", 5);
    stage.all(Degraded);
    assert_eq!(stage.a("p").len(), 3);
}

pub(crate) fn v_08(backend: Backend) {
    let mut stage = many(backend, "", 2);
    let named = profile("p", "MultiValue", "") + &endpoint("p", "e1", "b1.example.net", "");
    stage.refuses(&named, "addresses of external endpoints only");
    stage.refuses(&simple("MultiValue", "", &["kind = \"azure\""]), "addresses of external endpoints only");
}

pub(crate) fn v_09(backend: Backend) {
    let text = |method| {
        profile("p", method, "") + &endpoint("p", "e1", E1, "") + &endpoint("p", "e2", "2001:db8::1", "")
    };
    let mut stage = Stage::new(backend, &text("MultiValue"));
    assert_eq!(stage.a("p"), [E1]);
    stage.refuses(&text("Weighted"), "of another kind");
}

pub(crate) fn v_10(backend: Backend) {
    let endpoints = (1..=4).map(|n| {
        endpoint("p", &format!("e{n}"), &format!("203.0.113.{n}"), "")
            + &endpoint("p", &format!("f{n}"), &format!("2001:db8::{n}"), "")
    });
    let text = profile("p", "MultiValue", "max_return = 3") + &endpoints.collect::<String>();
    let stage = Stage::new(backend, &text);
    assert!((0..50).all(|_| stage.a("p").len() == 3));
}

pub(crate) fn v_11(backend: Backend) {
    let mut stage = many(backend, "", 2);
    let parent = profile("p", "MultiValue", "")
        + &endpoint("p", "n1", "@child", "")
        + &profile("child", "MultiValue", "")
        + &endpoint("child", "e1", E1, "");
    stage.refuses(&parent, "addresses of external endpoints only");
}

pub(crate) fn v_12(backend: Backend) {
    let stage = many(backend, "max_return = 10", 6);
    for _ in 0..50 {
        let found = stage.a("p");
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
    }
    assert!(
        Stage::problems(&(simple("MultiValue", "", &[""]) + &endpoint("p", "e9", E1, "")))
            .contains("two endpoints")
    );
}

pub(crate) fn v_13(backend: Backend) {
    let endpoints = (1..=10).map(|n| endpoint("p", &format!("e{n}"), &format!("2001:db8::{n}"), ""));
    let text = profile("p", "MultiValue", "max_return = 10") + &endpoints.collect::<String>();
    let stage = Stage::new(backend, &text);
    assert_eq!(stage.ask("p", RecordType::AAAA).answers.len(), 10);
    let bytes = stage.raw(&crate::stage::query("p", RecordType::AAAA).to_vec().unwrap());
    assert!(bytes.is_none_or(|bytes| bytes.len() <= 512));
}
