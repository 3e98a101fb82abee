//! Schedules of one session's planner in virtual time. The session itself is played by the test.

use std::time::Duration;

use super::*;
use crate::Moment;
use crate::session::{PathKey, SessionEvent};
use crate::wire::codes::{Denial, EndCode, PathFailure, Purpose, Refusal, RegistrationRole, RepathReason};
use crate::wire::frame::{Refused, Where};
use crate::wire::{BrokerId, Epoch, Ext, Incarnation, InstanceId, PathId};

const PINNED: InstanceId = InstanceId([7; 16]);
const OTHER: InstanceId = InstanceId([8; 16]);
const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Moment {
    Moment::from_origin(Duration::from_millis(ms))
}

fn broker(text: &str) -> BrokerId {
    text.parse().unwrap()
}

fn hops(names: &[&str]) -> Vec<BrokerId> {
    names.iter().map(|name| broker(name)).collect()
}

/// A session on path 1 over `in/a` and `us/b`, with links to `in/a` and `eu/c`; the Target is at `us/b` and `us/d`.
struct Scene {
    plan: Planner,
    now: Moment,
    actions: Vec<Action>,
    paths: u64,
    epoch: u64,
}

impl Scene {
    fn bare(config: PlannerConfig) -> Self {
        let mut plan = Planner::new(config, 1);
        let view = |name: &str, linked| BrokerView { broker: broker(name), linked };
        plan.handle_brokers(vec![view("in/a", true), view("eu/c", true), view("ap/e", false)], at(0));
        plan.handle_round_trip(140 * MS);
        let opened = OpenedPath { path: Some(PathId([1; 16])), hops: hops(&["in/a", "us/b"]) };
        plan.adopt(PathKey(1), Epoch(1), opened, at(0));
        Self { plan, now: at(0), actions: Vec::new(), paths: 1, epoch: 1 }
    }

    fn new() -> Self {
        let mut scene = Self::bare(PlannerConfig { repath_every: None, ..PlannerConfig::default() });
        scene.event(SessionEvent::Where(Box::new(place(PINNED))));
        scene
    }

    fn drain(&mut self) {
        while let Some(action) = self.plan.poll_action() {
            self.actions.push(action);
        }
    }

    /// What was done since the last look.
    fn done(&mut self) -> Vec<Action> {
        self.drain();
        std::mem::take(&mut self.actions)
            .into_iter()
            .filter(|action| !matches!(action, Action::Report(_)))
            .collect()
    }

    fn orders(&mut self) -> Vec<OpenOrder> {
        let opens = |action| if let Action::Open(order) = action { Some(*order) } else { None };
        self.done().into_iter().filter_map(opens).collect()
    }

    fn order(&mut self) -> OpenOrder {
        let mut orders = self.orders();
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders.remove(0)
    }

