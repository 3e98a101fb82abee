//! Measured round trips between brokers.
//!
//! Each broker tells what it measured to its peers; each row replaces the one before. Of the two measurements of a
//! pair the larger counts, so that one broker alone cannot draw traffic by claiming to be near.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Moment;
use crate::wire::{BrokerId, limits};

/// Rows that are kept; the oldest is dropped first.
pub const ROWS_MAX: usize = limits::PEERS_MAX;
/// Age from which a row no longer counts.
pub const ROW_AGE_MAX: Duration = Duration::from_secs(150);

#[derive(Debug, Clone)]
struct Row {
    at: Moment,
    round_trips: BTreeMap<BrokerId, Duration>,
}

/// The round trips that are known; see the module.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    rows: BTreeMap<BrokerId, Row>,
}

impl Matrix {
    /// `from` says what it measured, in µs. More than [`limits::MATRIX_ENTRIES_MAX`] entries are not kept.
    pub fn handle_row(&mut self, from: &BrokerId, round_trips_us: &[(BrokerId, u32)], now: Moment) {
        let entries = round_trips_us.iter().take(limits::MATRIX_ENTRIES_MAX);
        let round_trips = entries
            .filter(|(to, _)| to != from)
            .map(|(to, us)| (to.clone(), Duration::from_micros((*us).into())))
            .collect();
        self.make_room(from);
        self.rows.insert(from.clone(), Row { at: now, round_trips });
    }

    /// One round trip was measured, for example by the hops of a path that was opened.
    pub fn observe(&mut self, from: &BrokerId, to: &BrokerId, round_trip: Duration, now: Moment) {
        if from == to {
            return;
        }
        self.make_room(from);
        let row =
            self.rows.entry(from.clone()).or_insert_with(|| Row { at: now, round_trips: BTreeMap::new() });
        row.at = now;
        if row.round_trips.len() < limits::MATRIX_ENTRIES_MAX || row.round_trips.contains_key(to) {
            row.round_trips.insert(to.clone(), round_trip);
        }
    }

    /// `broker` is gone: what it said, and what others said of it.
    pub fn forget(&mut self, broker: &BrokerId) {
        self.rows.remove(broker);
        for row in self.rows.values_mut() {
            row.round_trips.remove(broker);
        }
    }

    /// The round trip between two brokers, zero for one and the same; `None` when nobody measured it lately.
    pub fn round_trip(&self, one: &BrokerId, other: &BrokerId, now: Moment) -> Option<Duration> {
        if one == other {
            return Some(Duration::ZERO);
        }
        self.measured(one, other, now).into_iter().chain(self.measured(other, one, now)).max()
    }

    /// Brokers that said or were said anything lately.
    pub fn brokers(&self, now: Moment) -> Vec<BrokerId> {
        let mut found = std::collections::BTreeSet::new();
        for (from, row) in self.rows.iter().filter(|(_, row)| now.since(row.at) <= ROW_AGE_MAX) {
            found.insert(from);
            found.extend(row.round_trips.keys());
        }
        found.into_iter().cloned().collect()
    }

    fn measured(&self, from: &BrokerId, to: &BrokerId, now: Moment) -> Option<Duration> {
        let row = self.rows.get(from).filter(|row| now.since(row.at) <= ROW_AGE_MAX)?;
        row.round_trips.get(to).copied()
    }

    fn make_room(&mut self, from: &BrokerId) {
        if self.rows.len() < ROWS_MAX || self.rows.contains_key(from) {
            return;
        }
        let oldest = self.rows.iter().min_by_key(|(_, row)| row.at).map(|(broker, _)| broker.clone());
        if let Some(oldest) = oldest {
            self.rows.remove(&oldest);
        }
    }
}
