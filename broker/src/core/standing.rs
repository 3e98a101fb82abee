//! Which of two registrations of one identity stands (protocol section 8).
//!
//! Of one instance the higher generation decides, per role. Of two instances the later started one wins, ties go
//! to the larger instance id; the other keeps the role resume, in which only an open that names it finds it.

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Announce, Register};
use rc_proto::wire::{Generation, InstanceId};

/// What one registration says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The run of the Target's process.
    pub instance: InstanceId,
    /// When it started, unix ms.
    pub started_ms: u64,
    /// Counts the registrations of the instance.
    pub generation: Generation,
    /// What the registration is for.
    pub role: RegistrationRole,
}

/// How a new claim stands to a known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Same instance and role, and not older: the known one ends.
    Replaces,
    /// Same instance and role, and an older generation: the new one is refused.
    OlderGeneration,
    /// A later instance: the known one keeps the role resume.
    Supersedes,
    /// An earlier instance that asks for more than the role resume: refused.
    OlderInstance,
    /// Both stand.
    Beside,
}

impl Claim {
    /// Whether an open that wants `instance` may use this registration.
    pub fn answers(&self, instance: Option<InstanceId>) -> bool {
        match instance {
            Some(wanted) => self.instance == wanted,
            None => self.role != RegistrationRole::RESUME,
        }
    }

    /// Takes a start in the future as now, so that a wrong clock cannot hold an identity for ever.
    pub fn clamp_start(&mut self, now_ms: u64) {
        self.started_ms = self.started_ms.min(now_ms);
    }

    /// Whether this instance started before that of `other`.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.age_order() < other.age_order()
    }

    fn age_order(&self) -> (u64, InstanceId) {
        (self.started_ms, self.instance)
    }
}

impl From<&Register> for Claim {
    fn from(message: &Register) -> Self {
        Self {
            instance: message.instance,
            started_ms: message.instance_started_ms,
            generation: message.generation,
            role: message.role,
        }
    }
}

impl From<&Announce> for Claim {
    fn from(message: &Announce) -> Self {
        Self {
            instance: message.instance,
            started_ms: message.instance_started_ms,
            generation: message.generation,
            role: message.role,
        }
    }
}

/// Judges `new` against `known`, both of one identity.
pub fn judge(known: &Claim, new: &Claim) -> Verdict {
    if known.instance == new.instance {
        return match (known.role == new.role, known.generation <= new.generation) {
            (true, true) => Verdict::Replaces,
            (true, false) => Verdict::OlderGeneration,
            (false, _) => Verdict::Beside,
        };
    }
    if known.age_order() < new.age_order() {
        // An instance that itself asks for resume only does not push another one aside.
        if new.role == RegistrationRole::RESUME { Verdict::Beside } else { Verdict::Supersedes }
    } else if new.role == RegistrationRole::RESUME || known.role == RegistrationRole::RESUME {
        Verdict::Beside
    } else {
        Verdict::OlderInstance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(instance: u8, started_ms: u64, generation: u64, role: RegistrationRole) -> Claim {
        Claim { instance: InstanceId([instance; 16]), started_ms, generation: Generation(generation), role }
    }

    const P: RegistrationRole = RegistrationRole::PRIMARY;
    const S: RegistrationRole = RegistrationRole::STANDBY;
    const R: RegistrationRole = RegistrationRole::RESUME;

    #[test]
    fn of_one_instance_the_higher_generation_decides_per_role() {
        assert_eq!(judge(&claim(1, 5, 1, P), &claim(1, 5, 2, P)), Verdict::Replaces);
        assert_eq!(judge(&claim(1, 5, 2, P), &claim(1, 5, 2, P)), Verdict::Replaces);
        assert_eq!(judge(&claim(1, 5, 3, P), &claim(1, 5, 2, P)), Verdict::OlderGeneration);
        assert_eq!(judge(&claim(1, 5, 3, P), &claim(1, 5, 2, S)), Verdict::Beside);
    }

    #[test]
    fn of_two_instances_the_later_started_wins_and_ties_go_to_the_larger_id() {
        assert_eq!(judge(&claim(9, 5, 9, P), &claim(1, 6, 1, P)), Verdict::Supersedes);
        assert_eq!(judge(&claim(1, 6, 1, P), &claim(9, 5, 9, P)), Verdict::OlderInstance);
        assert_eq!(judge(&claim(1, 5, 1, P), &claim(2, 5, 1, P)), Verdict::Supersedes);
        assert_eq!(judge(&claim(2, 5, 1, P), &claim(1, 5, 1, P)), Verdict::OlderInstance);
    }

    #[test]
    fn an_older_instance_may_keep_the_role_resume() {
        assert_eq!(judge(&claim(2, 6, 1, P), &claim(1, 5, 1, R)), Verdict::Beside);
        assert!(!claim(1, 5, 1, R).answers(None));
        assert!(claim(1, 5, 1, R).answers(Some(InstanceId([1; 16]))));
    }

    #[test]
    fn a_start_in_the_future_counts_as_now() {
        let mut early = claim(1, u64::MAX, 1, P);
        early.clamp_start(100);
        assert_eq!(early.started_ms, 100);
        assert_eq!(judge(&early, &claim(2, 101, 1, P)), Verdict::Supersedes);
    }
}
