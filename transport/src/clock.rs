//! The time that drivers hand to pure machines.

use rc_proto::Moment;

use crate::platform;

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
        Moment::from_origin(platform::since_origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let first = BootClock.now();
        assert!(BootClock.now() >= first);
    }
}
