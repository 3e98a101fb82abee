//! The limits that an operator may change; the protocol's own are in `rc_proto::wire::limits`.

use std::time::Duration;

/// Control links of one identity at once.
pub const CONTROL_LINKS_PER_IDENTITY_MAX: usize = 8;
/// Legs of one endpoint that wait for their first frame at once.
pub const WAITING_LEGS_PER_ENDPOINT_MAX: usize = 32;
/// The same of one broker, which makes one for every path that crosses it.
pub const WAITING_LEGS_PER_BROKER_MAX: usize = 1024;

/// What one broker takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Paths open or opening at once.
    pub paths: usize,
    /// Registrations at once.
    pub registrations: usize,
    /// Control links at once.
    pub control_links: usize,
    /// Legs that wait for their first frame at once.
    pub waiting_legs: usize,
    /// Handshakes at once; more connections wait in the listen queue.
    pub handshakes: usize,
    /// New connections a second from one /24 or /56, after the burst.
    pub connections_per_second: u32,
    /// New connections at once from one /24 or /56.
    pub connections_burst: u32,
    /// Opens a second of all Controllers together, after the burst.
    pub opens_per_second: u32,
    /// Opens of all Controllers at once.
    pub opens_burst: u32,
    /// Registrations a second, after the burst.
    pub registrations_per_second: u32,
    /// Registrations at once.
    pub registrations_burst: u32,
    /// Targets that peers may have announced.
    pub announced_targets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            paths: 10_000,
            registrations: 50_000,
            control_links: 60_000,
            waiting_legs: 20_000,
            handshakes: 4_096,
            connections_per_second: 200,
            connections_burst: 2_000,
            opens_per_second: 500,
            opens_burst: 2_000,
            registrations_per_second: 500,
            registrations_burst: 1_000,
            announced_targets: 500_000,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// How often an endpoint should send a Ping on its control link.
    pub keep_alive: Duration,
    /// Silence after which a control link is closed.
    pub control_silence: Duration,
    /// A path without a byte either way is ended after this.
    pub path_idle: Duration,
    /// A proven leg without its first frame is closed after this.
    pub pooled_leg_idle: Duration,
    /// The same for legs between brokers.
    pub mesh_leg_idle: Duration,
    /// The longest that an open may take.
    pub open: Duration,
    /// The longest that an open waits for an absent Target.
    pub park: Duration,
    /// Time between two pings on a mesh link.
    pub mesh_ping: Duration,
    /// Silence after which a mesh link counts as down.
    pub mesh_down: Duration,
    /// Time from the first request to stop to the end.
    pub drain: Duration,
    /// Over how long paths spread their move when this broker drains.
    pub drain_spread: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(15),
            control_silence: Duration::from_secs(45),
            path_idle: Duration::from_secs(60),
            pooled_leg_idle: Duration::from_secs(60),
            mesh_leg_idle: Duration::from_secs(300),
            open: Duration::from_secs(15),
            park: Duration::from_secs(10),
            mesh_ping: Duration::from_secs(1),
            mesh_down: Duration::from_secs(3),
            drain: Duration::from_secs(60),
            drain_spread: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Handshakes at once from one /24 or /56: an eighth of all, so that a few silent networks do not take them all.
    pub fn handshakes_per_block(&self) -> usize {
        (self.handshakes / 8).max(8)
    }
}

/// How long idle endpoints spread their return after this broker is lost (protocol section 6).
pub fn reconnect_spread(registrations: usize) -> Duration {
    let registrations = u32::try_from(registrations).unwrap_or(u32::MAX);
    Duration::from_millis(5).saturating_mul(registrations).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_vanished_peer_leaves_is_given_up_within_65_seconds() {
        // A round of housekeeping, and the last words to a leg that is not read.
        let slack = Duration::from_secs(1) + Duration::from_secs(2);
        let Timers { path_idle, control_silence, pooled_leg_idle, mesh_down, .. } = Timers::default();
        for span in [path_idle, control_silence, pooled_leg_idle, mesh_down] {
            assert!(span + slack <= Duration::from_secs(65), "{span:?}");
        }
    }

    #[test]
    fn an_idle_session_speaks_three_times_before_its_path_counts_as_idle() {
        let silence = rc_proto::session::IDLE_SILENCE;
        assert!(silence * 3 < Timers::default().path_idle, "{silence:?}");
    }

    #[test]
    fn the_return_of_idle_endpoints_is_spread_by_5_ms_each_up_to_a_minute() {
        assert_eq!(reconnect_spread(0), Duration::ZERO);
        assert_eq!(reconnect_spread(1_000), Duration::from_secs(5));
        assert_eq!(reconnect_spread(11_999), Duration::from_millis(59_995));
        assert_eq!(reconnect_spread(12_000), Duration::from_secs(60));
        assert_eq!(reconnect_spread(12_001), Duration::from_secs(60));
    }
}
