//! Legs that wait ready-made: connections to the brokers of the control links whose handshake is done, so that a path
//! begins without one. Each carries one path and is never used again; a broker closes one that waits for 60 s.
//!
//! ```text
//! keep_filled ──dial──▶ waiting ──take──▶ a path
//!                          └── older than KEEP, or its link is gone: closed
//! ```
//! Legs are kept while a session lives, and by a Controller for a minute after it was pinned. An idle Target keeps none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use rc_proto::Moment;
use rc_proto::select::Backoff;
use rc_proto::wire::BrokerId;
use rc_transport::Leg;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::link::{BrokerContact, Links, dial_leg};
use crate::reach::Reach;

/// Most legs that wait at a time: one to the broker of each control link.
pub(crate) const POOL_LEGS_MAX: usize = 2;
/// How long a leg waits before it is replaced: a broker ends it after 60 s.
const KEEP: Duration = Duration::from_secs(45);
/// How long a Controller without a session keeps one ready after it was pinned.
const AFTER_PIN: Duration = Duration::from_secs(60);
/// First and longest wait after a dial that failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// After a link or a leg was lost or used, the next leg is dialled a random part of this later: the handshakes of paths
/// come first, most of all when a broker has gone and a thousand sessions with it.
const HOLD_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// Time for a clean close.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// A place that a leg is wanted to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    contact: BrokerContact,
    /// Since when the control link stands: what was made before goes to another run of the broker, or comes from another
    /// address of this machine.
    since: Moment,
}

/// Which places a leg is wanted to, the more important one first. Pure.
fn wanted(links: &Links, in_session: bool, controller: bool, legs: usize, now: Moment) -> Vec<Place> {
    let place =
        |held: &Arc<crate::link::Held>| Place { contact: held.contact.clone(), since: held.link.since };
    let fresh = |held: &&Arc<crate::link::Held>| now.since(held.link.since) < AFTER_PIN;
    if in_session {
        links.iter().map(place).take(legs).collect()
    } else {
        links.primary.iter().filter(|_| controller).filter(fresh).map(place).take(legs).collect()
    }
}

/// The legs that wait. Pure.
#[derive(Debug)]
struct Shelf<L>(Vec<Kept<L>>);

#[derive(Debug)]
struct Kept<L> {
    broker: BrokerId,
    since: Moment,
    leg: L,
}

impl<L> Default for Shelf<L> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<L> Shelf<L> {
    /// A leg to `broker`, if one waits there.
    fn take(&mut self, broker: &BrokerId, now: Moment) -> Option<L> {
        let fits = |kept: &Kept<L>| kept.broker == *broker && now.since(kept.since) < KEEP;
        let index = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(index).leg)
    }

    fn put(&mut self, broker: BrokerId, leg: L, now: Moment) {
        self.0.push(Kept { broker, since: now, leg });
    }

    /// Takes out what is too old or not wanted any more.
    fn weed(&mut self, wanted: &[Place], now: Moment) -> Vec<L> {
        let serves = |kept: &Kept<L>, place: &Place| {
            place.contact.broker == kept.broker && kept.since >= place.since && now.since(kept.since) < KEEP
        };
        let useless = |kept: &mut Kept<L>| !wanted.iter().any(|place| serves(kept, place));
        self.0.extract_if(.., useless).map(|kept| kept.leg).collect()
    }

    /// The first place that has no leg waiting.
    fn missing<'w>(&self, wanted: &'w [Place]) -> Option<&'w Place> {
        wanted.iter().find(|place| !self.0.iter().any(|kept| kept.broker == place.contact.broker))
    }

    /// When the oldest leg is to be replaced.
    fn timeout(&self) -> Option<Moment> {
        self.0.iter().map(|kept| kept.since + KEEP).min()
    }
}

/// The legs of one endpoint that wait.
#[derive(Debug, Default)]
pub(crate) struct LegPool {
    shelf: Mutex<Shelf<Leg>>,
    taken: Notify,
}

