//! How a session ends.
//!
//! ```text
//! Running ──end()──▶ Wanted ──every channel closed──▶ Sent ──END_ACK, 30 s──▶ Over
//!    └────cut()─────────┴──────────30 s─────────────────┴─▶ Over
//!    └──────────────────┴──────────END received─────────┴─▶ Over (answers END for 30 s)
//!    └──────────────────┴──────────ABORT either way─────┴─▶ Over
//! ```

use std::time::Duration;

use super::event::PathKey;
use crate::Moment;
use crate::wire::codes::EndCode;

/// How long an END waits for its answer once it was written to a path, and how long a cut session waits for anything.
pub(super) const END_LINGER: Duration = Duration::from_secs(30);

/// The end machine; `due` is true while the control path still has to carry the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The session goes on.
    Running,
    /// END follows once every channel is closed; at `until`, if there is one, that is not waited for any more.
    Wanted { code: EndCode, reason: String, until: Option<Moment> },
    /// END is state until it is answered.
    Sent { code: EndCode, reason: String, due: bool, until: Option<Moment> },
    /// The session is over.
    Over { code: EndCode },
}

impl Ending {
    /// Whether the session is over.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over { .. })
    }

    /// Whether no channel may be opened any more.
    pub(super) fn is_closing(&self) -> bool {
        !matches!(self, Self::Running)
    }

    /// END is wanted whatever the channels do, and the session is over at `until` whatever the peer does.
    pub(super) fn cut(&mut self, by: EndCode, why: String, limit: Moment) {
        match self {
            Self::Running => *self = Self::Wanted { code: by, reason: why, until: Some(limit) },
            Self::Wanted { code, reason, until } => {
                (*code, *reason) = (by, why);
                until.get_or_insert(limit);
            }
            Self::Sent { until, .. } => {
                until.get_or_insert(limit);
            }
            Self::Over { .. } => {}
        }
    }

    /// What the session ends with when waiting is given up by `now`.
    pub(super) fn given_up(&self, now: Moment) -> Option<(EndCode, String)> {
        match self {
            Self::Wanted { code, reason, until: Some(until) }
            | Self::Sent { code, reason, until: Some(until), .. }
                if *until <= now =>
            {
                Some((*code, reason.clone()))
            }
            Self::Running | Self::Wanted { .. } | Self::Sent { .. } | Self::Over { .. } => None,
        }
    }

    /// The control path is another one.
    pub(super) fn repeat(&mut self) {
        match self {
            Self::Sent { due, .. } => *due = true,
            Self::Running | Self::Wanted { .. } | Self::Over { .. } => {}
        }
    }

    /// The END to send now.
    pub(super) fn take_end(&mut self, now: Moment) -> Option<(EndCode, String)> {
        match self {
            Self::Sent { code, reason, due, until } if *due => {
                *due = false;
                until.get_or_insert(now + END_LINGER);
                Some((*code, reason.clone()))
            }
            Self::Sent { .. } | Self::Running | Self::Wanted { .. } | Self::Over { .. } => None,
        }
    }

    /// When waiting for the answer is given up.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Wanted { until, .. } | Self::Sent { until, .. } => *until,
            Self::Running | Self::Over { .. } => None,
        }
    }
}

/// One-shot frames of the session that wait for a path.
#[derive(Debug, Default)]
pub(super) struct SessionFrames {
    /// The answer is to be sent on the path that END came on.
    pub(super) end_ack: Option<PathKey>,
    /// Payload of the last REPATH that was not sent yet.
    pub(super) repath: Option<Vec<u8>>,
    /// Payload of WHERE, and whether the control path still has to carry it.
    pub(super) place: Option<(Vec<u8>, bool)>,
}
