//! How many answers each profile gives in a second, of late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::generation::Current;
use crate::name::DnsName;

/// Rates are those of the last span of this length.
const SPAN: Duration = Duration::from_secs(2);

/// Answers a second by profile; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates(Arc<ArcSwap<BTreeMap<DnsName, f64>>>);

impl Rates {
    /// Of one profile.
    pub(crate) fn of(&self, profile: &DnsName) -> f64 {
        self.0.load().get(profile).copied().unwrap_or(0.0)
    }

    /// Measures until `stop`.
    pub(crate) async fn run(self, current: Current, stop: CancellationToken) {
        let (mut before, mut since) = (counts(&current), Instant::now());
        while stop.run_until_cancelled(tokio::time::sleep(SPAN)).await.is_some() {
            let (now, at) = (counts(&current), Instant::now());
            let seconds = at.duration_since(since).as_secs_f64().max(f64::EPSILON);
            let rate = |(name, count): (&DnsName, &u64)| {
                let more = count.saturating_sub(before.get(name).copied().unwrap_or(0));
                let more = f64::from(u32::try_from(more).unwrap_or(u32::MAX));
                (name.clone(), more / seconds)
            };
            self.0.store(Arc::new(now.iter().map(rate).collect()));
            (before, since) = (now, at);
        }
    }
}

fn counts(current: &Current) -> BTreeMap<DnsName, u64> {
    let generation = current.load();
    let profiles = generation.config.zones.profiles().iter().enumerate();
    profiles.map(|(at, profile)| (profile.name.clone(), generation.counters.profile(at))).collect()
}
