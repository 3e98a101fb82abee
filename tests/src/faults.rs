//! What can be done to a running deployment: kill, freeze, drain, restart, cut, roam.

use std::time::Duration;

use rc_daemon::admin::AdminClient;
use rc_proto::wire::BrokerId;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::error::HarnessError;
use crate::mesh::{BrokerNode, Mesh};
use crate::relay::Way;

/// For an answer on an admin socket.
const ADMIN_DEADLINE: Duration = Duration::from_secs(3);

impl BrokerNode {
    /// What happened in it, as far as it remembers; empty when it does not answer.
    pub async fn events(&self) -> Vec<Value> {
        let Ok(mut client) = AdminClient::connect(self.admin()).await else { return Vec::new() };
        let answer = client.call("events", json!({ "follow": false }), ADMIN_DEADLINE).await;
        answer.map(|(events, _)| events).unwrap_or_default()
    }
}

impl Mesh {
    /// Kills a broker with SIGKILL; false when there is none of that id.
    pub async fn kill_broker(&mut self, broker: &BrokerId) -> bool {
        match self.broker_mut(broker) {
            Some(found) => {
                found.node_mut().kill().await;
                true
            }
            None => false,
        }
    }

    /// Freezes a broker with SIGSTOP.
    pub fn freeze_broker(&self, broker: &BrokerId) -> bool {
        self.broker(broker).is_some_and(|found| found.node().signal(Signal::STOP))
    }

    /// Lets a frozen broker go on.
    pub fn thaw_broker(&self, broker: &BrokerId) -> bool {
        self.broker(broker).is_some_and(|found| found.node().signal(Signal::CONT))
    }

    /// Asks a broker to drain with SIGTERM; it ends by itself.
    pub fn drain_broker(&self, broker: &BrokerId) -> bool {
        self.broker(broker).is_some_and(|found| found.node().signal(Signal::TERM))
    }

    /// Drains a broker, waits until its process has ended, and starts it again with the same identity and address.
    ///
    /// # Errors
    /// When it has not ended after `limit`, or does not come up again.
    pub async fn roll_broker(&mut self, broker: &BrokerId, limit: Duration) -> Result<(), HarnessError> {
        if let Some(found) = self.broker_mut(broker)
            && found.node_mut().terminate(limit).await.is_none()
        {
            let what = format!("{broker} has drained and ended");
            return Err(HarnessError::NotInTime { what, waited: limit });
        }
        self.restart_broker(broker).await
    }

    /// Cuts what a region and the brokers of another one say to each other, both ways, or heals it. Within a region
    /// this cuts its endpoints and brokers from its brokers.
    pub fn partition(&self, one: &str, other: &str, cut: bool) {
        self.one_way(one, other, cut);
        if one != other {
            self.one_way(other, one, cut);
        }
    }

    /// Cuts what `from` says to `to`, whoever dialled, or heals it.
    pub fn one_way(&self, from: &str, to: &str, cut: bool) {
        for (region, broker, hop) in self.hops() {
            if region == from && broker.region() == to {
                hop.set_cut_way(Way::There, cut);
            }
            if region == to && broker.region() == from {
                hop.set_cut_way(Way::Back, cut);
            }
        }
    }

    /// Cuts everybody in `region` from one broker, or heals it.
    pub fn cut_client(&self, region: &str, broker: &BrokerId, cut: bool) {
        if let Some(hop) = self.hop(region, broker) {
            hop.set_cut(cut);
        }
    }

    /// Every connection that somebody in `region` has made is stranded, as after a change of its source address; new
    /// ones pass.
    pub fn roam(&self, region: &str) {
        for (_, _, hop) in self.hops().filter(|(viewer, _, _)| *viewer == region) {
            hop.strand();
        }
    }
}
