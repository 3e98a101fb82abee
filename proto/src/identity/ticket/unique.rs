//! JSON in which no member stands twice: two readers of such a text can never disagree about it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// Reads any JSON object and keeps nothing of it; fails when an object holds a name twice.
pub(super) struct UniqueMembers;

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor).map(|UniqueValue| Self)
    }
}

struct UniqueValue;

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = UniqueValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueValue, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let UniqueValue = map.next_value()?;
            if !names.insert(name) {
                return Err(serde::de::Error::custom("a member stands twice"));
            }
        }
        Ok(UniqueValue)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<UniqueValue, A::Error> {
        while items.next_element::<UniqueValue>()?.is_some() {}
        Ok(UniqueValue)
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }

    fn visit_unit<E>(self) -> Result<UniqueValue, E> {
        Ok(UniqueValue)
    }
}
