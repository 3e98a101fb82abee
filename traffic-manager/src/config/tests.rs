//! What configurations are accepted, and what is said of the others.

use rc_daemon::config::{ConfigSources, Knob};

use super::*;
use crate::decide::{EndpointStatus, MaxReturn, Method, Target};
use crate::monitor::{ProbeAsk, ProbePlace};
use rc_transport::Expectation;

const BASE: &str = r#"
[credentials]
certificate = "tm.pem"
key = "tm.key"
ca = "ca.pem"

[[zone]]
name = "mesh.test"

[[record]]
name = "broker-3.in.mesh.test"
addresses = ["127.3.0.3", "::1"]
ttl = 5

[[profile]]
name = "brokers.mesh.test"
ttl = 20
max_return = 4
probe_port = 4433
interval = "1s"
timeout = "500ms"
tolerated_failures = 1

[[endpoint]]
profile = "brokers.mesh.test"
name = "in-3"
address = "127.3.0.3"
broker = "in/broker-3"

[[endpoint]]
profile = "brokers.mesh.test"
name = "us-1"
address = "127.3.0.4"
probe_address = "127.0.0.1:9"
"#;

fn read_text(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tm.toml");
    std::fs::write(&file, text).unwrap();
    let settings = Settings::load(ConfigSources::new(BINARY).file(&file), KNOBS);
    read(&settings).map_err(|errors| errors.to_string().replace(dir.path().to_str().unwrap(), ""))
}

