//! What kind of failure an error is: the part of it that an exit code tells.

/// The kinds of failure that callers treat differently; each is one documented exit code of the binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A fault of this program or this machine (1).
    Internal,
    /// This process is configured wrongly: unreadable key, own certificate expired (2).
    Configuration,
    /// A name does not resolve, or no broker answers (3).
    Unreachable,
    /// A running session was lost (4).
    SessionLost,
    /// The other side understood and said no (5).
    Refused,
    /// The Target or the service is not there (6).
    NotFound,
    /// A deadline passed (7).
    Deadline,
}

impl FailureKind {
    /// The exit code that stands for it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Configuration => 2,
            Self::Unreachable => 3,
            Self::SessionLost => 4,
            Self::Refused => 5,
            Self::NotFound => 6,
            Self::Deadline => 7,
        }
    }
}
