//! The DNS story: what the six routing methods answer to whom, and how a broker leaves DNS and comes back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rc_daemon::output::Table;
use serde_json::json;
use tokio::net::UdpSocket;

use super::names::resolve;
use super::output::Show;
use crate::mesh::Mesh;
use crate::process::{Node, NodeProgram};

/// The region of the brokers.
const REGION: &str = "in";
/// Longest wait for DNS to follow; the probes of the deployment find a dead broker within 3 s.
const FOLLOWS_MAX: Duration = Duration::from_secs(15);
/// An answer on loopback comes at once.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The methods: what is shown, the profile's keys, its endpoints' keys.
const METHODS: [(&str, &str, &[&str]); 6] = [
    ("Priority", "", &["priority = 1", "priority = 2"]),
    ("Weighted", "", &["weight = 1", "weight = 9"]),
    ("Performance", "", &["location = \"west-europe\"", "location = \"east-us\""]),
    ("Geographic", "", &["regions = [\"GEO-EU\"]", "regions = [\"WORLD\"]"]),
    ("MultiValue", "max_return = 2", &["", "", ""]),
    ("Subnet", "", &["subnets = [\"198.51.100.0/24\"]", ""]),
];
/// Who asks: a network in Germany, one in the USA.
const ASKERS: [(&str, Ipv4Addr); 2] =
    [("Germany", Ipv4Addr::new(198, 51, 100, 0)), ("USA", Ipv4Addr::new(203, 0, 113, 0))];

/// Tells the whole story.
pub(super) async fn tell(program: NodeProgram, show: &Show) -> anyhow::Result<()> {
    show_methods(&program, show).await?;
    show_broker_leaving(program, show).await?;
    show.step("Done: everything shown held");
    Ok(())
}

async fn show_methods(program: &NodeProgram, show: &Show) -> anyhow::Result<()> {
    show.step("A traffic manager with a profile of each routing method, asked from two networks");
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("latency.csv"), "198.51.100.0/24,west-europe,9\n203.0.113.0/24,east-us,11\n")?;
    std::fs::write(path("geography.csv"), "198.51.100.0/24,DE\n203.0.113.0/24,US\n")?;
    let mut text = format!(
        "[listen]\ndns = [\"127.0.0.1:0\"]\n[admin]\nsocket = {:?}\n[ready]\nfile = {:?}\n\
         [maps]\nlatency = {:?}\ngeography = {:?}\n[[zone]]\nname = \"demo.test\"\n",
        path("tm.sock"),
        path("tm.ready"),
        path("latency.csv"),
        path("geography.csv"),
    );
    for (method, keys, endpoints) in METHODS {
        let name = format!("{}.demo.test", method.to_lowercase());
        text.push_str(&format!("[[profile]]\nname = \"{name}\"\nmethod = \"{method}\"\n{keys}\n"));
        for (at, keys) in endpoints.iter().enumerate() {
            text.push_str(&format!(
                "[[endpoint]]\nprofile = \"{name}\"\nname = \"e{at}\"\naddress = \"192.0.2.{}\"\nalways_serve = true\n{keys}\n",
                at + 1
            ));
        }
    }
    std::fs::write(path("tm.toml"), text)?;
    let arguments = ["run".to_owned(), "--config".to_owned(), path("tm.toml").display().to_string()];
    let mut node = Node::start("tm", program.command("traffic-manager", &arguments), &path("tm.log"))?;
    let ready = node.ready(&path("tm.ready")).await?;
    let server =
        ready.pointer("/listen/dns/0").and_then(|text| text.as_str()).context("an address")?.parse()?;
    let mut table = Table::new(&["method", "from", "answers of 40 queries", ">scope"]);
    let mut shown = Vec::new();
    for (method, _, _) in METHODS {
        for (place, network) in ASKERS {
            let seen = ask_often(server, method, network).await?;
            let (counts, scope) = (seen.counts.clone(), seen.scope);
            check(method, place, &seen)?;
            let texts: Vec<String> =
                counts.iter().map(|(answer, count)| format!("{answer} ×{count}")).collect();
            table.row([method.to_owned(), place.to_owned(), texts.join("   "), format!("/{scope}")]);
            shown.push(json!({ "method": method, "from": place, "answers": texts, "scope": scope }));
        }
    }
    show.table("methods", json!({ "methods": shown }), &table);
    node.kill().await;
    Ok(())
}

/// What forty queries of one network were answered.
struct Seen {
    counts: std::collections::BTreeMap<String, u32>,
    /// For how much of the network the answer holds.
    scope: u8,
}

