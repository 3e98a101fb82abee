//! Whether a second control link is held, to which broker it goes, and when the next attempt is due. Pure.
//!
//! ```text
//!            a session begins             linked
//! Unwanted ───────────────────▶ Wanted ──────────▶ Held ──▶ lost, draining, or in the primary's region: Wanted again
//!     ▲                            │                 │
//!     └─── LINGER after the last session has ended ──┘
//! ```
//! Two brokers that fail together are no help to each other, so the second is of another region, as its certificate
//! says, when any such broker takes us.

use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::select::Backoff;
use rc_proto::wire::BrokerId;

use super::contact::BrokerContact;

/// How long the second link outlives the last session: the next one may begin soon.
const LINGER: Duration = Duration::from_secs(60);
/// First and longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After a loss the next link is dialled a random part of this later: when a broker goes, the paths of all its sessions
/// come first.
const AFTER_LOSS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// How long a broker that failed is left out.
const AVOID: Duration = Duration::from_secs(30);
/// Brokers that are left out at a time; the one that failed first is forgotten first.
const AVOIDED_MAX: usize = 8;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before [`SecondPlan::poll_timeout`].
    Wait,
    /// Link to this broker. What is held stays until the new link stands.
    Dial(BrokerContact),
    /// The second link is of no more use.
    Close,
}

/// The second link as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Second<'a> {
    pub(super) broker: &'a BrokerId,
    /// The broker is about to stop.
    pub(super) draining: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    No,
    InSession,
    Until(Moment),
}

/// See the module.
#[derive(Debug)]
pub(super) struct SecondPlan {
    want: Want,
    next: Moment,
    backoff: Backoff,
    avoided: Vec<(BrokerId, Moment)>,
}

impl Default for SecondPlan {
    fn default() -> Self {
        Self {
            want: Want::No,
            next: Moment::ORIGIN,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            avoided: Vec::new(),
        }
    }
}

impl SecondPlan {
    /// This many sessions live now.
    pub(super) fn handle_sessions(&mut self, count: usize, now: Moment) {
        self.want = match (count, self.want) {
            (0, Want::InSession) => Want::Until(now + LINGER),
            (0, want) => want,
            (_, Want::InSession) => Want::InSession,
            (_, Want::No | Want::Until(_)) => {
                self.next = now;
                self.backoff.reset();
                Want::InSession
            }
        };
    }

    /// The second link ended by itself: another broker is tried soon.
    pub(super) fn handle_lost(&mut self, broker: &BrokerId, now: Moment, rng: &mut impl Rng) {
        self.avoid(broker, AVOID, now);
        self.handle_taken(now, rng);
    }

    /// There is no second link any more, through no fault of its broker: another one is made soon.
    pub(super) fn handle_taken(&mut self, now: Moment, rng: &mut impl Rng) {
        self.next = now + rng.random_range(AFTER_LOSS.0..=AFTER_LOSS.1);
    }

    /// `broker` stops within `left`.
    pub(super) fn handle_draining(&mut self, broker: &BrokerId, left: Duration, now: Moment) {
        self.avoid(broker, left.max(AVOID), now);
        self.next = self.next.min(now);
    }

    /// A dial or a registration failed; the broker may have named a `slot`.
    pub(super) fn handle_failed(
        &mut self,
        broker: &BrokerId,
        slot: Option<Duration>,
        now: Moment,
        rng: &mut impl Rng,
    ) {
        self.avoid(broker, slot.unwrap_or(AVOID), now);
        self.next = now + self.backoff.next_delay(rng);
    }

    /// A second link stands.
    pub(super) fn handle_linked(&mut self) {
        self.backoff.reset();
    }

    /// Whether a second link is wanted.
    pub(super) fn is_wanted(&self, now: Moment) -> bool {
        match self.want {
            Want::No => false,
            Want::InSession => true,
            Want::Until(until) => now < until,
        }
    }

