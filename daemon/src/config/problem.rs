//! What is wrong with a configuration, and where that was said.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use crate::exit::{ExitStatus, Failure};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The knob table.
    Default,
    /// A line of the configuration file; line 0 is the file as a whole.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag as the user wrote it.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What is wrong, without key and place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// The file is not there, or cannot be read.
    #[error("cannot read the configuration file: {reason}")]
    Unreadable {
        /// What the operating system says.
        reason: String,
    },
    /// The file, or the value of a table array, is not TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// What the parser says, in one line.
        message: String,
    },
    /// No knob has this key.
    #[error("unknown key {key}")]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The knob that was probably meant, in the form this source uses.
        suggestion: Option<String>,
    },
    /// The value has another form than the knob.
    #[error("found {form} {found}")]
    WrongType {
        /// The form the knob has.
        expected: String,
        /// The form that was found.
        form: String,
        /// The value that was found, cut to 80 characters; `***` for a secret.
        found: String,
    },
    /// The value is out of the knob's bounds.
    #[error("{found} is out of range")]
    OutOfRange {
        /// The value.
        found: String,
        /// The least allowed.
        min: String,
        /// The most allowed.
        max: String,
    },
    /// A required knob that nobody set.
    #[error("not set")]
    Missing {
        /// How it can be set.
        fix: String,
    },
    /// A value where a section is needed, or the other way round.
    #[error("found {found}")]
    NotASection {
        /// What was found.
        found: String,
        /// What to write.
        expected: String,
    },
    /// The variable is not UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// `--set` without `=`.
    #[error("--set needs a key and a value")]
    NoAssignment,
    /// The binary's own objection.
    #[error("{what}")]
    Rejected {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The binary reads a knob that its table does not have in that form: a fault of the program.
    #[error("read in a form that the knob table does not declare")]
    Undeclared,
}

impl ProblemKind {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::Unreadable { .. } => "give a readable file with --config".to_owned(),
            Self::Syntax { .. } => "correct the line".to_owned(),
            Self::UnknownKey { suggestion: Some(near), .. } => format!("did you mean {near}?"),
            Self::UnknownKey { suggestion: None, .. } => {
                "remove it; --print-config lists the keys".to_owned()
            }
            Self::WrongType { expected, .. } | Self::NotASection { expected, .. } => {
                format!("write {expected}")
            }
            Self::OutOfRange { min, max, .. } => format!("use {min} to {max}"),
            Self::Missing { fix } | Self::Rejected { fix, .. } => fix.clone(),
            Self::NotUtf8 => "use UTF-8 text".to_owned(),
            Self::NoAssignment => "write --set section.key=value".to_owned(),
            Self::Undeclared => "report this as a bug".to_owned(),
        }
    }
}

/// One thing that is wrong; displayed as `key: what (where): what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value comes from.
    pub source: Source,
    /// The key with its levels separated by dots and array entries counted from 0; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// A problem for programs, as `check-config --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// The key.
    pub key: String,
    /// Where the value comes from.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    /// The problem for programs.
    pub fn report(&self) -> ProblemReport {
        ProblemReport {
            key: self.key.clone(),
            place: self.source.to_string(),
            what: self.kind.to_string(),
            fix: self.kind.fix(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key_says_it = matches!(self.kind, ProblemKind::UnknownKey { .. });
        if !self.key.is_empty() && !key_says_it {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.kind)?;
        // A value nobody set has no place.
        if !matches!(self.kind, ProblemKind::Missing { .. }) || self.source != Source::Default {
            write!(f, " ({})", self.source)?;
        }
        write!(f, ": {}", self.kind.fix())
    }
}

/// Everything that is wrong with a configuration, in the order of the layers; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", one_per_line(.problems))]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

fn one_per_line(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl ConfigErrors {
    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::many(ExitStatus::Usage, errors.problems.iter().map(Problem::to_string))
    }
}
