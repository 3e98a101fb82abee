//! The checks of RFC 8906 section 8, with dig.

use crate::lab::{dig, have, start};

/// Arguments of dig; what the answer has to say; what it must not say.
type Recipe = (&'static str, &'static [&'static str], &'static [&'static str]);

const RECIPES: [Recipe; 23] = [
    // Without EDNS.
    ("+noedns +noad +norec SOA", &["status: NOERROR", "flags: qr aa;", "SOA\t"], &["EDNS:"]),
    ("+noedns +noad +norec TYPE1000", &["status: NOERROR", "flags: qr aa;", "ANSWER: 0"], &["EDNS:"]),
    ("+noedns +noad +norec +cd SOA", &["status: NOERROR", "flags: qr aa cd;"], &["EDNS:"]),
    ("+noedns +ad +norec SOA", &["status: NOERROR", "flags: qr aa;"], &["EDNS:", " ad"]),
    ("+noedns +noad +norec +zflag SOA", &["status: NOERROR", "flags: qr aa;"], &["MBZ", "EDNS:"]),
    ("+noedns +noad +rec SOA", &["status: NOERROR", "flags: qr aa rd;"], &[" ra", "EDNS:"]),
    (
        "+noedns +noad +norec +opcode=15 +header-only",
        &["status: NOTIMP", "opcode: RESERVED15", "flags: qr;"],
        &["SOA\t", "EDNS:"],
    ),
    ("+noedns +noad +norec +tcp SOA", &["status: NOERROR", "flags: qr aa;", "SOA\t"], &["EDNS:"]),
    // With EDNS.
    ("+edns=0 +noad +norec SOA", &["status: NOERROR", "flags: qr aa;", "EDNS: version: 0", "SOA\t"], &[]),
    (
        "+edns=1 +noednsneg +noad +norec SOA",
        &["status: BADVERS", "EDNS: version: 0", "ANSWER: 0"],
        &["SOA\t", " aa"],
    ),
    (
        "+edns=0 +noad +norec +ednsopt=100 SOA",
        &["status: NOERROR", "EDNS: version: 0", "SOA\t"],
        &["OPT=100"],
    ),
    (
        "+edns=0 +noad +norec +ednsflags=0x40 SOA",
        &["status: NOERROR", "EDNS: version: 0, flags:;", "SOA\t"],
        &["MBZ"],
    ),
    (
        "+edns=1 +noednsneg +noad +norec +ednsflags=0x40 SOA",
        &["status: BADVERS", "EDNS: version: 0, flags:;"],
        &["MBZ", "SOA\t"],
    ),
    (
        "+edns=1 +noednsneg +noad +norec +ednsopt=100 SOA",
        &["status: BADVERS", "EDNS: version: 0"],
        &["OPT=100", "SOA\t"],
    ),
    ("+edns=0 +noad +norec +dnssec SOA", &["status: NOERROR", "EDNS: version: 0, flags: do;", "SOA\t"], &[]),
    (
        "+edns=1 +noednsneg +noad +norec +dnssec SOA",
        &["status: BADVERS", "EDNS: version: 0, flags: do;"],
        &["SOA\t"],
    ),
    (
        "+edns=0 +noad +norec +bufsize=512 +ignore +dnssec DNSKEY",
        &["status: NOERROR", "flags: qr aa;", "udp: 512"],
        &[],
    ),
    ("+edns=0 +noad +norec +nsid SOA", &["status: NOERROR", "NSID: 74 6d 2d 31", "SOA\t"], &[]),
    ("+edns=0 +noad +norec +cookie SOA", &["status: NOERROR", "EDNS: version: 0", "SOA\t"], &[]),
    ("+edns=0 +noad +norec +expire SOA", &["status: NOERROR", "EDNS: version: 0", "SOA\t"], &["EXPIRE:"]),
    (
        "+edns=0 +noad +norec +subnet=0.0.0.0/0 SOA",
        &["status: NOERROR", "CLIENT-SUBNET: 0.0.0.0/0/0", "SOA\t"],
        &[],
    ),
    (
        "+edns=0 +noad +norec +nsid +cookie +expire +subnet=0.0.0.0/0 SOA",
        &["status: NOERROR", "NSID: 74", "CLIENT-SUBNET", "SOA\t"],
        &[],
    ),
    (
        "+edns=0 +noad +norec +tcp SOA",
        &["status: NOERROR", "flags: qr aa;", "EDNS: version: 0", "SOA\t"],
        &[],
    ),
];

#[test]
fn rfc_8906_all_23_recipes_hold() {
    if !have(&["dig"]) {
        return;
    }
    let server = start();
    for (arguments, expected, refused) in RECIPES {
        let mut all: Vec<&str> = arguments.split(' ').collect();
        if !all.contains(&"+header-only") {
            let kind = all.pop().unwrap();
            all.extend(["tm.test", kind]);
        }
        let text = dig(server.address, &all);
        let answer = text.replace("; ", ";");
        for word in expected {
            let found = text.contains(word) || (word.ends_with('\t') && has_record(&text, word.trim()));
            assert!(found, "{arguments}: no {word:?} in\n{text}");
        }
        for word in refused {
            let found =
                if word.ends_with('\t') { has_record(&text, word.trim()) } else { answer.contains(word) };
            assert!(!found, "{arguments}: {word:?} in\n{text}");
        }
    }
}

/// Whether a line outside the comments has a record of the type.
fn has_record(text: &str, kind: &str) -> bool {
    let records = text.lines().filter(|line| !line.starts_with(';'));
    records.into_iter().any(|line| line.split_whitespace().nth(3) == Some(kind))
}

#[test]
fn dig_finds_aliases_names_and_sizes_as_a_client_expects_them() {
    if !have(&["dig"]) {
        return;
    }
    let server = start();
    let text = dig(server.address, &["www.tm.test", "A"]);
    assert!(text.contains("ANSWER: 4") && text.contains("CNAME\tp.tm.test."), "{text}");
    let text = dig(server.address, &["b.tm.test", "AAAA"]);
    assert!(text.contains("ANSWER: 1") && text.contains("CNAME\tb1.example.net."), "{text}");
    let text = dig(server.address, &[crate::lab::WIDE, "AAAA", "+bufsize=512", "+ignore"]);
    assert!(text.contains(" tc") && text.contains("ANSWER: 0"), "{text}");
    let text = dig(server.address, &[crate::lab::WIDE, "AAAA", "+bufsize=512"]);
    assert!(text.contains("ANSWER: 10") && !text.contains(" tc"), "over TCP: {text}");
}
