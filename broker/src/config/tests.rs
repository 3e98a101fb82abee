//! Tests of the configuration.

use rc_daemon::config::Knob;

use super::*;
use crate::mesh::Seed;

fn sources(dir: &std::path::Path) -> ConfigSources {
    let keys = dir.join("keys.json");
    std::fs::write(&keys, "{\"keys\":[]}").unwrap();
    ConfigSources::new(BINARY)
        .set("credentials.certificate=b.pem")
        .set("credentials.key=b.key")
        .set("credentials.ca=ca.pem")
        .set(&format!("tickets.keys={}", keys.display()))
}

#[test]
fn every_knob_is_sound_and_read() {
    assert_eq!(Knob::mistakes(KNOBS), Vec::<String>::new());
    let dir = tempfile::tempdir().unwrap();
    let settings = load(sources(dir.path()));
    let config = read(&settings).unwrap();
    assert_eq!(config.broker.limits, crate::core::limits::Limits::default());
    assert_eq!(config.broker.timers, crate::core::limits::Timers::default());
    assert_eq!(config.broker.listen.len(), 2);
    assert_eq!(config.broker.addresses, None);
}

#[test]
fn all_problems_come_at_once_and_name_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let settings = load(
        sources(dir.path())
            .set("mesh.seeds=[\"127.0.0.1:443\", \"nowhere\", \"IN/b@127.0.0.1:1\"]")
            .set("listen.addresses=[]")
            .set("advertise.addresses=[\"0.0.0.0:443\"]")
            .set("timers.control_silence=15s")
            .set("mesh.down_after=1500ms")
            .set("tickets.keys=/nowhere/keys.json")
            .set("listen.adresses=[]"),
    );
    let errors = read(&settings).unwrap_err().to_string();
    for expected in [
        "listen.addresses",
        "advertise.addresses",
        "timers.control_silence",
        "mesh.down_after",
        "/nowhere/keys.json",
        "listen.adresses",
        "an address needs the id",
        "\"nowhere\"",
        "character 'I'",
    ] {
        assert!(errors.contains(expected), "{expected} is missing in\n{errors}");
    }
}

#[test]
fn a_seed_is_a_name_with_a_port_or_a_broker_at_an_address() {
    let name = Seed::Name { host: "brokers.example.com".to_owned(), port: 443 };
    assert_eq!("Brokers.example.com:443".parse(), Ok(name));
    let broker = Seed::Broker { id: "in/b-3".parse().unwrap(), address: "[::1]:7".parse().unwrap() };
    assert_eq!("in/b-3@[::1]:7".parse(), Ok(broker));
    for refused in
        ["", "host", "host:0", "host:x", "127.0.0.1:443", "[::1]:443", "a b:1", "in@1.2.3.4:5", "in/b@host:1"]
    {
        assert!(refused.parse::<Seed>().is_err(), "{refused:?}");
    }
}

#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-rc-broker.md");
    if std::env::var_os("RC_WRITE_DOCS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, reference(), "write it with RC_WRITE_DOCS=1 cargo test -p rc-broker reference");
}
