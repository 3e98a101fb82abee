//! A geographic database in MaxMind's format, held in memory.

use std::fmt;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, Reader, path};

use super::region::GeoRegion;

/// Reads countries and states from a database that has `country.iso_code` and may have `subdivisions[].iso_code`, as
/// GeoLite2 and GeoIP2 Country and City do.
pub struct GeoDatabase(Reader<Vec<u8>>);

/// Why a file is no usable database.
#[derive(Debug, thiserror::Error)]
#[error("not a database in MaxMind's format: {0}")]
pub struct GeoDatabaseError(#[from] MaxMindDbError);

impl GeoDatabase {
    /// From a file's content.
    ///
    /// # Errors
    /// When it is not in the format.
    pub fn from_bytes(content: Vec<u8>) -> Result<Self, GeoDatabaseError> {
        Ok(Self(Reader::from_source(content)?))
    }

    /// The smallest known region of an address, the world when it is not in the database or its entry is damaged; and
    /// how many bits of the address that depends on.
    pub fn locate(&self, address: IpAddr) -> (GeoRegion, u8) {
        let address = address.to_canonical();
        let Ok(found) = self.0.lookup(address) else { return (GeoRegion::World, 0) };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match found.network() {
            // A network that is wider than all of IPv4.
            Ok(network) if address.is_ipv4() && network.is_ipv6() => 0,
            Ok(network) => network.prefix(),
            Err(_) => bits,
        };
        let text = |at: &[maxminddb::PathElement<'_>]| found.decode_path::<String>(at).ok().flatten();
        let Some(country) = text(&path!["country", "iso_code"]) else { return (GeoRegion::World, prefix) };
        let state = text(&path!["subdivisions", 0, "iso_code"]);
        (GeoRegion::of_codes(&country, state.as_deref()), prefix)
    }
}

impl fmt::Debug for GeoDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GeoDatabase").field(&self.0.metadata().database_type).finish()
    }
}

#[cfg(test)]
#[path = "geo_database_tests.rs"]
mod tests;
