//! Databases in MaxMind's format, made up here.

use std::collections::BTreeMap;

use super::*;

/// Network, country, state.
type Entry<'e> = (&'e str, &'e str, Option<&'e str>);

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0x40 | u8::try_from(text.len()).unwrap());
    out.extend_from_slice(text.as_bytes());
}

fn map(out: &mut Vec<u8>, count: u8) {
    out.push(0xe0 | count);
}

fn put_entry(data: &mut Vec<u8>, country: &str, state: Option<&str>) {
    map(data, if state.is_some() { 2 } else { 1 });
    text(data, "country");
    map(data, 1);
    text(data, "iso_code");
    text(data, country);
    if let Some(state) = state {
        text(data, "subdivisions");
        // An array of one: an extended type.
        data.extend_from_slice(&[1, 4]);
        map(data, 1);
        text(data, "iso_code");
        text(data, state);
    }
}

#[derive(Default)]
struct Tree {
    nodes: Vec<[Option<usize>; 2]>,
    leaves: BTreeMap<(usize, usize), usize>,
}

impl Tree {
    fn insert(&mut self, network: &str, offset: usize) {
        let (first, length) = network.split_once('/').unwrap();
        let first = u32::from(first.parse::<std::net::Ipv4Addr>().unwrap());
        let length: u32 = length.parse().unwrap();
        let mut at = 0;
        for bit in 0..length {
            let side = usize::from(first >> (31 - bit) & 1 == 1);
            if bit + 1 == length {
                self.leaves.insert((at, side), offset);
            } else if let Some(next) = self.nodes[at][side] {
                at = next;
            } else {
                self.nodes.push([None; 2]);
                self.nodes[at][side] = Some(self.nodes.len() - 1);
                at = self.nodes.len() - 1;
            }
        }
    }

    fn write(&self, file: &mut Vec<u8>) {
        let count = self.nodes.len();
        for (at, node) in self.nodes.iter().enumerate() {
            for (side, next) in node.iter().enumerate() {
                let leaf = self.leaves.get(&(at, side)).map(|offset| count + 16 + offset);
                let value = leaf.or(*next).unwrap_or(count);
                file.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
            }
        }
    }
}

fn put_metadata(file: &mut Vec<u8>, count: usize) {
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    map(file, 9);
    for (key, value) in [
        ("binary_format_major_version", 2_u16),
        ("binary_format_minor_version", 0),
        ("record_size", 24),
        ("ip_version", 4),
    ] {
        text(file, key);
        file.push(0xa2);
        file.extend_from_slice(&value.to_be_bytes());
    }
    text(file, "node_count");
    file.push(0xc4);
    file.extend_from_slice(&u32::try_from(count).unwrap().to_be_bytes());
    text(file, "build_epoch");
    file.extend_from_slice(&[4, 2, 0, 0, 0, 1]);
    text(file, "database_type");
    text(file, "Made-Up-City");
    text(file, "languages");
    file.extend_from_slice(&[0, 4]);
    text(file, "description");
    map(file, 0);
}

fn database(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tree = Tree { nodes: vec![[None; 2]], ..Tree::default() };
    let mut data = Vec::new();
    for (network, country, state) in entries {
        tree.insert(network, data.len());
        put_entry(&mut data, country, *state);
    }
    let mut file = Vec::new();
    tree.write(&mut file);
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    put_metadata(&mut file, tree.nodes.len());
    file
}

#[test]
fn a_database_says_country_and_state_and_how_wide_that_holds() {
    let bytes = database(&[
        ("198.51.100.0/24", "IE", None),
        ("203.0.113.0/25", "US", Some("CA")),
        ("10.0.0.0/8", "QQ", None),
    ]);
    let database = GeoDatabase::from_bytes(bytes).unwrap();
    let at = |address: &str| {
        let (region, prefix) = database.locate(address.parse().unwrap());
        (region.to_string(), prefix)
    };
    assert_eq!(at("198.51.100.7"), ("IE".to_owned(), 24));
    assert_eq!(at("203.0.113.9"), ("US-CA".to_owned(), 25));
    assert_eq!(at("10.9.9.9"), ("WORLD".to_owned(), 8));
    assert_eq!(at("203.0.113.200"), ("WORLD".to_owned(), 25));
    assert_eq!(at("::ffff:198.51.100.7"), ("IE".to_owned(), 24));
    assert_eq!(at("2001:db8::1").0, "WORLD");
}

#[test]
fn a_damaged_database_is_refused_or_knows_nothing_and_never_panics() {
    let whole = database(&[("198.51.100.0/24", "IE", None)]);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        for bytes in [damaged, whole[..at].to_vec()] {
            if let Ok(database) = GeoDatabase::from_bytes(bytes) {
                database.locate("198.51.100.7".parse().unwrap());
                database.locate("0.0.0.1".parse().unwrap());
            }
        }
    }
}
