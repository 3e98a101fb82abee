//! How many queries a core answers, beside gdnsd on the same machine in the same minutes, and what a large
//! configuration takes of memory.
//!
//! A thousand names with four A records each, asked by dnsperf over loopback; rounds of the two servers alternate, each
//! with one UDP thread. A server's rate per core is the queries that it answered over the processor time that it took,
//! which a busy machine changes less than the rate as such. Then half of its own rate, with the 99th percentile of what
//! one more client waits; then 20,000 queries a second, of which none may be lost. Needs gdnsd and dnsperf; without
//! them it says `SKIP`.
//!
//! ```text
//! cargo bench -p rc-traffic-manager --bench dns -- [--rounds N] [--seconds N] [--tiny] [--json]
//! ```
//! `--tiny` is a second each, for correctness only: nothing is required of the figures.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const NAMES: usize = 1000;
const ADDRESSES: usize = 4;
const ENDPOINTS: usize = 10_000;
const STEADY_QPS: u32 = 20_000;
/// What is required, unless it is tiny.
const RATIO_MIN: f64 = 0.8;
const P99_MAX: Duration = Duration::from_millis(2);
const MEMORY_MAX_KIB: u64 = 64 * 1024;
/// Longest wait for a server to answer.
const START_MAX: Duration = Duration::from_secs(30);
/// Clock ticks of processor time in a second, as Linux tells them to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// DNS rates beside gdnsd's.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each server.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of a round.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// As short as can be; figures are shown and nothing is required of them.
    #[arg(long)]
    tiny: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server that ends with this.
struct Server {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Seconds of processor time so far.
    fn processor_seconds(&self) -> Fallible<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
    }

    fn resident_kib(&self) -> Fallible<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn wait_until_it_answers(&mut self) -> Fallible<()> {
        let begin = Instant::now();
        while begin.elapsed() < START_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended: {status}", self.name).into());
            }
            if ask(self.address, "n0.bench.test", Duration::from_millis(100))?.is_some() {
                return Ok(());
            }
        }
        Err(format!("{} does not answer", self.name).into())
    }
}

/// One query for A; how long the answer with all addresses took, or nothing.
fn ask(server: SocketAddr, name: &str, patience: Duration) -> Fallible<Option<Duration>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(server)?;
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let begin = Instant::now();
    if socket.send(&query).is_err() {
        return Ok(None);
    }
    let mut answer = [0; 1500];
    match socket.recv(&mut answer) {
        Ok(length) => {
            let took = begin.elapsed();
            let count = answer.get(6..8).ok_or("short")?;
            if length < 12 || count != [0, u8::try_from(ADDRESSES)?] {
                return Err(format!("{server} answers {name} with {count:?} records").into());
            }
            Ok(Some(took))
        }
        Err(_) => {
            // An unreachable port fails at once: not too often.
            std::thread::sleep(Duration::from_millis(20));
            Ok(None)
        }
    }
}

fn free_port() -> Fallible<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn address(name: usize, of: usize) -> Ipv4Addr {
    let bytes = u32::try_from(name * ADDRESSES + of + 1).unwrap_or(0).to_be_bytes();
    let [_, b, c, d] = bytes;
    Ipv4Addr::new(10, b, c, d)
}

fn start_gdnsd(directory: &Path) -> Fallible<Server> {
    let port = free_port()?;
    let directory = directory.join("gdnsd");
    std::fs::create_dir_all(directory.join("zones"))?;
    let config = format!(
        "options => {{ listen => [ 127.0.0.1 ], dns_port => {port}, udp_threads => 1, tcp_threads => 1, \
         run_dir => {run}, state_dir => {state} }}\n",
        run = directory.join("run").display(),
        state = directory.join("state").display(),
    );
    std::fs::write(directory.join("config"), config)?;
    let mut zone = "@ SOA ns.bench.test. hostmaster.bench.test. (1 7200 1800 259200 60)\n\
                    @ NS ns.bench.test.\nns A 127.0.0.1\n"
        .to_owned();
    for name in 0..NAMES {
        for of in 0..ADDRESSES {
            writeln!(zone, "n{name} 300 A {}", address(name, of))?;
        }
    }
    std::fs::write(directory.join("zones/bench.test"), zone)?;
    let child = Command::new("gdnsd")
        .arg("-c")
        .arg(&directory)
        .arg("start")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Server { name: "gdnsd", child, address };
    server.wait_until_it_answers()?;
    Ok(server)
}

