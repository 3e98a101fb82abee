//! What the operator ordered for single endpoints while the process runs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::name::DnsName;

/// An order about one endpoint. It stands above the configuration until it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Directive {
    /// It is not used and not probed.
    Disabled,
    /// It is used, whatever the configuration says.
    Enabled,
    /// It is probed, and not used while another endpoint is available.
    Drain,
}

/// A text is no directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint can be set to disabled, enabled or drain")]
pub struct UnknownDirective;

impl FromStr for Directive {
    type Err = UnknownDirective;

    fn from_str(text: &str) -> Result<Self, UnknownDirective> {
        match text {
            "disabled" => Ok(Self::Disabled),
            "enabled" => Ok(Self::Enabled),
            "drain" => Ok(Self::Drain),
            _ => Err(UnknownDirective),
        }
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Drain => "drain",
        })
    }
}

/// The orders that stand, by the names of profile and endpoint: so they outlive a change of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives(BTreeMap<DnsName, BTreeMap<String, Directive>>);

impl Directives {
    /// Gives an order; it replaces an earlier one.
    pub fn set(&mut self, profile: DnsName, endpoint: impl Into<String>, directive: Directive) {
        self.0.entry(profile).or_default().insert(endpoint.into(), directive);
    }

    /// The order for an endpoint.
    pub fn of(&self, profile: &DnsName, endpoint: &str) -> Option<Directive> {
        self.0.get(profile)?.get(endpoint).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&DnsName, &str, Directive)> {
        self.0.iter().flat_map(|(profile, endpoints)| {
            endpoints.iter().map(move |(endpoint, directive)| (profile, endpoint.as_str(), *directive))
        })
    }

    /// Drops orders for endpoints that `exists` does not know.
    pub fn retain(&mut self, exists: impl Fn(&DnsName, &str) -> bool) {
        self.0.retain(|profile, endpoints| {
            endpoints.retain(|endpoint, _| exists(profile, endpoint));
            !endpoints.is_empty()
        });
    }
}
