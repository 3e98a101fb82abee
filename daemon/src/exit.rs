//! How a process ends: the exit codes that all binaries share, and the one failure type their `run` returns.

use std::fmt;
use std::process::ExitCode;

use crate::text::escape_controls;

/// Why a process ends, as its exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// Did what was asked (0).
    Ok,
    /// A fault of ours or of this machine (1).
    Internal,
    /// A wrong command line or configuration (2).
    Usage,
    /// The name does not resolve, or no broker or daemon answers (3).
    Unreachable,
    /// A running session was lost (4).
    SessionLost,
    /// The other side understood and said no (5).
    Refused,
    /// The target or the service does not exist, or is not there now (6).
    NotFound,
    /// A deadline passed (7).
    Deadline,
    /// Ctrl-C (130).
    Interrupted,
    /// The status of a command that ran on the other side.
    Remote(u8),
}

/// The documented codes, in order, with what each means.
const TABLE: [(ExitStatus, &str); 9] = [
    (ExitStatus::Ok, "done"),
    (ExitStatus::Internal, "internal error"),
    (ExitStatus::Usage, "wrong usage or configuration"),
    (ExitStatus::Unreachable, "name not resolved, or nothing answers there"),
    (ExitStatus::SessionLost, "session lost"),
    (ExitStatus::Refused, "refused"),
    (ExitStatus::NotFound, "target or service not found"),
    (ExitStatus::Deadline, "deadline passed"),
    (ExitStatus::Interrupted, "interrupted with Ctrl-C"),
];

/// The exit codes as text for the end of `--help`.
///
/// A binary passes it to clap as `after_help`; a test holds it equal to the codes.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
    0  done
    1  internal error
    2  wrong usage or configuration
    3  name not resolved, or nothing answers there
    4  session lost
    5  refused
    6  target or service not found
    7  deadline passed
  130  interrupted with Ctrl-C";

impl ExitStatus {
    /// The number the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::SessionLost => 4,
            Self::Refused => 5,
            Self::NotFound => 6,
            Self::Deadline => 7,
            Self::Interrupted => 130,
            Self::Remote(code) => code,
        }
    }

    /// Whether the process did what was asked.
    pub const fn is_ok(self) -> bool {
        self.code() == 0
    }

    /// The documented codes with their meanings, in ascending order.
    pub fn documented() -> impl Iterator<Item = (Self, &'static str)> {
        TABLE.into_iter()
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Why a command ended without doing what was asked: one clear line and its exit code.
///
/// It prints as `what (where): what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: ExitStatus,
    lines: Vec<String>,
}

impl Failure {
    /// A failure with its three answers: what happened, where (empty when it is clear), what to do (empty when nothing
    /// can be done).
    pub fn new(
        status: ExitStatus,
        what: impl fmt::Display,
        place: impl fmt::Display,
        fix: impl fmt::Display,
    ) -> Self {
        let (mut line, place, fix) = (what.to_string(), place.to_string(), fix.to_string());
        if !place.is_empty() {
            line = format!("{line} ({place})");
        }
        if !fix.is_empty() {
            line = format!("{line}: {fix}");
        }
        Self { status, lines: vec![line] }
    }

    /// A failure whose error already says what, where and what to do.
    pub fn from_error(status: ExitStatus, error: impl fmt::Display) -> Self {
        Self::new(status, error, "", "")
    }

    /// Several lines under one exit code, for problems that are reported all at once.
    pub fn many(status: ExitStatus, lines: impl IntoIterator<Item = String>) -> Self {
        Self { status, lines: lines.into_iter().collect() }
    }

    /// An end that needs no words, such as a closed stdout.
    pub const fn silent(status: ExitStatus) -> Self {
        Self { status, lines: Vec::new() }
    }

    /// The exit code it asks for.
    pub const fn status(&self) -> ExitStatus {
        self.status
    }

    /// The lines for stderr, each without the binary's name; control characters are escaped.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.lines.iter().map(|line| escape_controls(line).into_owned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_numbers() {
        let codes: Vec<u8> = ExitStatus::documented().map(|(status, _)| status.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
        assert_eq!(ExitStatus::Remote(42).code(), 42);
        assert_eq!(ExitCode::from(ExitStatus::Deadline), ExitCode::from(7));
    }

    #[test]
    fn the_help_text_lists_exactly_the_documented_codes() {
        let mut expected = String::from("Exit codes:");
        for (status, meaning) in ExitStatus::documented() {
            expected.push_str(&format!("\n  {:>3}  {meaning}", status.code()));
        }
        assert_eq!(EXIT_CODES_HELP, expected);
    }

    #[test]
    fn a_failure_says_what_where_and_what_to_do_without_control_characters() {
        let failure =
            Failure::new(ExitStatus::Unreachable, "no answer\u{1b}", "127.0.0.1:443", "start the broker");
        assert_eq!(failure.to_string(), "no answer\\u{1b} (127.0.0.1:443): start the broker");
        assert_eq!(failure.status().code(), 3);
        assert_eq!(Failure::from_error(ExitStatus::Internal, "x").to_string(), "x");
    }
}