/// Ours, with `names` profiles; the keys are added to each profile and to each endpoint.
fn start_ours(directory: &Path, names: usize, [of_profile, of_endpoint]: [&str; 2]) -> Fallible<Server> {
    let port = free_port()?;
    let directory = directory.join(format!("ours-{names}"));
    std::fs::create_dir_all(&directory)?;
    let mut config = format!(
        "[listen]\ndns = [\"127.0.0.1:{port}\"]\nudp_threads = 1\nresponses_per_second = 100000000\n\
         [admin]\nsocket = {socket:?}\n[[zone]]\nname = \"bench.test\"\n",
        socket = directory.join("admin/tm.sock"),
    );
    for name in 0..names {
        writeln!(
            config,
            "[[profile]]\nname = \"n{name}.bench.test\"\nmax_return = {ADDRESSES}\n{of_profile}"
        )?;
        for of in 0..ADDRESSES {
            writeln!(
                config,
                "[[endpoint]]\nprofile = \"n{name}.bench.test\"\nname = \"e{of}\"\naddress = \"{}\"\n{of_endpoint}",
                address(name, of)
            )?;
        }
    }
    let file = directory.join("tm.toml");
    std::fs::write(&file, config)?;
    let child = Command::new(env!("CARGO_BIN_EXE_rc-traffic-manager"))
        .args(["run", "--config"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Server { name: "rc-traffic-manager", child, address };
    server.wait_until_it_answers()?;
    Ok(server)
}

/// What dnsperf says.
#[derive(Debug, Clone, Copy)]
struct Load {
    answered: f64,
    lost: f64,
    per_second: f64,
}

fn dnsperf(server: &Server, queries: &Path, seconds: u32, rate: Option<u32>) -> Fallible<Load> {
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &server.address.port().to_string(), "-c", "8", "-q", "256"]);
    command.arg("-d").arg(queries).args(["-l", &format!("{seconds}")]);
    if let Some(rate) = rate {
        command.args(["-Q", &rate.to_string()]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |label: &str| -> Fallible<f64> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        let word = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
        word.parse().map_err(|_| format!("dnsperf does not say {label:?}:\n{text}").into())
    };
    Ok(Load {
        answered: number("Queries completed:")?,
        lost: number("Queries lost:")?,
        per_second: number("Queries per second:")?,
    })
}

/// Queries per second as such and per core, of one round.
fn round(server: &Server, queries: &Path, seconds: u32) -> Fallible<(f64, f64)> {
    let before = server.processor_seconds()?;
    let load = dnsperf(server, queries, seconds, None)?;
    let taken = server.processor_seconds()? - before;
    Ok((load.per_second, load.answered / taken.max(1.0 / TICKS_PER_SECOND)))
}

/// The 99th percentile of what one more client waits while the server has `rate` to answer.
fn p99(server: &Server, queries: &Path, seconds: u32, rate: u32) -> Fallible<Duration> {
    let mut samples = Vec::new();
    std::thread::scope(|scope| -> Fallible<()> {
        let load =
            scope.spawn(|| dnsperf(server, queries, seconds, Some(rate)).map_err(|error| error.to_string()));
        // The first tenth of it, until the load is there.
        std::thread::sleep(Duration::from_millis(100 * u64::from(seconds)));
        while !load.is_finished() {
            let sample = ask(server.address, "n7.bench.test", Duration::from_secs(1))?;
            samples.push(sample.unwrap_or(Duration::from_secs(1)));
            std::thread::sleep(Duration::from_millis(1));
        }
        load.join().map_err(|_| "dnsperf's thread panicked")??;
        Ok(())
    })?;
    samples.sort_unstable();
    samples.get(samples.len() * 99 / 100).copied().ok_or_else(|| "no samples".into())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

struct Figures {
    arguments: Arguments,
    failed: Vec<String>,
}

impl Figures {
    fn say(&self, fields: &serde_json::Value, line: &str) {
        if self.arguments.json {
            println!("{fields}");
        } else {
            println!("{line}");
        }
    }

    fn require(&mut self, holds: bool, what: String) {
        if !holds && !self.arguments.tiny {
            self.failed.push(what);
        }
    }

    fn rates(&mut self, servers: &[Server; 2], queries: &Path) -> Fallible<f64> {
        let mut found = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        for number in 0..self.arguments.rounds {
            for (server, (wall, core)) in servers.iter().zip(&mut found) {
                let (per_second, per_core) = round(server, queries, self.arguments.seconds)?;
                wall.push(per_second);
                core.push(per_core);
                self.say(
                    &json!({ "round": number, "server": server.name, "qps": per_second, "qps_per_core": per_core }),
                    &format!("{:>20}  {per_second:>9.0} q/s  {per_core:>9.0} q/s per core", server.name),
                );
            }
        }
        let [(wall, core), (their_wall, their_core)] = found.map(|(wall, core)| (median(wall), median(core)));
        let ratio = core / their_core;
        self.say(
            &json!({ "ratio_per_core": ratio, "ratio": wall / their_wall, "qps_per_core": core }),
            &format!("ratio to gdnsd: {ratio:.2} per core, {:.2} as such", wall / their_wall),
        );
        self.require(ratio >= RATIO_MIN, format!("{ratio:.2} of gdnsd's rate per core, not {RATIO_MIN}"));
        Ok(wall)
    }

    fn latency(&mut self, servers: &[Server; 2], queries: &Path, own_rate: f64) -> Fallible<()> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive rate far below 2^32"
        )]
        let half = (own_rate / 2.0) as u32;
        for server in servers {
            let worst = p99(server, queries, self.arguments.seconds, half)?;
            self.say(
                &json!({ "server": server.name, "half_load_qps": half, "p99_us": worst.as_micros() }),
                &format!("{:>20}  p99 {:.2} ms at {half} q/s", server.name, worst.as_secs_f64() * 1e3),
            );
            if server.name != "gdnsd" {
                self.require(worst <= P99_MAX, format!("p99 is {worst:?} at half load"));
            }
        }
        let [ours, _] = servers;
        let load = dnsperf(ours, queries, self.arguments.seconds, Some(STEADY_QPS))?;
        self.say(
            &json!({ "qps": STEADY_QPS, "answered": load.answered, "lost": load.lost }),
            &format!(
                "{:>20}  {} of {} lost at {STEADY_QPS} q/s",
                ours.name,
                load.lost,
                load.answered + load.lost
            ),
        );
        self.require(load.lost == 0.0, format!("{} lost at {STEADY_QPS} q/s", load.lost));
        Ok(())
    }

    fn memory(&mut self, directory: &Path) -> Fallible<()> {
        let names = if self.arguments.tiny { NAMES / 10 } else { ENDPOINTS / ADDRESSES };
        let server = start_ours(directory, names, PROBED)?;
        std::thread::sleep(Duration::from_secs(u64::from(self.arguments.seconds)));
        let kib = server.resident_kib()?;
        self.say(
            &json!({ "endpoints": names * ADDRESSES, "resident_kib": kib }),
            &format!("{:>20}  {} MiB with {} probed endpoints", server.name, kib / 1024, names * ADDRESSES),
        );
        self.require(kib <= MEMORY_MAX_KIB, format!("{kib} KiB of memory"));
        Ok(())
    }
}

