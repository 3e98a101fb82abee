//! The world of Geographic routing: everything, groups of countries, countries, states.

use std::fmt;
use std::str::FromStr;

use super::countries::GROUPS;

/// Countries whose states can be told apart.
const WITH_STATES: [&str; 3] = ["AU", "CA", "US"];

/// A part of the world, by the codes of Azure Traffic Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GeoRegion {
    /// `WORLD`: everything, and addresses of which nothing is known.
    World,
    /// A group of countries, such as `GEO-EU`.
    Group(&'static str),
    /// A country, by ISO 3166-1, such as `IE`.
    Country(&'static str),
    /// A state of Australia, Canada or the United States, by ISO 3166-2, such as `US-CA`.
    State(&'static str, [u8; 3]),
}

/// Why a text names no part of the world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no region: it is WORLD, a group such as GEO-EU, a country such as IE, or a state such as US-CA"
)]
pub struct UnknownRegion {
    text: String,
}

impl FromStr for GeoRegion {
    type Err = UnknownRegion;

    fn from_str(text: &str) -> Result<Self, UnknownRegion> {
        let upper = text.trim().to_ascii_uppercase();
        let found = if upper == "WORLD" {
            Some(Self::World)
        } else if upper.starts_with("GEO-") {
            GROUPS.iter().find(|(group, _)| *group == upper).map(|(group, _)| Self::Group(group))
        } else if let Some((country, state)) = upper.split_once('-') {
            Self::state(country, state)
        } else {
            country(&upper).map(|(_, country)| Self::Country(country))
        };
        found.ok_or_else(|| UnknownRegion { text: text.to_owned() })
    }
}

impl GeoRegion {
    fn state(of: &str, code: &str) -> Option<Self> {
        let (_, known) = country(of)?;
        let sound = (1..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !WITH_STATES.contains(&known) || !sound {
            return None;
        }
        let mut padded = [b' '; 3];
        for (place, byte) in padded.iter_mut().zip(code.bytes()) {
            *place = byte.to_ascii_uppercase();
        }
        Some(Self::State(known, padded))
    }

    /// This and every larger region that it is in, up to the world.
    pub fn with_larger(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |region| match region {
            Self::State(of, _) => Some(Self::Country(of)),
            Self::Country(code) => Some(country(code).map_or(Self::World, |(group, _)| Self::Group(group))),
            Self::Group(_) => Some(Self::World),
            Self::World => None,
        })
    }

    /// The smallest region known for ISO codes as databases give them; the world when the country is unknown.
    pub fn of_codes(iso_country: &str, iso_state: Option<&str>) -> Self {
        let Some((_, known)) = country(&iso_country.to_ascii_uppercase()) else { return Self::World };
        iso_state.and_then(|state| Self::state(known, state)).unwrap_or(Self::Country(known))
    }
}

/// A country's group and its code.
fn country(code: &str) -> Option<(&'static str, &'static str)> {
    GROUPS.iter().find_map(|(group, countries)| {
        countries.split(' ').find(|known| *known == code).map(|known| (*group, known))
    })
}

impl fmt::Display for GeoRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("WORLD"),
            Self::Group(code) | Self::Country(code) => f.write_str(code),
            Self::State(of, code) => {
                write!(f, "{of}-")?;
                code.iter()
                    .filter(|byte| **byte != b' ')
                    .try_for_each(|byte| write!(f, "{}", char::from(*byte)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        let regions = text.parse::<GeoRegion>().unwrap().with_larger();
        regions.map(|region| region.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_region_knows_what_it_is_in() {
        assert_eq!(path("us-ca"), "US-CA US GEO-NA WORLD");
        assert_eq!(path("AU-NSW"), "AU-NSW AU GEO-AP WORLD");
        assert_eq!(path("IE"), "IE GEO-EU WORLD");
        assert_eq!(path("AE"), "AE GEO-ME WORLD");
        assert_eq!(path("GEO-AN"), "GEO-AN WORLD");
        assert_eq!(path("WORLD"), "WORLD");
    }

    #[test]
    fn states_exist_only_in_three_countries() {
        for wrong in ["GB-ENG", "US-", "US-CALI", "XX", "GEO-XX", "", "EU"] {
            assert!(wrong.parse::<GeoRegion>().is_err(), "{wrong}");
        }
        assert_eq!(GeoRegion::of_codes("gb", Some("ENG")).to_string(), "GB");
        assert_eq!(GeoRegion::of_codes("us", Some("ny")).to_string(), "US-NY");
        assert_eq!(GeoRegion::of_codes("zz", None), GeoRegion::World);
    }

    #[test]
    fn no_country_is_in_two_groups() {
        let all: Vec<&str> = GROUPS.iter().flat_map(|(_, countries)| countries.split(' ')).collect();
        let distinct: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len());
        assert!(all.len() > 240 && all.iter().all(|code| code.len() == 2));
    }
}
