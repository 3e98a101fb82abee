//! What Prometheus reads. No label carries a name, so the number of series is fixed.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rc_daemon::metrics::Observed;

use crate::decide::EndpointStatus;
use crate::generation::Current;

/// Shows the generation at work.
#[derive(Debug)]
pub(crate) struct Metrics {
    current: Current,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

impl Metrics {
    pub(crate) const fn new(current: Current) -> Self {
        Self { current }
    }

    fn endpoints(&self) -> Family<Status, Gauge> {
        let family = Family::<Status, Gauge>::default();
        let generation = self.current.load();
        let snapshot = generation.snapshot.load();
        for status in [
            EndpointStatus::Online,
            EndpointStatus::Degraded,
            EndpointStatus::CheckingEndpoint,
            EndpointStatus::Disabled,
            EndpointStatus::Inactive,
            EndpointStatus::Stopped,
            EndpointStatus::Unmonitored,
        ] {
            family.get_or_create(&Status { status: status.name() }).set(0);
        }
        for endpoint in generation.config.zones.profiles().iter().flat_map(|profile| profile.endpoints()) {
            let status = snapshot.health(endpoint.index).status.name();
            family.get_or_create(&Status { status }).inc();
        }
        family
    }
}

impl Observed for Metrics {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("rc_traffic_manager");
        let counts = self.current.load().counters.view();
        let queries = Family::<Outcome, Counter>::default();
        for (outcome, count) in [
            ("answer", counts.answers),
            ("negative", counts.negatives),
            ("refused", counts.refusals),
            ("error", counts.errors),
        ] {
            queries.get_or_create(&Outcome { outcome }).inc_by(count);
        }
        registry.register("queries", "Queries that could be read, by what was answered", queries);
        let truncated = Counter::<u64>::default();
        truncated.inc_by(counts.truncations);
        registry.register("truncated_responses", "UDP responses that did not fit", truncated);
        let limited = Counter::<u64>::default();
        limited.inc_by(counts.limited);
        registry.register("limited_responses", "UDP responses that the rate limit held back", limited);
        registry.register("endpoints", "Endpoints by their state", self.endpoints());
        registry
    }

    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