    fn reports(&mut self) -> Vec<Report> {
        self.drain();
        let told = |action| if let Action::Report(report) = action { Some(report) } else { None };
        std::mem::take(&mut self.actions).into_iter().filter_map(told).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "every caller makes the event on the spot")]
    fn event(&mut self, event: SessionEvent) {
        self.plan.handle_session_event(&event, self.now);
    }

    /// Goes to `moment`, calling the planner whenever it wants to be.
    fn run_to(&mut self, moment: Moment) {
        while let Some(due) = self.plan.poll_timeout().filter(|due| *due <= moment) {
            self.now = self.now.max(due);
            self.plan.handle_timeout(self.now);
            self.drain();
        }
        self.now = moment;
    }

    fn after(&mut self, span: Duration) {
        self.run_to(self.now + span);
    }

    fn lost(&mut self, path: u64) {
        self.plan.handle_path_lost(PathKey(path), self.now);
    }

    fn opened(&mut self, order: &OpenOrder) {
        let mut crossed = vec![order.via.clone()];
        crossed.extend(order.route.iter().cloned());
        self.plan.handle_opened(order.attempt, OpenedPath { path: None, hops: crossed }, self.now);
    }

    fn refused(&mut self, order: &OpenOrder, code: PathFailure, retry_after: Duration) {
        let failure = OpenFailure::Refused { code, retry_after, alternates: vec![] };
        self.plan.handle_open_failed(order.attempt, failure, self.now);
    }

    /// Carries out the one attach that is wanted, and returns its purpose and path.
    fn attach(&mut self) -> (Purpose, u64) {
        let attaches: Vec<(AttemptId, Purpose)> = self
            .done()
            .into_iter()
            .filter_map(|action| {
                if let Action::Attach { attempt, purpose } = action { Some((attempt, purpose)) } else { None }
            })
            .collect();
        assert_eq!(attaches.len(), 1, "{attaches:?}");
        let (attempt, purpose) = attaches[0];
        self.paths += 1;
        let epoch = if purpose == Purpose::STANDBY {
            Epoch(0)
        } else {
            self.epoch += 1;
            Epoch(self.epoch)
        };
        self.plan.handle_attaching(attempt, PathKey(self.paths), epoch, purpose, self.now);
        (purpose, self.paths)
    }

    fn attached(&mut self, path: u64) {
        let epoch = Epoch(self.epoch);
        self.event(SessionEvent::Attached { path: PathKey(path), epoch });
    }

    /// Opens what is ordered, attaches it, and has it answered.
    fn moves(&mut self) -> (OpenOrder, Purpose, u64) {
        let order = self.order();
        self.opened(&order);
        let (purpose, path) = self.attach();
        self.attached(path);
        (order, purpose, path)
    }
}

fn place(instance: InstanceId) -> Where {
    let at = |name: &str, role| (broker(name), Incarnation(1), role);
    Where {
        instance,
        places: vec![at("us/b", RegistrationRole::PRIMARY), at("us/d", RegistrationRole::STANDBY)],
        ext: Ext::none(),
    }
}

#[test]
fn the_first_attempt_starts_at_once_through_another_broker_on_a_named_route() {
    let mut scene = Scene::new();
    scene.after(MS * 5000);
    scene.lost(1);
    let order = scene.order();
    assert_eq!((order.via.as_str(), &order.route), ("eu/c", &hops(&["us/d"])));
    assert_eq!((order.purpose, order.instance), (Purpose::RESUME, Some(PINNED)));
    assert_eq!(order.avoid, hops(&["in/a", "us/b"]));
}

#[test]
fn without_a_word_of_where_the_target_is_the_broker_locates_it_and_avoids_nobody() {
    let mut scene = Scene::bare(PlannerConfig::default());
    scene.lost(1);
    let order = scene.order();
    assert_eq!((order.via.as_str(), order.route.len(), order.avoid.len()), ("eu/c", 0, 0));
    assert_eq!(order.instance, None);
}

#[test]
fn a_second_attempt_starts_beside_the_first_after_the_hedge() {
    for (round_trip, hedge) in [(10, 300), (100, 300), (140, 420)] {
        let mut scene = Scene::new();
        scene.plan.handle_round_trip(MS * round_trip);
        scene.lost(1);
        let first = scene.order();
        scene.after(MS * (hedge - 1));
        assert_eq!(scene.orders(), []);
        scene.after(MS);
        let second = scene.order();
        assert_ne!(first.via, second.via);
    }
}

#[test]
fn never_more_than_three_attempts_at_a_time_each_through_another_broker() {
    let mut scene = Scene::new();
    scene.lost(1);
    scene.after(MS * 60_000);
    let vias: Vec<BrokerId> = scene.orders().into_iter().map(|order| order.via).collect();
    assert_eq!(vias, hops(&["eu/c", "ap/e", "in/a"]));
}

#[test]
fn failures_are_followed_by_a_growing_wait_of_at_most_five_seconds_for_ever() {
    let mut scene = Scene::new();
    scene.lost(1);
    let mut attempts = 0;
    let mut longest = Duration::ZERO;
    let mut before = scene.now;
    while scene.now < at(600_000) {
        for order in scene.orders() {
            attempts += 1;
            longest = longest.max(scene.now.since(before));
            before = scene.now;
            scene.plan.handle_open_failed(order.attempt, OpenFailure::Unreachable, scene.now);
        }
        let due = scene.plan.poll_timeout().expect("it goes on for ever");
        scene.now = due;
        scene.plan.handle_timeout(due);
    }
    assert!((150..1000).contains(&attempts), "{attempts}");
    assert!((MS * 3000..=MS * 5000).contains(&longest), "{longest:?}");
}

