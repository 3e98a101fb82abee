//! One look for brokers that uses none of them: what `probe` shows.

use std::net::IpAddr;
use std::sync::Arc;

use rc_proto::select::{Choice, Trigger};
use rc_proto::wire::Role;
use serde::Serialize;

use crate::config::ClientConfig;
use crate::endpoint::system_reach;
use crate::error::{LocateError, SetupError};
use crate::failure::FailureKind;
use crate::locate::Locator;
use crate::reach::Reach;

/// What one look for brokers found, without using any of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeReport {
    /// Each service name and what it resolved to.
    pub names: Vec<ResolvedName>,
    /// The choice that an endpoint would make now.
    pub choice: Choice,
}

/// What a service name resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedName {
    /// The name.
    pub name: String,
    /// Its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds, in s; the shorter of both families.
    pub ttl_s: Option<u64>,
    /// Why a family gave nothing.
    pub failures: Vec<String>,
}

/// Why a probe found nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProbeError {
    /// The settings cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No broker answered.
    #[error(transparent)]
    Locate(#[from] LocateError),
}

impl ProbeError {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Setup(error) => error.kind(),
            Self::Locate(error) => error.kind(),
        }
    }
}

/// Resolves, races and measures once, and tells what would be chosen.
///
/// # Errors
/// When the settings cannot be used, or no broker answers.
pub async fn probe(config: ClientConfig, role: Role) -> Result<ProbeReport, ProbeError> {
    let reach = system_reach(&config, role)?;
    probe_with(&config, reach).await
}

pub(crate) async fn probe_with(config: &ClientConfig, reach: Arc<Reach>) -> Result<ProbeReport, ProbeError> {
    let mut locator = Locator::new(reach, config);
    let located = locator.locate(Trigger::Asked, &[]).await?;
    let names = locator.resolving().names().iter().map(|name| resolved(name, &locator)).collect();
    Ok(ProbeReport { names, choice: located.choice })
}

fn resolved(name: &str, locator: &Locator) -> ResolvedName {
    let mut found =
        ResolvedName { name: name.to_owned(), addresses: Vec::new(), ttl_s: None, failures: Vec::new() };
    for (asked, _, answer) in locator.resolving().answers() {
        if asked != name {
            continue;
        }
        match &answer.found {
            Ok((addresses, ttl)) => {
                found.addresses.extend(addresses);
                let ttl_s = ttl.as_secs();
                found.ttl_s = Some(found.ttl_s.map_or(ttl_s, |shorter| shorter.min(ttl_s)));
            }
            Err(reason) => found.failures.push(reason.clone()),
        }
    }
    found
}
