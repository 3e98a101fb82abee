//! Where things are: endpoints by the name of a location, askers by their address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::geo_database::GeoDatabase;
use super::ranges::RangeMap;
use super::region::GeoRegion;

/// The name of a location, such as `west-europe`. Letter case, spaces and punctuation make no difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(Arc<str>);

/// A location's name has no letter and no digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a location has letters or digits, such as \"west-europe\"")]
pub struct EmptyLocation;

impl FromStr for Location {
    type Err = EmptyLocation;

    fn from_str(text: &str) -> Result<Self, EmptyLocation> {
        let plain: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        if plain.is_empty() { Err(EmptyLocation) } else { Ok(Self(plain.into())) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Round trips to locations, in ms.
pub type RoundTrips = BTreeMap<Location, u32>;

/// Which part of the world an address is in.
#[derive(Debug, Default)]
pub enum Geography {
    /// Nothing is known of any address.
    #[default]
    Unknown,
    /// By address range.
    Table(RangeMap<GeoRegion>),
    /// By a database in MaxMind's format.
    Database(GeoDatabase),
}

impl Geography {
    /// The smallest known region of an address, the world when nothing is known; and how many bits of the address
    /// that depends on.
    pub fn locate(&self, address: IpAddr) -> (GeoRegion, u8) {
        match self {
            Self::Unknown => (GeoRegion::World, 0),
            Self::Table(table) => {
                let found = table.get(address);
                (found.value.copied().unwrap_or(GeoRegion::World), found.prefix)
            }
            Self::Database(database) => database.locate(address),
        }
    }
}

/// How far askers are from locations. Several sources, the first that knows a pair counts: what clients measured, the
/// operator's table of address ranges, the round trips between locations from the one nearest to the asker.
#[derive(Debug, Default)]
pub struct Latency {
    /// What clients measured, by their network.
    pub learned: RangeMap<Arc<RoundTrips>>,
    /// Round trips by the asker's range.
    pub measured: RangeMap<Arc<RoundTrips>>,
    /// The location nearest to a range of askers.
    pub nearest: RangeMap<Location>,
    /// The location nearest to a part of the world, for ranges that are not in `nearest`.
    pub nearest_by_region: BTreeMap<GeoRegion, Location>,
    /// Round trips between locations.
    pub between: BTreeMap<Location, RoundTrips>,
}

/// What is known about askers. Replaced as a whole when a table changes.
#[derive(Debug, Default)]
pub struct Maps {
    /// Which part of the world they are in.
    pub geography: Geography,
    /// How far they are from locations.
    pub latency: Latency,
}

/// The round trips that hold for one asker.
#[derive(Debug, Clone, Copy)]
pub struct Distances<'m> {
    rows: [Option<&'m RoundTrips>; 3],
    /// How many bits of the asker's address they depend on.
    pub prefix: u8,
}

impl Distances<'_> {
    /// The round trip to a location, in ms, when it is known.
    pub fn to(&self, location: &Location) -> Option<u32> {
        self.rows.iter().flatten().find_map(|row| row.get(location).copied())
    }
}

impl Maps {
    /// How far an address is from everything.
    pub fn distances(&self, address: IpAddr) -> Distances<'_> {
        let latency = &self.latency;
        let (learned, measured) = (latency.learned.get(address), latency.measured.get(address));
        let nearest = latency.nearest.get(address);
        let mut prefix = learned.prefix.max(measured.prefix).max(nearest.prefix);
        let mut location = nearest.value;
        if location.is_none() && !latency.nearest_by_region.is_empty() {
            let (region, region_prefix) = self.geography.locate(address);
            prefix = prefix.max(region_prefix);
            location = region.with_larger().find_map(|larger| latency.nearest_by_region.get(&larger));
        }
        let between = location.and_then(|location| latency.between.get(location));
        Distances { rows: [learned.value.map(Arc::as_ref), measured.value.map(Arc::as_ref), between], prefix }
    }
}
