//! The two clocks of the operating system that drivers read once per step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rc_proto::Moment;

/// The monotonic clock that drivers hand to the pure machines as `now`.
///
/// On Linux it counts the time the machine was suspended; elsewhere it is the standard library's monotonic clock,
/// which counts suspend on Windows and not on macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootClock {
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    origin: std::time::Instant,
}

impl BootClock {
    /// The clock; all copies of one `BootClock` agree, and on Linux all clocks of one machine do.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub const fn new() -> Self {
        Self {}
    }

    /// The clock; all copies of one `BootClock` agree, its origin is the moment of this call.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The present moment.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Moment::from_origin(Duration::new(seconds, nanos))
    }

    /// The present moment.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Wall time in milliseconds since 1970, for people and for certificates; 0 when the clock is before that.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back_and_has_run_since_boot() {
        let clock = BootClock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(first > Moment::ORIGIN);
        assert!(second >= first);
    }

    #[test]
    fn wall_time_is_in_milliseconds() {
        let year_2020_ms = 1_577_836_800_000;
        let year_2100_ms = 4_102_444_800_000;
        assert!((year_2020_ms..year_2100_ms).contains(&unix_ms()));
    }
}