#[test]
fn the_losers_of_a_race_are_closed() {
    let mut scene = Scene::new();
    scene.lost(1);
    scene.after(MS * 500);
    let orders = scene.orders();
    assert_eq!(orders.len(), 2);
    scene.opened(&orders[1]);
    let (purpose, path) = scene.attach();
    assert_eq!(purpose, Purpose::RESUME);
    assert_eq!(scene.done(), [], "the other may still be needed");
    scene.attached(path);
    assert_eq!(scene.done(), [Action::Cancel(orders[0].attempt)]);
}

#[test]
fn the_old_path_that_speaks_before_the_attach_keeps_the_session_and_the_new_one_stands_by() {
    let mut scene = Scene::new();
    scene.event(SessionEvent::Suspect(PathKey(1)));
    let order = scene.order();
    scene.event(SessionEvent::Recovered(PathKey(1)));
    scene.opened(&order);
    let (purpose, path) = scene.attach();
    assert_eq!(purpose, Purpose::STANDBY);
    scene.event(SessionEvent::Attached { path: PathKey(path), epoch: Epoch(0) });
    scene.after(MS * 59_000);
    assert_eq!(scene.done(), []);
    scene.after(MS * 1000);
    assert_eq!(scene.done(), [Action::Close(PathKey(path))], "it is not kept for ever");
}

#[test]
fn the_old_path_that_speaks_after_the_attach_is_the_fall_back_and_retired_in_time() {
    let mut scene = Scene::new();
    scene.event(SessionEvent::Suspect(PathKey(1)));
    let order = scene.order();
    scene.opened(&order);
    let (purpose, path) = scene.attach();
    assert_eq!(purpose, Purpose::RESUME);
    scene.event(SessionEvent::Recovered(PathKey(1)));
    scene.attached(path);
    assert_eq!(scene.done(), []);
    scene.lost(path);
    assert_eq!(scene.done(), [], "the old path carries the session");
    let mut scene = Scene::new();
    scene.event(SessionEvent::Suspect(PathKey(1)));
    scene.moves();
    scene.event(SessionEvent::Recovered(PathKey(1)));
    scene.after(MS * 30_000);
    assert_eq!(scene.done(), [Action::Retire(PathKey(1))]);
}

#[test]
fn a_second_suspicion_within_30_s_moves_although_the_path_speaks_again() {
    for (pause, purpose) in [(29_999, Purpose::RESUME), (30_000, Purpose::STANDBY)] {
        let mut scene = Scene::new();
        scene.event(SessionEvent::Suspect(PathKey(1)));
        let first = scene.order();
        scene.event(SessionEvent::Recovered(PathKey(1)));
        scene.plan.handle_open_failed(first.attempt, OpenFailure::Unreachable, scene.now);
        scene.after(MS * pause);
        scene.event(SessionEvent::Suspect(PathKey(1)));
        let order = scene.order();
        scene.event(SessionEvent::Recovered(PathKey(1)));
        scene.opened(&order);
        assert_eq!(scene.attach().0, purpose, "{pause}");
    }
}

#[test]
fn while_something_delivers_a_recovery_moves_at_most_once_in_ten_seconds() {
    let mut scene = Scene::new();
    scene.lost(1);
    let (_, _, path) = scene.moves();
    for _ in 0..2 {
        scene.after(MS * 4000);
        scene.event(SessionEvent::Suspect(PathKey(path)));
        scene.event(SessionEvent::Recovered(PathKey(path)));
    }
    for order in scene.orders() {
        scene.opened(&order);
    }
    assert_eq!(scene.attach().0, Purpose::STANDBY);
}

