//! What a Target is registered as over one control link, and what it asks for next. Pure.
//!
//! ```text
//!          poll: Register sent           Registered
//! wanted ─────────────────────▶ asked ─────────────▶ stands
//!    ▲                            │ RetryAfter, Superseded, no answer
//!    └────────────────────────────┘
//! ```
//! What stands goes on standing while something else is asked for: the broker takes one for the other in one step.

use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::Generation;
use rc_proto::wire::codes::RegistrationRole;

/// A Target's registration over one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enrolment {
    stands: Option<(Generation, RegistrationRole)>,
    asked: Option<Asked>,
    wanted: Option<Wanted>,
    /// After this instance was superseded: when it asks to be the primary again.
    returns: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    generation: Generation,
    role: RegistrationRole,
    answer_by: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    role: RegistrationRole,
    at: Moment,
}

impl Enrolment {
    /// This registration was confirmed.
    pub(super) fn standing(generation: Generation, role: RegistrationRole) -> Self {
        Self { stands: Some((generation, role)), asked: None, wanted: None, returns: None }
    }

    /// What it stands as.
    pub(super) fn role(&self) -> Option<RegistrationRole> {
        self.stands.map(|(_, role)| role)
    }

    /// The highest generation that the broker may know of it.
    pub(super) fn generation(&self) -> Option<Generation> {
        let asked = self.asked.map(|asked| asked.generation);
        self.stands.map(|(generation, _)| generation).max(asked)
    }

    /// Asks for `role` at `at`, whatever it asked for before. Nothing is sent for what stands already.
    pub(super) fn want(&mut self, role: RegistrationRole, at: Moment) {
        self.wanted = (self.role() != Some(role)).then_some(Wanted { role, at });
    }

    /// The role to ask for now, if one is due. Follow it with [`Self::handle_asked`].
    pub(super) fn poll(&mut self, now: Moment) -> Option<RegistrationRole> {
        if let Some(asked) = self.asked.filter(|asked| now >= asked.answer_by) {
            // Not answered: the link lives, so it is asked for again.
            self.asked = None;
            self.wanted = self.wanted.or(Some(Wanted { role: asked.role, at: now }));
        }
        if self.asked.is_some() {
            return None;
        }
        if self.wanted.is_none() && self.returns.is_some_and(|at| now >= at) {
            self.returns = None;
            self.want(RegistrationRole::PRIMARY, now);
        }
        let due = self.wanted.filter(|wanted| now >= wanted.at)?;
        self.wanted = None;
        Some(due.role)
    }

    /// A Register went out; it is answered by `answer_by` or sent again.
    pub(super) fn handle_asked(&mut self, generation: Generation, role: RegistrationRole, answer_by: Moment) {
        self.asked = Some(Asked { generation, role, answer_by });
    }

    /// A Register came back confirmed. Says whether what stands has changed.
    pub(super) fn handle_registered(&mut self, generation: Generation, role: RegistrationRole) -> bool {
        if self.asked.is_none_or(|asked| asked.generation != generation) {
            return false;
        }
        self.asked = None;
        let changed = self.role() != Some(role);
        self.stands = Some((generation, role));
        changed
    }

    /// The broker has no room now: what was asked for is asked for again after `slot`.
    pub(super) fn handle_retry_after(&mut self, slot: Duration, now: Moment) {
        if let Some(asked) = self.asked.take() {
            self.wanted = self.wanted.or(Some(Wanted { role: asked.role, at: now + slot }));
        }
    }

    /// A later instance holds the identity: this one is registered for its sessions only, and asks to be the primary
    /// again at `returns`.
    pub(super) fn handle_superseded(&mut self, returns: Option<Moment>, now: Moment) {
        self.wanted = None;
        self.returns = returns;
        match &mut self.stands {
            // The broker has given it the role resume.
            Some((_, role)) if self.asked.is_none() => *role = RegistrationRole::RESUME,
            Some((_, RegistrationRole::RESUME)) => {}
            Some(_) | None => self.wanted = Some(Wanted { role: RegistrationRole::RESUME, at: now }),
        }
        self.asked = None;
    }

    /// When to call [`Self::poll`] next.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        match (&self.asked, &self.wanted) {
            (Some(asked), _) => Some(asked.answer_by),
            (None, Some(wanted)) => Some(wanted.at),
            (None, None) => self.returns,
        }
    }
}

/// Shortest wait after another instance took the registration; it doubles each time.
const SUPERSEDED_WAIT: Duration = Duration::from_secs(60);
/// Longest such wait.
const SUPERSEDED_WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long an instance stays away after another one took its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StayAway {
    next: Duration,
    until: Option<Moment>,
}

impl Default for StayAway {
    fn default() -> Self {
        Self { next: SUPERSEDED_WAIT, until: None }
    }
}

