//! How this process reaches anything: dialling, names, time. One value for the whole endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_proto::Moment;
use rc_proto::identity::SpiffeId;
use rc_transport::{AddressAnswer, BoxFuture, Clock, Connector, Credentials, Family, LookupError, Resolver};

use crate::config::Timers;
use crate::event::EventLog;
use crate::pool::LegPool;

/// Longest nap of a timer: tokio's clock stops in suspend where ours does not, so a timer looks again at least this
/// often.
const NAP_MAX: Duration = Duration::from_secs(5);

/// Where names are looked up.
pub(crate) trait Names: Send + Sync + 'static {
    /// Looks one family of a name up.
    fn lookup<'a>(
        &'a self,
        name: &'a str,
        family: Family,
    ) -> BoxFuture<'a, Result<AddressAnswer, LookupError>>;
}

impl Names for Resolver {
    fn lookup<'a>(
        &'a self,
        name: &'a str,
        family: Family,
    ) -> BoxFuture<'a, Result<AddressAnswer, LookupError>> {
        Box::pin(Self::lookup(self, name, family))
    }
}

/// Which of this machine's own addresses is used.
pub(crate) trait SourceAddress: Send + Sync + 'static {
    /// The address that a connection to `remote` would come from now; `None` without a route there.
    fn towards(&self, remote: SocketAddr) -> Option<IpAddr>;
}

/// The operating system's answer: what a datagram socket towards the place is bound to. Nothing is sent.
pub(crate) struct SystemSource;

impl SourceAddress for SystemSource {
    fn towards(&self, remote: SocketAddr) -> Option<IpAddr> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(remote).ok()?;
        socket.local_addr().ok().map(|local| local.ip())
    }
}

/// The collaborators of every driver here.
pub(crate) struct Reach {
    pub(crate) connector: Connector,
    pub(crate) names: Arc<dyn Names>,
    pub(crate) source: Arc<dyn SourceAddress>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timers: Timers,
    pub(crate) events: EventLog,
    /// Legs that wait ready-made.
    pub(crate) pool: LegPool,
}

impl Reach {
    /// The present moment.
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Who this process is.
    pub(crate) fn own_id(&self) -> SpiffeId {
        self.credentials().spiffe_id().clone()
    }

    /// Its credentials, as they are now.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.connector.credentials()
    }

    /// Waits until `moment`, or for good without one. It may return early: look at the time again.
    pub(crate) async fn nap_until(&self, moment: Option<Moment>) {
        nap_until(&*self.clock, moment).await;
    }

    /// Waits for at least `span`.
    pub(crate) async fn pause(&self, span: Duration) {
        let end = self.now() + span;
        while self.now() < end {
            self.nap_until(Some(end)).await;
        }
    }
}

/// Waits until `moment`, or for good without one. It may return early.
pub(crate) async fn nap_until(clock: &dyn Clock, moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(clock.now()).min(NAP_MAX)).await,
        None => std::future::pending().await,
    }
}

/// The wall clock in unix ms.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_address_towards_this_machine_itself_is_its_own() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 443));
        assert_eq!(SystemSource.towards(loopback), Some(loopback.ip()));
    }
}
