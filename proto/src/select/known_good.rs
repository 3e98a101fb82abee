//! Addresses that worked, per network: what to dial first, and what to dial at all when DNS is silent.
//!
//! The list is plain values that the driver loads and saves; wall times are unix ms, since it outlives the
//! process. Whatever a file holds, the list stays within its bounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::candidate::{CANDIDATES_MAX, Expectation, Source};

/// Age from which an address is forgotten.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Networks that are remembered; the one used longest ago is forgotten first.
pub const NETWORKS_MAX: usize = 16;
/// Longest text that names a network, in bytes.
pub const NETWORK_KEY_BYTES_MAX: usize = 128;

/// Names the network that the machine is in, as the driver sees it (for example gateway and search domain).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkKey(String);

impl NetworkKey {
    /// A key of at most [`NETWORK_KEY_BYTES_MAX`] bytes; what is longer is cut.
    pub fn new(text: &str) -> Self {
        let cut = text.floor_char_boundary(NETWORK_KEY_BYTES_MAX);
        Self(text.get(..cut).unwrap_or_default().to_owned())
    }
}

/// Why a saved list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list of known brokers is not readable ({reason}): it is rebuilt from DNS")]
pub struct KnownGoodError {
    /// What the reader found.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    address: SocketAddr,
    expectation: Expectation,
    resolved_unix_ms: u64,
    worked_unix_ms: Option<u64>,
}

impl Entry {
    fn latest(&self) -> u64 {
        self.resolved_unix_ms.max(self.worked_unix_ms.unwrap_or(0))
    }
}

/// The last-known-good list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGood {
    networks: BTreeMap<NetworkKey, Vec<Entry>>,
}

impl KnownGood {
    /// Names gave these addresses on this network.
    pub fn handle_resolved(&mut self, network: &NetworkKey, sources: &[Source], now_unix_ms: u64) {
        for source in sources {
            for address in source.addresses.iter().take(CANDIDATES_MAX) {
                let mut entry = self.take(network, *address, &source.expectation, now_unix_ms);
                entry.resolved_unix_ms = now_unix_ms;
                self.put(network, entry);
            }
        }
        self.trim(now_unix_ms);
    }

    /// A broker answered at `address` with the identity expected.
    pub fn handle_worked(
        &mut self,
        network: &NetworkKey,
        address: SocketAddr,
        expectation: &Expectation,
        now_unix_ms: u64,
    ) {
        let mut entry = self.take(network, address, expectation, now_unix_ms);
        entry.worked_unix_ms = Some(now_unix_ms);
        self.put(network, entry);
        self.trim(now_unix_ms);
    }

    /// Addresses that worked on this network, latest first: the history that a race starts with.
    pub fn history(&self, network: &NetworkKey, now_unix_ms: u64) -> Vec<SocketAddr> {
        let mut worked: Vec<_> =
            self.young(network, now_unix_ms).filter_map(|e| Some((e.worked_unix_ms?, e.address))).collect();
        worked.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        worked.into_iter().map(|(_, address)| address).collect()
    }

    /// Whether anything is known of this network.
    pub fn has(&self, network: &NetworkKey, now_unix_ms: u64) -> bool {
        self.young(network, now_unix_ms).next().is_some()
    }

    /// What to dial when no lookup answers: this network's addresses, else those of all networks.
    pub fn sources(&self, network: &NetworkKey, now_unix_ms: u64) -> Vec<Source> {
        let mut by_expectation: BTreeMap<&Expectation, Vec<SocketAddr>> = BTreeMap::new();
        let mut add = |entry: &'_ Entry, expectation| {
            by_expectation.entry(expectation).or_default().push(entry.address);
        };
        self.young(network, now_unix_ms).for_each(|entry| add(entry, &entry.expectation));
        if by_expectation.is_empty() {
            for other in self.networks.keys() {
                for entry in self.young(other, now_unix_ms) {
                    by_expectation.entry(&entry.expectation).or_default().push(entry.address);
                }
            }
        }
        by_expectation
            .into_iter()
            .map(|(expectation, addresses)| Source { expectation: expectation.clone(), addresses })
            .collect()
    }

    /// The list as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote, and drops what is too old, too much, or dated in the future.
    ///
    /// # Errors
    /// When the text is not such a list.
    pub fn from_json(text: &str, now_unix_ms: u64) -> Result<Self, KnownGoodError> {
        let mut list: Self =
            serde_json::from_str(text).map_err(|error| KnownGoodError { reason: error.to_string() })?;
        list.networks.retain(|key, _| key.0.len() <= NETWORK_KEY_BYTES_MAX);
        for entries in list.networks.values_mut() {
            entries.retain(|entry| entry.latest() <= now_unix_ms);
        }
        list.trim(now_unix_ms);
        Ok(list)
    }

    fn young(&self, network: &NetworkKey, now_unix_ms: u64) -> impl Iterator<Item = &Entry> {
        let entries = self.networks.get(network).map(Vec::as_slice).unwrap_or_default();
        entries.iter().filter(move |entry| is_young(entry, now_unix_ms))
    }

    /// Takes the entry out of the list, or makes it.
    fn take(
        &mut self,
        network: &NetworkKey,
        address: SocketAddr,
        expectation: &Expectation,
        now_unix_ms: u64,
    ) -> Entry {
        let entries = self.networks.entry(network.clone()).or_default();
        match entries.iter().position(|e| e.address == address && e.expectation == *expectation) {
            Some(place) => entries.remove(place),
            None => Entry {
                address,
                expectation: expectation.clone(),
                resolved_unix_ms: now_unix_ms,
                worked_unix_ms: None,
            },
        }
    }

    fn put(&mut self, network: &NetworkKey, entry: Entry) {
        self.networks.entry(network.clone()).or_default().push(entry);
    }

    fn trim(&mut self, now_unix_ms: u64) {
        self.networks.retain(|_, entries| {
            entries.retain(|entry| is_young(entry, now_unix_ms));
            entries.sort_by_key(|entry| {
                (std::cmp::Reverse(entry.worked_unix_ms), std::cmp::Reverse(entry.latest()))
            });
            entries.truncate(CANDIDATES_MAX);
            !entries.is_empty()
        });
        while self.networks.len() > NETWORKS_MAX {
            let latest = |entries: &Vec<Entry>| entries.iter().map(Entry::latest).max();
            let oldest = self.networks.iter().min_by_key(|(_, entries)| latest(entries));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.networks.remove(&oldest);
        }
    }
}

fn is_young(entry: &Entry, now_unix_ms: u64) -> bool {
    let age_ms = now_unix_ms.saturating_sub(entry.latest());
    Duration::from_millis(age_ms) <= KEPT
}