#[test]
fn a_path_that_stands_by_is_activated_at_the_next_doubt() {
    let mut scene = Scene::new();
    scene.event(SessionEvent::Suspect(PathKey(1)));
    let order = scene.order();
    scene.event(SessionEvent::Recovered(PathKey(1)));
    scene.opened(&order);
    let (_, standby) = scene.attach();
    scene.event(SessionEvent::Attached { path: PathKey(standby), epoch: Epoch(0) });
    scene.after(MS * 5000);
    scene.lost(1);
    assert_eq!(scene.done(), [Action::Activate(PathKey(standby))]);
    scene.plan.handle_activated(PathKey(standby), Epoch(2), scene.now);
    scene.epoch = 2;
    scene.after(MS * 100);
    scene.attached(standby);
    scene.after(MS * 5000);
    assert_eq!(scene.done(), [], "nothing else is opened");
}

#[test]
fn retry_after_is_honoured_and_other_brokers_are_asked_meanwhile() {
    let mut scene = Scene::new();
    scene.lost(1);
    let order = scene.order();
    scene.refused(&order, PathFailure::RETRY_AFTER, MS * 8000);
    let mut asked = Vec::new();
    while scene.now < at(7900) {
        scene.after(MS * 100);
        for order in scene.orders() {
            asked.push(order.via.clone());
            scene.plan.handle_open_failed(order.attempt, OpenFailure::Unreachable, scene.now);
        }
    }
    assert!(asked.len() > 3 && !asked.contains(&broker("eu/c")), "{asked:?}");
    while scene.now < at(30_000) && !asked.contains(&broker("eu/c")) {
        scene.after(MS * 100);
        for order in scene.orders() {
            asked.push(order.via.clone());
            scene.plan.handle_open_failed(order.attempt, OpenFailure::Unreachable, scene.now);
        }
    }
    assert!(asked.contains(&broker("eu/c")));
}

#[test]
fn no_refusal_of_a_broker_ends_a_session() {
    for code in PathFailure::ALL {
        let mut scene = Scene::new();
        scene.lost(1);
        for _ in 0..20 {
            for order in scene.orders() {
                scene.refused(&order, *code, MS * 10);
            }
            scene.after(MS * 6000);
        }
        let done = scene.done();
        assert!(!done.iter().any(|action| matches!(action, Action::End(_))), "{code}");
        assert!(done.iter().any(|action| matches!(action, Action::Open(_))), "{code}");
    }
}

#[test]
fn an_answer_that_is_lost_with_its_path_is_asked_for_again() {
    let mut scene = Scene::new();
    scene.lost(1);
    let order = scene.order();
    scene.opened(&order);
    let (_, path) = scene.attach();
    scene.lost(path);
    scene.after(MS * 500);
    let again = scene.orders();
    assert!(!again.is_empty());
    scene.opened(&again[0]);
    assert_eq!(scene.attach().0, Purpose::RESUME);
}

#[test]
fn an_attach_that_is_not_answered_in_time_is_overtaken_by_the_next_open_path() {
    let mut scene = Scene::new();
    scene.lost(1);
    scene.after(MS * 421);
    let orders = scene.orders();
    scene.opened(&orders[0]);
    let (_, frozen) = scene.attach();
    scene.opened(&orders[1]);
    assert_eq!(scene.done(), []);
    scene.after(MS * 420);
    let (purpose, second) = scene.attach();
    assert_eq!(purpose, Purpose::RESUME);
    scene.attached(second);
    scene.event(SessionEvent::Dead(PathKey(frozen)));
    scene.after(MS * 5000);
    assert!(scene.orders().is_empty());
}

#[test]
fn both_brokers_of_a_path_and_the_next_one_die_within_one_d() {
    let mut scene = Scene::new();
    scene.event(SessionEvent::Suspect(PathKey(1)));
    let first = scene.order();
    scene.opened(&first);
    let (_, path) = scene.attach();
    scene.lost(path);
    scene.event(SessionEvent::Dead(PathKey(1)));
    scene.after(MS * 1000);
    let orders = scene.orders();
    assert!(!orders.is_empty());
    scene.opened(orders.last().unwrap());
    let (purpose, path) = scene.attach();
    scene.attached(path);
    assert_eq!(purpose, Purpose::RESUME);
    assert!(scene.reports().iter().any(|report| matches!(report, Report::Moved { .. })));
}

