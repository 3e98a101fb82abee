//! DNS names in one canonical form: lower case, no trailing dot, unusual bytes escaped as `\DDD`.
//!
//! Two names are equal in DNS exactly when their canonical texts are equal, and a name lies below another exactly
//! when its text ends in a dot and the other's text, since a dot inside a label is escaped.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest name as text: 255 bytes on the wire, less the length of the first label and the root.
const NAME_BYTES_MAX: usize = 253;

/// Why a text is not a host or zone name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty or too long.
    #[error("a name has 1 to {NAME_BYTES_MAX} characters, this one has {length}")]
    Length {
        /// Its length without the trailing dot.
        length: usize,
    },
    /// A label is empty or too long.
    #[error("the parts between dots have 1 to {LABEL_BYTES_MAX} characters, {label:?} has {}", label.len())]
    Label {
        /// The refused label.
        label: String,
    },
    /// A character that host names do not have.
    #[error("character {character:?} is not one of a-z, 0-9, '-' and '_'")]
    Character {
        /// The first refused character.
        character: char,
    },
}

/// A DNS name, canonical.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name whose labels, from the leftmost, are these bytes; the root has none.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut text = String::with_capacity(64);
        for label in labels {
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                push_canonical(&mut text, *byte);
            }
        }
        Self(text)
    }

    /// A text that is canonical already: one from [`Self::with_ancestors`].
    pub(crate) fn of_canonical(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name itself, then each name above it, down to one label.
    pub fn with_ancestors(&self) -> impl Iterator<Item = &str> {
        let first = (!self.0.is_empty()).then_some(self.0.as_str());
        std::iter::successors(first, |name| name.split_once('.').map(|(_, above)| above))
    }

    /// Whether this is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        match self.0.strip_suffix(&zone.0) {
            Some(before) => before.is_empty() || zone.0.is_empty() || before.ends_with('.'),
            None => false,
        }
    }
}

fn push_canonical(text: &mut String, byte: u8) {
    match byte.to_ascii_lowercase() {
        plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => text.push(char::from(plain)),
        other => {
            text.push('\\');
            for divisor in [100, 10, 1] {
                text.push(char::from(b'0' + other / divisor % 10));
            }
        }
    }
}

impl FromStr for DnsName {
    type Err = NameError;

    /// Takes host and zone names only; a trailing dot and capital letters are allowed.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(NameError::Length { length: name.len() });
        }
        if let Some(label) = name.split('.').find(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
            return Err(NameError::Label { label: label.to_owned() });
        }
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match name.chars().find(|c| !plain(c)) {
            Some(character) => Err(NameError::Character { character }),
            None => Ok(Self(name.to_ascii_lowercase())),
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

impl Borrow<str> for DnsName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for DnsName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    #[test]
    fn d_04_names_compare_without_regard_to_case() {
        assert_eq!(name("Broker-3.In.Mesh.Test."), name("broker-3.in.mesh.test"));
        assert_eq!(DnsName::from_labels([b"MESH".as_slice(), b"Test"]), name("mesh.test"));
    }

    #[test]
    fn a_dot_inside_a_label_does_not_end_it() {
        let sly = DnsName::from_labels([b"x.mesh".as_slice(), b"test"]);
        assert_eq!(sly.as_str(), "x\\046mesh.test");
        assert!(!sly.is_within(&name("mesh.test")));
        assert!(sly.is_within(&name("test")));
    }

    #[test]
    fn within_is_the_zone_and_what_is_below_it() {
        let zone = name("mesh.test");
        assert!(zone.is_within(&zone));
        assert!(name("a.b.mesh.test").is_within(&zone));
        assert!(!name("othermesh.test").is_within(&zone));
        assert!(!name("test").is_within(&zone));
    }

    #[test]
    fn ancestors_go_up_to_one_label() {
        let all = name("a.b.test");
        assert_eq!(all.with_ancestors().collect::<Vec<_>>(), ["a.b.test", "b.test", "test"]);
        assert_eq!(DnsName::from_labels([]).with_ancestors().count(), 0);
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_the_reason() {
        assert_eq!("".parse::<DnsName>(), Err(NameError::Length { length: 0 }));
        assert_eq!("a..b".parse::<DnsName>(), Err(NameError::Label { label: String::new() }));
        assert_eq!("a b".parse::<DnsName>(), Err(NameError::Character { character: ' ' }));
        let label = |length: usize| format!("{}.test", "a".repeat(length)).parse::<DnsName>();
        assert!(label(63).is_ok() && label(64).is_err());
        let long = |length: usize| {
            let text = "a.".repeat(200);
            text[..length].trim_end_matches('.').parse::<DnsName>()
        };
        assert!(long(253).is_ok());
        assert!(long(255).is_err());
    }
}
