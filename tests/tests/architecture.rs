//! Holds the structure that ARCHITECTURE.md describes: which crate may use which, what a pure crate may not pull in,
//! where process-only code may stand, and how large a file or a struct may grow.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is a panic with its place"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Files over 500 production lines, each with its reason. The list only shrinks.
const LONG_FILES: &[(&str, &str)] = &[];

/// Structs over 12 fields, each with its reason. The list only shrinks.
const WIDE_STRUCTS: &[(&str, &str)] = &[];

/// What each crate of the workspace may depend on (production dependencies).
const MAY_USE: &[(&str, &[&str])] = &[
    ("rc-proto", &[]),
    ("rc-transport", &["rc-proto"]),
    ("rc-daemon", &["rc-proto"]),
    ("rc-client", &["rc-proto", "rc-transport", "rc-daemon"]),
    ("rc-controller-client", &["rc-proto", "rc-transport", "rc-client", "rc-daemon"]),
    ("rc-target-client", &["rc-proto", "rc-transport", "rc-client", "rc-daemon"]),
    ("rc-broker", &["rc-proto", "rc-transport", "rc-daemon"]),
    ("rc-traffic-manager", &["rc-proto", "rc-transport", "rc-daemon"]),
    ("rc-certs", &["rc-proto", "rc-transport", "rc-daemon"]),
];

/// What a pure crate may never pull in, however deep.
const NOT_IN_PROTO: &[&str] = &[
    "tokio",
    "quinn",
    "quinn-proto",
    "rustls",
    "tokio-rustls",
    "hickory-proto",
    "hickory-resolver",
    "dashmap",
    "socket2",
    "rustix",
    "mio",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names_by_id(metadata: &Value) -> BTreeMap<&str, &str> {
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap())).collect()
}

/// Production dependencies by package name.
fn production_edges(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let names = names_by_id(metadata);
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let mut edges = BTreeMap::new();
    for node in nodes {
        let from = names[node["id"].as_str().unwrap()].to_owned();
        let to = node["deps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null()));
        let to = to.map(|dep| names[dep["pkg"].as_str().unwrap()].to_owned());
        edges.entry(from).or_insert_with(BTreeSet::new).extend(to);
    }
    edges
}

#[test]
fn dependencies_point_one_way() {
    let edges = production_edges(&metadata());
    for (crate_name, allowed) in MAY_USE {
        let used: BTreeSet<&str> =
            edges[*crate_name].iter().map(String::as_str).filter(|name| name.starts_with("rc-")).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(used.is_subset(&allowed), "{crate_name} uses {used:?}, allowed are {allowed:?}");
    }
    for (crate_name, used) in &edges {
        assert!(!used.contains("rc-tests"), "{crate_name} depends on rc-tests");
    }
}

#[test]
fn proto_pulls_in_no_io() {
    let edges = production_edges(&metadata());
    let mut seen = BTreeSet::new();
    let mut open = vec!["rc-proto".to_owned()];
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            open.extend(edges.get(&name).into_iter().flatten().cloned());
        }
    }
    for refused in NOT_IN_PROTO {
        assert!(!seen.contains(*refused), "rc-proto pulls in {refused}");
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("aws-lc-rs ")), "the tree was not read");
    assert!(!tree.lines().any(|line| line.starts_with("ring ")), "ring is in the default build");
}