#[test]
fn a_path_that_dies_while_a_handover_opens_turns_it_into_a_recovery() {
    let mut scene = Scene::new();
    scene.plan.handle_drain(&broker("in/a"), &[(PathId([1; 16]), at(0))], &[], at(30_000), at(0));
    let order = scene.order();
    assert_eq!((order.purpose, order.via.as_str()), (Purpose::HANDOVER, "eu/c"));
    scene.lost(1);
    scene.opened(&order);
    assert_eq!(scene.attach().0, Purpose::RESUME);
}

#[test]
fn a_drain_moves_each_path_at_its_slot_and_away_from_the_broker() {
    let mut scene = Scene::new();
    scene.plan.handle_drain(&broker("us/b"), &[(PathId([1; 16]), at(700))], &[], at(30_000), at(0));
    scene.after(MS * 699);
    assert_eq!(scene.done(), []);
    scene.after(MS);
    let order = scene.order();
    assert_eq!((order.via.as_str(), &order.route), ("in/a", &hops(&["us/d"])));
    assert!(order.avoid.contains(&broker("us/b")), "{order:?}");
    scene.opened(&order);
    let (purpose, path) = scene.attach();
    assert_eq!(purpose, Purpose::HANDOVER);
    scene.attached(path);
    scene.event(SessionEvent::PathRetired(PathKey(1)));
    scene.after(MS * 60_000);
    assert_eq!(scene.done(), []);
}

#[test]
fn a_drain_without_a_slot_is_followed_within_a_second() {
    let mut scene = Scene::new();
    scene.plan.handle_drain(&broker("us/b"), &[], &[], at(30_000), at(0));
    scene.after(MS * 1000);
    assert_eq!(scene.orders().len(), 1);
}

#[test]
fn when_both_brokers_drain_and_name_each_other_the_session_goes_where_neither_is() {
    let mut scene = Scene::new();
    let (a, c) = (broker("in/a"), broker("eu/c"));
    scene.plan.handle_drain(&a, &[(PathId([1; 16]), at(10))], std::slice::from_ref(&c), at(30_000), at(0));
    scene.plan.handle_drain(&c, &[], &[a], at(30_000), at(0));
    scene.after(MS * 10);
    assert_eq!(scene.order().via, broker("ap/e"));
}

#[test]
fn a_drain_when_nothing_else_is_there_keeps_trying_and_the_path_stays() {
    let mut scene = Scene::new();
    scene.plan.handle_brokers(vec![BrokerView { broker: broker("in/a"), linked: true }], at(0));
    scene.plan.handle_drain(&broker("in/a"), &[(PathId([1; 16]), at(0))], &[], at(30_000), at(0));
    for _ in 0..10 {
        for order in scene.orders() {
            scene.refused(&order, PathFailure::DRAINING, Duration::ZERO);
        }
        scene.after(MS * 5000);
    }
    assert!(!scene.orders().is_empty());
}

#[test]
fn a_target_that_asks_for_another_path_gets_one() {
    for (reason, purpose) in [
        (RepathReason::SUSPECT, Purpose::RESUME),
        (RepathReason::DRAIN, Purpose::HANDOVER),
        (RepathReason::NETWORK_CHANGED, Purpose::HANDOVER),
        (RepathReason::BETTER, Purpose::HANDOVER),
    ] {
        let mut scene = Scene::new();
        scene.event(SessionEvent::RepathWanted { reason, epoch: Epoch(1) });
        assert_eq!(scene.order().purpose, purpose, "{reason}");
    }
}

#[test]
fn a_lost_control_link_or_a_changed_network_moves_at_once_and_keeps_the_old_path_meanwhile() {
    let mut scene = Scene::new();
    scene.plan.handle_link_lost(&broker("eu/c"), at(0));
    assert_eq!(scene.done(), [], "no path starts there");
    scene.plan.handle_link_lost(&broker("in/a"), at(0));
    let (order, purpose, _) = scene.moves();
    assert_eq!((order.via.as_str(), purpose), ("ap/e", Purpose::HANDOVER), "the link to eu/c was lost, too");
    let mut scene = Scene::new();
    scene.plan.handle_network_changed(at(0));
    assert_eq!(scene.moves().1, Purpose::HANDOVER);
}

