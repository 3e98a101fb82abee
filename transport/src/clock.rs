//! The time that drivers hand to pure machines.

use std::sync::OnceLock;
use std::time::Instant;

use rc_proto::Moment;

/// Where a driver reads `now`.
pub trait Clock: Send + Sync + 'static {
    /// The present moment; never goes back.
    fn now(&self) -> Moment;
}

/// The operating system's clock since boot, which counts suspend where the system has such a clock (Linux); the
/// monotonic clock elsewhere. Wall-clock steps do not touch it.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        Moment::from_origin(since_origin())
    }
}

#[cfg(target_os = "linux")]
fn since_origin() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    std::time::Duration::new(seconds, nanoseconds)
}

#[cfg(not(target_os = "linux"))]
fn since_origin() -> std::time::Duration {
    started().elapsed()
}

/// First reading of this process.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "the boot clock has its own origin"))]
fn started() -> Instant {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let first = BootClock.now();
        assert!(BootClock.now() >= first);
        assert!(first > Moment::ORIGIN);
    }
}
