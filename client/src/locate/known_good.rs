//! The last-known-good list on disk, and which network it speaks of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use rc_proto::select::{Expectation, KnownGood, NetworkKey, Source};

use crate::reach::unix_ms;

/// Name of the list in the state directory.
const FILE_NAME: &str = "known-good.json";
/// Longest list that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The list in memory and where it is kept.
pub(crate) struct KnownGoodStore {
    list: KnownGood,
    file: Option<PathBuf>,
}

impl KnownGoodStore {
    /// Reads the list of `state_dir`; a missing or unreadable one is an empty one.
    pub(crate) fn open(state_dir: Option<PathBuf>) -> Self {
        let file = state_dir.map(|dir| dir.join(FILE_NAME));
        let list = file.as_deref().and_then(read_list).unwrap_or_default();
        Self { list, file }
    }

    /// What to dial when no name resolves.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.list.sources(&network_key(), unix_ms())
    }

    /// Whether there is anything to dial when no name resolves.
    pub(crate) fn has_any(&self) -> bool {
        self.list.has(&network_key(), unix_ms())
    }

    /// What worked on this network, latest first.
    pub(crate) fn history(&self) -> Vec<SocketAddr> {
        self.list.history(&network_key(), unix_ms())
    }

    /// Names resolved, and these candidates worked: keeps both, on disk too.
    pub(crate) async fn keep(&mut self, sources: &[Source], worked: &[(SocketAddr, Expectation)]) {
        let (network, now) = (network_key(), unix_ms());
        self.list.handle_resolved(&network, sources, now);
        for (address, expectation) in worked {
            self.list.handle_worked(&network, *address, expectation, now);
        }
        let Some(file) = self.file.clone() else { return };
        let text = self.list.to_json();
        let written = tokio::task::spawn_blocking(move || {
            let fresh = file.with_extension("json.new");
            std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &file))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the last-known-good broker list cannot be saved");
        }
    }
}

fn read_list(file: &std::path::Path) -> Option<KnownGood> {
    let length = std::fs::metadata(file).ok()?.len();
    if length > FILE_BYTES_MAX {
        tracing::warn!(file = %file.display(), length, "the last-known-good broker list is too long, ignored");
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    match KnownGood::from_json(&text, unix_ms()) {
        Ok(list) => Some(list),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the last-known-good broker list is damaged, ignored");
            None
        }
    }
}

/// Names the network by the prefix of the address that the default route uses; connecting a UDP socket sends
/// nothing.
fn network_key() -> NetworkKey {
    let local = |bind: IpAddr, towards: IpAddr| {
        let socket = UdpSocket::bind((bind, 0)).ok()?;
        socket.connect((towards, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let v4 = local(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = || local(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    NetworkKey::new(&match v4.or_else(v6) {
        Some(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        None => "offline".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_worked_survives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let address: SocketAddr = "192.0.2.7:443".parse().unwrap();
        let expectation = Expectation::Name("brokers.example".into());
        let mut store = KnownGoodStore::open(Some(dir.path().to_owned()));
        let source = Source { expectation: expectation.clone(), addresses: vec![address] };
        store.keep(std::slice::from_ref(&source), &[(address, expectation)]).await;
        let again = KnownGoodStore::open(Some(dir.path().to_owned()));
        assert_eq!(again.sources(), [source]);
        assert_eq!(again.history(), [address]);
    }

    #[test]
    fn a_damaged_list_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), b"\xff{").unwrap();
        assert_eq!(KnownGoodStore::open(Some(dir.path().to_owned())).sources(), []);
    }
}