#[test]
fn sessions_move_periodically_and_at_most_once_a_minute_without_need() {
    let every = Duration::from_secs(5);
    for (spacing, expected) in [(Duration::from_secs(60), 9..=13), (Duration::from_secs(1), 9..=13)] {
        let config = PlannerConfig {
            repath_every: Some(every),
            voluntary_spacing: spacing,
            ..PlannerConfig::default()
        };
        let mut scene = Scene::bare(config);
        let mut moved = 0;
        while scene.now < at(55_000) {
            scene.after(MS * 10);
            for order in scene.orders() {
                scene.opened(&order);
                let (_, path) = scene.attach();
                scene.attached(path);
                scene.event(SessionEvent::PathRetired(PathKey(path - 1)));
                moved += 1;
            }
        }
        assert!(expected.contains(&moved), "{moved} with {spacing:?}");
    }
    let mut scene =
        Scene::bare(PlannerConfig { repath_every: Some(MS * 120_000), ..PlannerConfig::default() });
    scene.plan.handle_better(at(0));
    assert_eq!(scene.moves().1, Purpose::HANDOVER);
    scene.plan.handle_better(at(1));
    scene.run_to(at(59_999));
    assert_eq!(scene.orders(), []);
    scene.run_to(at(60_000));
    assert_eq!(scene.moves().1, Purpose::HANDOVER);
}

#[test]
fn a_handover_that_nobody_has_to_make_is_given_up_after_three_attempts() {
    let mut scene = Scene::bare(PlannerConfig { repath_every: Some(MS * 5000), ..PlannerConfig::default() });
    scene.after(MS * 5500);
    let mut attempts = 0;
    let until = scene.now + MS * 2000;
    while scene.now < until {
        for order in scene.orders() {
            attempts += 1;
            scene.plan.handle_open_failed(order.attempt, OpenFailure::Deadline, scene.now);
        }
        scene.after(MS * 10);
    }
    assert_eq!(attempts, 3);
}

#[test]
fn a_fresh_ticket_is_fetched_well_before_the_old_one_ends_and_presented() {
    let mut scene = Scene::new();
    scene.plan.handle_ticket(Some(at(100_000)), at(0));
    scene.run_to(at(69_000));
    assert_eq!(scene.done(), []);
    scene.run_to(at(80_000));
    assert_eq!(scene.done(), [Action::FetchTicket]);
    scene.plan.handle_ticket(Some(at(180_000)), scene.now);
    assert_eq!(scene.moves().1, Purpose::HANDOVER);
    scene.event(SessionEvent::PathRetired(PathKey(1)));
    scene.run_to(at(165_000));
    assert_eq!(scene.done(), [Action::FetchTicket]);
}

#[test]
fn a_source_that_has_no_later_ticket_is_asked_again_and_moves_nothing() {
    let mut scene = Scene::new();
    scene.plan.handle_ticket(Some(at(100_000)), at(0));
    let mut fetched = 0;
    while scene.now < at(200_000) {
        scene.after(MS * 100);
        for action in scene.done() {
            assert_eq!(action, Action::FetchTicket);
            fetched += 1;
            if fetched % 2 == 0 {
                scene.plan.handle_ticket_failed(scene.now);
            } else {
                scene.plan.handle_ticket(Some(at(100_000)), scene.now);
            }
        }
    }
    assert!((5..40).contains(&fetched), "{fetched}");
}

#[test]
fn a_ticket_that_the_target_refuses_is_replaced() {
    for denial in [Denial::TICKET_EXPIRED, Denial::TICKET_USED, Denial::CLOCK] {
        let mut scene = Scene::new();
        scene.plan.handle_ticket(Some(at(100_000)), at(0));
        scene.lost(1);
        let order = scene.order();
        scene.opened(&order);
        let (_, path) = scene.attach();
        let refused = Box::new(Refused::denied(denial, PINNED));
        scene.event(SessionEvent::RefusedByPeer { path: PathKey(path), refused });
        scene.after(MS * 500);
        assert!(scene.done().contains(&Action::FetchTicket), "{denial}");
    }
}