impl StayAway {
    /// Superseded, and the broker asks for a wait of `asked`: how long it becomes.
    pub(super) fn handle_superseded(&mut self, asked: Duration, now: Moment) -> Duration {
        let wait = self.next.max(asked).min(SUPERSEDED_WAIT_MAX);
        self.next = (self.next * 2).min(SUPERSEDED_WAIT_MAX);
        self.until = Some(now + wait);
        wait
    }

    /// Until when this instance does not ask to be the primary.
    pub(super) fn until(&self) -> Option<Moment> {
        self.until
    }

    /// The registration held: the next wait is the shortest again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: RegistrationRole = RegistrationRole::PRIMARY;
    const S: RegistrationRole = RegistrationRole::STANDBY;
    const R: RegistrationRole = RegistrationRole::RESUME;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn standby() -> Enrolment {
        Enrolment::standing(Generation(4), S)
    }

    #[test]
    fn a_standby_becomes_the_primary_when_its_time_has_come_and_the_broker_confirms() {
        let mut enrolment = standby();
        enrolment.want(P, at(300));
        assert_eq!((enrolment.poll(at(299)), enrolment.poll_timeout()), (None, Some(at(300))));
        assert_eq!(enrolment.poll(at(300)), Some(P));
        enrolment.handle_asked(Generation(5), P, at(5300));
        assert_eq!((enrolment.role(), enrolment.generation()), (Some(S), Some(Generation(5))));
        assert!(!enrolment.handle_registered(Generation(4), S), "an answer to an older question");
        assert!(enrolment.handle_registered(Generation(5), P));
        assert_eq!((enrolment.role(), enrolment.poll_timeout()), (Some(P), None));
    }

    #[test]
    fn what_stands_already_is_not_asked_for() {
        let mut enrolment = standby();
        enrolment.want(S, at(0));
        assert_eq!((enrolment.poll(at(9)), enrolment.poll_timeout()), (None, None));
    }

    #[test]
    fn a_register_without_an_answer_is_sent_again() {
        let mut enrolment = standby();
        enrolment.want(P, at(0));
        assert_eq!(enrolment.poll(at(0)), Some(P));
        enrolment.handle_asked(Generation(5), P, at(5000));
        assert_eq!((enrolment.poll(at(4999)), enrolment.poll_timeout()), (None, Some(at(5000))));
        assert_eq!(enrolment.poll(at(5000)), Some(P));
    }

    #[test]
    fn a_broker_that_asks_for_patience_is_asked_again_after_its_slot() {
        let mut enrolment = standby();
        enrolment.want(P, at(0));
        assert_eq!(enrolment.poll(at(0)), Some(P));
        enrolment.handle_asked(Generation(5), P, at(5000));
        enrolment.handle_retry_after(Duration::from_secs(7), at(10));
        assert_eq!((enrolment.poll(at(7009)), enrolment.poll(at(7010))), (None, Some(P)));
    }

    #[test]
    fn a_superseded_primary_keeps_the_role_resume_and_asks_again_after_its_wait() {
        let mut enrolment = Enrolment::standing(Generation(1), P);
        enrolment.handle_superseded(Some(at(60_000)), at(0));
        assert_eq!((enrolment.role(), enrolment.poll_timeout()), (Some(R), Some(at(60_000))));
        assert_eq!(enrolment.poll(at(60_000)), Some(P));
        enrolment.handle_asked(Generation(2), P, at(65_000));
        enrolment.handle_superseded(Some(at(180_000)), at(60_100));
        assert_eq!((enrolment.role(), enrolment.poll(at(60_200))), (Some(R), None));
        assert_eq!(enrolment.poll_timeout(), Some(at(180_000)));
    }

    #[test]
    fn a_standby_that_may_not_be_the_primary_asks_to_be_found_by_its_sessions() {
        let mut enrolment = standby();
        enrolment.want(P, at(0));
        assert_eq!(enrolment.poll(at(0)), Some(P));
        enrolment.handle_asked(Generation(5), P, at(5000));
        enrolment.handle_superseded(Some(at(60_000)), at(10));
        assert_eq!(enrolment.poll(at(10)), Some(R));
        enrolment.handle_asked(Generation(6), R, at(5010));
        assert!(enrolment.handle_registered(Generation(6), R));
        assert_eq!(enrolment.poll_timeout(), Some(at(60_000)));
    }

    #[test]
    fn the_wait_of_a_superseded_instance_is_a_minute_and_doubles_to_an_hour() {
        let mut away = StayAway::default();
        let waits: Vec<u64> =
            (0..8).map(|_| away.handle_superseded(Duration::ZERO, at(0)).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        away.reset();
        assert_eq!(away.until(), None);
        assert_eq!(away.handle_superseded(Duration::from_secs(90), at(0)).as_secs(), 90);
        assert_eq!(away.until(), Some(at(90_000)));
        assert_eq!(away.handle_superseded(Duration::from_secs(9000), at(0)).as_secs(), 3600);
    }
}
