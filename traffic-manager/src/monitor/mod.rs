//! Endpoint health: when to probe, and what the outcomes mean.
//!
//! [`Monitor`] is a pure machine: it says which probes to start and to abandon, is told their outcomes, and gives the
//! [`Health`](crate::decide::Health) of each endpoint. `driver` runs it with real probes; [`LatestSnapshot`] makes of
//! it the [`Snapshot`](crate::decide::Snapshot) that answers are decided by.
//!
//! It keeps these:
//! * an endpoint has at most one probe in flight;
//! * it turns Degraded at exactly the failure after the tolerated ones, and Online at the first success;
//! * a fault is noticed at most `interval · (tolerated + 1) + timeout` after it began;
//! * at most as many probes are in flight as configured; the others wait in the order in which they came due.

mod broker;
mod driver;
mod endpoint;
mod http;
mod latest;
mod machine;
mod outcome;
mod prober;

pub use driver::{Driver, MonitorHandle, Prober};
pub use endpoint::{EndpointView, LastKnown, ProbePlan, Watch};
pub use http::HttpProbe;
pub use latest::LatestSnapshot;
pub use machine::{Monitor, MonitorAction, MonitorEvent, ProbeId};
pub use outcome::{BrokerReport, ProbeFailure, Report};
pub use prober::{NetworkProber, ProbeAsk, ProbePlace, ProbeTarget, ProberError};
