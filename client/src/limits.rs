//! Bounds on what brokers may ask of us.

use std::time::Duration;

/// Longest wait that a broker may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// When to come back to a broker that asked for patience.
pub(crate) fn retry_slot(after_ms: u32) -> Duration {
    Duration::from_millis(after_ms.into()).min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_may_ask_for_a_minute_of_patience_and_no_more() {
        assert_eq!(retry_slot(59_999), Duration::from_millis(59_999));
        assert_eq!(retry_slot(60_000), Duration::from_secs(60));
        assert_eq!(retry_slot(u32::MAX), Duration::from_secs(60));
    }
}