    /// What to do; ask again when `ranked`, the brokers that may carry it, best first, have changed. While no primary stands nothing is tried: what
    /// is found then becomes the primary.
    pub(super) fn poll(
        &mut self,
        primary: Option<&BrokerId>,
        second: Option<Second<'_>>,
        ranked: &[BrokerContact],
        now: Moment,
    ) -> Step {
        if !self.is_wanted(now) {
            self.want = Want::No;
            return if second.is_some() { Step::Close } else { Step::Wait };
        }
        let Some(primary) = primary else { return Step::Wait };
        if second.is_some_and(|second| second.broker == primary) {
            return Step::Close;
        }
        let fits =
            second.is_some_and(|second| !second.draining && second.broker.region() != primary.region());
        if fits || now < self.next {
            return Step::Wait;
        }
        let held = second.filter(|second| !second.draining);
        let best = self.best(primary, second, held.is_some(), ranked, now);
        best.map_or(Step::Wait, |contact| Step::Dial(contact.clone()))
    }

    /// When to call [`Self::poll`] next, if nothing happens before.
    pub(super) fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let end = match self.want {
            Want::No => return None,
            Want::InSession => None,
            Want::Until(until) => Some(until),
        };
        let again = self.avoided.iter().map(|(_, until)| *until);
        again.chain(Some(self.next)).filter(|at| *at > now).chain(end).min()
    }

    /// The best broker of another region, else any other. One that holds already is replaced for its region only.
    fn best<'r>(
        &self,
        primary: &BrokerId,
        second: Option<Second<'_>>,
        holds: bool,
        ranked: &'r [BrokerContact],
        now: Moment,
    ) -> Option<&'r BrokerContact> {
        let is_free = |contact: &&BrokerContact| {
            contact.broker != *primary
                && second.is_none_or(|second| *second.broker != contact.broker)
                && !self.avoided.iter().any(|(broker, until)| *broker == contact.broker && now < *until)
        };
        let is_elsewhere = |contact: &&BrokerContact| contact.broker.region() != primary.region();
        let elsewhere = ranked.iter().filter(is_free).find(is_elsewhere);
        elsewhere.or_else(|| ranked.iter().find(is_free).filter(|_| !holds))
    }

    fn avoid(&mut self, broker: &BrokerId, span: Duration, now: Moment) {
        self.avoided.retain(|(known, until)| known != broker && now < *until);
        if self.avoided.len() >= AVOIDED_MAX {
            self.avoided.remove(0);
        }
        self.avoided.push((broker.clone(), now + span));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn broker(id: &str) -> BrokerId {
        id.parse().unwrap()
    }

    fn ranked(ids: &[&str]) -> Vec<BrokerContact> {
        ids.iter().map(|id| BrokerContact::named(&broker(id), "")).collect()
    }

    fn dialled(step: Step) -> String {
        let Step::Dial(contact) = step else { panic!("{step:?}") };
        contact.broker.to_string()
    }

    fn in_session() -> SecondPlan {
        let mut plan = SecondPlan::default();
        plan.handle_sessions(1, at(0));
        plan
    }

    fn held(broker: &BrokerId) -> Option<Second<'_>> {
        Some(Second { broker, draining: false })
    }

    #[test]
    fn an_idle_endpoint_holds_no_second_link() {
        let mut plan = SecondPlan::default();
        let all = ranked(&["us/a"]);
        assert_eq!(plan.poll(Some(&broker("in/p")), None, &all, at(0)), Step::Wait);
        assert_eq!(plan.poll_timeout(at(0)), None);
    }

    #[test]
    fn the_second_is_the_best_of_another_region_and_without_one_the_best_other() {
        let primary = broker("in/p");
        let mut plan = in_session();
        let all = ranked(&["in/p", "in/a", "us/b", "eu/c"]);
        assert_eq!(dialled(plan.poll(Some(&primary), None, &all, at(0))), "us/b");
        let near = ranked(&["in/p", "in/a", "in/b"]);
        assert_eq!(dialled(plan.poll(Some(&primary), None, &near, at(0))), "in/a");
        assert_eq!(plan.poll(Some(&primary), None, &ranked(&["in/p"]), at(0)), Step::Wait);
    }

    #[test]
    fn nothing_is_tried_while_no_primary_stands() {
        let mut plan = in_session();
        assert_eq!(plan.poll(None, None, &ranked(&["us/b"]), at(0)), Step::Wait);
    }

    #[test]
    fn the_second_link_outlives_the_last_session_by_a_minute() {
        let (primary, second) = (broker("in/p"), broker("us/b"));
        let mut plan = in_session();
        plan.handle_sessions(0, at(1000));
        assert_eq!(plan.poll_timeout(at(1000)), Some(at(61_000)));
        assert_eq!(plan.poll(Some(&primary), held(&second), &[], at(60_999)), Step::Wait);
        plan.handle_sessions(1, at(60_999));
        plan.handle_sessions(0, at(61_000));
        assert_eq!(plan.poll(Some(&primary), held(&second), &[], at(120_999)), Step::Wait);
        assert_eq!(plan.poll(Some(&primary), held(&second), &[], at(121_000)), Step::Close);
        assert_eq!(plan.poll_timeout(at(121_000)), None);
    }

    #[test]
    fn a_broker_that_fails_is_left_out_and_the_next_one_is_tried_after_a_wait() {
        let primary = broker("in/p");
        let mut plan = in_session();
        let all = ranked(&["us/b", "eu/c"]);
        let mut rng = SmallRng::seed_from_u64(1);
        plan.handle_failed(&broker("us/b"), None, at(0), &mut rng);
        assert!(plan.next <= at(250), "{:?}", plan.next);
        assert_eq!(dialled(plan.poll(Some(&primary), None, &all, at(250))), "eu/c");
        assert_eq!(dialled(plan.poll(Some(&primary), None, &all, at(30_000))), "us/b");
    }

    #[test]
    fn a_lost_second_is_replaced_within_three_seconds_and_not_by_itself() {
        let primary = broker("in/p");
        let all = ranked(&["us/b", "in/a"]);
        for seed in 0..100 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut plan = in_session();
            plan.handle_linked();
            plan.handle_lost(&broker("us/b"), at(500), &mut rng);
            assert_eq!(plan.poll(Some(&primary), None, &all, at(999)), Step::Wait);
            let next = plan.poll_timeout(at(999)).unwrap();
            assert!((at(1000)..=at(3500)).contains(&next), "{next:?}");
            assert_eq!(dialled(plan.poll(Some(&primary), None, &all, next)), "in/a");
        }
    }

    #[test]
    fn a_draining_second_is_held_until_another_one_stands() {
        let (primary, second) = (broker("in/p"), broker("us/b"));
        let mut plan = in_session();
        plan.handle_draining(&second, Duration::from_secs(60), at(0));
        let draining = Some(Second { broker: &second, draining: true });
        assert_eq!(plan.poll(Some(&primary), draining, &ranked(&["us/b"]), at(0)), Step::Wait);
        assert_eq!(plan.poll_timeout(at(0)), Some(at(60_000)));
        let all = ranked(&["us/b", "in/a"]);
        assert_eq!(dialled(plan.poll(Some(&primary), draining, &all, at(0))), "in/a");
    }

    #[test]
    fn a_second_in_the_primarys_region_gives_way_to_one_of_another() {
        let (primary, second) = (broker("in/p"), broker("in/a"));
        let mut plan = in_session();
        assert_eq!(plan.poll(Some(&primary), held(&second), &ranked(&["in/a", "in/b"]), at(0)), Step::Wait);
        assert_eq!(plan.poll_timeout(at(0)), None);
        let all = ranked(&["in/a", "in/b", "us/c"]);
        assert_eq!(dialled(plan.poll(Some(&primary), held(&second), &all, at(0))), "us/c");
    }

    #[test]
    fn a_second_that_the_primary_has_moved_to_is_closed() {
        let primary = broker("in/p");
        assert_eq!(in_session().poll(Some(&primary), held(&primary), &[], at(0)), Step::Close);
    }
}