async fn ask_often(server: SocketAddr, method: &str, network: Ipv4Addr) -> anyhow::Result<Seen> {
    let mut seen = Seen { counts: std::collections::BTreeMap::new(), scope: 0 };
    for _ in 0..40 {
        let (mut addresses, scope) =
            ask(server, &format!("{}.demo.test", method.to_lowercase()), network).await?;
        addresses.sort_unstable();
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        *seen.counts.entry(texts.join(" ")).or_default() += 1;
        seen.scope = scope;
    }
    Ok(seen)
}

/// Each method answers as it should.
fn check(method: &str, place: &str, seen: &Seen) -> anyhow::Result<()> {
    let (first, second) = ("192.0.2.1", "192.0.2.2");
    let is_only = |answer: &str| seen.counts.len() == 1 && seen.counts.contains_key(answer);
    let here = if place == "Germany" { first } else { second };
    let (holds, scope) = match method {
        "Priority" => (is_only(first), 0),
        "Weighted" => (seen.counts.get(second) > seen.counts.get(first), 0),
        "MultiValue" => (seen.counts.keys().all(|answer| answer.split(' ').count() == 2), 0),
        _ => (is_only(here), 24),
    };
    ensure!(holds, "{method} answers {place} with {:?}", seen.counts);
    ensure!(scope == 0 || seen.scope > 0, "{method} says that its answer holds for everybody");
    Ok(())
}

/// One query for A on behalf of a /24; the addresses and the scope of the answer.
async fn ask(server: SocketAddr, name: &str, network: Ipv4Addr) -> anyhow::Result<(Vec<IpAddr>, u8)> {
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    // A, IN; then OPT with 1232 bytes and a client subnet of three bytes.
    query.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    query.extend(network.octets().iter().take(3));
    let question_end = query.len() - 22;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut answer = [0; 1500];
    let length = tokio::time::timeout(ANSWER_MAX, socket.recv(&mut answer)).await.context("an answer")??;
    let answer = answer.get(..length).unwrap_or_default();
    let count = usize::from(*answer.get(7).context("a header")?);
    // Each record: a pointer, type, class, TTL, length, address.
    let records = answer.get(question_end..).unwrap_or_default().chunks_exact(16).take(count);
    let addresses = records.filter_map(|record| {
        let address: [u8; 4] = record.get(12..16)?.try_into().ok()?;
        Some(IpAddr::from(address))
    });
    // The scope is the fourth byte of the option, which ends with the three bytes of the network.
    let scope = answer.len().checked_sub(4).and_then(|at| answer.get(at)).copied().context("a scope")?;
    Ok((addresses.collect(), scope))
}

async fn show_broker_leaving(program: NodeProgram, show: &Show) -> anyhow::Result<()> {
    show.step("Two brokers and a traffic manager that probes them every second");
    let mut mesh =
        Mesh::builder(program).broker(REGION, "broker-in-3").broker(REGION, "broker-in-4").start().await?;
    let broker = mesh.layout().brokers().next().context("a broker")?.clone();
    let address = mesh.address(REGION, &broker).context("the broker has an address")?.ip();
    let server = mesh.name_server(REGION).context("the region has a DNS server")?;
    show_answer(server, show).await?;

    show.step(&format!("{broker} is killed"));
    let begin = Instant::now();
    ensure!(mesh.kill_broker(&broker).await, "{broker} was not running");
    follows(server, |addresses| !addresses.contains(&address) && !addresses.is_empty()).await?;
    let took = begin.elapsed();
    show_answer(server, show).await?;
    let line = format!("out of DNS {:.1} s after its death", took.as_secs_f64());
    show.found("left", json!({ "broker": broker, "ms": took.as_millis() }), &line);

    show.step(&format!("{broker} starts again"));
    let begin = Instant::now();
    mesh.restart_broker(&broker).await?;
    follows(server, |addresses| addresses.contains(&address)).await?;
    show_answer(server, show).await?;
    let line = format!("back in DNS {:.1} s after its start", begin.elapsed().as_secs_f64());
    show.found("returned", json!({ "broker": broker, "ms": begin.elapsed().as_millis() }), &line);
    Ok(())
}

async fn show_answer(server: SocketAddr, show: &Show) -> anyhow::Result<()> {
    let (addresses, ttl) = resolve(server).await?;
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let line = format!("brokers.mesh.test  TTL {} s  {}", ttl.as_secs(), texts.join("  "));
    show.found("dns", json!({ "ttl_s": ttl.as_secs(), "addresses": texts }), &line);
    Ok(())
}

/// Asks until the answer is as it should be.
async fn follows(server: SocketAddr, holds: impl Fn(&[IpAddr]) -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let (addresses, _) = resolve(server).await?;
        if holds(&addresses) {
            return Ok(());
        }
        ensure!(begin.elapsed() < FOLLOWS_MAX, "DNS still answers {addresses:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
