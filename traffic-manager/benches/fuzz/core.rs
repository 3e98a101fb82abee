//! What the fuzzer tries and what has to hold, shared by the long run and its replay among the tests.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hickory_server::proto::op::Message;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rc_daemon::config::{ConfigSources, Settings};
use rc_traffic_manager::config::{self, KNOBS};
use rc_traffic_manager::decide::{Directives, EndpointStatus, Health};
use rc_traffic_manager::monitor::LatestSnapshot;
use rc_traffic_manager::server::{Counters, LatestMaps, Serving, Transport, answer};

/// One response in so many is read by a DNS library that is not ours.
const READ_EVERY: u64 = 16;
/// Numbers at which parsers go wrong.
const SLY: [u16; 12] = [0, 1, 4, 12, 41, 63, 64, 255, 0x7fff, 0x8000, 0xc00c, 0xffff];

/// Inputs to begin from, in files of their own.
pub(crate) fn corpus() -> (Vec<Vec<u8>>, Vec<String>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fuzz/corpus");
    let lines = std::fs::read_to_string(directory.join("queries.hex")).expect("the corpus is there");
    let queries = lines.lines().filter(|line| !line.starts_with('#')).map(unhex).collect();
    let texts = std::fs::read_to_string(directory.join("configurations.toml")).expect("the corpus is there");
    let texts: Vec<String> = texts.split("\n# ----\n").map(ToOwned::to_owned).collect();
    (queries, texts)
}

fn unhex(line: &str) -> Vec<u8> {
    let digits: Vec<u32> = line.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

/// A server without sockets, and the configuration file that it tries others in.
pub(crate) struct Target {
    serving: Serving,
    out: Vec<u8>,
    rng: SmallRng,
    file: PathBuf,
    directory: tempfile::TempDir,
    asked: u64,
}

impl Target {
    /// Serves the first configuration of the corpus.
    pub(crate) fn new(configuration: &str, seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tm.toml");
        std::fs::write(&file, configuration).expect("a file");
        let sources = ConfigSources::new(config::BINARY).file(&file);
        let config = config::read(&Settings::load(sources, KNOBS)).expect("the first configuration is sound");
        let zones = config.zones;
        let snapshot = LatestSnapshot::new(Arc::clone(&zones), Directives::default());
        snapshot.observe(vec![Health::with_status(EndpointStatus::Online); config.endpoints.len()]);
        let counters = Arc::new(Counters::new(zones.profiles().len()));
        let serving =
            Serving::new(zones, snapshot, counters).with_maps(LatestMaps::default()).with_nsid(Some("fuzz"));
        let rng = SmallRng::seed_from_u64(seed);
        Self { serving, out: Vec::new(), rng, file, directory, asked: 0 }
    }

    /// Asks, and judges what comes back.
    pub(crate) fn query(&mut self, message: &[u8]) {
        let source: IpAddr = if self.rng.random() { [198, 51, 100, 7].into() } else { [0_u16; 8].into() };
        for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
            if !answer(&self.serving, message, source, transport, &mut self.rng, &mut self.out) {
                assert!(message.len() < 12 || message[2] & 0x80 != 0, "no answer to {message:02x?}");
                continue;
            }
            assert!(self.out.len() <= most, "{} bytes for {message:02x?}", self.out.len());
            assert_eq!(self.out[..2], message[..2], "the id of {message:02x?}");
            assert!(self.out[2] & 0x80 != 0, "a response to {message:02x?}");
            self.asked += 1;
            if self.asked.is_multiple_of(READ_EVERY) {
                let read = Message::from_vec(&self.out);
                assert!(read.is_ok(), "{read:?} of {:02x?} to {message:02x?}", self.out);
            }
        }
    }

    /// Reads a configuration. Sound or not, it has to come to an end and say something.
    pub(crate) fn configuration(&mut self, text: &str) {
        std::fs::write(&self.file, text).expect("a file");
        let sources = ConfigSources::new(config::BINARY).file(&self.file);
        match config::read(&Settings::load(sources, KNOBS)) {
            Ok(config) => {
                drop(Serving::new(config.zones, LatestSnapshot::default(), Arc::new(Counters::new(0))))
            }
            Err(errors) => assert!(!errors.problems().is_empty(), "refused without a reason: {text}"),
        }
        assert!(self.directory.path().exists());
    }
}

/// Changes inputs a little.
pub(crate) struct Mutator(SmallRng);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// One of the inputs, changed in one to six places.
    pub(crate) fn bytes(&mut self, inputs: &[Vec<u8>], into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(inputs.choose(&mut self.0).expect("a corpus"));
        for _ in 0..self.0.random_range(1..=6) {
            self.change(inputs, into);
        }
        into.truncate(2048);
    }

    fn change(&mut self, inputs: &[Vec<u8>], bytes: &mut Vec<u8>) {
        let rng = &mut self.0;
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.insert(at, rng.random()),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if at + 2 <= bytes.len() => {
                let sly = *SLY.choose(rng).expect("numbers");
                bytes[at..at + 2].copy_from_slice(&sly.to_be_bytes());
            }
            5 => bytes.truncate(at),
            _ => {
                let other = inputs.choose(rng).expect("a corpus");
                let from = rng.random_range(0..=other.len());
                let part = &other[from..other.len().min(from + 40)];
                bytes.splice(at..at, part.iter().copied());
            }
        }
    }

    /// One of the texts, with bytes changed or lines lost, doubled or moved.
    pub(crate) fn text(&mut self, inputs: &[String]) -> String {
        let text = inputs.choose(&mut self.0).expect("a corpus");
        let mut lines: Vec<&str> = text.lines().collect();
        for _ in 0..self.0.random_range(0..3) {
            let (from, to) = (self.0.random_range(0..lines.len()), self.0.random_range(0..lines.len()));
            match self.0.random_range(0..3) {
                0 if lines.len() > 1 => drop(lines.remove(from)),
                1 => lines.insert(to, lines[from]),
                _ => lines.swap(from, to),
            }
        }
        let mut bytes = lines.join("\n").into_bytes();
        for _ in 0..self.0.random_range(0..4) {
            let at = self.0.random_range(0..bytes.len().max(1));
            let printable = *b"abz019.-_\"[]{}=,:/\\#\n \xc3".choose(&mut self.0).expect("bytes");
            match (self.0.random_range(0..3), at < bytes.len()) {
                (0, true) => bytes[at] = printable,
                (1, true) => drop(bytes.remove(at)),
                (_, _) => bytes.insert(at.min(bytes.len()), printable),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
