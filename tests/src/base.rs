//! Whether a deployment is back to where it was before a fault: descriptors, threads and memory of its processes, and
//! the paths and registrations of its brokers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::eventually::eventually_async;
use crate::mesh::Mesh;

/// Descriptors and threads that may come and go by themselves: connections kept ready, blocking work.
const COUNT_SLACK: u64 = 4;
/// Memory that an allocator may keep.
const MEMORY_SLACK_BYTES: u64 = 6 << 20;

/// What the processes of a deployment hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    of: BTreeMap<String, u64>,
}

impl Holdings {
    /// What the brokers of `mesh` and the processes in `others` (name and process id) hold now.
    pub async fn of(mesh: &Mesh, others: &[(&str, Option<u32>)]) -> Self {
        let mut of = BTreeMap::new();
        let (mut paths, mut registrations) = (0, 0);
        for (broker, node) in mesh.brokers() {
            count_process(broker.as_str(), node.node().pid(), &mut of);
            if let Some((_, status)) = node.ask("status").await {
                let used = |name: &str| status.pointer(name).and_then(Value::as_u64).unwrap_or_default();
                paths += used("/usage/paths");
                registrations += used("/usage/registrations");
            }
        }
        of.insert("paths of all brokers".to_owned(), paths);
        of.insert("registrations of all brokers".to_owned(), registrations);
        for (name, pid) in others {
            count_process(name, *pid, &mut of);
        }
        Self { of }
    }

    /// What is held beyond `base`: over 5 % and a small slack.
    pub fn beyond(&self, base: &Self) -> Vec<Excess> {
        let mut found = Vec::new();
        for (what, now) in &self.of {
            let before = base.of.get(what).copied().unwrap_or_default();
            let slack = if what.ends_with("bytes") {
                MEMORY_SLACK_BYTES
            } else if what.ends_with("brokers") {
                0
            } else {
                COUNT_SLACK
            };
            if *now > before + (before / 20).max(slack) {
                found.push(Excess { what: what.clone(), before, now: *now });
            }
        }
        found
    }
}

/// More of something than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    what: String,
    before: u64,
    now: u64,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} before, {} now", self.what, self.before, self.now)
    }
}

/// Waits until a deployment holds no more than `base`; what is left over after `limit`.
pub async fn back_to_base(
    mesh: &Mesh,
    others: &[(&str, Option<u32>)],
    base: &Holdings,
    limit: Duration,
) -> Vec<Excess> {
    let returned = || async { Holdings::of(mesh, others).await.beyond(base).is_empty() };
    if eventually_async(limit, returned).await {
        return Vec::new();
    }
    Holdings::of(mesh, others).await.beyond(base)
}

fn count_process(name: &str, pid: Option<u32>, into: &mut BTreeMap<String, u64>) {
    let Some(pid) = pid else { return };
    let descriptors =
        std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    into.insert(format!("{name} descriptors"), descriptors);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |wanted: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(wanted))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    into.insert(format!("{name} threads"), field("Threads:").unwrap_or_default());
    into.insert(format!("{name} memory bytes"), field("VmRSS:").unwrap_or_default() << 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holdings(descriptors: u64, memory: u64, paths: u64) -> Holdings {
        let of = [
            ("b descriptors".to_owned(), descriptors),
            ("b memory bytes".to_owned(), memory),
            ("paths of all brokers".to_owned(), paths),
        ];
        Holdings { of: of.into() }
    }

    #[test]
    fn a_leak_beyond_five_percent_is_named() {
        let base = holdings(100, 1 << 30, 2);
        assert_eq!(holdings(105, (1 << 30) + (50 << 20), 2).beyond(&base), []);
        let leaked = holdings(106, (1 << 30) + (60 << 20), 3).beyond(&base);
        let names: Vec<&str> = leaked.iter().map(|excess| excess.what.as_str()).collect();
        assert_eq!(names, ["b descriptors", "b memory bytes", "paths of all brokers"]);
    }

    #[test]
    fn this_process_holds_something() {
        let mut of = BTreeMap::new();
        count_process("self", Some(std::process::id()), &mut of);
        assert!(
            of["self descriptors"] > 0 && of["self threads"] > 0 && of["self memory bytes"] > 0,
            "{of:?}"
        );
    }
}
