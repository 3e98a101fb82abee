//! SPIFFE ids: the one name of every process, from its certificate.

use std::fmt;
use std::str::FromStr;

use crate::wire::{BrokerId, EndpointId, Role, TrustDomain};

/// `spiffe://<trust-domain>/<role>/…`, the only identity that counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    role: Role,
    /// `<region>/<id>` for a broker, one segment for the others.
    name: String,
}

/// Why a URI is not a SPIFFE id of this project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Not of the form `spiffe://<trust-domain>/<role>/<id>`.
    #[error("{uri:?} is not spiffe://<trust-domain>/<role>/<id>")]
    Shape {
        /// The refused text, shortened to 255 characters.
        uri: String,
    },
    /// The first path segment is none of the roles.
    #[error("{role:?} is not one of broker, controller, target, rc-server, traffic-manager")]
    Role {
        /// The refused segment.
        role: String,
    },
    /// The part after the role breaks its rule.
    #[error("the id {id:?} does not hold: {reason}")]
    Id {
        /// The refused text.
        id: String,
        /// Which rule it breaks.
        reason: crate::wire::IdError,
    },
}

impl SpiffeId {
    /// The identity of a broker.
    pub fn broker(trust_domain: TrustDomain, id: &BrokerId) -> Self {
        Self { trust_domain, role: Role::Broker, name: id.as_str().to_owned() }
    }

    /// The identity of any process that is not a broker.
    ///
    /// `role` [`Role::Broker`] is turned into a malformed id by no caller: use [`Self::broker`].
    pub fn endpoint(trust_domain: TrustDomain, role: Role, id: &EndpointId) -> Self {
        Self { trust_domain, role, name: id.as_str().to_owned() }
    }

    /// The authority part.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What its owner is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The broker id, when its owner is a broker.
    pub fn broker_id(&self) -> Option<BrokerId> {
        (self.role == Role::Broker).then(|| self.name.parse().ok()).flatten()
    }

    /// The id segment, when its owner is not a broker.
    pub fn endpoint_id(&self) -> Option<EndpointId> {
        (self.role != Role::Broker).then(|| self.name.parse().ok()).flatten()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.name)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(uri: &str) -> Result<Self, SpiffeError> {
        let shape = || SpiffeError::Shape { uri: uri.chars().take(255).collect() };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(shape)?;
        let (domain, path) = rest.split_once('/').ok_or_else(shape)?;
        let (role, name) = path.split_once('/').ok_or_else(shape)?;
        let trust_domain = domain.parse().map_err(|_| shape())?;
        let role = Role::from_segment(role)
            .ok_or_else(|| SpiffeError::Role { role: role.chars().take(64).collect() })?;
        let checked = if role == Role::Broker {
            name.parse::<BrokerId>().map(|_| ())
        } else {
            name.parse::<EndpointId>().map(|_| ())
        };
        checked.map_err(|reason| SpiffeError::Id { id: name.chars().take(255).collect(), reason })?;
        Ok(Self { trust_domain, role, name: name.to_owned() })
    }
}

impl serde::Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SpiffeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_round_trips() {
        for uri in [
            "spiffe://mesh.example/broker/in/broker-3",
            "spiffe://mesh.example/controller/alice",
            "spiffe://mesh.example/target/pc-17",
            "spiffe://mesh.example/rc-server/main",
            "spiffe://mesh.example/traffic-manager/tm-1",
        ] {
            assert_eq!(uri.parse::<SpiffeId>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn the_shape_is_exact() {
        for refused in [
            "http://mesh.example/target/a",
            "spiffe://mesh.example/target",
            "spiffe://mesh.example/target/",
            "spiffe://mesh.example/target/a/b",
            "spiffe://mesh.example/target/A",
            "spiffe://mesh.example/broker/a",
            "spiffe://mesh.example/broker/a/b/c",
            "spiffe://mesh.example/admin/a",
            "spiffe://Mesh.example/target/a",
            "spiffe:///target/a",
            "SPIFFE://mesh.example/target/a",
            "spiffe://mesh.example:443/target/a",
            "spiffe://mesh.example/target/a?x",
            "",
        ] {
            assert!(refused.parse::<SpiffeId>().is_err(), "{refused:?}");
        }
    }
}
