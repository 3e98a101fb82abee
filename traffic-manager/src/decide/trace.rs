//! Why an answer is what it is, step by step.

use crate::name::DnsName;

/// One step on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// The profile that was looked at.
    pub profile: DnsName,
    /// What was found, in a sentence.
    pub found: String,
}

/// Takes the steps down, when somebody wants them.
#[derive(Debug)]
pub(super) enum Trace {
    Off,
    On(Vec<Step>),
}

impl Trace {
    pub(super) fn step(&mut self, profile: &DnsName, found: impl FnOnce() -> String) {
        if let Self::On(steps) = self {
            steps.push(Step { profile: profile.clone(), found: found() });
        }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        match self {
            Self::Off => Vec::new(),
            Self::On(steps) => steps,
        }
    }
}