fn production_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let skipped = ["target", ".git", "tests/tests", "benches", "fuzz", "examples"];
            let in_tests = relative.contains("/tests/") && !relative.starts_with("tests/src");
            if skipped.contains(&relative.as_str()) || in_tests || relative.ends_with("/benches") {
                continue;
            }
            if path.is_dir() {
                if relative.ends_with("/tests") {
                    continue;
                }
                open.push(path);
            } else if relative.ends_with(".rs") {
                // Modules that exist in tests only.
                let name = path.file_stem().unwrap().to_str().unwrap();
                if name == "tests" || name.ends_with("_tests") || name == "testing" {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let production = text.split("\n#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((relative, production));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

#[test]
fn files_stay_readable() {
    let mut long: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in production_sources() {
        let lines = text.lines().count();
        if lines > 500 {
            long.insert(path, lines);
        }
    }
    for (path, reason) in LONG_FILES {
        assert!(long.remove(*path).is_some(), "{path} is short now: take it off the list ({reason})");
    }
    assert!(long.is_empty(), "split these or give the reason: {long:#?}");
}

#[test]
fn structs_own_state_or_collaborators_not_everything() {
    let mut wide: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in production_sources() {
        if path.starts_with("proto/src/wire/message") {
            continue; // Frozen structs have the fields that the protocol names.
        }
        for (name, fields) in structs(&text) {
            if fields > 12 {
                wide.insert(format!("{path}::{name}"), fields);
            }
        }
    }
    for (name, reason) in WIDE_STRUCTS {
        assert!(wide.remove(*name).is_some(), "{name} is narrow now: take it off the list ({reason})");
    }
    assert!(wide.is_empty(), "split these or give the reason: {wide:#?}");
}

/// Top-level structs with named fields: name and number of fields, read by indentation (rustfmt's).
fn structs(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let Some(rest) = trimmed
            .strip_prefix("pub struct ")
            .or_else(|| trimmed.strip_prefix("struct "))
            .or_else(|| trimmed.strip_prefix("pub(crate) struct "))
            .or_else(|| trimmed.strip_prefix("pub(super) struct "))
        else {
            continue;
        };
        if !line.ends_with('{') {
            continue;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let mut fields = 0;
        for field in lines.by_ref() {
            let inner = field.trim_start();
            let depth = field.len() - inner.len();
            if depth == indent && inner.starts_with('}') {
                break;
            }
            let named = inner.contains(": ") && !inner.starts_with("//") && !inner.starts_with('#');
            if depth == indent + 4 && named {
                fields += 1;
            }
        }
        found.push((name, fields));
    }
    found
}

#[test]
fn mutants_are_in_no_release_binary() {
    for (path, text) in manifests() {
        let manifest: toml::Table = text.parse().unwrap();
        let Some(features) = manifest.get("features").and_then(toml::Value::as_table) else { continue };
        let default = features.get("default").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        assert!(!default.iter().any(|f| f.as_str() == Some("mutants")), "{path} enables mutants by default");
        for section in ["dependencies", "workspace"] {
            let text = manifest.get(section).map(ToString::to_string).unwrap_or_default();
            assert!(!text.contains("mutants"), "{path} enables mutants in [{section}]");
        }
    }
}

fn manifests() -> Vec<(String, String)> {
    let members = MAY_USE.iter().map(|(name, _)| name.trim_start_matches("rc-").to_owned());
    members
        .chain(["tests".to_owned()])
        .map(|directory| {
            let path = root().join(&directory).join("Cargo.toml");
            (directory, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Crates whose library parts run on every desktop system.
const PORTABLE: &[&str] =
    &["proto/src", "transport/src", "client/src", "controller-client/src", "target-client/src"];

/// The one module of each portable crate that may name an operating system, behind `cfg`.
const PLATFORM_MODULES: &[&str] = &[
    "transport/src/platform",
    "controller-client/src/cli",
    "controller-client/src/bin",
    "target-client/src/cli",
    "target-client/src/bin",
];

#[test]
fn library_parts_are_portable() {
    let unix_only =
        ["std::os::unix", "std::os::fd", "tokio::net::Unix", "pty_process", "rustix::", "signal::unix"];
    for (path, text) in production_sources() {
        let portable = PORTABLE.iter().any(|prefix| path.starts_with(prefix));
        let platform = PLATFORM_MODULES.iter().any(|prefix| path.starts_with(prefix));
        if portable && !platform {
            for needle in unix_only {
                assert!(
                    !text.contains(needle),
                    "{path} names {needle}: it belongs into the crate's platform module"
                );
            }
        }
    }
}

#[test]
fn proto_modules_share_only_the_ids_of_wire() {
    let modules = ["identity", "session", "select", "mesh"];
    for (path, text) in production_sources() {
        let Some(module) = modules.iter().find(|m| path.starts_with(&format!("proto/src/{m}/"))) else {
            continue;
        };
        for other in modules.iter().filter(|other| *other != module) {
            assert!(!text.contains(&format!("crate::{other}")), "{path} imports crate::{other}");
        }
        // It stands beside the session and reads its events; nothing stands on it.
        assert!(!text.contains("crate::recovery"), "{path} imports crate::recovery");
    }
}

#[test]
fn only_the_codec_names_bincode() {
    for (path, text) in production_sources() {
        if path.starts_with("proto/src") && path != "proto/src/wire/codec.rs" {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.into_iter().any(|line| line.contains("bincode::")), "{path} names bincode");
        }
    }
}
