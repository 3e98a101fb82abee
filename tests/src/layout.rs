//! What a deployment consists of, before anything runs: regions, brokers, distances.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_proto::wire::BrokerId;

use crate::error::HarnessError;

/// Round trip inside a region when nothing else is said.
const LOCAL_ROUND_TRIP: Duration = Duration::from_millis(2);
/// Round trip between regions when nothing else is said.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Regions, their brokers, and the round trips between them.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    regions: BTreeMap<String, Vec<BrokerId>>,
    round_trips: BTreeMap<(String, String), Duration>,
}

impl Layout {
    /// Adds `count` brokers, `broker-1` and so on, to `region`.
    ///
    /// # Errors
    /// When the region is no valid id.
    pub fn add_region(&mut self, region: &str, count: usize) -> Result<(), HarnessError> {
        (1..=count).try_for_each(|number| self.add_broker(region, &format!("broker-{number}")))
    }

    /// Adds one broker.
    ///
    /// # Errors
    /// When region or id is not valid.
    pub fn add_broker(&mut self, region: &str, id: &str) -> Result<(), HarnessError> {
        let broker = BrokerId::new(region, id).map_err(|_| HarnessError::Id(format!("{region}/{id}")))?;
        self.regions.entry(region.to_owned()).or_default().push(broker);
        Ok(())
    }

    /// Sets the round trip between two regions, or inside one.
    pub fn set_round_trip(&mut self, one: &str, other: &str, round_trip: Duration) {
        self.round_trips.insert(ordered(one, other), round_trip);
    }

    /// The round trip between two regions: as set, else 2 ms inside a region and 100 ms between two.
    pub fn round_trip(&self, one: &str, other: &str) -> Duration {
        let default = if one == other { LOCAL_ROUND_TRIP } else { DEFAULT_ROUND_TRIP };
        self.round_trips.get(&ordered(one, other)).copied().unwrap_or(default)
    }

    /// Every region.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }

    /// Every broker of every region.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerId> {
        self.regions.values().flatten()
    }

    /// Whether the region exists.
    pub fn has_region(&self, region: &str) -> bool {
        self.regions.contains_key(region)
    }
}

fn ordered(one: &str, other: &str) -> (String, String) {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    (low.to_owned(), high.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_the_same_from_both_ends() {
        let mut layout = Layout::default();
        layout.add_region("in", 2).unwrap();
        layout.add_region("us", 1).unwrap();
        layout.set_round_trip("us", "in", Duration::from_millis(220));
        assert_eq!(layout.round_trip("in", "us"), Duration::from_millis(220));
        assert_eq!(layout.round_trip("us", "in"), Duration::from_millis(220));
        assert_eq!(layout.round_trip("in", "in"), LOCAL_ROUND_TRIP);
        let brokers: Vec<&str> = layout.brokers().map(BrokerId::as_str).collect();
        assert_eq!(brokers, ["in/broker-1", "in/broker-2", "us/broker-1"]);
    }

    #[test]
    fn an_invalid_name_is_refused() {
        assert!(matches!(Layout::default().add_region("India", 1), Err(HarnessError::Id(_))));
    }
}
