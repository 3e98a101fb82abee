//! A resolver in front: what it keeps, for how long, and what it makes of truncation and letter case.

use std::net::SocketAddr;

use crate::lab::{Running, WIDE, dig, free_port, have, start, start_other};

/// unbound as a resolver that asks our server for `tm.test`.
fn resolver(server: &Running) -> Running {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let path = directory.path().join("unbound.conf");
    let config = format!(
        "server:\n username: \"\"\n chroot: \"\"\n directory: \"{dir}\"\n pidfile: \"\"\n use-syslog: no\n \
         interface: 127.0.0.1@{port}\n access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n \
         use-caps-for-id: yes\n module-config: \"iterator\"\n edns-buffer-size: 512\n num-threads: 1\n \
         minimal-responses: yes\n local-zone: \"test.\" nodefault\n qname-minimisation: yes\nremote-control:\n control-enable: no\n\
         stub-zone:\n name: \"tm.test\"\n stub-addr: 127.0.0.1@{ours}\n",
        dir = directory.path().display(),
        ours = server.address.port(),
    );
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap().to_owned();
    start_other("unbound", directory, port, &["-d", "-c", &path], "one.tm.test")
}

/// Queries that our server has answered.
fn queries(server: &Running) -> u64 {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rc-traffic-manager"))
        .args(["status", "--json", "--socket"])
        .arg(server.directory.path().join("admin/tm.sock"))
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["server"]["queries"]["queries"].as_u64().unwrap()
}

/// TTLs of the records that dig shows.
fn ttls(text: &str) -> Vec<u32> {
    let records = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    records.map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
}

fn ask(resolver: SocketAddr, name: &str, kind: &str) -> String {
    dig(resolver, &[name, kind, "+tries=2", "+time=10"])
}

#[test]
fn unbound_keeps_answers_for_their_ttl_and_no_longer() {
    if !have(&["unbound", "dig"]) {
        return;
    }
    let server = start();
    let resolver = resolver(&server);
    let first = ask(resolver.address, "p.tm.test", "A");
    assert!(first.contains("status: NOERROR") && first.contains("ANSWER: 3"), "{first}");
    assert!(ttls(&first).iter().all(|ttl| (30..=42).contains(ttl)), "{first}");
    let before = queries(&server);
    let again = ask(resolver.address, "p.tm.test", "A");
    assert_eq!(queries(&server), before, "from the cache: {again}");
    // A TTL of zero is not kept: each query comes to us.
    for _ in 0..3 {
        let before = queries(&server);
        assert!(ask(resolver.address, "weighted.tm.test", "A").contains("status: NOERROR"));
        assert!(queries(&server) > before);
    }
}

#[test]
fn unbound_keeps_the_absence_of_a_name_and_of_a_type_for_the_negative_ttl() {
    if !have(&["unbound", "dig"]) {
        return;
    }
    let server = start();
    let resolver = resolver(&server);
    for (name, kind, status) in
        [("nosuch.tm.test", "A", "status: NXDOMAIN"), ("one.tm.test", "MX", "status: NOERROR")]
    {
        let text = ask(resolver.address, name, kind);
        assert!(text.contains(status) && text.contains("ANSWER: 0"), "{text}");
        assert!(ttls(&text).iter().all(|ttl| *ttl <= 30), "{text}");
        let before = queries(&server);
        ask(resolver.address, name, kind);
        assert_eq!(queries(&server), before, "{name} {kind} is kept");
    }
}

#[test]
fn unbound_follows_aliases_takes_its_letter_case_back_and_falls_back_to_tcp() {
    if !have(&["unbound", "dig"]) {
        return;
    }
    let server = start();
    let resolver = resolver(&server);
    let text = ask(resolver.address, "www.tm.test", "A");
    assert!(text.contains("ANSWER: 4") && text.contains("CNAME\tp.tm.test."), "{text}");
    // 512 bytes do not hold it: unbound hears TC and asks over TCP.
    let text = dig(resolver.address, &[WIDE, "AAAA", "+tcp"]);
    assert!(text.contains("ANSWER: 10"), "{text}");
}
