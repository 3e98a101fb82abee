//! Identifiers that cross a wire. Each is validated when it is parsed, so a value of one of these types is
//! always well formed.

use std::fmt;
use std::str::FromStr;

use super::codec::{self, BorrowDecode, Decode, Encode};

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A segment is empty or longer than 64 bytes.
    #[error("a segment must have 1 to 64 characters, this one has {length}")]
    SegmentLength {
        /// Length of the refused segment in bytes.
        length: usize,
    },
    /// A segment holds a character outside `[a-z0-9-]`.
    #[error("character {character:?} is not one of a-z, 0-9 and '-'")]
    SegmentCharacter {
        /// The first refused character.
        character: char,
    },
    /// A broker id is not `<region>/<id>`.
    #[error("a broker is named <region>/<id>")]
    BrokerShape,
    /// A service name is empty, longer than 255 bytes, or holds a control character.
    #[error("a service name has 1 to 255 bytes and no control characters")]
    ServiceName,
    /// A trust domain is not a lower-case DNS name of at most 255 bytes.
    #[error("a trust domain is a lower-case DNS name of at most 255 characters")]
    TrustDomain,
}

/// Longest segment of a SPIFFE path, in bytes.
const SEGMENT_BYTES_MAX: usize = 64;

fn check_segment(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > SEGMENT_BYTES_MAX {
        return Err(IdError::SegmentLength { length: text.len() });
    }
    match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(character) => Err(IdError::SegmentCharacter { character }),
        None => Ok(()),
    }
}

/// A text id: a validated `String` that travels as a bincode string.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        codec::text_codec!($name);
    };
}

text_id!(
    /// A broker, written `<region>/<id>`; both segments match `[a-z0-9-]{1,64}`.
    BrokerId,
    |text| {
        let (region, id) = text.split_once('/').ok_or(IdError::BrokerShape)?;
        check_segment(region)?;
        check_segment(id)
    }
);

impl BrokerId {
    /// Names the broker `id` of `region`.
    ///
    /// # Errors
    /// When a segment does not match `[a-z0-9-]{1,64}`.
    pub fn new(region: &str, id: &str) -> Result<Self, IdError> {
        check_segment(region)?;
        check_segment(id)?;
        Ok(Self(format!("{region}/{id}")))
    }

    /// The region segment.
    pub fn region(&self) -> &str {
        self.0.split_once('/').map_or("", |(region, _)| region)
    }

    /// The segment after the region.
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, id)| id)
    }
}

text_id!(
    /// A Controller or a Target, `[a-z0-9-]{1,64}`. Which of the two it is comes from its certificate.
    EndpointId,
    check_segment
);

text_id!(
    /// The DNS-like name in the authority part of a SPIFFE id, for example `mesh.example.com`.
    TrustDomain,
    |text| {
        let labels_hold = text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
        });
        if labels_hold && text.len() <= 255 { Ok(()) } else { Err(IdError::TrustDomain) }
    }
);

text_id!(
    /// What a channel is opened to, for example `shell`, `tcp:ssh` or `pipe:backup`; at most 255 bytes.
    ServiceName,
    |text| {
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(IdError::ServiceName);
        }
        Ok(())
    }
);

/// A 16-byte random id that travels raw and prints as hexadecimal.
macro_rules! raw_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

raw_id!(
    /// One attempt at an end-to-end byte pipe; drawn by the Controller.
    PathId
);
raw_id!(
    /// The Controller↔Target conversation; drawn by the Controller and known to the two endpoints only.
    SessionId
);
raw_id!(
    /// One run of an endpoint process.
    InstanceId
);
raw_id!(
    /// A ticket's `jti`: what makes it usable for one session only.
    Jti
);

/// Lets a Target's leg claim the path it was invited to: single use, until the invite's deadline.
///
/// `Debug` and `Display` never show it.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct JoinSecret(pub [u8; 16]);

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(***)")
    }
}

/// A number id with an order.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize,
        )]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A random number that a broker draws at start; fences what an older process of the same id said.
    Incarnation(u64)
);
number_id!(
    /// Fences an older path of a session; only the Controller allocates it, and it only goes up. 0 is standby.
    Epoch(u64)
);
number_id!(
    /// Counts the registrations of one instance; the higher one decides.
    Generation(u64)
);
number_id!(
    /// A channel of a session: odd from the Controller, even from the Target, 0 is the session itself.
    ChannelId(u32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_id_has_exactly_two_valid_segments() {
        let id: BrokerId = "in-south/broker-3".parse().unwrap();
        assert_eq!((id.region(), id.id()), ("in-south", "broker-3"));
        assert_eq!("in".parse::<BrokerId>(), Err(IdError::BrokerShape));
        assert_eq!("in/".parse::<BrokerId>(), Err(IdError::SegmentLength { length: 0 }));
        assert_eq!("in/a/b".parse::<BrokerId>(), Err(IdError::SegmentCharacter { character: '/' }));
        assert_eq!("In/a".parse::<BrokerId>(), Err(IdError::SegmentCharacter { character: 'I' }));
    }

    #[test]
    fn a_segment_has_at_most_64_characters() {
        for (length, valid) in [(1, true), (63, true), (64, true), (65, false)] {
            assert_eq!("a".repeat(length).parse::<EndpointId>().is_ok(), valid, "{length}");
        }
    }

    #[test]
    fn a_trust_domain_is_a_lower_case_dns_name() {
        assert!("mesh.example.com".parse::<TrustDomain>().is_ok());
        for refused in ["", ".", "a..b", "Mesh.example", "a/b", "a:443"] {
            assert_eq!(refused.parse::<TrustDomain>(), Err(IdError::TrustDomain), "{refused:?}");
        }
    }

    #[test]
    fn a_service_name_may_not_hide_control_characters() {
        assert!("tcp:ssh".parse::<ServiceName>().is_ok());
        assert!("shell\u{1b}[2J".parse::<ServiceName>().is_err());
    }

    #[test]
    fn a_service_name_and_a_trust_domain_have_at_most_255_bytes() {
        for (length, valid) in [(0, false), (1, true), (254, true), (255, true), (256, false)] {
            assert_eq!("s".repeat(length).parse::<ServiceName>().is_ok(), valid, "{length}");
        }
        for (length, valid) in [(254, true), (255, true), (256, false)] {
            let name = "a.".repeat(length / 2) + if length % 2 == 0 { "" } else { "a" };
            let name = if length % 2 == 0 { format!("{}aa", &name[..length - 2]) } else { name };
            assert_eq!((name.len(), name.parse::<TrustDomain>().is_ok()), (length, valid));
        }
        for (length, valid) in [(62, true), (63, true), (64, false)] {
            let name = format!("{}.example", "a".repeat(length));
            assert_eq!(name.parse::<TrustDomain>().is_ok(), valid, "a label of {length}");
        }
    }

    #[test]
    fn a_join_secret_never_prints() {
        assert_eq!(format!("{:?}", JoinSecret([7; 16])), "JoinSecret(***)");
    }
}
