//! One entry of a ticket's `perm`.

use std::fmt;
use std::str::FromStr;

use crate::wire::{IdError, ServiceName};

/// An exact service name, or every service that starts with a prefix (written with a final `*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// The text without the final `*`.
    stem: String,
    is_prefix: bool,
}

impl Permission {
    /// Whether it covers `service`.
    pub fn covers(&self, service: &ServiceName) -> bool {
        if self.is_prefix { service.as_str().starts_with(&self.stem) } else { service.as_str() == self.stem }
    }
}

impl FromStr for Permission {
    type Err = IdError;

    /// A `*` anywhere but at the end is refused: it would look like a pattern and be none.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let name: ServiceName = text.parse()?;
        let (stem, is_prefix) = match name.as_str().strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (name.as_str(), false),
        };
        if stem.contains('*') {
            return Err(IdError::ServiceName);
        }
        Ok(Self { stem: stem.to_owned(), is_prefix })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stem)?;
        if self.is_prefix { f.write_str("*") } else { Ok(()) }
    }
}

impl serde::Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Permission {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom("a permission is a service name, or the start of one followed by '*'")
        })
    }
}