/// The problems of the base configuration with some text replaced.
fn problems(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    read_text(&BASE.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn the_knob_table_holds_and_every_knob_is_read() {
    assert_eq!(Knob::mistakes(KNOBS), Vec::<String>::new());
    let settings = Settings::load(ConfigSources::new(BINARY), KNOBS);
    let errors = read(&settings).unwrap_err().to_string();
    assert!(errors.starts_with("zone: there is no zone to serve"), "{errors}");
}

#[test]
fn a_configuration_becomes_zones_profiles_and_probes() {
    let config = read_text(BASE).unwrap();
    let profile = &config.zones.profiles()[0];
    assert_eq!((profile.name.as_str(), profile.ttl.seconds()), ("brokers.mesh.test", 20));
    assert_eq!(profile.method, Method::MultiValue { max_return: MaxReturn::new(4).unwrap() });
    assert_eq!(profile.endpoints()[1].target, Target::Address("127.3.0.4".parse().unwrap()));
    let [third, first] = config.endpoints.as_slice() else { panic!("two endpoints") };
    let Watch::Probed(plan) = third.watch else { panic!("probed") };
    assert_eq!(
        (plan.interval.as_millis(), plan.timeout.as_millis(), plan.tolerated_failures),
        (1000, 500, 1)
    );
    let target = third.target.clone().unwrap();
    assert_eq!(target.place, ProbePlace::Address("127.3.0.3:4433".parse().unwrap()));
    assert_eq!(target.ask, ProbeAsk::Broker(Expectation::Broker("in/broker-3".parse().unwrap())));
    let target = first.target.clone().unwrap();
    assert_eq!(target.place, ProbePlace::Address("127.0.0.1:9".parse().unwrap()));
    let of_service = Expectation::ServiceName("brokers.mesh.test".to_owned());
    assert_eq!(target.ask, ProbeAsk::Broker(of_service));
}

#[test]
fn v_03_l_05_m_14_and_m_16_defaults_are_those_of_azure() {
    let text = BASE.lines().filter(|line| {
        !["ttl", "max_return", "probe_port", "interval", "timeout", "tolerated"]
            .iter()
            .any(|key| line.starts_with(key))
    });
    let config = read_text(&text.collect::<Vec<_>>().join("\n")).unwrap();
    let profile = &config.zones.profiles()[0];
    assert_eq!(profile.ttl.seconds(), 300);
    assert_eq!(profile.method, Method::MultiValue { max_return: MaxReturn::DEFAULT });
    let Watch::Probed(plan) = config.endpoints[0].watch else { panic!("probed") };
    assert_eq!((plan.interval.as_secs(), plan.timeout.as_secs(), plan.tolerated_failures), (30, 10, 3));
}

#[test]
fn v_04_max_return_above_ten_is_rejected() {
    assert!(problems("max_return = 4", "max_return = 11").contains("11 is out of range"));
    assert!(read_text(&BASE.replace("max_return = 4", "max_return = 10")).is_ok());
}

#[test]
fn l_04_a_ttl_that_dns_cannot_carry_is_rejected() {
    for ttl in ["2147483648", "-1"] {
        assert!(problems("ttl = 20", &format!("ttl = {ttl}")).contains(ttl));
    }
    for ttl in ["0", "2147483647"] {
        assert!(read_text(&BASE.replace("ttl = 20", &format!("ttl = {ttl}"))).is_ok());
    }
}

#[test]
fn v_08_an_endpoint_with_a_name_is_rejected_in_multi_value() {
    let text = problems("address = \"127.3.0.3\"", "target = \"b1.example.net\"");
    assert!(text.contains("endpoint[0].target") && text.contains("write an IP address"), "{text}");
    assert!(text.contains("/tm.toml:27"), "{text}");
}

#[test]
fn d_15_two_endpoints_with_one_target_are_rejected() {
    assert!(problems("127.3.0.4", "127.3.0.3").contains("two endpoints with the target 127.3.0.3"));
    assert!(problems("\"us-1\"", "\"in-3\"").contains("two endpoints in-3"));
}

#[test]
fn a_method_that_nobody_knows_is_named() {
    assert!(problems("ttl = 20", "method = \"Nearest\"").contains("\"Nearest\""));
}

#[test]
fn m_16_tolerated_failures_above_nine_are_rejected() {
    assert!(problems("tolerated_failures = 1", "tolerated_failures = 10").contains("10 is out of range"));
}

#[test]
fn a_timeout_longer_than_the_interval_is_rejected() {
    assert!(problems("\"500ms\"", "\"1500ms\"").contains("use a timeout of at most the interval"));
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = BASE
        .replace("name = \"mesh.test\"", "name = \"mesh..test\"")
        .replace("127.3.0.4", "nowhere")
        .replace("ttl = 5", "tll = 5");
    let errors = read_text(&text).unwrap_err();
    for expected in
        ["/tm.toml:8", "record[0].name", "profile[0].name", "endpoint[1].address", "tll", "did you mean"]
    {
        assert!(errors.contains(expected), "{expected} is missing in\n{errors}");
    }
}

#[test]
fn credentials_are_needed_only_to_probe() {
    let without = BASE.replace("certificate = \"tm.pem\"\nkey = \"tm.key\"\nca = \"ca.pem\"\n", "");
    let errors = read_text(&without).unwrap_err();
    for key in ["certificate", "key", "ca"] {
        assert!(errors.contains(&format!("credentials.{key}: there are brokers to probe")), "{errors}");
    }
    let served = without.replace("name = \"in-3\"", "name = \"in-3\"\nalways_serve = true");
    let served = served.replace("name = \"us-1\"", "name = \"us-1\"\nenabled = false");
    let config = read_text(&served).unwrap();
    assert!(config.credentials.is_none());
    let watches: Vec<Watch> = config.endpoints.iter().map(|endpoint| endpoint.watch).collect();
    assert_eq!(watches, [Watch::Fixed(EndpointStatus::Unmonitored), Watch::Fixed(EndpointStatus::Disabled)]);
}

#[test]
fn s_08_the_endpoints_of_a_disabled_profile_are_inactive() {
    let config = read_text(&BASE.replace("ttl = 20", "ttl = 20\nenabled = false")).unwrap();
    assert!(config.endpoints.iter().all(|endpoint| endpoint.watch == Watch::Fixed(EndpointStatus::Inactive)));
}

#[test]
fn an_endpoint_of_no_profile_and_a_name_outside_the_zones_are_rejected() {
    assert!(
        problems("profile = \"brokers.mesh.test\"", "profile = \"other.mesh.test\"")
            .contains("no profile other")
    );
    assert!(problems("[\"127.3.0.3\", \"::1\"]", "[]").contains("record[0].addresses: there is no address"));
    let text = problems("name = \"broker-3.in.mesh.test\"", "name = \"b.elsewhere\"");
    assert!(text.contains("b.elsewhere is in none of the served zones"), "{text}");
}

#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-rc-traffic-manager.md");
    if std::env::var_os("RC_WRITE_DOCS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        written,
        reference(),
        "write it with RC_WRITE_DOCS=1 cargo test -p rc-traffic-manager reference"
    );
}