impl LegPool {
    /// A leg to `broker` whose handshake is done. It may have ended since: then another one is dialled, once.
    pub(crate) fn take(&self, broker: &BrokerId, now: Moment) -> Option<Leg> {
        let leg = self.lock().take(broker, now)?;
        self.taken.notify_one();
        Some(leg)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf<Leg>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the pool is filled for.
pub(crate) struct PoolNeeds {
    pub(crate) links: watch::Receiver<Links>,
    pub(crate) sessions: watch::Receiver<usize>,
    pub(crate) controller: bool,
    /// Legs at a time, at most [`POOL_LEGS_MAX`].
    pub(crate) legs: usize,
}

/// Keeps the pool of `reach` filled until `stop` is cancelled, then empties it.
pub(crate) async fn keep_filled(reach: Arc<Reach>, needs: PoolNeeds, stop: CancellationToken) {
    stop.run_until_cancelled(Box::pin(fill(&reach, needs))).await;
    let left = reach.pool.lock().weed(&[], reach.now());
    close(left).await;
}

async fn fill(reach: &Reach, mut needs: PoolNeeds) {
    let legs = needs.legs.min(POOL_LEGS_MAX);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut next_dial = Moment::ORIGIN;
    loop {
        let now = reach.now();
        let in_session = *needs.sessions.borrow_and_update() > 0;
        let wanted = wanted(&needs.links.borrow_and_update(), in_session, needs.controller, legs, now);
        let useless = reach.pool.lock().weed(&wanted, now);
        close(useless).await;
        let missing = reach.pool.lock().missing(&wanted).cloned();
        if let Some(place) = missing.as_ref().filter(|_| now >= next_dial) {
            match Box::pin(dial_leg(reach, &place.contact)).await {
                Ok(leg) => {
                    backoff.reset();
                    reach.pool.lock().put(place.contact.broker.clone(), leg, reach.now());
                }
                Err(reason) => {
                    tracing::debug!(broker = %place.contact.broker, reason, "no leg waits there");
                    next_dial = reach.now() + RETRY_FIRST + backoff.next_delay(&mut rand::rng());
                }
            }
            continue;
        }
        let again = missing.map(|_| next_dial);
        let due = [reach.pool.lock().timeout(), again].into_iter().flatten().min();
        tokio::select! {
            biased;
            Ok(()) = needs.links.changed() => {
                if in_session {
                    next_dial = next_dial.max(reach.now() + hold_off());
                }
            }
            Ok(()) = needs.sessions.changed() => {}
            () = reach.pool.taken.notified() => next_dial = next_dial.max(reach.now() + hold_off()),
            () = reach.nap_until(due) => {}
        }
    }
}

fn hold_off() -> Duration {
    rand::rng().random_range(HOLD_OFF.0..=HOLD_OFF.1)
}

async fn close(legs: Vec<Leg>) {
    for mut leg in legs {
        drop(tokio::time::timeout(CLOSE_MAX, leg.shutdown()).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::testing::{FakeBroker, SERVICE, Temper, World};
    use rc_proto::wire::Role;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn broker(id: &str) -> BrokerId {
        id.parse().unwrap()
    }

    fn place(id: &str, since: Moment) -> Place {
        Place { contact: BrokerContact::named(&broker(id), ""), since }
    }

    #[test]
    fn a_leg_is_taken_once_and_only_for_its_broker() {
        let mut shelf = Shelf::default();
        shelf.put(broker("in/a"), 1, at(0));
        assert_eq!(shelf.take(&broker("in/b"), at(0)), None);
        assert_eq!(shelf.take(&broker("in/a"), at(44_999)), Some(1));
        assert_eq!(shelf.take(&broker("in/a"), at(44_999)), None);
    }

    #[test]
    fn a_leg_that_has_waited_for_45_s_is_replaced() {
        let mut shelf = Shelf::default();
        shelf.put(broker("in/a"), 1, at(0));
        let wanted = [place("in/a", at(0))];
        assert_eq!((shelf.timeout(), shelf.missing(&wanted)), (Some(at(45_000)), None));
        assert!(shelf.weed(&wanted, at(44_999)).is_empty());
        assert_eq!(shelf.take(&broker("in/a"), at(45_000)), None);
        assert_eq!(shelf.weed(&wanted, at(45_000)), [1]);
        assert_eq!(shelf.missing(&wanted), wanted.first());
    }

    #[test]
    fn a_leg_from_before_its_link_is_of_no_use() {
        let mut shelf = Shelf::default();
        shelf.put(broker("in/a"), 1, at(10));
        shelf.put(broker("in/b"), 2, at(10));
        assert_eq!(shelf.weed(&[place("in/a", at(11)), place("in/b", at(10))], at(12)), [1]);
    }

    async fn pinned(role: Role, legs: usize) -> (Endpoint, FakeBroker, FakeBroker, Arc<Reach>, World) {
        let world = World::new();
        let far = Temper { round_trip: Duration::from_millis(50), ..Temper::default() };
        let near = FakeBroker::start(&world, "in/near", "127.0.0.1:443", Temper::default());
        let far = FakeBroker::start(&world, "us/far", "127.0.0.2:443", far);
        world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2"], Duration::ZERO);
        let reach = world.reach(&format!("{role}/x"));
        let mut config = world.config();
        config.pool_legs = legs;
        let endpoint = Endpoint::start_with(config, role, Arc::clone(&reach));
        endpoint.pinned_at_last().await.unwrap();
        (endpoint, near, far, reach, world)
    }

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let waited = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), waited)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn waiting(reach: &Reach) -> Vec<String> {
        let mut all: Vec<_> = reach.pool.lock().0.iter().map(|kept| kept.broker.to_string()).collect();
        all.sort();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn in_session_a_leg_waits_at_the_broker_of_each_link_and_idle_none() {
        let (endpoint, _near, _far, reach, _world) = pinned(Role::Target, 2).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(waiting(&reach).is_empty());
        endpoint.pretend_sessions(1);
        eventually("both wait", || waiting(&reach) == ["in/near", "us/far"]).await;
        endpoint.pretend_sessions(0);
        eventually("none waits", || waiting(&reach).is_empty()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_keeps_a_leg_ready_for_a_minute_after_it_was_pinned() {
        let (_endpoint, _near, _far, reach, _world) = pinned(Role::Controller, 2).await;
        eventually("one waits", || waiting(&reach) == ["in/near"]).await;
        eventually("none waits", || waiting(&reach).is_empty()).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(waiting(&reach).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_of_none_stays_empty() {
        let (endpoint, _near, _far, reach, _world) = pinned(Role::Controller, 0).await;
        endpoint.pretend_sessions(1);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(waiting(&reach).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leg_that_was_taken_is_replaced() {
        let (endpoint, near, _far, reach, _world) = pinned(Role::Target, 1).await;
        endpoint.pretend_sessions(1);
        eventually("one waits", || waiting(&reach) == ["in/near"]).await;
        assert!(reach.pool.take(&near.id, reach.now()).is_some());
        assert!(waiting(&reach).is_empty());
        eventually("another one waits", || waiting(&reach) == ["in/near"]).await;
    }
}
