//! What tests of this crate share.

use rc_proto::Moment;
use rc_transport::Clock;
use tokio::time::Instant;

/// A clock that follows tokio's time, so that paused time drives everything.
pub(crate) struct TokioClock(Instant);

impl TokioClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::from_origin(self.0.elapsed())
    }
}