#[test]
fn unknown_session_from_another_instance_is_final_after_five_seconds_only() {
    let mut scene = Scene::new();
    scene.lost(1);
    let mut ended = None;
    while ended.is_none() && scene.now < at(30_000) {
        for action in scene.done() {
            if let Action::Open(order) = action {
                scene.opened(&order);
                let (_, path) = scene.attach();
                let refused = Box::new(Refused::new(Refusal::UNKNOWN_SESSION, OTHER));
                scene.event(SessionEvent::RefusedByPeer { path: PathKey(path), refused });
            } else if let Action::End(code) = action {
                ended = Some((scene.now, code));
            }
        }
        scene.after(MS * 50);
    }
    let (when, code) = ended.unwrap();
    assert_eq!(code, EndCode::REFUSED);
    assert!((at(5000)..at(12_000)).contains(&when), "{when:?}");
}

#[test]
fn a_stale_epoch_is_followed_by_a_further_attempt_at_once_unless_another_is_under_way() {
    let mut scene = Scene::new();
    scene.lost(1);
    let order = scene.order();
    scene.opened(&order);
    let (_, path) = scene.attach();
    let refused = Box::new(Refused::stale_epoch(Epoch(9), PINNED));
    scene.event(SessionEvent::RefusedByPeer { path: PathKey(path), refused });
    assert_eq!(scene.orders().len(), 1);
}

#[test]
fn a_session_that_is_over_wants_nothing_more() {
    let mut scene = Scene::new();
    scene.lost(1);
    let order = scene.order();
    scene.event(SessionEvent::Ended { code: EndCode::DONE, reason: String::new(), by_peer: true });
    assert_eq!(scene.done(), [Action::Cancel(order.attempt)]);
    assert_eq!(scene.plan.poll_timeout(), None);
    scene.plan.handle_network_changed(scene.now);
    assert_eq!(scene.done(), []);
}

#[test]
fn each_move_is_told_with_its_reason_and_its_length() {
    let mut scene = Scene::new();
    scene.lost(1);
    let order = scene.order();
    scene.after(MS * 200);
    scene.opened(&order);
    let (_, path) = scene.attach();
    scene.after(MS * 100);
    scene.attached(path);
    let moved = Report::Moved {
        path: PathKey(path),
        purpose: Purpose::RESUME,
        reason: Reason::PathLost,
        took: MS * 300,
        attempts: 1,
    };
    assert!(scene.reports().contains(&moved));
}

#[test]
fn the_same_seed_and_the_same_events_give_the_same_plan() {
    let run = || {
        let mut scene = Scene::bare(PlannerConfig::default());
        scene.lost(1);
        let mut told = Vec::new();
        while scene.now < at(60_000) {
            for order in scene.orders() {
                scene.plan.handle_open_failed(order.attempt, OpenFailure::Unreachable, scene.now);
                told.push((scene.now, order));
            }
            scene.now = scene.plan.poll_timeout().unwrap();
            scene.plan.handle_timeout(scene.now);
        }
        told
    };
    assert_eq!(run(), run());
}

#[test]
fn a_broker_whose_link_was_lost_is_asked_after_the_others() {
    let mut scene = Scene::new();
    scene.plan.handle_link_lost(&broker("eu/c"), at(0));
    scene.lost(1);
    assert_eq!(scene.order().via, broker("ap/e"));
}

#[test]
fn a_session_whose_first_path_is_gone_before_it_is_planned_for_gets_another_one() {
    let mut scene = Scene::new();
    scene.plan = Planner::new(PlannerConfig::default(), 1);
    scene.event(SessionEvent::Detached);
    scene.plan.handle_brokers(vec![BrokerView { broker: broker("eu/c"), linked: true }], scene.now);
    let order = scene.order();
    assert_eq!((order.via.as_str(), order.purpose), ("eu/c", Purpose::RESUME));
    scene.opened(&order);
    let (purpose, path) = scene.attach();
    assert_eq!(purpose, Purpose::RESUME);
    scene.attached(path);
    scene.after(MS * 5000);
    assert_eq!(scene.done(), []);
}
