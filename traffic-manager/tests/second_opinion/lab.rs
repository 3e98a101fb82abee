//! The program with a configuration, and other programs.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rc_daemon::ready::Ready;

const SOON: Duration = Duration::from_secs(30);

/// `p`: five addresses, three at a time. `one`: a single address. `b`: a name elsewhere. `www`: an alias of `p`.
/// `weighted`: 1, 2 and 5 of eight. `near`: by subnet. `wide`: ten IPv6 addresses under a long name.
pub(crate) const WIDE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy.\
     zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz.wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww.tm.test";

pub(crate) fn zones() -> String {
    let mut text = r#"
[listen]
dns = ["127.0.0.1:0"]
nsid = "tm-1"
udp_threads = 2
[admin]
socket = "DIR/admin/tm.sock"
[ready]
file = "DIR/ready.json"
[[zone]]
name = "tm.test"
ttl = 600
negative_ttl = 30
[[alias]]
name = "www.tm.test"
target = "p.tm.test"
[[record]]
name = "ns.tm.test"
addresses = ["127.0.0.1"]
"#
    .to_owned();
    let mut profile = |name: &str, keys: &str, endpoints: &[String]| {
        text.push_str(&format!("[[profile]]\nname = \"{name}\"\n{keys}\n"));
        for (at, endpoint) in endpoints.iter().enumerate() {
            text.push_str(&format!(
                "[[endpoint]]\nprofile = \"{name}\"\nname = \"e{at}\"\nalways_serve = true\n{endpoint}\n"
            ));
        }
    };
    let v4 = |count: u8| (1..=count).map(|n| format!("address = \"203.0.113.{n}\"")).collect::<Vec<_>>();
    profile("p.tm.test", "ttl = 42\nmax_return = 3", &v4(5));
    profile("one.tm.test", "ttl = 20\nmethod = \"Priority\"", &v4(1));
    profile("b.tm.test", "method = \"Priority\"", &["target = \"b1.example.net\"".to_owned()]);
    let weights = [1, 2, 5].map(|weight| format!("address = \"203.0.113.{weight}\"\nweight = {weight}"));
    profile("weighted.tm.test", "ttl = 0\nmethod = \"Weighted\"", &weights);
    let near = [
        "address = \"203.0.113.1\"\nsubnets = [\"198.51.100.0/24\"]",
        "address = \"203.0.113.2\"\nsubnets = [\"192.0.2.0/25\"]",
        "address = \"203.0.113.3\"",
    ];
    profile("near.tm.test", "method = \"Subnet\"", &near.map(ToOwned::to_owned));
    let v6: Vec<_> = (1..=10).map(|n| format!("address = \"2001:db8::{n:x}\"")).collect();
    profile(WIDE, "ttl = 42\nmax_return = 10", &v6);
    text
}

/// A process that ends with this.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts our server.
pub(crate) fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let text = zones().replace("DIR", directory.path().to_str().unwrap());
    let config = directory.path().join("tm.toml");
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rc-traffic-manager"))
        .args(["run", "--log", "warn", "--config"])
        .arg(&config)
        .spawn()
        .unwrap();
    let ready = directory.path().join("ready.json");
    let begin = Instant::now();
    while Ready::read(&ready).is_err() {
        assert!(begin.elapsed() < SOON && child.try_wait().unwrap().is_none(), "the server did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let address = Ready::read(&ready).unwrap().listen["dns"][0];
    Running { child, address, directory }
}

/// Starts another server that answers `probe` at a port, and waits until it does.
pub(crate) fn start_other(
    program: &str,
    directory: tempfile::TempDir,
    port: u16,
    arguments: &[&str],
    probe: &str,
) -> Running {
    let child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut running = Running { child, address, directory };
    let begin = Instant::now();
    while !dig(address, &[probe, "A", "+tries=1", "+time=1"]).contains("status: NOERROR") {
        let log = || std::fs::read_to_string(running.directory.path().join("log")).unwrap_or_default();
        assert!(begin.elapsed() < SOON, "{program} does not answer: {}", log());
        assert!(running.child.try_wait().unwrap().is_none(), "{program} ended: {}", log());
    }
    running
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Whether all programs are installed; says so when not.
pub(crate) fn have(programs: &[&str]) -> bool {
    for program in programs {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
        if !found.status.success() {
            skip(&format!("{program} is not installed"));
            return false;
        }
    }
    true
}

pub(crate) fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    assert_ne!(std::env::var("RC_TESTS").as_deref(), Ok("require"), "{name}: {reason}");
    eprintln!("SKIP {name}: {reason}");
}

/// What dig prints.
pub(crate) fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .args(["-r", "@127.0.0.1", "-p", &server.port().to_string(), "+nocookie"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