/// Endpoints of the configuration whose memory is measured: probed, and nothing listens there.
const PROBED: [&str; 2] =
    ["protocol = \"TCP\"\ninterval = \"10s\"\ntimeout = \"5s\"", "probe_address = \"127.0.0.1:9\""];

fn is_there(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn measure(arguments: Arguments) -> Fallible<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let queries: PathBuf = directory.path().join("queries");
    let lines: Vec<String> = (0..NAMES).map(|name| format!("n{name}.bench.test A\n")).collect();
    std::fs::write(&queries, lines.concat())?;
    let mut figures = Figures { arguments, failed: Vec::new() };
    {
        let servers = [
            start_ours(directory.path(), NAMES, ["", "always_serve = true"])?,
            start_gdnsd(directory.path())?,
        ];
        let own_rate = figures.rates(&servers, &queries)?;
        figures.latency(&servers, &queries, own_rate)?;
    }
    figures.memory(directory.path())?;
    Ok(figures.failed)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.tiny {
        (arguments.rounds, arguments.seconds) = (1, 1);
    }
    for (program, argument) in [("gdnsd", "-V"), ("dnsperf", "-h")] {
        if !is_there(program, argument) {
            println!("SKIP dns: {program} is not installed");
            return if std::env::var("RC_TESTS").as_deref() == Ok("require") {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    }
    match measure(arguments) {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            for line in failed {
                println!("FAILED {line}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAILED {error}");
            ExitCode::FAILURE
        }
    }
}
