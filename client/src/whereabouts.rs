//! What a Target tells the Controllers of its sessions about itself: where it is registered, so that a resume names its
//! route without a look-up, and that a path has to be replaced, when it knows before they can.
//!
//! A Controller hears of a drain from its own broker too, so a Target asks only some time after a path's slot, for what
//! has not moved by then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::RepathReason;
use rc_proto::wire::frame::Where;
use rc_proto::wire::{Ext, InstanceId, PathId, SessionId};
use rc_transport::Clock;
use tokio::sync::{broadcast, watch};

use crate::endpoint::{SessionTable, lock};
use crate::link::{Draining, LinkNews, Links};
use crate::reach::nap_until;
use crate::session::SessionCore;

/// How long after its slot a path that has not moved is asked about; less when the broker stops soon.
const AFTER_SLOT: Duration = Duration::from_millis(500);
/// Questions that wait for their time; further ones are left to the Controllers' own brokers.
const ASKS_MAX: usize = 1024;

/// Where this Target is registered, the primary first.
fn place_of(links: &Links, instance: InstanceId) -> Where {
    let places = links.iter().filter_map(|held| {
        let role = held.link.role?;
        Some((held.contact.broker.clone(), held.link.incarnation, role))
    });
    Where { instance, places: places.collect(), ext: Ext::none() }
}

/// When to ask for another path in place of which.
fn asks_of(draining: &Draining, now: Moment) -> impl Iterator<Item = (Moment, PathId)> {
    draining.slots.iter().map(move |(path, slot)| {
        let spare = draining.until.since((*slot).max(now)) / 2;
        (*slot + spare.min(AFTER_SLOT), *path)
    })
}

/// What is followed.
pub(crate) struct TargetNews {
    pub(crate) links: watch::Receiver<Links>,
    pub(crate) news: broadcast::Receiver<LinkNews>,
    /// How many sessions live.
    pub(crate) count: watch::Receiver<usize>,
}

/// Tells the Controllers of `sessions` for as long as the endpoint runs.
pub(crate) async fn tell_controllers(
    instance: InstanceId,
    sessions: SessionTable,
    mut from: TargetNews,
    clock: Arc<dyn Clock>,
) {
    let mut told: BTreeMap<SessionId, Where> = BTreeMap::new();
    let mut asks: Vec<(Moment, PathId)> = Vec::new();
    loop {
        from.count.mark_unchanged();
        let place = place_of(&from.links.borrow_and_update(), instance);
        let live: Vec<Arc<SessionCore>> = lock(&sessions).values().cloned().collect();
        told.retain(|session, _| live.iter().any(|core| core.session_id() == *session));
        for core in live.iter().filter(|_| !place.places.is_empty()) {
            if told.get(&core.session_id()) != Some(&place) {
                core.tell_where(&place);
                told.insert(core.session_id(), place.clone());
            }
        }
        let now = clock.now();
        for (_, path) in asks.extract_if(.., |(at, _)| *at <= now) {
            live.iter().any(|core| core.ask_repath(RepathReason::DRAIN, Some(path)));
        }
        let due = asks.iter().map(|(at, _)| *at).min();
        tokio::select! {
            biased;
            Ok(()) = from.links.changed() => {}
            Ok(()) = from.count.changed() => {}
            news = from.news.recv() => match news {
                Ok(LinkNews::Drain(draining)) => {
                    let free = ASKS_MAX.saturating_sub(asks.len());
                    asks.extend(asks_of(&draining, clock.now()).take(free));
                }
                Ok(LinkNews::NetworkChanged) => {
                    for core in &live {
                        core.ask_repath(RepathReason::NETWORK_CHANGED, None);
                    }
                }
                Ok(LinkNews::Lost { .. } | LinkNews::Woke) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = nap_until(&*clock, due) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rc_proto::session::{PathKey, Session, SessionConfig, SessionEvent};
    use rc_proto::wire::Role;
    use rc_proto::wire::codes::{Lane, Purpose, RegistrationRole};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::session::{OfferQueue, PathFacts, SessionHandle, admit, read_attach};
    use crate::testing::{FakeBroker, SERVICE, Temper, World};

    const PATH: PathId = PathId([9; 16]);

    /// The Controller's side, as bare as it gets: what the Target says comes as events.
    struct Controller {
        session: Session,
        stream: DuplexStream,
        began: tokio::time::Instant,
    }

    impl Controller {
        fn now(&self) -> Moment {
            Moment::from_origin(self.began.elapsed())
        }

        fn new(stream: DuplexStream) -> Self {
            let now = Moment::ORIGIN;
            let (id, instance) = (SessionId([7; 16]), InstanceId([1; 16]));
            let mut session = Session::controller(SessionConfig::default(), id, instance, now);
            session.attach(PathKey(1), Purpose::NEW, Lane::INTERACTIVE, "a.b.c".into(), now).unwrap();
            Self { session, stream, began: tokio::time::Instant::now() }
        }

        async fn until<T>(&mut self, wanted: impl Fn(&SessionEvent) -> Option<T>) -> T {
            let mut buffer = vec![0; 4096];
            loop {
                while let Some(event) = self.session.poll_event() {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                let mut out = Vec::new();
                self.session.poll_transmit(PathKey(1), self.now(), 64 * 1024, &mut out);
                self.stream.write_all(&out).await.unwrap();
                tokio::select! {
                    count = self.stream.read(&mut buffer) => {
                        let bytes = &buffer[..count.unwrap()];
                        self.session.handle_bytes(PathKey(1), bytes, self.now()).unwrap();
                    }
                    () = tokio::time::sleep(Duration::from_millis(20)) => {
                        self.session.handle_timeout(self.now());
                    }
                }
            }
        }
    }

    struct Scene {
        near: FakeBroker,
        far: FakeBroker,
        controller: Controller,
        world: World,
        // The session lives as long as these.
        _session: (SessionHandle, OfferQueue),
        _endpoint: Endpoint,
    }

    async fn scene() -> Scene {
        let world = World::new();
        let temper = |ms| Temper { round_trip: Duration::from_millis(ms), ..Temper::default() };
        let near = FakeBroker::start(&world, "in/near", "127.0.0.1:443", temper(10));
        let far = FakeBroker::start(&world, "us/far", "127.0.0.2:443", temper(100));
        world.names.answer(SERVICE, &["127.0.0.1", "127.0.0.2"], Duration::ZERO);
        world.source.set("192.0.2.1");
        let endpoint = Endpoint::start_with(world.config(), Role::Target, world.reach("target/x"));
        endpoint.pinned_at_last().await.unwrap();
        let (near_end, mut far_end) = tokio::io::duplex(64 * 1024);
        let mut controller = Controller::new(near_end);
        let mut out = Vec::new();
        controller.session.poll_transmit(PathKey(1), Moment::ORIGIN, 64 * 1024, &mut out);
        controller.stream.write_all(&out).await.unwrap();
        let alice: rc_proto::wire::EndpointId = "alice".parse().unwrap();
        let (attach, early) = read_attach(&mut far_end, &alice, Duration::from_secs(5)).await.unwrap();
        let facts = PathFacts { path: Some(PATH), lane: Some(Lane::INTERACTIVE), ..PathFacts::default() };
        let session = admit(endpoint.setup(), alice, &attach, |_| true, far_end, early, facts, 4);
        let session = session.map_err(|_| "refused").unwrap();
        endpoint.adopt(&session.0);
        Scene { near, far, controller, world, _session: session, _endpoint: endpoint }
    }

    fn place(event: &SessionEvent) -> Option<Vec<(String, RegistrationRole)>> {
        let SessionEvent::Where(place) = event else { return None };
        Some(place.places.iter().map(|(broker, _, role)| (broker.to_string(), *role)).collect())
    }

    const PRIMARY: RegistrationRole = RegistrationRole::PRIMARY;
    const STANDBY: RegistrationRole = RegistrationRole::STANDBY;

    #[tokio::test(start_paused = true)]
    async fn a_controller_is_told_each_place_where_its_target_is_registered() {
        let mut scene = scene().await;
        let told = scene.controller.until(place).await;
        assert_eq!(told, [("in/near".to_owned(), PRIMARY)]);
        let both = scene.controller.until(|event| place(event).filter(|places| places.len() == 2)).await;
        assert_eq!(both, [("in/near".to_owned(), PRIMARY), ("us/far".to_owned(), STANDBY)]);
        scene.near.change(|temper| temper.accepting = false);
        scene.near.cut_links();
        let moved = |event: &SessionEvent| {
            place(event).filter(|places| places[0].1 == PRIMARY && places[0].0 == "us/far")
        };
        assert_eq!(scene.controller.until(moved).await, [("us/far".to_owned(), PRIMARY)]);
        assert_eq!(scene.far.registers().len(), 2);
    }

    fn repath(event: &SessionEvent) -> Option<RepathReason> {
        let SessionEvent::RepathWanted { reason, .. } = event else { return None };
        Some(*reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_has_not_moved_after_its_slot_is_asked_about() {
        let mut scene = scene().await;
        let began = tokio::time::Instant::now();
        scene.near.drain_paths(&[(PATH, 2000), (PathId([1; 16]), 0)]);
        assert_eq!(scene.controller.until(repath).await, RepathReason::DRAIN);
        let after = began.elapsed();
        assert!((Duration::from_millis(2500)..Duration::from_millis(2700)).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_address_of_the_target_is_told_over_the_path_that_still_works() {
        let mut scene = scene().await;
        scene.controller.until(|event| place(event).filter(|places| places.len() == 2)).await;
        scene.world.source.set("198.51.100.1");
        assert_eq!(scene.controller.until(repath).await, RepathReason::NETWORK_CHANGED);
    }

    #[test]
    fn a_broker_that_stops_soon_is_asked_about_in_half_of_what_is_left() {
        let at = |ms: u64| Moment::from_origin(Duration::from_millis(ms));
        let draining = |until| Draining {
            broker: "in/b".parse().unwrap(),
            until: at(until),
            slots: vec![(PATH, at(100))],
            alternates: Vec::new(),
        };
        let asked = |until| asks_of(&draining(until), at(0)).next().unwrap();
        assert_eq!(asked(10_000), (at(600), PATH));
        assert_eq!(asked(300), (at(200), PATH));
        assert_eq!(asked(50), (at(100), PATH));
    }
}
